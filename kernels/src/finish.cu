// The end of an inverted residual block, and the beginning of its backward pass: elementwise over [m, c].
//
//   finish:  y = act(h * scale + shift) (+ x)
//   sums:    per channel the sums of du and of du * (h - mean), du = dy * act'(h * scale + shift); the last block of a
//            group of channels makes of them what batch norm's backward pass needs
//
// A thread keeps its channels, V beside each other, and goes down the rows; a block's threads cover `across` vectors of
// `down` rows, which lie in memory one after another, so that warps read whole sectors whatever c is.
#include "elementwise.cuh"
#include "norm.cuh"

struct Elementwise {
    int m, c;
    // Vectors of V channels that a block covers side by side, and the rows that it covers at once.
    int across, down;
    // Rows of a block, a multiple of `down`.
    int rows;
    float lo, hi;
    // Of batch norm.
    float eps;
};

template <class T, int ACT, int V>
static __device__ __forceinline__ void finish(const T* __restrict__ h, const float* __restrict__ scale,
                                              const float* __restrict__ shift, const T* __restrict__ x,
                                              T* __restrict__ y, const Elementwise& d) {
    const int at = threadIdx.x % d.across, c = (blockIdx.y * d.across + at) * V;
    if (c >= d.c) return;
    float s[V], b[V];
    constants(scale + c, s);
    constants(shift + c, b);
    const int first = blockIdx.x * d.rows, last = min(first + d.rows, d.m), r = first + threadIdx.x / d.across;
    const long long start = (long long)r * d.c + c, step = (long long)d.down * d.c;
    h += start, y += start;
    if (x) x += start;
#pragma unroll 2
    for (int row = r; row < last; row += d.down, h += step, y += step) {
        Pack<V> a = load<V>(h);
#pragma unroll
        for (int i = 0; i < V; ++i) a.v[i] = activate<ACT>(fmaf(a.v[i], s[i], b[i]), d.lo, d.hi);
        if (x) {
            const Pack<V> more = load<V>(x);
#pragma unroll
            for (int i = 0; i < V; ++i) a.v[i] += more.v[i];
            x += step;
        }
        store(y, a);
    }
}

template <class T, int ACT, int V>
static __device__ __forceinline__ void sums(const T* __restrict__ dy, const T* __restrict__ h,
                                            const float* __restrict__ scale, const float* __restrict__ shift,
                                            const float* __restrict__ mean, float2* sums, u32* counters,
                                            const NormBackward& norm, const Elementwise& d) {
    extern __shared__ float shared[];  // [V][2][pitch], later [threads][2]
    const int tid = threadIdx.x, threads = blockDim.x, at = tid % d.across, c = (blockIdx.y * d.across + at) * V;
    float sum[V], product[V];
#pragma unroll
    for (int i = 0; i < V; ++i) sum[i] = product[i] = 0.0f;
    if (c < d.c) {
        float s[V], b[V], m[V];
        constants(scale + c, s);
        constants(shift + c, b);
        constants(mean + c, m);
        const int first = blockIdx.x * d.rows, last = min(first + d.rows, d.m), r = first + tid / d.across;
        const long long start = (long long)r * d.c + c, step = (long long)d.down * d.c;
        dy += start, h += start;
#pragma unroll 1
        for (int row = r; row < last; row += d.down, dy += step, h += step) {
            const Pack<V> g = load<V>(dy), a = load<V>(h);
#pragma unroll
            for (int i = 0; i < V; ++i) {
                const float du = g.v[i] * slope_selected<ACT>(fmaf(a.v[i], s[i], b[i]), d.lo, d.hi);
                sum[i] += du;
                product[i] = fmaf(du, a.v[i] - m[i], product[i]);
            }
        }
    }
    // A pitch with which V channels of neighbouring vectors lie in different banks.
    const int pitch = ((threads + 15) & ~15) + 16 / V;
#pragma unroll
    for (int i = 0; i < V; ++i) shared[2 * i * pitch + tid] = sum[i], shared[(2 * i + 1) * pitch + tid] = product[i];
    __syncthreads();
    // Rows in ascending order.
    for (int i = tid; i < d.across * V; i += threads) {
        const int channel = blockIdx.y * d.across * V + i;
        if (channel >= d.c) break;
        const float* from = shared + 2 * (i % V) * pitch + i / V;
        float2 total = make_float2(0.0f, 0.0f);
#pragma unroll 8
        for (int row = 0; row < d.down; ++row, from += d.across) total.x += from[0], total.y += from[pitch];
        sums[(long long)blockIdx.x * d.c + channel] = total;
    }
    if (norm.pqr == nullptr || !is_last(counters + blockIdx.y, gridDim.x, (u32*)shared)) return;
    // As many chains of partials as threads allow, side by side, then added in ascending order.
    const int width = min(d.across * V, threads), chains = threads / width, chain = tid / width;
    float2* parts = (float2*)shared;
    for (int from = 0; from < d.across * V; from += width) {
        const int i = from + tid % width, channel = blockIdx.y * d.across * V + i;
        const bool exists = i < d.across * V && channel < d.c;
        float2 total = make_float2(0.0f, 0.0f);
        if (chain < chains && exists)
#pragma unroll 4
            for (int p = chain; p < gridDim.x; p += chains) {
                const float2 v = __ldcg(sums + (long long)p * d.c + channel);
                total.x += v.x, total.y += v.y;
            }
        __syncthreads();
        parts[tid] = total;
        __syncthreads();
        if (chain != 0 || !exists) continue;
        for (int j = 1; j < chains; ++j) total.x += parts[j * width + tid].x, total.y += parts[j * width + tid].y;
        norm.finish(channel, total.x, total.y);
    }
}

#define KERNELS(NAME, T, ACT, V)                                                                                     \
    extern "C" __global__ void __launch_bounds__(256)                                                                \
        finish_fwd_##NAME(const T* h, const float* scale, const float* shift, const T* x, T* y, Elementwise d) {     \
        finish<T, ACT, V>(h, scale, shift, x, y, d);                                                                 \
    }                                                                                                                \
    extern "C" __global__ void __launch_bounds__(256, 3)                                                             \
        finish_bwd_sums_##NAME(const T* dy, const T* h, const float* scale, const float* shift, const float* mean,   \
                               float2* out, u32* counters, const float* variance, float* dgamma, float* dbeta,       \
                               float* pqr, Elementwise d) {                                                          \
        const NormBackward norm = {scale, mean, variance, dgamma, dbeta, pqr, d.c, (float)d.m, d.eps};               \
        sums<T, ACT, V>(dy, h, scale, shift, mean, out, counters, norm, d);                                          \
    }
#define EACH_TYPE(ACT_NAME, ACT)                      \
    KERNELS(f32_##ACT_NAME, float, ACT, 4)            \
    KERNELS(f32_##ACT_NAME##_scalar, float, ACT, 1)   \
    KERNELS(bf16_##ACT_NAME, bf16, ACT, 8)            \
    KERNELS(bf16_##ACT_NAME##_scalar, bf16, ACT, 1)
EACH_TYPE(clamp, CLAMP)
EACH_TYPE(hswish, HSWISH)
EACH_TYPE(swish, SWISH)
