// Depthwise convolution, backward: gradients of input and filter in one pass, with batch norm and activation on both
// sides.
//
// With u2 = h2 * scale2 + shift2 of the convolution's own output h2, the gradient that arrives is formed on load:
//   dh2 = p * (da2 * gate + extra) * act'(u2) + q * h2 + r      per channel p, q, r: batch norm's backward, linear in both
// and with a1 = act(u1), u1 = h1 * scale1 + shift1, of the convolution's input
//   da1[i] = sum over taps of w[t] dh2[o],  dw[t] = sum over i of a1[i] dh2[o]    for all o with i = o * s + t - k / 2
// Both products read the same window of dh2, so only dh2 is staged with its edges, h1 is read once. What is stored is
// du1 = da1 * act'(u1): the next passes need a linear map only. The sums of du1 and of du1 * (h1 - mean1) per channel
// are those of the stored values.
//
// A block makes a strip as the forward pass does: R input rows and W columns per lane and turn, dh2 in a ring of f32
// rows. At stride 2 each of the four parities of an input has its own taps, known to the compiler. Gradients of filters
// stay in registers over all turns and images; warps are added in ascending order, blocks by sum_partials.
#pragma once
#include "common.cuh"

struct DepthwiseBackward {
    int n, h, w, c, oh, ow;
    // Of a block: input columns (a multiple of W), input rows, images.
    int cols, rows, images;
    int col_strips, row_strips;
    // ceil(2^32 / staged columns).
    u32 magic;
    int aligned;
    float lo, hi;
};

// Four elements.
static __device__ __forceinline__ float4 load4(const float* p) { return __ldg((const float4*)p); }
static __device__ __forceinline__ float4 load4(const bf16* p) {
    const uint2 t = __ldg((const uint2*)p);
    return make_float4(low(t.x), high(t.x), low(t.y), high(t.y));
}

template <int K, int S, class T, int ACT>
static __device__ __forceinline__ void backward(
    const T* __restrict__ da2, const T* __restrict__ h2, const float* __restrict__ scale2,
    const float* __restrict__ shift2, const float* __restrict__ pqr, const float2* __restrict__ gate,
    const T* __restrict__ h1, const float* __restrict__ scale1, const float* __restrict__ shift1,
    const float* __restrict__ mean1, const float* __restrict__ w, T* __restrict__ du1, float* __restrict__ dw,
    float2* __restrict__ sums, const DepthwiseBackward& d) {
    constexpr int P = K / 2, R = 2, W = S == 1 ? 7 : 8;
    constexpr int G = R / S;                         // rows of dh2 that a turn adds
    constexpr int LO = -(P / S);                     // first row and column of a window, from the tile's own
    constexpr int NR = S == 1 ? R + 2 * P : P + 1;   // rows of a window
    constexpr int NC = S == 1 ? W + 2 * P : W / 2 + P;
    constexpr int NG = (NR + G - 1) / G;
    constexpr int L = 8;                             // lanes that stage 32 channels, four each
    constexpr int V = Vec<T>::N, VL = 32 / V;        // the same for the stores of 16 bytes
    constexpr int PLACES = R * W;
    constexpr bool HELD = K == 3 && S == 1;          // a staging lane holds its constants in registers
    extern __shared__ __align__(16) float shared[];

    const int tid = threadIdx.x, threads = blockDim.x, lane = tid & 31, warp = tid >> 5;
    const int c0 = blockIdx.x * 32, channel = c0 + lane;
    const int col_strip = blockIdx.y % d.col_strips, row_strip = blockIdx.y / d.col_strips;
    const int columns = d.cols / S + NC - W / S;
    const int group = columns * G * 32;
    float* filter = shared + NG * group;  // [k * k][32], for k = 7 only
    float* constants = filter + (K == 7 ? K * K * 32 : 0);  // [7][32], where registers do not suffice
    T* out = (T*)(constants + (HELD ? 0 : 7 * 32)) + warp * PLACES * 32;
    const bool mine = channel < d.c;

    // Constants of the staging lane's four channels: scale, shift, p, q, r, gate, extra. Those of a channel that does not
    // exist are zero, as is then dh2. Where registers suffice, a lane holds them.
    const int q = tid % L, sc = c0 + 4 * q;
    float held[HELD ? 7 : 1][4];
    auto constant = [&](int which, int c) {
        if (c >= d.c) return 0.0f;
        return which == 0 ? scale2[c] : which == 1 ? shift2[c] : pqr[(which - 2) * d.c + c];
    };
    if (HELD) {
#pragma unroll
        for (int i = 0; i < 5; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j) held[HELD ? i : 0][j] = constant(i, sc + j);
    } else {
        for (int i = warp; i < 5; i += threads / 32) constants[i * 32 + lane] = constant(i, channel);
    }
    const bool affine = scale1 != nullptr;
    const float s1 = affine && mine ? scale1[channel] : 1.0f, b1 = affine && mine ? shift1[channel] : 0.0f;
    const float m1 = mean1 != nullptr && mine ? mean1[channel] : 0.0f;
    float wt[K == 7 ? 1 : K * K], g[K * K];
#pragma unroll
    for (int i = 0; i < K * K; ++i) {
        g[i] = 0.0f;
        if (K != 7) wt[K == 7 ? 0 : i] = mine ? w[i * d.c + channel] : 0.0f;
    }
    if (K == 7)
        for (int i = warp; i < K * K; i += threads / 32) filter[i * 32 + lane] = mine ? w[i * d.c + channel] : 0.0f;

    const int x0 = warp * W;
    const int ix0 = col_strip * d.cols + x0, iy0 = row_strip * d.rows;
    const int rows = min(d.rows, d.h - iy0);
    const int valid_cols = min(max(d.w - ix0, 0), W);
    const int ox0 = col_strip * d.cols / S + LO, oy0 = iy0 / S + LO;
    const int first = blockIdx.z * d.images, last = min(first + d.images, d.n);
    const float* window = shared + x0 / S * G * 32 + lane;

    constexpr int STORES = (PLACES * VL + 31) / 32;
    int store_row[STORES], store_at[STORES];
#pragma unroll
    for (int i = 0; i < STORES; ++i) {
        const int j = i * 32 + lane, place = j / VL, part = j % VL * V, r = place / W, col = place % W;
        const bool exists = j < PLACES * VL && col < valid_cols && c0 + part < d.c;
        store_row[i] = exists ? r : R;
        store_at[i] = (r * d.w + col) * d.c + part;
    }
    const u32 ring = shared_address(shared);
    const int items = G * columns * L;
    float sum = 0.0f, product = 0.0f;

    for (int image = first; image < last; ++image) {
        // The gate of squeeze-excite and what its pooling adds, per image and channel.
        auto gates = [&](int c) {
            return gate != nullptr && c < d.c ? gate[image * d.c + c] : make_float2(1.0f, 0.0f);
        };
        if (HELD) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const float2 v = gates(sc + j);
                held[HELD ? 5 : 0][j] = v.x, held[HELD ? 6 : 0][j] = v.y;
            }
        } else {
            // Everyone is past the previous image: its last turn ended with a barrier.
            if (warp == 0) {
                const float2 v = gates(channel);
                constants[5 * 32 + lane] = v.x, constants[6 * 32 + lane] = v.y;
            }
            __syncthreads();
        }
        auto four = [&](int which) {
            if (!HELD) return *(const float4*)(constants + which * 32 + 4 * q);
            const float* v = held[HELD ? which : 0];
            return make_float4(v[0], v[1], v[2], v[3]);
        };
        const long long plane = (long long)image * d.oh * d.ow * d.c + c0;
        auto form = [&](float da, float h, float s, float b, float p, float q, float r, float g, float e) {
            const float u = fmaf(h, s, b);
            return fmaf(fmaf(da, g, e) * slope<ACT>(u, d.lo, d.hi), p, fmaf(h, q, r));
        };
        auto stage = [&](int index, int slot) {
            const int y0 = oy0 + index * G;
            const long long row0 = plane + (long long)y0 * d.ow * d.c;
            if (!d.aligned) {
                // A channel per lane: slow, but only for channels that fill no vector.
#pragma unroll 1
                for (int p = warp; p < G * columns; p += threads / 32) {
                    const int row = __umulhi(p, d.magic), col = p - row * columns, ox = ox0 + col;
                    float v = 0.0f;
                    if ((u32)(y0 + row) < (u32)d.oh && (u32)ox < (u32)d.ow && mine) {
                        const long long at = row0 + (row * d.ow + ox) * d.c + lane;
                        const float2 e = gates(channel);
                        v = form(load1(da2 + at), load1(h2 + at), scale2[channel], shift2[channel], pqr[channel],
                                 pqr[d.c + channel], pqr[2 * d.c + channel], e.x, e.y);
                    }
                    shared[slot + (col * G + row) * 32 + lane] = v;
                }
                return;
            }
            // Not unrolled: offsets kept over the block would take the registers that the filter's gradient needs.
#pragma unroll 1
            for (int i = tid; i < items; i += threads) {
                const int at = i / L, row = __umulhi(at, d.magic), col = at - row * columns, ox = ox0 + col;
                float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                if ((u32)(y0 + row) < (u32)d.oh && (u32)ox < (u32)d.ow && sc < d.c) {
                    const int from = (row * d.ow + ox) * d.c + 4 * q;
                    const float4 a = load4(da2 + row0 + from), h = load4(h2 + row0 + from);
                    const float4 s = four(0), b = four(1), p = four(2), q4 = four(3), r = four(4), g4 = four(5), e = four(6);
                    v.x = form(a.x, h.x, s.x, b.x, p.x, q4.x, r.x, g4.x, e.x);
                    v.y = form(a.y, h.y, s.y, b.y, p.y, q4.y, r.y, g4.y, e.y);
                    v.z = form(a.z, h.z, s.z, b.z, p.z, q4.z, r.z, g4.z, e.z);
                    v.w = form(a.w, h.w, s.w, b.w, p.w, q4.w, r.w, g4.w, e.w);
                }
                store_shared(ring + (slot + (col * G + row) * 32 + 4 * q) * 4, v.x, v.y, v.z, v.w);
            }
        };
        int slot[NG];
#pragma unroll
        for (int i = 0; i < NG; ++i) slot[i] = i * group;

        // The first turns only load.
#pragma unroll 1
        for (int tile = 1 - NG; tile * R < rows; ++tile) {
            stage(tile + NG - 1, slot[NG - 1]);
            const int oldest = slot[0];
            if (tile < 0) {
#pragma unroll
                for (int i = 0; i + 1 < NG; ++i) slot[i] = slot[i + 1];
                slot[NG - 1] = oldest;
                continue;
            }
            // The warp's own inputs, a channel per lane: 64 or 128 bytes beside each other.
            const int valid_rows = min(rows - tile * R, R);
            const bool full = valid_rows == R && valid_cols == W;
            const long long tile0 = (((long long)image * d.h + iy0 + tile * R) * d.w + ix0) * d.c + c0;
            float h[PLACES], a1[PLACES], acc[PLACES];
            if (full && mine) {
#pragma unroll
                for (int i = 0; i < PLACES; ++i) h[i] = load1(h1 + tile0 + (i / W * d.w + i % W) * d.c + lane);
            } else {
#pragma unroll
                for (int i = 0; i < PLACES; ++i) {
                    const bool exists = i / W < valid_rows && i % W < valid_cols && mine;
                    h[i] = exists ? load1(h1 + tile0 + (i / W * d.w + i % W) * d.c + lane) : 0.0f;
                }
            }
#pragma unroll
            for (int i = 0; i < PLACES; ++i) {
                acc[i] = 0.0f;
                a1[i] = affine ? activate<ACT>(fmaf(h[i], s1, b1), d.lo, d.hi) : h[i];
                // An input that does not exist must not reach the filter: act(shift) is not 0.
                if (!full && (i / W >= valid_rows || i % W >= valid_cols)) a1[i] = 0.0f;
            }
            // All rows are there.
            __syncthreads();
#pragma unroll
            for (int j = 0; j < NR; ++j) {
                const float* row = window + slot[j / G] + j % G * 32;
                float in[NC];
#pragma unroll
                for (int i = 0; i < NC; ++i) in[i] = row[i * G * 32];
#pragma unroll
                for (int a = 0; a < R; ++a) {
                    const int ky = a + P - S * (LO + j);
                    if (ky < 0 || ky >= K) continue;
#pragma unroll
                    for (int kx = 0; kx < K; ++kx) {
                        const float weight = K == 7 ? filter[(ky * K + kx) * 32 + lane] : wt[K == 7 ? 0 : ky * K + kx];
#pragma unroll
                        for (int b = 0; b < W; ++b) {
                            if ((b + P - kx) % S != 0) continue;
                            const int i = (b + P - kx) / S - LO;
                            if (i < 0 || i >= NC) continue;
                            acc[a * W + b] = fmaf(in[i], weight, acc[a * W + b]);
                            g[ky * K + kx] = fmaf(in[i], a1[a * W + b], g[ky * K + kx]);
                        }
                    }
                }
                // Else all 49 weights are loaded at once and registers run out.
                if (K == 7) asm volatile("" ::: "memory");
            }
#pragma unroll
            for (int i = 0; i < PLACES; ++i)
                if (affine) acc[i] *= slope<ACT>(fmaf(h[i], s1, b1), d.lo, d.hi);
            if (sizeof(T) == 2) {
#pragma unroll
                for (int i = 0; i < PLACES; i += 2) {
                    const u32 two = pack(acc[i], acc[i + 1]);
                    ((u16*)out)[i * 32 + lane] = (u16)two;
                    ((u16*)out)[i * 32 + 32 + lane] = (u16)(two >> 16);
                    acc[i] = low(two), acc[i + 1] = high(two);
                }
            } else {
#pragma unroll
                for (int i = 0; i < PLACES; ++i) ((float*)out)[i * 32 + lane] = acc[i];
            }
            if (full) {
#pragma unroll
                for (int i = 0; i < PLACES; ++i) sum += acc[i], product = fmaf(acc[i], h[i] - m1, product);
            } else {
#pragma unroll
                for (int i = 0; i < PLACES; ++i)
                    if (i / W < valid_rows && i % W < valid_cols)
                        sum += acc[i], product = fmaf(acc[i], h[i] - m1, product);
            }
            __syncwarp();
            if (d.aligned) {
#pragma unroll
                for (int i = 0; i < STORES; ++i)
                    if (store_row[i] < valid_rows)
                        *(uint4*)(du1 + tile0 + store_at[i]) = *(const uint4*)(out + (i * 32 + lane) * V);
            } else {
#pragma unroll 1
                for (int i = 0; i < PLACES; ++i)
                    if (i / W < valid_rows && i % W < valid_cols && mine)
                        du1[tile0 + (i / W * d.w + i % W) * d.c + lane] = out[i * 32 + lane];
            }
            // The oldest group may be overwritten now.
#pragma unroll
            for (int i = 0; i + 1 < NG; ++i) slot[i] = slot[i + 1];
            slot[NG - 1] = oldest;
            __syncthreads();
        }
    }

    // Warps in ascending order, by as many taps at once as fit beside each other.
    const int warps = threads / 32, partial = blockIdx.z * gridDim.y + blockIdx.y;
    constexpr int ROWS = K * K + 2;
#pragma unroll
    for (int i = 0; i < K * K; ++i) shared[(i * warps + warp) * 32 + lane] = g[i];
    shared[(K * K * warps + warp) * 32 + lane] = sum;
    shared[((K * K + 1) * warps + warp) * 32 + lane] = product;
    __syncthreads();
    for (int i = warp; i < ROWS; i += warps) {
        float total = 0.0f;
        for (int j = 0; j < warps; ++j) total += shared[(i * warps + j) * 32 + lane];
        if (!mine) continue;
        if (i < K * K)
            dw[((long long)partial * K * K + i) * d.c + channel] = total;
        else
            ((float*)sums)[((long long)partial * d.c + channel) * 2 + i - K * K] = total;
    }
}

#define BACKWARD(K, S, NAME, T, ACT_NAME, ACT)                                                                         \
    extern "C" __global__ void __launch_bounds__(192, 2) \
        depthwise_conv2d_bwd_k##K##s##S##_##NAME##_##ACT_NAME(                                                         \
            const T* da2, const T* h2, const float* scale2, const float* shift2, const float* pqr, const float2* gate, \
            const T* h1, const float* scale1, const float* shift1, const float* mean1, const float* w, T* du1,         \
            float* dw, float2* sums, DepthwiseBackward d) {                                                            \
        backward<K, S, T, ACT>(da2, h2, scale2, shift2, pqr, gate, h1, scale1, shift1, mean1, w, du1, dw, sums, d);    \
    }
#define EACH_ACT(K, S, NAME, T)             \
    BACKWARD(K, S, NAME, T, clamp, CLAMP)   \
    BACKWARD(K, S, NAME, T, hswish, HSWISH) \
    BACKWARD(K, S, NAME, T, swish, SWISH)
#define EACH_TYPE(K, S)        \
    EACH_ACT(K, S, f32, float) \
    EACH_ACT(K, S, bf16, bf16)
