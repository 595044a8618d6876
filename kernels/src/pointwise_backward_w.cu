// 1x1 convolution, gradient of the filter: dw[o][c] = sum over rows of g[row][o] z[row][c], both factors formed on load,
//   g = p * (d * act'(h * scale + shift)) + q * h + r     batch norm's backward; without h it is d itself
//   z = act(x * scale + shift) * gate                     as the forward pass read it
//
// d, h [m, o], x [m, c] with m = images * plane rows, gate [images, c]. A block makes 64 x 64 of dw from its share of the
// rows and writes it apart from the other shares, dw [shares, o, c]: sum_partials adds them in a fixed order.
//
// Rows come in pieces of 16 words: a word is two rows of a column (bf16), packed while they pass through registers, or
// one (f32). So both factors lie in shared memory as the tensor cores take them, four columns to a lane at once, in
// whatever order columns have.
#include "product.cuh"

struct FilterGradient {
    int m, o, c, plane;
    // Rows of a share, a multiple of 32.
    int rows;
    int above;
    float lo_above, hi_above, lo, hi;
};

template <class T>
struct Arguments {
    const T *d, *h;
    const float *scale, *shift, *pqr;
    const T* x;
    const float *scale_x, *shift_x, *gate;
    float* dw;
};

constexpr int TILE = 64, THREADS = 128, WORDS = 16, PITCH = TILE + 4;

// TENSOR: on tensor cores, f32 as tf32. Else every product and sum is an f32 fused multiply-add, rows in ascending order.
template <class T, int ACT, bool VECTORS, bool TENSOR>
static __device__ __forceinline__ void gradient(const Arguments<T>& a, const FilterGradient& d) {
    constexpr int PAIR = 4 / sizeof(T), PIECE = WORDS * PAIR;
    extern __shared__ __align__(16) u32 words[];             // [2][g, z][16][68]
    float* constants = (float*)(words + 2 * 2 * WORDS * PITCH);  // [7][64]: of g, then scale and shift of x
    const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5;
    const int o0 = blockIdx.x * TILE, c0 = blockIdx.y * TILE;
    const int first = blockIdx.z * d.rows, last = min(first + d.rows, d.m);
    const bool formed = a.h != nullptr;

    const Formed f = {a.pqr, a.scale, a.shift, d.o};
    for (int i = tid; i < 7 * TILE; i += THREADS) {
        const int which = i / TILE, col = i % TILE;
        float v = which < 5 ? f.constant(which, o0 + col) : which == 5 ? 1.0f : 0.0f;
        if (which >= 5 && a.scale_x != nullptr)
            v = c0 + col < d.c ? __ldg((which == 5 ? a.scale_x : a.shift_x) + c0 + col) : 0.0f;
        // As the thread that brings the columns takes them: four and four of eight neighbours, or as they come.
        constants[which * TILE + (PAIR == 2 ? (col >> 3) * 4 + (col & 4) * 8 + (col & 3) : col)] = v;
    }

    // A thread brings eight columns of a row of words: eight neighbours of two rows, or twice four of one row, since
    // 16-byte pieces beside each other make whole sectors.
    const int word = tid >> 3, part = tid & 7;
    auto row_of = [&](int i) { return PAIR * word + (PAIR == 2 ? i : 0); };
    auto column_of = [&](int i) { return PAIR == 2 ? 8 * part : 4 * part + 32 * i; };
    uint4 raw_d[2], raw_h[2], raw_x[2];
    auto load = [&](int from) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            raw_d[i] = raw_h[i] = raw_x[i] = make_uint4(0, 0, 0, 0);
            const int row = from + row_of(i), col = column_of(i);
            if (row >= last) continue;
            raw_d[i] = load_row<VECTORS>(a.d + (long long)row * d.o, o0 + col, d.o);
            if (formed) raw_h[i] = load_row<VECTORS>(a.h + (long long)row * d.o, o0 + col, d.o);
            raw_x[i] = load_row<VECTORS>(a.x + (long long)row * d.c, c0 + col, d.c);
        }
    };
    // The image of the thread's first row, and the row at which the next one begins.
    int image = 0, next = 0;
    if (a.gate != nullptr) {
        image = (first + row_of(0)) / d.plane;
        next = (image + 1) * d.plane;
    }
    // Columns 4 b to 4 b + 3 of the thread's, of row i of the word.
    auto four = [&](const uint4 (&raw)[2], int i, int b, float (&v)[4]) {
        if (PAIR == 2) {
            const u32 x = b ? raw[i].z : raw[i].x, y = b ? raw[i].w : raw[i].y;
            v[0] = low(x), v[1] = high(x), v[2] = low(y), v[3] = high(y);
        } else {
            const uint4 w = raw[b];
            v[0] = __uint_as_float(w.x), v[1] = __uint_as_float(w.y), v[2] = __uint_as_float(w.z), v[3] = __uint_as_float(w.w);
        }
    };
    auto put = [&](u32* to, const u32 (&w)[8]) {
        to += word * PITCH;
        if (PAIR == 2) {
            store_words(to + 8 * part, w, tid & 4);
        } else {
#pragma unroll
            for (int b = 0; b < 2; ++b)
                store_shared(shared_address(to + 4 * part + 32 * b), __uint_as_float(w[4 * b]),
                             __uint_as_float(w[4 * b + 1]), __uint_as_float(w[4 * b + 2]), __uint_as_float(w[4 * b + 3]));
        }
    };
    auto join = [&](const float (&v)[2][4], int c) {
        return PAIR == 2 ? pack(v[0][c], v[1][c]) : TENSOR ? tf32(v[0][c]) : __float_as_uint(v[0][c]);
    };
    auto arrive = [&](int from, u32* to) {
        u32 w[8];
#pragma unroll
        for (int b = 0; b < 2; ++b) {
            const float* k = constants + 4 * part + 32 * b;
            float v[2][4], k0[4], k1[4], k2[4];
#pragma unroll
            for (int i = 0; i < PAIR; ++i) four(raw_d, i, b, v[i]);
            if (formed) {
                float h[2][4];
#pragma unroll
                for (int i = 0; i < PAIR; ++i) four(raw_h, i, b, h[i]);
                if (d.above) {
                    load_shared(shared_address(k + 3 * TILE), k0);
                    load_shared(shared_address(k + 4 * TILE), k1);
#pragma unroll
                    for (int i = 0; i < PAIR; ++i)
#pragma unroll
                        for (int c = 0; c < 4; ++c)
                            v[i][c] *= slope_above(d.above, fmaf(h[i][c], k0[c], k1[c]), d.lo_above, d.hi_above);
                }
                load_shared(shared_address(k), k0);
                load_shared(shared_address(k + TILE), k1);
                load_shared(shared_address(k + 2 * TILE), k2);
#pragma unroll
                for (int i = 0; i < PAIR; ++i)
#pragma unroll
                    for (int c = 0; c < 4; ++c)
                        // Rows past the end must add nothing, and r is not 0.
                        v[i][c] = from + row_of(i) < last ? fmaf(v[i][c], k0[c], fmaf(h[i][c], k1[c], k2[c])) : 0.0f;
            }
#pragma unroll
            for (int c = 0; c < 4; ++c) w[4 * b + c] = join(v, c);
        }
        put(to, w);
        if (a.gate != nullptr)
            while (from + row_of(0) >= next) ++image, next += d.plane;
#pragma unroll
        for (int b = 0; b < 2; ++b) {
            const int col = PAIR == 2 ? 8 * part + 4 * b : 4 * part + 32 * b;
            float v[2][4], s[4], t[4];
            load_shared(shared_address(constants + 5 * TILE + 4 * part + 32 * b), s);
            load_shared(shared_address(constants + 6 * TILE + 4 * part + 32 * b), t);
#pragma unroll
            for (int i = 0; i < PAIR; ++i) {
                four(raw_x, i, b, v[i]);
#pragma unroll
                for (int c = 0; c < 4; ++c) v[i][c] = activate<ACT>(fmaf(v[i][c], s[c], t[c]), d.lo, d.hi);
                const int row = from + row_of(i);
                if (a.gate != nullptr && row < last) {
                    const float* gates = a.gate + (long long)(row >= next ? image + 1 : image) * d.c;
                    float factors[4];
                    Vec<float>::unpack(load_row<VECTORS>(gates, c0 + col, d.c), factors);
#pragma unroll
                    for (int c = 0; c < 4; ++c) v[i][c] *= factors[c];
                }
            }
#pragma unroll
            for (int c = 0; c < 4; ++c) w[4 * b + c] = join(v, c);
        }
        put(to + WORDS * PITCH, w);
    };

    // Tensor cores: a warp makes 32 x 32. Else a thread makes 8 x 4.
    float acc[8][4];
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) acc[i][j] = 0.0f;
    const int g = lane >> 2, t = lane & 3, m0 = (warp & 1) * 32, n0 = (warp >> 1) * 32;
    const int tx = tid & 15, ty = tid >> 4;
    // The four columns that a lane takes: without conflicts of banks, and so that results of neighbouring lanes adjoin.
    const int own = 4 * ((g >> 1) + 4 * (g & 1));
    const bool needed = o0 + m0 < d.o && c0 + n0 < d.c;  // else the warp's part does not exist
    auto multiply_piece = [&](const u32* from) {
        if (TENSOR) {
            if (!needed) return;
#pragma unroll
            for (int step = 0; step < WORDS; step += 8) {
                float a0[4], a1[4], b0[4], b1[4];
                const u32 at_a = shared_address(from + (step + t) * PITCH + m0 + own);
                const u32 at_b = shared_address(from + (WORDS + step + t) * PITCH + n0 + own);
                load_shared(at_a, a0);
                load_shared(at_a + 4 * PITCH * 4, a1);
                load_shared(at_b, b0);
                load_shared(at_b + 4 * PITCH * 4, b1);
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const u32 factor[4] = {__float_as_uint(a0[2 * i]), __float_as_uint(a0[2 * i + 1]),
                                           __float_as_uint(a1[2 * i]), __float_as_uint(a1[2 * i + 1])};
#pragma unroll
                    for (int j = 0; j < 4; ++j)
                        multiply(acc[i * 4 + j], factor, __float_as_uint(b0[j]), __float_as_uint(b1[j]), T());
                }
            }
        } else {
#pragma unroll
            for (int k = 0; k < WORDS; ++k) {
                float p[8], q[4];
                const u32 at_p = shared_address(from + k * PITCH + 4 * ty);
                load_shared(at_p, p);
                load_shared(at_p + 32 * 4, p + 4);
                load_shared(shared_address(from + (WORDS + k) * PITCH + 4 * tx), q);
#pragma unroll
                for (int i = 0; i < 8; ++i)
#pragma unroll
                    for (int j = 0; j < 4; ++j) acc[i][j] = fmaf(p[i], q[j], acc[i][j]);
            }
        }
    };

    load(first);
    // The constants are there.
    __syncthreads();
    arrive(first, words);
    int buffer = 0;
#pragma unroll 1
    for (int from = first; from < last; from += PIECE) {
        // This piece has arrived, and all have left the one before.
        __syncthreads();
        const bool more = from + PIECE < last;
        if (more) load(from + PIECE);
        multiply_piece(words + buffer * 2 * WORDS * PITCH);
        buffer ^= 1;
        if (more) arrive(from + PIECE, words + buffer * 2 * WORDS * PITCH);
    }

    float* out = a.dw + (long long)blockIdx.z * d.o * d.c;
    auto give = [&](int o, int c, float x, float y, float z, float w) {
        if (o0 + o >= d.o) return;
        float* to = out + (long long)(o0 + o) * d.c + c0 + c;
        const float v[4] = {x, y, z, w};
        if (VECTORS) {
            if (c0 + c < d.c) *(float4*)to = make_float4(x, y, z, w);
        } else {
#pragma unroll
            for (int e = 0; e < 4; ++e)
                if (c0 + c + e < d.c) to[e] = v[e];
        }
    };
    if (TENSOR) {
        // Four columns of result 2 t, four of result 2 t + 1; rows as columns of the first factor.
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
            for (int e = 0; e < 4; ++e)
                give(m0 + own + 2 * i + e / 2, n0 + 4 * t + 16 * (e & 1), acc[4 * i][e], acc[4 * i + 1][e],
                     acc[4 * i + 2][e], acc[4 * i + 3][e]);
    } else {
#pragma unroll
        for (int i = 0; i < 8; ++i)
            give((i & 4) * 8 + 4 * ty + (i & 3), 4 * tx, acc[i][0], acc[i][1], acc[i][2], acc[i][3]);
    }
}

// `scalar` variants serve channels that fill no vector of 16 bytes.
#define KERNEL(NAME, T, BLOCKS, ...)                                                                                   \
    extern "C" __global__ void __launch_bounds__(128, BLOCKS) pointwise_conv2d_bwd_w_##NAME(                           \
        const T* d, const T* h, const float* scale, const float* shift, const float* pqr, const T* x,                  \
        const float* scale_x, const float* shift_x, const float* gate, float* dw, FilterGradient dims) {               \
        gradient<T, __VA_ARGS__>({d, h, scale, shift, pqr, x, scale_x, shift_x, gate, dw}, dims);                      \
    }
#define EACH_TYPE(ACT_NAME, ACT)                                   \
    KERNEL(f32_##ACT_NAME, float, 4, ACT, true, false)             \
    KERNEL(f32_##ACT_NAME##_scalar, float, 3, ACT, false, false)   \
    KERNEL(tf32_##ACT_NAME, float, 4, ACT, true, true)             \
    KERNEL(tf32_##ACT_NAME##_scalar, float, 3, ACT, false, true)   \
    KERNEL(bf16_##ACT_NAME, bf16, 4, ACT, true, true)              \
    KERNEL(bf16_##ACT_NAME##_scalar, bf16, 3, ACT, false, true)
EACH_TYPE(clamp, CLAMP)
EACH_TYPE(hswish, HSWISH)
EACH_TYPE(swish, SWISH)
