// Windows that slide over a plane, channel by channel: depthwise convolutions of any odd window, stride and dilation
// (those that have no kernel of their own), average and maximum pools.
//
// A thread makes one vector of channels of one pixel. Gradients of the input are gathered: a pixel asks the windows
// that lie on it, in ascending order of their taps, so nothing is added by two threads.
#include "columns.cuh"
#include "divide.cuh"

struct Window {
    int h, w, oh, ow;
    int k, stride, pad, dilation;
    // Vectors of all pixels that the pass makes; vectors of a row of channels.
    int total, vectors;
    // Added to what is there, or stored.
    int add;
    Divide by_vectors, by_x, by_y, by_stride;
};

// What a thread makes: image, line and column of a pixel, and the first of its channels.
struct Spot {
    int n, y, x, channel;
};

template <int V>
static __device__ __forceinline__ Spot spot(const Window& d, int i) {
    Spot s;
    int vector;
    s.n = d.by_y.split(d.by_x.split(d.by_vectors.split(i, vector), s.x), s.y);
    s.channel = vector * V;
    return s;
}

// Offset of a vector in a plane [n, h, w, c].
template <int V>
static __device__ __forceinline__ long long offset(const Window& d, const Spot& s, int h, int w, int y, int x) {
    return ((long long)(s.n * h + y) * w + x) * (d.vectors * V) + s.channel;
}

// see(ky, kx, iy, ix) for all pixels within the window at an output.
template <class See>
static __device__ __forceinline__ void window(const Window& d, int oy, int ox, See see) {
    for (int ky = 0; ky < d.k; ++ky) {
        const int iy = oy * d.stride - d.pad + ky * d.dilation;
        if ((u32)iy >= (u32)d.h) continue;
        for (int kx = 0; kx < d.k; ++kx) {
            const int ix = ox * d.stride - d.pad + kx * d.dilation;
            if ((u32)ix < (u32)d.w) see(ky, kx, iy, ix);
        }
    }
}

// see(ky, kx, oy, ox) for all outputs whose windows lie on a pixel.
template <class See>
static __device__ __forceinline__ void windows_on(const Window& d, int iy, int ix, See see) {
    for (int ky = 0; ky < d.k; ++ky) {
        const int top = iy + d.pad - ky * d.dilation;
        int rest;
        const int oy = d.by_stride.split(max(top, 0), rest);
        if (top < 0 || rest != 0 || oy >= d.oh) continue;
        for (int kx = 0; kx < d.k; ++kx) {
            const int left = ix + d.pad - kx * d.dilation;
            const int ox = d.by_stride.split(max(left, 0), rest);
            if (left >= 0 && rest == 0 && ox < d.ow) see(ky, kx, oy, ox);
        }
    }
}

template <int V>
static __device__ __forceinline__ void add(Pack<V>& sum, float factor, const Pack<V>& v) {
#pragma unroll
    for (int e = 0; e < V; ++e) sum.v[e] = fmaf(factor, v.v[e], sum.v[e]);
}

template <int V>
static __device__ __forceinline__ void add(Pack<V>& sum, const Pack<V>& factor, const Pack<V>& v) {
#pragma unroll
    for (int e = 0; e < V; ++e) sum.v[e] = fmaf(factor.v[e], v.v[e], sum.v[e]);
}

// One over the pixels within the window at an output; padding is not counted.
static __device__ __forceinline__ float share(const Window& d, int oy, int ox) {
    const int y = oy * d.stride - d.pad, x = ox * d.stride - d.pad;
    const int rows = min(y + d.k, d.h) - max(y, 0), columns = min(x + d.k, d.w) - max(x, 0);
    return __fdividef(1.0f, (float)(rows * columns));
}

enum Kind { DEPTHWISE, AVERAGE };

// The value of a vector, for V channels from `channel` on: w [k, k, c].
template <int KIND, class T, int V>
static __device__ __forceinline__ void forward(const T* x, const float* w, T* y, const Window& d) {
    const int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= d.total) return;
    const Spot s = spot<V>(d, i);
    Pack<V> sum = {};
    window(d, s.y, s.x, [&](int ky, int kx, int iy, int ix) {
        const Pack<V> v = load<V>(x + offset<V>(d, s, d.h, d.w, iy, ix));
        if constexpr (KIND == DEPTHWISE)
            add(sum, constants<V>(w + (ky * d.k + kx) * d.vectors * V, s.channel, 0.0f), v);
        else
            add(sum, share(d, s.y, s.x), v);
    });
    store(y + offset<V>(d, s, d.oh, d.ow, s.y, s.x), sum);
}

template <int KIND, class T, int V>
static __device__ __forceinline__ void data_gradient(const T* dy, const float* w, T* dx, const Window& d) {
    const int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= d.total) return;
    const Spot s = spot<V>(d, i);
    Pack<V> sum = {};
    windows_on(d, s.y, s.x, [&](int ky, int kx, int oy, int ox) {
        const Pack<V> g = load<V>(dy + offset<V>(d, s, d.oh, d.ow, oy, ox));
        if constexpr (KIND == DEPTHWISE)
            add(sum, constants<V>(w + (ky * d.k + kx) * d.vectors * V, s.channel, 0.0f), g);
        else
            add(sum, share(d, oy, ox), g);
    });
    write(dx + offset<V>(d, s, d.h, d.w, s.y, s.x), sum, d.add);
}

struct Filter {
    Rows rows;
    Window window;
};

// Partial sums [pieces, k, k, c]: blockIdx.z is the tap, rows are output pixels.
template <class T, int V>
static __device__ __forceinline__ void filter_gradient(const T* x, const T* dy, float* out, const Filter& f) {
    const Window& d = f.window;
    const int tap = blockIdx.z, ky = tap / d.k, kx = tap - ky * d.k;
    column_sums<V, 1>(
        f.rows, place<V>(f.rows, 0),
        [&](int row, long long at, float(&sums)[1][V]) {
            int ox, oy;
            const int n = d.by_y.split(d.by_x.split(row, ox), oy);
            const int iy = oy * d.stride - d.pad + ky * d.dilation, ix = ox * d.stride - d.pad + kx * d.dilation;
            if ((u32)iy >= (u32)d.h || (u32)ix >= (u32)d.w) return;
            const long long from = ((long long)(n * d.h + iy) * d.w + ix) * f.rows.c + at - (long long)row * f.rows.c;
            const Pack<V> g = load<V>(dy + at), v = load<V>(x + from);
#pragma unroll
            for (int e = 0; e < V; ++e) sums[0][e] = fmaf(g.v[e], v.v[e], sums[0][e]);
        },
        [&](int channel, const float(&s)[1]) {
            out[((long long)blockIdx.x * gridDim.z + tap) * f.rows.c + channel] = s[0];
        });
}

// The maximum; no number wins.
template <class T, int V>
static __device__ __forceinline__ void maximum(const T* x, T* y, const Window& d) {
    const int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= d.total) return;
    const Spot s = spot<V>(d, i);
    Pack<V> most;
#pragma unroll
    for (int e = 0; e < V; ++e) most.v[e] = __int_as_float(0xff800000);
    window(d, s.y, s.x, [&](int, int, int iy, int ix) {
        const Pack<V> v = load<V>(x + offset<V>(d, s, d.h, d.w, iy, ix));
#pragma unroll
        for (int e = 0; e < V; ++e)
            if (v.v[e] > most.v[e] || v.v[e] != v.v[e]) most.v[e] = v.v[e];
    });
    store(y + offset<V>(d, s, d.oh, d.ow, s.y, s.x), most);
}

// Of equal maxima the first in row order gets the gradient.
template <class T, int V>
static __device__ __forceinline__ void maximum_gradient(const T* x, const T* y, const T* dy, T* dx, const Window& d) {
    const int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= d.total) return;
    const Spot s = spot<V>(d, i);
    const Pack<V> own = load<V>(x + offset<V>(d, s, d.h, d.w, s.y, s.x));
    auto is = [](float v, float most) { return v == most || v != v; };
    Pack<V> sum = {};
    windows_on(d, s.y, s.x, [&](int ky, int kx, int oy, int ox) {
        const long long at = offset<V>(d, s, d.oh, d.ow, oy, ox);
        const Pack<V> most = load<V>(y + at), g = load<V>(dy + at);
        u32 mine = 0;
#pragma unroll
        for (int e = 0; e < V; ++e) mine |= is(own.v[e], most.v[e]) ? 1u << e : 0u;
        if (mine == 0) return;
        window(d, oy, ox, [&](int py, int px, int iy, int ix) {
            if (py > ky || (py == ky && px >= kx)) return;
            const Pack<V> v = load<V>(x + offset<V>(d, s, d.h, d.w, iy, ix));
#pragma unroll
            for (int e = 0; e < V; ++e)
                if (is(v.v[e], most.v[e])) mine &= ~(1u << e);
        });
#pragma unroll
        for (int e = 0; e < V; ++e)
            if (mine >> e & 1) sum.v[e] += g.v[e];
    });
    write(dx + offset<V>(d, s, d.h, d.w, s.y, s.x), sum, d.add);
}

#define KERNEL(NAME, PARAMETERS, ...) \
    extern "C" __global__ void __launch_bounds__(256, 4) NAME PARAMETERS { __VA_ARGS__; }

#define EACH(T, N, V)                                                                                                 \
    KERNEL(depthwise_any_fwd_##N, (const T* __restrict__ x, const float* __restrict__ w, T* __restrict__ y,           \
                                   Window d), forward<DEPTHWISE, T, V>(x, w, y, d))                                   \
    KERNEL(depthwise_any_bwd_data_##N, (const T* __restrict__ dy, const float* __restrict__ w, T* __restrict__ dx,    \
                                        Window d), data_gradient<DEPTHWISE, T, V>(dy, w, dx, d))                      \
    KERNEL(depthwise_any_bwd_filter_##N, (const T* __restrict__ x, const T* __restrict__ dy,                          \
                                          float* __restrict__ out, Filter d), filter_gradient<T, V>(x, dy, out, d))   \
    KERNEL(avg_pool_fwd_##N, (const T* __restrict__ x, T* __restrict__ y, Window d),                                  \
           forward<AVERAGE, T, V>(x, nullptr, y, d))                                                                  \
    KERNEL(avg_pool_bwd_##N, (const T* __restrict__ dy, T* __restrict__ dx, Window d),                                \
           data_gradient<AVERAGE, T, V>(dy, nullptr, dx, d))                                                          \
    KERNEL(max_pool_fwd_##N, (const T* __restrict__ x, T* __restrict__ y, Window d), maximum<T, V>(x, y, d))          \
    KERNEL(max_pool_bwd_##N, (const T* __restrict__ x, const T* __restrict__ y, const T* __restrict__ dy,             \
                              T* __restrict__ dx, Window d), maximum_gradient<T, V>(x, y, dy, dx, d))

EACH(float, f32, 4)
EACH(float, f32_scalar, 1)
EACH(bf16, bf16, 8)
EACH(bf16, bf16_scalar, 1)
