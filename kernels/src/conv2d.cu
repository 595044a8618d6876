// The dense 2-d convolution in groups, any window, stride, padding and dilation:
//   y[n, oy, ox, o] = sum over ky, kx, i of x[n, oy s + ky d - p, ox s + kx d - p, i] w[o, ky, kx, i]
// with x and y NHWC of T, w [o, kh, kw, c / groups] of f32, gradients of w as partial sums.
//
// Forward and both gradients are products of two matrices that are read where they lie: no patches are gathered. A
// block makes a tile of TM x TN by steps of 16 terms through shared memory, a thread MI x 4 of it; the next step's
// elements travel while this one's are multiplied. Tiles of 16 and 32 columns serve the few channels of a stem.
#include "divide.cuh"
#include "elementwise.cuh"

struct Conv {
    int h, w, c, oh, ow, o;
    // Vertical, horizontal.
    int stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x;
    // Taps; channels of a group.
    int taps, cg, og;
    // Rows of the product; terms of it, and of a split.
    int m, terms, piece;
    // Added to what is there, or stored.
    int add;
    // Pixels of the pass: columns, lines. Channels that a term or column counts; columns of the window; strides.
    Divide by_x, by_y, by_channels, by_kw, by_sy, by_sx;
};

// Terms of a step.
constexpr int STEP = 16;

// Element q of a thread in a tile [STEP][WIDTH]: with neighbours along the terms where these lie side by side in
// memory, else along the width.
template <bool TERMS, int WIDTH, int THREADS>
static __device__ __forceinline__ void spot(int q, int& term, int& at) {
    const int t = threadIdx.x;
    if (TERMS) {
        term = t % STEP;
        at = t / STEP + q * (THREADS / STEP);
    } else {
        at = t % WIDTH;
        term = t / WIDTH + q * (THREADS / WIDTH);
    }
}

// store(i, j, four) of sum over terms from..to of left(term, i) * right(term, j), i < TM, j < TN a multiple of four.
template <int TM, int TN, int MI, bool LEFT_TERMS, bool RIGHT_TERMS, class Left, class Right, class Store>
static __device__ __forceinline__ void product(int from, int to, Left left, Right right, Store store) {
    constexpr int THREADS = TM * TN / (4 * MI), PA = TM + 4, PB = TN + 4;
    constexpr int NA = TM * STEP / THREADS, NB = TN * STEP / THREADS;
    __shared__ __align__(16) float as[STEP][PA];
    __shared__ __align__(16) float bs[STEP][PB];
    const int tx = threadIdx.x % (TN / 4), ty = threadIdx.x / (TN / 4);
    const u32 from_a = shared_address(as) + ty * 16, from_b = shared_address(bs) + tx * 16;
    float acc[MI][4] = {}, a[NA], b[NB];
    auto fetch = [&](int first) {
#pragma unroll
        for (int q = 0; q < NA; ++q) {
            int term, i;
            spot<LEFT_TERMS, TM, THREADS>(q, term, i);
            a[q] = first + term < to ? left(first + term, i) : 0.0f;
        }
#pragma unroll
        for (int q = 0; q < NB; ++q) {
            int term, j;
            spot<RIGHT_TERMS, TN, THREADS>(q, term, j);
            b[q] = first + term < to ? right(first + term, j) : 0.0f;
        }
    };
    fetch(from);
    for (int first = from; first < to; first += STEP) {
        // Everyone has multiplied the step before.
        __syncthreads();
#pragma unroll
        for (int q = 0; q < NA; ++q) {
            int term, i;
            spot<LEFT_TERMS, TM, THREADS>(q, term, i);
            as[term][i] = a[q];
        }
#pragma unroll
        for (int q = 0; q < NB; ++q) {
            int term, j;
            spot<RIGHT_TERMS, TN, THREADS>(q, term, j);
            bs[term][j] = b[q];
        }
        __syncthreads();
        if (first + STEP < to) fetch(first + STEP);
#pragma unroll
        for (int k = 0; k < STEP; ++k) {
            float p[MI], q[4];
            load_shared(from_a + k * PA * 4, p);
            if constexpr (MI == 8) load_shared(from_a + k * PA * 4 + TM * 2, p + 4);
            load_shared(from_b + k * PB * 4, q);
#pragma unroll
            for (int i = 0; i < MI; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) acc[i][j] = fmaf(p[i], q[j], acc[i][j]);
        }
    }
#pragma unroll
    for (int i = 0; i < MI; ++i)
        store(i / 4 * (TM / 2) + ty * 4 + i % 4, tx * 4, Pack<4>{acc[i][0], acc[i][1], acc[i][2], acc[i][3]});
}

// Up to four neighbours of a row: one vector where all rows are whole vectors.
template <class T>
static __device__ __forceinline__ void store4(T* p, const Pack<4>& v, int left, int width, bool add) {
    if (width % 4 == 0) {
        if (left > 0) write(p, v, add);
        return;
    }
#pragma unroll
    for (int e = 0; e < 4; ++e)
        if (e < left) write(p + e, Pack<1>{v.v[e]}, add);
}

// Pixels of a tile: where their images begin, and two coordinates. Beyond the last row no window reaches a pixel.
constexpr int NOWHERE = -(1 << 29);
template <int TM, int THREADS>
static __device__ __forceinline__ void pixels(int4 (&rows)[TM], const Conv& d, int image, int4 scale) {
    for (int i = threadIdx.x; i < TM; i += THREADS) {
        const int m = blockIdx.x * TM + i;
        int x, y;
        const int n = d.by_y.split(d.by_x.split(min(m, d.m - 1), x), y);
        rows[i] = m < d.m ? make_int4(n * image, y * scale.x + scale.y, x * scale.z + scale.w, 0)
                          : make_int4(0, NOWHERE, NOWHERE, 0);
    }
    __syncthreads();
}

template <class T, int TM, int TN, int MI>
static __device__ __forceinline__ void forward(const T* x, const float* w, T* y, const Conv& d) {
    __shared__ int4 rows[TM];
    pixels<TM, TM * TN / (4 * MI)>(rows, d, d.h * d.w, make_int4(d.stride_y, -d.pad_y, d.stride_x, -d.pad_x));
    const int group = blockIdx.z, n0 = blockIdx.y * TN, m0 = blockIdx.x * TM;
    product<TM, TN, MI, true, true>(
        0, d.terms,
        [&](int term, int i) {
            int channel, kx;
            const int ky = d.by_kw.split(d.by_channels.split(term, channel), kx);
            const int4 row = rows[i];
            const int iy = row.y + ky * d.dilation_y, ix = row.z + kx * d.dilation_x;
            if ((u32)iy >= (u32)d.h || (u32)ix >= (u32)d.w) return 0.0f;
            return load1(x + (long long)(row.x + iy * d.w + ix) * d.c + group * d.cg + channel);
        },
        [&](int term, int j) {
            return n0 + j < d.og ? __ldg(w + (group * d.og + n0 + j) * d.terms + term) : 0.0f;
        },
        [&](int i, int j, const Pack<4>& v) {
            if (m0 + i >= d.m) return;
            store4(y + (long long)(m0 + i) * d.o + group * d.og + n0 + j, v, d.og - n0 - j, d.og, false);
        });
}

// dx at a pixel: over the taps and output channels whose windows lie on it.
template <class T, int TM, int TN, int MI>
static __device__ __forceinline__ void data_gradient(const T* dy, const float* w, T* dx, const Conv& d) {
    __shared__ int4 rows[TM];
    pixels<TM, TM * TN / (4 * MI)>(rows, d, d.oh * d.ow, make_int4(1, d.pad_y, 1, d.pad_x));
    const int group = blockIdx.z, n0 = blockIdx.y * TN, m0 = blockIdx.x * TM;
    product<TM, TN, MI, true, false>(
        0, d.terms,
        [&](int term, int i) {
            int channel, kx;
            const int ky = d.by_kw.split(d.by_channels.split(term, channel), kx);
            const int4 row = rows[i];
            const int top = row.y - ky * d.dilation_y, left = row.z - kx * d.dilation_x;
            if (top < 0 || left < 0) return 0.0f;
            int off_y, off_x;
            const int oy = d.by_sy.split(top, off_y), ox = d.by_sx.split(left, off_x);
            if (off_y != 0 || off_x != 0 || oy >= d.oh || ox >= d.ow) return 0.0f;
            return load1(dy + (long long)(row.x + oy * d.ow + ox) * d.o + group * d.og + channel);
        },
        [&](int term, int j) {
            int channel;
            const int tap = d.by_channels.split(term, channel);
            return n0 + j < d.cg ? __ldg(w + ((group * d.og + channel) * d.taps + tap) * d.cg + n0 + j) : 0.0f;
        },
        [&](int i, int j, const Pack<4>& v) {
            if (m0 + i >= d.m) return;
            store4(dx + (long long)(m0 + i) * d.c + group * d.cg + n0 + j, v, d.cg - n0 - j, d.cg, d.add);
        });
}

// Partial sums over the output pixels of a split: out [splits, o, kh, kw, c / groups].
template <class T, int TM, int TN, int MI>
static __device__ __forceinline__ void filter_gradient(const T* x, const T* dy, float* out, const Conv& d) {
    const int width = d.taps * d.cg, tiles = (width + TN - 1) / TN, tile = blockIdx.y / tiles;
    const int group = blockIdx.z, i0 = tile * TM, n0 = (blockIdx.y - tile * tiles) * TN;
    const int from = blockIdx.x * d.piece, to = min(from + d.piece, d.terms);
    product<TM, TN, MI, false, false>(
        from, to,
        [&](int m, int i) {
            return i0 + i < d.og ? load1(dy + (long long)m * d.o + group * d.og + i0 + i) : 0.0f;
        },
        [&](int m, int j) {
            if (n0 + j >= width) return 0.0f;
            int channel, kx, ox, oy;
            const int ky = d.by_kw.split(d.by_channels.split(n0 + j, channel), kx);
            const int n = d.by_y.split(d.by_x.split(m, ox), oy);
            const int iy = oy * d.stride_y - d.pad_y + ky * d.dilation_y;
            const int ix = ox * d.stride_x - d.pad_x + kx * d.dilation_x;
            if ((u32)iy >= (u32)d.h || (u32)ix >= (u32)d.w) return 0.0f;
            return load1(x + (long long)(n * d.h * d.w + iy * d.w + ix) * d.c + group * d.cg + channel);
        },
        [&](int i, int j, const Pack<4>& v) {
            if (i0 + i >= d.og) return;
            float* to = out + ((long long)blockIdx.x * d.o + group * d.og + i0 + i) * width + n0 + j;
            store4(to, v, width - n0 - j, width, false);
        });
}

#define KERNEL(NAME, THREADS, A, B, C, BODY)                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS, 512 / THREADS)                                               \
        NAME(const A* __restrict__ a, const B* __restrict__ b, C* __restrict__ c, Conv d) {               \
        BODY(a, b, c, d);                                                                                 \
    }
#define ROWS(T, TN, N, TM, COLUMNS, MI)                                                                   \
    KERNEL(conv2d_fwd_##TN##_##N, 128, T, float, T, (forward<T, TM, COLUMNS, MI>))                        \
    KERNEL(conv2d_bwd_data_##TN##_##N, 128, T, float, T, (data_gradient<T, TM, COLUMNS, MI>))
#define EACH_TYPE(T, TN)                                                                                  \
    ROWS(T, TN, n16, 128, 16, 4)                                                                          \
    ROWS(T, TN, n32, 128, 32, 8)                                                                          \
    ROWS(T, TN, n64, 64, 64, 8)                                                                           \
    KERNEL(conv2d_bwd_filter_##TN##_n32, 64, T, T, float, (filter_gradient<T, 32, 32, 4>))                \
    KERNEL(conv2d_bwd_filter_##TN##_n64, 128, T, T, float, (filter_gradient<T, 64, 64, 8>))
EACH_TYPE(float, f32)
EACH_TYPE(bf16, bf16)
