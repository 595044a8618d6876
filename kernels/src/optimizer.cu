// Stochastic gradient descent with momentum over the touched parameters, in one launch.
//
//   g += decay * p;  m = momentum * m + g;  p -= lr * (nesterov ? g + momentum * m : m);  gradient = 0
// What changes from step to step (learning rate, whether a value was not finite) is read from device memory: a captured
// graph stays valid. A step that is skipped still clears gradients.
#include "pieces.cuh"

struct Sgd {
    float momentum;
    int nesterov;
};

extern "C" __global__ void __launch_bounds__(256)
    sgd_update(const int4* __restrict__ pieces, const float* __restrict__ lr, const int* __restrict__ skip,
               float* __restrict__ values, float* __restrict__ grads, float* __restrict__ momenta,
               bf16* __restrict__ copy, Sgd d) {
    const Piece p = piece(pieces);
    const float rate = *lr;
    const bool move = skip == nullptr || *skip == 0;
    auto step = [&](float& value, float grad, float& m) {
        grad = fmaf(p.decay, value, grad);
        m = fmaf(d.momentum, m, grad);
        value = fmaf(-rate, d.nesterov ? fmaf(d.momentum, m, grad) : m, value);
    };
    if (p.vectors) {
        const int e = threadIdx.x * 4;
        if (e >= p.len) return;
        const int i = p.at(e);
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
            const int i = p.at(e);
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
