// Stochastic gradient descent with momentum over the touched parameters, in one launch.
//
//   g += decay * p;  m = momentum * m + g;  p -= lr * (nesterov ? g + momentum * m : m);  gradient = 0
// The host cuts the touched ranges into pieces of at most 1,024 elements, one per block, so no block searches. What
// changes from step to step (learning rate, whether a value was not finite) is read from device memory: a captured
// graph stays valid. A step that is skipped still clears gradients.
#include "common.cuh"

struct Piece {
    // Element e of the piece is offset + e / row * stride + e % row.
    int offset, row, stride, len;
    // ceil(2^32 / row), if the piece has several rows.
    u32 magic;
    float decay;
    // Rows, strides and offsets are multiples of four elements.
    int vectors, unused;
};

struct Sgd {
    float momentum;
    int nesterov;
};

extern "C" __global__ void __launch_bounds__(256)
    sgd_update(const int4* __restrict__ pieces, const float* __restrict__ lr, const int* __restrict__ skip,
               float* __restrict__ values, float* __restrict__ grads, float* __restrict__ momenta,
               bf16* __restrict__ copy, Sgd d) {
    const int4 a = __ldg(pieces + 2 * blockIdx.x), b = __ldg(pieces + 2 * blockIdx.x + 1);
    const Piece p = {a.x, a.y, a.z, a.w, (u32)b.x, __int_as_float(b.y), b.z, b.w};
    const float rate = *lr;
    const bool move = skip == nullptr || *skip == 0;
    auto at = [&](int e) {
        if (p.row == p.len) return p.offset + e;
        // No 32-bit factor divides by one.
        const int row = p.row == 1 ? e : __umulhi(e, p.magic);
        return p.offset + row * p.stride + e - row * p.row;
    };
    auto step = [&](float& value, float grad, float& m) {
        grad = fmaf(p.decay, value, grad);
        m = fmaf(d.momentum, m, grad);
        value = fmaf(-rate, d.nesterov ? fmaf(d.momentum, m, grad) : m, value);
    };
    if (p.vectors) {
        const int e = threadIdx.x * 4;
        if (e >= p.len) return;
        const int i = at(e);
        float4* grad = (float4*)(grads + i);
        if (move) {
            float4 v = *(const float4*)(values + i), m = *(const float4*)(momenta + i), g = *grad;
            step(v.x, g.x, m.x);
            step(v.y, g.y, m.y);
            step(v.z, g.z, m.z);
            step(v.w, g.w, m.w);
            *(float4*)(values + i) = v;
            *(float4*)(momenta + i) = m;
            if (copy) *(uint2*)(copy + i) = make_uint2(pack(v.x, v.y), pack(v.z, v.w));
        }
        *grad = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    } else {
        for (int e = threadIdx.x; e < p.len; e += 256) {
            const int i = at(e);
            if (move) {
                float v = values[i], m = momenta[i];
                step(v, grads[i], m);
                values[i] = v;
                momenta[i] = m;
                if (copy) copy[i].bits = (u16)pack(v, 0.0f);
            }
            grads[i] = 0.0f;
        }
    }
}
