// Functions of single elements: activations and their gradients, sums, scaled sums, fills, casts; and whether all
// elements are finite.
#include "elementwise.cuh"

// The activations of `Act`, and those that only stand alone.
enum Function { SIGMOID = SWISH + 1, HSIGMOID };

template <int F>
static __device__ __forceinline__ float value(float u, float lo, float hi) {
    if (F == SIGMOID) return __fdividef(1.0f, 1.0f + __expf(-u));
    // NaN passes the clamp, as everywhere.
    if (F == HSIGMOID) return clamp(fmaf(u, 1.0f / 6.0f, 0.5f), 0.0f, 1.0f);
    return activate<F>(u, lo, hi);
}

template <int F>
static __device__ __forceinline__ float gradient(float u, float lo, float hi) {
    if (F == SIGMOID) {
        const float s = __fdividef(1.0f, 1.0f + __expf(-u));
        return s * (1.0f - s);
    }
    if (F == HSIGMOID) return u > -3.0f && u < 3.0f ? 1.0f / 6.0f : 0.0f;
    return slope<F>(u, lo, hi);
}

struct Elements {
    u32 n;
    // Added to what is there, or stored.
    int add;
    // Bounds of a clamp, factor, value.
    float a, b;
};

#define KERNEL(NAME, PARAMETERS, ...) \
    extern "C" __global__ void __launch_bounds__(256) NAME PARAMETERS { __VA_ARGS__; }

#define ACTIVATION(T, TN, F, FN)                                                                                     \
    KERNEL(activation_fwd_##TN##_##FN, (const T* __restrict__ x, T* __restrict__ y, Elements d),                     \
           each(d.n, false, [&](float u) { return value<F>(u, d.a, d.b); }, y, x))                                   \
    KERNEL(activation_bwd_##TN##_##FN,                                                                               \
           (const T* __restrict__ x, const T* __restrict__ dy, T* __restrict__ dx, Elements d),                      \
           each(d.n, d.add, [&](float u, float g) { return g * gradient<F>(u, d.a, d.b); }, dx, x, dy))

#define EACH_TYPE(T, TN)                                                                                             \
    ACTIVATION(T, TN, CLAMP, clamp)                                                                                  \
    ACTIVATION(T, TN, HSWISH, hswish)                                                                                \
    ACTIVATION(T, TN, SWISH, swish)                                                                                  \
    ACTIVATION(T, TN, SIGMOID, sigmoid)                                                                              \
    ACTIVATION(T, TN, HSIGMOID, hsigmoid)                                                                            \
    KERNEL(add_##TN, (const T* __restrict__ a, const T* __restrict__ b, T* __restrict__ y, Elements d),              \
           each(d.n, false, [](float a, float b) { return a + b; }, y, a, b))                                        \
    KERNEL(fill_##TN, (T * y, Elements d), each(d.n, false, [&]() { return d.a; }, y))                               \
    KERNEL(non_finite_##TN, (const T* __restrict__ x, int* flag, Elements d), find(x, flag, d.n))

// y (+)= factor * x; a cast where the types differ.
#define SCALE(X, XN, Y, YN)                                                                                          \
    KERNEL(scale_##XN##_##YN, (const X* __restrict__ x, Y* __restrict__ y, Elements d),                              \
           each(d.n, d.add, [&](float v) { return d.a * v; }, y, x))

// Sets the flag to 1 if an element is infinite or no number. An integer atomic, once per warp that found one: the
// result does not depend on who comes first.
template <class T>
static __device__ __forceinline__ void find(const T* x, int* flag, u32 n) {
    constexpr int W = LANES<T>;
    bool bad = false;
    const u32 step = gridDim.x * 256 * W;
    for (u32 i = (blockIdx.x * 256 + threadIdx.x) * W; i < n; i += step) {
        auto look = [&](float v) { bad |= !(fabsf(v) < __int_as_float(0x7f800000)); };
        if (i + W <= n) {
            const Pack<W> p = load<W>(x + i);
#pragma unroll
            for (int e = 0; e < W; ++e) look(p.v[e]);
        } else {
#pragma unroll 1
            for (u32 e = i; e < n; ++e) look(load1(x + e));
        }
        // The next index would wrap.
        if (n - i <= step) break;
    }
    if (__any_sync(0xffffffffu, bad) && (threadIdx.x & 31) == 0) atomicOr(flag, 1);
}

EACH_TYPE(float, f32)
EACH_TYPE(bf16, bf16)
SCALE(float, f32, float, f32)
SCALE(float, f32, bf16, bf16)
SCALE(bf16, bf16, float, f32)
SCALE(bf16, bf16, bf16, bf16)
