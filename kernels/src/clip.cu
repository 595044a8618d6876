// Clipping of the touched gradients: their norm in one order, a factor, and the pass that scales or clamps.
#include "elementwise.cuh"
#include "pieces.cuh"

struct Clip {
    int pieces;
    float most;
};

// The sum of the threads' values, in thread 0; the same order always.
static __device__ __forceinline__ double block_sum(double v) {
    __shared__ double part[8];
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
    if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = v;
    __syncthreads();
    v = 0.0;
    if (threadIdx.x == 0)
#pragma unroll
        for (int i = 0; i < 8; ++i) v += part[i];
    return v;
}

// Sum of the squares of a piece, in f64: a gradient of 1e20 has a norm.
extern "C" __global__ void __launch_bounds__(256)
    gradient_squares(const int4* __restrict__ pieces, const float* __restrict__ grads, double* __restrict__ squares,
                     Clip) {
    const Piece p = piece(pieces);
    double sum = 0.0;
    auto add = [&](float v) { sum = fma((double)v, (double)v, sum); };
    if (p.vectors) {
        const int e = threadIdx.x * 4;
        if (e < p.len) {
            const Pack<4> g = load<4>(grads + p.at(e));
#pragma unroll
            for (int k = 0; k < 4; ++k) add(g.v[k]);
        }
    } else {
        for (int e = threadIdx.x; e < p.len; e += 256) add(load1(grads + p.at(e)));
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) squares[blockIdx.x] = sum;
}

// The norm, the factor that takes it down to `most`, and whether it is finite, in one block.
extern "C" __global__ void __launch_bounds__(256)
    gradient_norm(const double* __restrict__ squares, float* __restrict__ norm, float* __restrict__ factor,
                  int* __restrict__ flag, Clip d) {
    double sum = 0.0;
    for (int i = threadIdx.x; i < d.pieces; i += 256) sum += squares[i];
    sum = block_sum(sum);
    if (threadIdx.x != 0) return;
    const double root = sqrt(sum);
    *norm = (float)root;
    // As PyTorch: the small constant keeps the quotient finite. A norm that is no number scales nothing.
    *factor = root > (double)d.most ? (float)((double)d.most / (root + 1e-6)) : 1.0f;
    if (flag && !(root < __longlong_as_double(0x7ff0000000000000ll))) *flag = 1;
}

// g = clamp(g * factor, -most, most); without a factor, 1.
extern "C" __global__ void __launch_bounds__(256)
    gradient_clip(const int4* __restrict__ pieces, const float* __restrict__ factor, float* __restrict__ grads,
                  Clip d) {
    const Piece p = piece(pieces);
    const float f = factor ? *factor : 1.0f;
    auto clip = [&](float g) { return clamp(f * g, -d.most, d.most); };
    if (p.vectors) {
        const int e = threadIdx.x * 4;
        if (e >= p.len) return;
        float* g = grads + p.at(e);
        store(g, apply<4>(clip, read<4>(g)));
    } else {
        for (int e = threadIdx.x; e < p.len; e += 256) {
            float* g = grads + p.at(e);
            *g = clip(*g);
        }
    }
}
