// Squeeze-excite: means of planes, gates made of them by two small layers, and the backward pass of all of it from the
// sums that the project pass took.
//
//   mean[i][c] = mean over the plane of act(h * scale + shift)
//   hidden = relu(mean w1^T + b1),  gate = sigma(hidden w2^T + b2)     w1 [r, c], w2 [c, r], sigma hard or not
//
// The small layers read their weights once for eight images, which a block takes together: numbers of eight images lie
// beside each other.
#include "elementwise.cuh"

struct Squeeze {
    int plane, c;
    // Vectors of V channels that a block covers side by side, and the rows that it covers at once.
    int across, down;
    float lo, hi;
};

// Channels and rows as in finish.cu; a block takes a whole plane.
template <class T, int ACT, int V>
static __device__ __forceinline__ void squeeze(const T* __restrict__ h, const float* __restrict__ scale,
                                               const float* __restrict__ shift, float* __restrict__ means,
                                               const Squeeze& d) {
    extern __shared__ __align__(16) float rows[];  // [V][pitch]
    const int tid = threadIdx.x, at = tid % d.across, c = (blockIdx.x * d.across + at) * V;
    float sum[V];
#pragma unroll
    for (int i = 0; i < V; ++i) sum[i] = 0.0f;
    if (c < d.c) {
        float s[V], b[V];
        constants(scale + c, s);
        constants(shift + c, b);
        const int first = tid / d.across;
        const T* from = h + ((long long)blockIdx.y * d.plane + first) * d.c + c;
#pragma unroll 2
        for (int row = first; row < d.plane; row += d.down, from += (long long)d.down * d.c) {
            const Pack<V> a = load<V>(from);
#pragma unroll
            for (int i = 0; i < V; ++i) sum[i] += activate<ACT>(fmaf(a.v[i], s[i], b[i]), d.lo, d.hi);
        }
    }
    // A pitch with which V channels of neighbouring vectors lie in different banks.
    const int pitch = ((blockDim.x + 31) & ~31) + 32 / V;
#pragma unroll
    for (int i = 0; i < V; ++i) rows[i * pitch + tid] = sum[i];
    __syncthreads();
    const int channel = blockIdx.x * d.across * V + tid;
    if (tid >= d.across * V || channel >= d.c) return;
    // Rows in ascending order.
    float total = 0.0f;
    for (int row = 0; row < d.down; ++row) total += rows[tid % V * pitch + row * d.across + tid / V];
    means[(long long)blockIdx.y * d.c + channel] = total / (float)d.plane;
}

#define SQUEEZE(NAME, T, ACT, V)                                                                                      \
    extern "C" __global__ void __launch_bounds__(256)                                                                 \
        squeeze_##NAME(const T* h, const float* scale, const float* shift, float* means, Squeeze d) {                 \
        squeeze<T, ACT, V>(h, scale, shift, means, d);                                                                \
    }
#define EACH_TYPE(ACT_NAME, ACT)                     \
    SQUEEZE(f32_##ACT_NAME, float, ACT, 4)           \
    SQUEEZE(f32_##ACT_NAME##_scalar, float, ACT, 1)  \
    SQUEEZE(bf16_##ACT_NAME, bf16, ACT, 8)           \
    SQUEEZE(bf16_##ACT_NAME##_scalar, bf16, ACT, 1)
EACH_TYPE(clamp, CLAMP)
EACH_TYPE(hswish, HSWISH)
EACH_TYPE(swish, SWISH)

struct Excite {
    // Images, channels, channels of the hidden layer; pixels of an image.
    int n, c, r, plane;
    // The gate is the hard sigmoid.
    int hard;
    // Rows of a tile of the project pass's sums, and how many sums there are: five, or the first alone.
    int tile, sums;
};

constexpr int IMAGES = 8, THREADS = 256, WARPS = THREADS / 32;

static __device__ __forceinline__ void load8(const float* p, float (&v)[IMAGES]) {
    load_shared(shared_address(p), v);
    load_shared(shared_address(p + 4), v + 4);
}

// A layer of all eight images: a warp makes one output at a time, lanes go along its inputs in shared memory, [inputs][8].
template <class Put>
static __device__ __forceinline__ void layer(const float* in, int inputs, const float* __restrict__ w,
                                             const float* __restrict__ bias, int outputs, Put put) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    for (int out = warp; out < outputs; out += WARPS) {
        float sum[IMAGES] = {};
        for (int i = lane; i < inputs; i += 32) {
            float v[IMAGES];
            load8(in + i * IMAGES, v);
            const float weight = __ldg(w + (long long)out * inputs + i);
#pragma unroll
            for (int image = 0; image < IMAGES; ++image) sum[image] = fmaf(weight, v[image], sum[image]);
        }
        const float b = __ldg(bias + out);
#pragma unroll
        for (int image = 0; image < IMAGES; ++image) {
            // Halves of lanes are added in the same order whoever is asked.
#pragma unroll
            for (int away = 16; away > 0; away >>= 1) sum[image] += __shfl_xor_sync(0xffffffffu, sum[image], away);
            if (lane == image) put(out, image, sum[image] + b);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256, 2)
    excite_fwd(const float* __restrict__ means, const float* __restrict__ w1, const float* __restrict__ b1,
               const float* __restrict__ w2, const float* __restrict__ b2, float* __restrict__ hidden,
               float* __restrict__ gates, Excite d) {
    extern __shared__ __align__(16) float shared[];
    float* in = shared;                   // [c][8]
    float* middle = shared + d.c * IMAGES;  // [r][8]
    const int first = blockIdx.x * IMAGES, images = min(IMAGES, d.n - first);
    for (int image = 0; image < IMAGES; ++image)
        for (int i = threadIdx.x; i < d.c; i += THREADS)
            in[i * IMAGES + image] = image < images ? means[(long long)(first + image) * d.c + i] : 0.0f;
    __syncthreads();
    layer(in, d.c, w1, b1, d.r, [&](int out, int image, float v) {
        v = v > 0.0f || v != v ? v : 0.0f;
        middle[out * IMAGES + image] = v;
        if (image < images) hidden[(long long)(first + image) * d.r + out] = v;
    });
    __syncthreads();
    layer(middle, d.r, w2, b2, d.c, [&](int out, int image, float v) {
        // The saturation gives 0 for NaN.
        if (v == v) v = d.hard ? __saturatef(fmaf(v, 1.0f / 6.0f, 0.5f)) : __fdividef(1.0f, 1.0f + __expf(-v));
        if (image < images) gates[(long long)(first + image) * d.c + out] = v;
    });
}

// Backward. `sums` [places, 5, c] are those of the project pass, of image i in tile j at i + j: of v * z, v * z',
// v * z' * x, z', z' * x with v the gradient of the gated activation z = act(u), x = h - mean.
//
//   dgate = sum of v * z;  the small layers;  extra = dmean / plane;  factors [n, c] of (gate, extra)
// so that the gradient of z is v * gate + extra, and batch norm's sums [blocks, c, 2] are linear in both. Gradients of
// parameters are those of the block's images: parts [blocks][w1, b1, w2, b2]. Where the first sum stands alone there is no
// batch norm, and only extra [n, c] is given.
extern "C" __global__ void __launch_bounds__(256, 2)
    excite_bwd(const float* __restrict__ sums, const float* __restrict__ means, const float* __restrict__ hidden,
               const float* __restrict__ gates, const float* __restrict__ w1, const float* __restrict__ w2,
               float2* __restrict__ factors, float2* __restrict__ norm, float* __restrict__ parts, Excite d) {
    extern __shared__ __align__(16) float shared[];
    float* dlogits = shared;                   // [c][8]
    float* before = dlogits + d.c * IMAGES;    // [r][8]: hidden
    float* dhidden = before + d.r * IMAGES;    // [r][8]
    float* halves = dhidden + d.r * IMAGES;    // [warps][8][32]
    const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5;
    const int first = blockIdx.x * IMAGES, images = min(IMAGES, d.n - first);
    float* dw1 = parts + (long long)blockIdx.x * (2LL * d.c * d.r + d.c + d.r);
    float* db1 = dw1 + (long long)d.c * d.r;
    float* dw2 = db1 + d.r;
    float* db2 = dw2 + (long long)d.c * d.r;
    // One of an image's sums, tiles in ascending order.
    auto sum_of = [&](int image, int which, int c) {
        const int begin = image * d.plane / d.tile, end = ((image + 1) * d.plane - 1) / d.tile;
        float all = 0.0f;
        for (int tile = begin; tile <= end; ++tile) all += __ldg(sums + ((long long)(tile + image) * d.sums + which) * d.c + c);
        return all;
    };

    for (int c = tid; c < d.c; c += THREADS) {
        float total = 0.0f;
#pragma unroll 1
        for (int i = 0; i < IMAGES; ++i) {
            float v = 0.0f;
            if (i < images) {
                const float gate = __ldg(gates + (long long)(first + i) * d.c + c);
                const float slope = d.hard ? (gate > 0.0f && gate < 1.0f ? 1.0f / 6.0f : 0.0f) : gate * (1.0f - gate);
                v = sum_of(first + i, 0, c) * slope;
            }
            dlogits[c * IMAGES + i] = v;
            total += v;
        }
        db2[c] = total;
    }
    for (int i = tid; i < d.r * IMAGES; i += THREADS) {
        const int image = i % IMAGES;
        before[i] = image < images ? __ldg(hidden + (long long)(first + image) * d.r + i / IMAGES) : 0.0f;
    }
    __syncthreads();

    // dhidden = dlogits w2: a lane per hidden channel, warps share the channels.
    for (int i0 = 0; i0 < d.r; i0 += 32) {
        float sum[IMAGES] = {};
        if (i0 + lane < d.r)
            for (int c = warp; c < d.c; c += WARPS) {
                float v[IMAGES];
                load8(dlogits + c * IMAGES, v);
                const float weight = __ldg(w2 + (long long)c * d.r + i0 + lane);
#pragma unroll
                for (int i = 0; i < IMAGES; ++i) sum[i] = fmaf(weight, v[i], sum[i]);
            }
#pragma unroll
        for (int i = 0; i < IMAGES; ++i) halves[(warp * IMAGES + i) * 32 + lane] = sum[i];
        __syncthreads();
        const int image = warp, at = i0 + lane;  // as many warps as images
        if (at < d.r) {
            float all = 0.0f;
#pragma unroll
            for (int w = 0; w < WARPS; ++w) all += halves[(w * IMAGES + image) * 32 + lane];
            dhidden[at * IMAGES + image] = before[at * IMAGES + image] > 0.0f ? all : 0.0f;
        }
        __syncthreads();
    }
    for (int i = tid; i < d.r; i += THREADS) {
        float v[IMAGES], total = 0.0f;
        load8(dhidden + i * IMAGES, v);
#pragma unroll
        for (int image = 0; image < IMAGES; ++image) total += v[image];
        db1[i] = total;
    }

    // dw2 = dlogits^T hidden: a warp per channel.
    for (int c = warp; c < d.c; c += WARPS) {
        float v[IMAGES];
        load8(dlogits + c * IMAGES, v);
        for (int i = lane; i < d.r; i += 32) {
            float w[IMAGES], total = 0.0f;
            load8(before + i * IMAGES, w);
#pragma unroll
            for (int image = 0; image < IMAGES; ++image) total = fmaf(v[image], w[image], total);
            dw2[(long long)c * d.r + i] = total;
        }
    }

    // dmeans = dhidden w1 and dw1 = dhidden^T means: a lane per channel.
    for (int c = tid; c < d.c; c += THREADS) {
        float dmean[IMAGES] = {}, mean[IMAGES];
#pragma unroll
        for (int i = 0; i < IMAGES; ++i) mean[i] = i < images ? __ldg(means + (long long)(first + i) * d.c + c) : 0.0f;
#pragma unroll 1
        for (int i = 0; i < d.r; ++i) {
            float v[IMAGES], total = 0.0f;
            load8(dhidden + i * IMAGES, v);
            const float weight = __ldg(w1 + (long long)i * d.c + c);
#pragma unroll
            for (int image = 0; image < IMAGES; ++image) {
                dmean[image] = fmaf(weight, v[image], dmean[image]);
                total = fmaf(v[image], mean[image], total);
            }
            dw1[(long long)i * d.c + c] = total;
        }
        float2 both = make_float2(0.0f, 0.0f);
#pragma unroll
        for (int i = 0; i < IMAGES; ++i) {
            if (i >= images) break;
            const long long at = (long long)(first + i) * d.c + c;
            const float gate = __ldg(gates + at), extra = dmean[i] / (float)d.plane;
            if (d.sums == 1) {
                ((float*)factors)[at] = extra;
                continue;
            }
            factors[at] = make_float2(gate, extra);
            both.x += fmaf(gate, sum_of(first + i, 1, c), extra * sum_of(first + i, 3, c));
            both.y += fmaf(gate, sum_of(first + i, 2, c), extra * sum_of(first + i, 4, c));
        }
        if (d.sums != 1) norm[(long long)blockIdx.x * d.c + c] = both;
    }
}
