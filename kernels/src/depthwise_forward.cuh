// Depthwise convolution, forward: y = conv(act(x * scale + shift), w), with the statistics of y.
//
// x [n, h, w, c], w [k, k, c], y [n, oh, ow, c] with oh = ceil(h / s), zero padding k / 2 of the *activated* tensor.
// Per block and channel the epilogue writes (mean, sum of squared deviations) of the values as stored, beside their
// count, to be merged in block order by batch_norm_finalise.
//
// A block makes a strip of `cols` columns and `rows` rows of 32 channels for `images` images one after another. Input
// rows live in shared memory as f32, activated once when they are loaded, zeros outside the plane: a ring of NG groups
// of R * S rows. Each turn loads one group and makes R output rows, so no row is loaded twice. A warp owns W output
// columns, a lane one channel of them: R x W sums in registers, every tap of an input row from W * S + K - S shared
// loads with constant offsets.
#pragma once
#include "common.cuh"

struct Depthwise {
    int n, h, w, c, oh, ow;
    // Of a block: output columns (a multiple of W), output rows, images.
    int cols, rows, images;
    int col_strips, row_strips;
    // ceil(2^32 / staged columns), for divisions by them.
    u32 magic;
    // Rows of c elements are multiples of 16 bytes.
    int aligned;
    // Bounds of Act CLAMP.
    float lo, hi;
};

template <int K, int S, class T, int ACT>
static __device__ __forceinline__ void forward(const T* __restrict__ x, const float* __restrict__ scale,
                                               const float* __restrict__ shift, const float* __restrict__ w,
                                               T* __restrict__ y, float2* __restrict__ moments,
                                               float* __restrict__ counts, const Depthwise& d) {
    constexpr int R = 2, W = S == 1 ? 7 : 4;
    constexpr int G = R * S;                           // input rows of a group
    constexpr int NG = ((R - 1) * S + K + G - 1) / G;  // groups that R output rows need
    constexpr int V = Vec<T>::N, L = 32 / V;           // channels a lane stages; lanes for 32 channels
    constexpr int PLACES = R * W;
    extern __shared__ __align__(16) float shared[];

    const int tid = threadIdx.x, threads = blockDim.x, lane = tid & 31, warp = tid >> 5;
    const int c0 = blockIdx.x * 32, channel = c0 + lane;
    const int col_strip = blockIdx.y % d.col_strips, row_strip = blockIdx.y / d.col_strips;
    const int columns = (d.cols - 1) * S + K;
    const int group = columns * G * 32;
    T* out = (T*)(shared + NG * group) + warp * PLACES * 32;

    // The staging lane's channels and their affine map, constant over the block.
    const int q = tid % L, sc = c0 + q * V;
    float a[V], b[V];
#pragma unroll
    for (int j = 0; j < V; ++j) {
        bool known = sc + j < d.c && scale != nullptr;
        a[j] = known ? scale[sc + j] : 1.0f;
        b[j] = known ? shift[sc + j] : 0.0f;
    }
    float wt[K * K];
#pragma unroll
    for (int i = 0; i < K * K; ++i) wt[i] = channel < d.c ? w[i * d.c + channel] : 0.0f;

    // The word of a channel in its 32: bf16 is staged by eights, and the halves of odd columns change places so that
    // 16-byte stores of two neighbouring columns fall on different banks.
    const int word = V == 8 ? (lane >> 2 & 1) << 4 | lane >> 3 << 2 | (lane & 3) : lane;
    const int x0 = warp * W;
    const int flip = V == 8 ? (x0 * S & 1) << 4 : 0;
    const int even = x0 * S * G * 32 + (word ^ flip), odd = V == 8 ? even ^ 16 : even;

    const int ox0 = col_strip * d.cols, oy0 = row_strip * d.rows;
    const int rows = min(d.rows, d.oh - oy0);
    const int valid_cols = min(max(d.ow - ox0 - x0, 0), W);
    const int ix0 = ox0 * S - K / 2, iy0 = oy0 * S - K / 2;
    const int first = blockIdx.z * d.images, last = min(first + d.images, d.n);

    // What the lane stores of the warp's outputs, constant over the block: the row it belongs to (none if the column or
    // the channel does not exist) and the offset from the warp's first output.
    constexpr int STORES = (PLACES * L + 31) / 32;
    int store_row[STORES], store_at[STORES];
#pragma unroll
    for (int i = 0; i < STORES; ++i) {
        const int j = i * 32 + lane, place = j / L, part = j % L * V, r = place / W, col = place % W;
        const bool exists = j < PLACES * L && col < valid_cols && c0 + part < d.c;
        store_row[i] = exists ? r : R;
        store_at[i] = (r * d.ow + col) * d.c + part;
    }

    float pivot = 0.0f, sum = 0.0f, squares = 0.0f;
    bool started = false;
    // What the lane stages of a group: the row (none of any plane if the column or the channels do not exist: zeros), the
    // offset from the group's first row, the byte in the slot (negative: nothing to do). Constant over the block.
    constexpr int ITEMS = (G * ((W - 1) * S + K) * L + 31) / 32;  // of a strip of one warp; wider ones have fewer
    int item_row[ITEMS], item_at[ITEMS], item_to[ITEMS];
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        const int p = (i * threads + tid) / L, row = __umulhi(p, d.magic), col = p - row * columns, ix = ix0 + col;
        item_row[i] = (u32)ix < (u32)d.w && sc < d.c && row < G ? row : 1 << 28;
        item_at[i] = (row * d.w + ix) * d.c;
        item_to[i] = row < G ? (col * G + row) * 128 + q * 16 + (V == 8 ? (col & 1) << 6 : 0) : -1;
    }
    const u32 ring = shared_address(shared);

    for (int image = first; image < last; ++image) {
        const T* from = x + (long long)image * d.h * d.w * d.c + c0;
        auto stage = [&](int index, int slot) {
            const int y0 = iy0 + index * G;
            const T* row0 = from + (long long)y0 * d.w * d.c;
            if (!d.aligned) {
                // A channel per lane: slow, but only for channels that fill no vector.
#pragma unroll 1
                for (int p = warp; p < G * columns; p += threads / 32) {
                    const int row = __umulhi(p, d.magic), col = p - row * columns, ix = ix0 + col;
                    float v = 0.0f;
                    if ((u32)(y0 + row) < (u32)d.h && (u32)ix < (u32)d.w && channel < d.c) {
                        v = load1(row0 + (row * d.w + ix) * d.c + lane);
                        v = activate<ACT>(scale ? fmaf(v, scale[channel], shift[channel]) : v, d.lo, d.hi);
                    }
                    shared[slot + (col * G + row) * 32 + (V == 8 ? word ^ (col & 1) << 4 : word)] = v;
                }
                return;
            }
            row0 += sc - c0;
            constexpr int BATCH = 4;
#pragma unroll
            for (int first = 0; first < ITEMS; first += BATCH) {
                uint4 raw[BATCH];
                bool inside[BATCH];
                // The loads of a batch are under way together.
#pragma unroll
                for (int j = 0; j < BATCH && first + j < ITEMS; ++j) {
                    inside[j] = (u32)(y0 + item_row[first + j]) < (u32)d.h;
                    if (inside[j]) raw[j] = load16(row0 + item_at[first + j]);
                }
#pragma unroll
                for (int j = 0; j < BATCH && first + j < ITEMS; ++j) {
                    if (item_to[first + j] < 0) break;
                    float v[V];
                    if (inside[j]) {
                        Vec<T>::unpack(raw[j], v);
#pragma unroll
                        for (int e = 0; e < V; ++e) v[e] = activate<ACT>(fmaf(v[e], a[e], b[e]), d.lo, d.hi);
                    } else {
#pragma unroll
                        for (int e = 0; e < V; ++e) v[e] = 0.0f;
                    }
                    const u32 to = ring + slot * 4 + item_to[first + j];
                    store_shared(to, v[0], v[1], v[2], v[3]);
                    if (V == 8) store_shared(to ^ 64, v[V - 4], v[V - 3], v[V - 2], v[V - 1]);
                }
            }
        };
        // Slots of the ring in the order of the rows that they hold.
        int slot[NG];
#pragma unroll
        for (int g = 0; g < NG; ++g) slot[g] = g * group;

        // The first turns only load.
#pragma unroll 1
        for (int tile = 1 - NG; tile * R < rows; ++tile) {
            stage(tile + NG - 1, slot[NG - 1]);
            const int oldest = slot[0];
            if (tile < 0) {
#pragma unroll
                for (int g = 0; g + 1 < NG; ++g) slot[g] = slot[g + 1];
                slot[NG - 1] = oldest;
                continue;
            }
            // All rows are there.
            __syncthreads();
            float acc[PLACES];
#pragma unroll
            for (int i = 0; i < PLACES; ++i) acc[i] = 0.0f;
#pragma unroll
            for (int r = 0; r < (R - 1) * S + K; ++r) {
                const float* row = shared + slot[r / G] + r % G * 32;
                float in[(W - 1) * S + K];
#pragma unroll
                for (int j = 0; j < (W - 1) * S + K; ++j) in[j] = row[(j & 1 ? odd : even) + j * G * 32];
#pragma unroll
                for (int o = 0; o < R; ++o) {
                    const int ky = r - o * S;
                    if (ky < 0 || ky >= K) continue;
#pragma unroll
                    for (int kx = 0; kx < K; ++kx)
#pragma unroll
                        for (int i = 0; i < W; ++i)
                            acc[o * W + i] = fmaf(in[i * S + kx], wt[ky * K + kx], acc[o * W + i]);
                }
            }
            // Round first: the statistics are those of what the next pass will read.
            const int valid_rows = min(rows - tile * R, R);
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
            if (!started) {
                // Any value near the mean will do; the lane's first is known without a pass over the data.
                pivot = acc[0];
                started = true;
            }
            auto count = [&](float value) {
                const float v = value - pivot;
                sum += v;
                squares = fmaf(v, v, squares);
            };
            if (valid_rows == R && valid_cols == W) {
#pragma unroll
                for (int i = 0; i < PLACES; ++i) count(acc[i]);
            } else {
#pragma unroll
                for (int i = 0; i < PLACES; ++i)
                    if (i / W < valid_rows && i % W < valid_cols) count(acc[i]);
            }
            // The warp's lanes exchange channels for 16-byte stores.
            __syncwarp();
            T* base = y + (((long long)image * d.oh + oy0 + tile * R) * d.ow + ox0 + x0) * d.c + c0;
            if (d.aligned) {
#pragma unroll
                for (int i = 0; i < STORES; ++i)
                    if (store_row[i] < valid_rows)
                        *(uint4*)(base + store_at[i]) = *(const uint4*)(out + (i * 32 + lane) * V);
            } else {
#pragma unroll 1
                for (int i = 0; i < PLACES; ++i)
                    if (i / W < valid_rows && i % W < valid_cols && channel < d.c)
                        base[(i / W * d.ow + i % W) * d.c + lane] = out[i * 32 + lane];
            }
            // The oldest group may be overwritten now.
#pragma unroll
            for (int g = 0; g + 1 < NG; ++g) slot[g] = slot[g + 1];
            slot[NG - 1] = oldest;
            __syncthreads();
        }
    }

    // Warps in ascending order; their counts differ at the right edge only.
    const float n = (float)(valid_cols * rows * (last - first));
    float* part = shared + warp * 96 + lane;
    part[0] = n;
    part[32] = n > 0.0f ? pivot + sum / n : 0.0f;
    part[64] = n > 0.0f ? fmaxf(squares - sum * sum / n, 0.0f) : 0.0f;
    __syncthreads();
    if (warp == 0) {
        Moments m = {0.0f, 0.0f, 0.0f};
        for (int i = 0; i < threads / 32; ++i, part += 96) m.merge(part[0], part[32], part[64]);
        const int partial = blockIdx.z * gridDim.y + blockIdx.y;
        if (channel < d.c) moments[(long long)partial * d.c + channel] = make_float2(m.mean, m.m2);
        if (blockIdx.x == 0 && lane == 0) counts[partial] = m.n;
    }
}

#define FORWARD(K, S, NAME, T, ACT_NAME, ACT) \
    extern "C" __global__ void __launch_bounds__(K == 7 ? 192 : S == 1 ? 256 : 224, 2) depthwise_conv2d_fwd_k##K##s##S##_##NAME##_##ACT_NAME( \
        const T* x, const float* scale, const float* shift, const float* w, T* y, float2* moments, float* counts, \
        Depthwise d) {                                                                                            \
        forward<K, S, T, ACT>(x, scale, shift, w, y, moments, counts, d);                                         \
    }
#define EACH_ACT(K, S, NAME, T)                \
    FORWARD(K, S, NAME, T, clamp, CLAMP)       \
    FORWARD(K, S, NAME, T, hswish, HSWISH)     \
    FORWARD(K, S, NAME, T, swish, SWISH)
#define EACH_TYPE(K, S)          \
    EACH_ACT(K, S, f32, float)   \
    EACH_ACT(K, S, bf16, bf16)
