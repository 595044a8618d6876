// Work per channel of arrays [rows, c]: sums over rows for batch norm, biases and means of planes, and maps whose
// constants belong to channels.
#include "columns.cuh"

// Moments about the block's first row: a sum of squares about zero would lose everything at |mean| = 1,000 deviations.
template <class T, int V>
static __device__ __forceinline__ void moments(const T* x, float2* out, float* counts, const Rows& d) {
    const Place p = place<V>(d, blockIdx.z);
    const long long first = (long long)blockIdx.x * d.piece * d.c;
    Pack<V> pivot = {};
    if (p.mine) pivot = load<V>(x + first + p.channel);
    const float n = (float)(p.end - blockIdx.x * d.piece);
    column_sums<V, 2>(
        d, p,
        [&](int, long long at, float(&s)[2][V]) {
            const Pack<V> v = load<V>(x + at);
#pragma unroll
            for (int e = 0; e < V; ++e) {
                const float away = v.v[e] - pivot.v[e];
                s[0][e] += away;
                s[1][e] = fmaf(away, away, s[1][e]);
            }
        },
        [&](int channel, const float(&s)[2]) {
            const float mean = s[0] / n;
            out[(long long)blockIdx.x * d.c + channel] =
                make_float2(load1(x + first + channel) + mean, fmaxf(fmaf(-s[0], mean, s[1]), 0.0f));
        });
    if (threadIdx.x == 0 && blockIdx.y == 0) counts[blockIdx.x] = n;
}

// Sums of dy and of dy * (x - mean).
template <class T, int V>
static __device__ __forceinline__ void products(const T* dy, const T* x, const float* mean, float2* out, const Rows& d) {
    const Place p = place<V>(d, blockIdx.z);
    Pack<V> m = {};
    if (p.mine) m = constants<V>(mean, p.channel, 0.0f);
    column_sums<V, 2>(
        d, p,
        [&](int, long long at, float(&s)[2][V]) {
            const Pack<V> g = load<V>(dy + at), v = load<V>(x + at);
#pragma unroll
            for (int e = 0; e < V; ++e) {
                s[0][e] += g.v[e];
                s[1][e] = fmaf(g.v[e], v.v[e] - m.v[e], s[1][e]);
            }
        },
        [&](int channel, const float(&s)[2]) {
            out[(long long)blockIdx.x * d.c + channel] = make_float2(s[0], s[1]);
        });
}

template <class T, int V, class Finish>
static __device__ __forceinline__ void sums(const T* x, const Rows& d, Finish finish) {
    column_sums<V, 1>(
        d, place<V>(d, blockIdx.z),
        [&](int, long long at, float(&s)[1][V]) {
            const Pack<V> v = load<V>(x + at);
#pragma unroll
            for (int e = 0; e < V; ++e) s[0][e] += v.v[e];
        },
        [&](int channel, const float(&s)[1]) { finish(channel, s[0]); });
}

// y (+)= (x - mean) * scale + shift: first the difference, since a mean may be far from zero. Scale and
// shift are [images, c].
template <class T, int V>
static __device__ __forceinline__ void affine(const T* x, const float* mean, const float* scale, const float* shift,
                                              T* y, const Rows& d) {
    const Place p = place<V>(d, blockIdx.z);
    if (!p.mine) return;
    const int own = blockIdx.z * d.c + p.channel;
    const Pack<V> m = constants<V>(mean, p.channel, 0.0f), a = constants<V>(scale, own, 1.0f),
                  b = constants<V>(shift, own, 0.0f);
    map_rows<V>(y, d, p, [&](long long at) {
        Pack<V> v = load<V>(x + at);
#pragma unroll
        for (int e = 0; e < V; ++e) v.v[e] = fmaf(v.v[e] - m.v[e], a.v[e], b.v[e]);
        return v;
    });
}

// Sums of dy * x over an image's plane.
template <class T, int V>
static __device__ __forceinline__ void correlations(const T* dy, const T* x, float* out, const Rows& d) {
    column_sums<V, 1>(
        d, place<V>(d, blockIdx.z),
        [&](int, long long at, float(&s)[1][V]) {
            const Pack<V> g = load<V>(dy + at), v = load<V>(x + at);
#pragma unroll
            for (int e = 0; e < V; ++e) s[0][e] = fmaf(g.v[e], v.v[e], s[0][e]);
        },
        [&](int channel, const float(&s)[1]) { out[(long long)blockIdx.z * d.c + channel] = s[0]; });
}

// dx (+)= p * dy + q * x + r; without x, p * dy.
template <class T, int V>
static __device__ __forceinline__ void linear(const T* dy, const T* x, const float* pqr, T* dx, const Rows& d) {
    const Place p = place<V>(d, blockIdx.z);
    if (!p.mine) return;
    const Pack<V> a = constants<V>(pqr, p.channel, 0.0f);
    if (x == nullptr) {
        map_rows<V>(dx, d, p, [&](long long at) {
            Pack<V> g = load<V>(dy + at);
#pragma unroll
            for (int e = 0; e < V; ++e) g.v[e] *= a.v[e];
            return g;
        });
        return;
    }
    const Pack<V> b = constants<V>(pqr + d.c, p.channel, 0.0f), r = constants<V>(pqr + 2 * d.c, p.channel, 0.0f);
    map_rows<V>(dx, d, p, [&](long long at) {
        Pack<V> g = load<V>(dy + at);
        const Pack<V> v = load<V>(x + at);
#pragma unroll
        for (int e = 0; e < V; ++e) g.v[e] = fmaf(a.v[e], g.v[e], fmaf(b.v[e], v.v[e], r.v[e]));
        return g;
    });
}

// dx (+)= even * dy of the image.
template <class T, int V>
static __device__ __forceinline__ void spread(const T* dy, T* dx, const Rows& d) {
    const Place p = place<V>(d, blockIdx.z);
    if (!p.mine) return;
    Pack<V> g = load<V>(dy + (long long)blockIdx.z * d.c + p.channel);
#pragma unroll
    for (int e = 0; e < V; ++e) g.v[e] *= d.even;
    map_rows<V>(dx, d, p, [&](long long) { return g; });
}

#define KERNEL(NAME, PARAMETERS, ...) \
    extern "C" __global__ void __launch_bounds__(256) NAME PARAMETERS { __VA_ARGS__; }

#define EACH(T, N, V)                                                                                                 \
    KERNEL(batch_norm_moments_##N, (const T* __restrict__ x, float2* __restrict__ out, float* __restrict__ counts,    \
                                    Rows d), moments<T, V>(x, out, counts, d))                                        \
    KERNEL(batch_norm_sums_##N, (const T* __restrict__ dy, const T* __restrict__ x, const float* __restrict__ mean,   \
                                 float2* __restrict__ out, Rows d), products<T, V>(dy, x, mean, out, d))              \
    KERNEL(channel_affine_##N, (const T* __restrict__ x, const float* __restrict__ mean,                              \
                                const float* __restrict__ scale, const float* __restrict__ shift, T* __restrict__ y,  \
                                Rows d), affine<T, V>(x, mean, scale, shift, y, d))                                   \
    KERNEL(channel_linear_##N, (const T* __restrict__ dy, const T* __restrict__ x, const float* __restrict__ pqr,     \
                                T* __restrict__ dx, Rows d), linear<T, V>(dy, x, pqr, dx, d))                         \
    KERNEL(plane_products_##N, (const T* __restrict__ dy, const T* __restrict__ x, float* __restrict__ out, Rows d),  \
           correlations<T, V>(dy, x, out, d))                                                                         \
    KERNEL(bias_bwd_##N, (const T* __restrict__ dy, float* __restrict__ out, Rows d),                                 \
           sums<T, V>(dy, d, [&](int c, float s) { out[(long long)blockIdx.x * d.c + c] = s; }))                      \
    KERNEL(global_avg_pool_fwd_##N, (const T* __restrict__ x, T* __restrict__ y, Rows d),                             \
           sums<T, V>(x, d, [&](int c, float s) { store1(y + (long long)blockIdx.z * d.c + c, d.even * s); }))        \
    KERNEL(global_avg_pool_bwd_##N, (const T* __restrict__ dy, T* __restrict__ dx, Rows d), spread<T, V>(dy, dx, d))

EACH(float, f32, 4)
EACH(float, f32_scalar, 1)
EACH(bf16, bf16, 8)
EACH(bf16, bf16_scalar, 1)
