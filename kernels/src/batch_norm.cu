// Batch norm between passes: partial moments to statistics, scale and shift.
#include "norm.cuh"

struct Finalise {
    int partials, c;
    float eps;
};

// A block per 32 channels, a lane per channel; warp i takes the partials i, i + 8, …, and warps are added in ascending
// order. First the mean about the first partial's, then the squared deviations about that mean: a sum of squares about
// zero would lose everything at |mean| = 1,000 deviations. The variance is the biased one.
extern "C" __global__ void __launch_bounds__(256) batch_norm_finalise(
    const float2* __restrict__ moments, const float* __restrict__ counts, const float* __restrict__ gamma,
    const float* __restrict__ beta, float* __restrict__ scale, float* __restrict__ shift, float* __restrict__ mean,
    float* __restrict__ variance, Finalise d) {
    __shared__ float part[2][8][32];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, c = blockIdx.x * 32 + lane;
    const bool mine = c < d.c;
    const float pivot = mine ? moments[c].x : 0.0f;
    float n = 0.0f, sum = 0.0f;
    if (mine)
        for (int p = warp; p < d.partials; p += 8) {
            const float count = counts[p];
            n += count;
            sum = fmaf(count, moments[(long long)p * d.c + c].x - pivot, sum);
        }
    part[0][warp][lane] = n;
    part[1][warp][lane] = sum;
    __syncthreads();
    n = sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) n += part[0][i][lane], sum += part[1][i][lane];
    const float m = pivot + sum / n;
    float m2 = 0.0f;
    if (mine)
        for (int p = warp; p < d.partials; p += 8) {
            const float2 v = moments[(long long)p * d.c + c];
            const float away = v.x - m;
            m2 += fmaf(counts[p] * away, away, v.y);
        }
    // The sums of the first pass have been read by everyone.
    __syncthreads();
    part[0][warp][lane] = m2;
    __syncthreads();
    if (warp == 0 && mine) {
        m2 = 0.0f;
#pragma unroll
        for (int i = 0; i < 8; ++i) m2 += part[0][i][lane];
        const float var = m2 / n;
        // sqrt and division are the exact ones: this is once per channel.
        const float s = (gamma ? gamma[c] : 1.0f) / sqrtf(var + d.eps);
        scale[c] = s;
        shift[c] = fmaf(-m, s, beta ? beta[c] : 0.0f);
        mean[c] = m;
        variance[c] = var;
    }
}

struct Fold {
    int c;
    float eps;
};

// Statistics that are given to scale and shift, a thread per channel.
extern "C" __global__ void __launch_bounds__(256)
    batch_norm_fold(const float* __restrict__ gamma, const float* __restrict__ beta, const float* __restrict__ mean,
                    const float* __restrict__ variance, float* __restrict__ scale, float* __restrict__ shift, Fold d) {
    const int c = blockIdx.x * 256 + threadIdx.x;
    if (c >= d.c) return;
    const float s = (gamma ? gamma[c] : 1.0f) / sqrtf(variance[c] + d.eps);
    scale[c] = s;
    shift[c] = fmaf(-mean[c], s, beta ? beta[c] : 0.0f);
}

struct Backward {
    int partials, c;
    // Values behind the sums.
    float n, eps;
};

// Sums over the partials of du and of du * (h - mean), valid in warp 0. A lane per channel, warps as in
// batch_norm_finalise.
static __device__ __forceinline__ float2 total(const float2* sums, int c, const Backward& d) {
    __shared__ float part[2][8][32];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    float sum = 0.0f, product = 0.0f;
    if (c < d.c)
        for (int p = warp; p < d.partials; p += 8) {
            const float2 v = sums[(long long)p * d.c + c];
            sum += v.x;
            product += v.y;
        }
    part[0][warp][lane] = sum;
    part[1][warp][lane] = product;
    __syncthreads();
    sum = product = 0.0f;
    if (warp == 0)
#pragma unroll
        for (int i = 0; i < 8; ++i) sum += part[0][i][lane], product += part[1][i][lane];
    return make_float2(sum, product);
}

// Partial sums to gradients and to the linear map.
extern "C" __global__ void __launch_bounds__(256) batch_norm_backward(
    const float2* __restrict__ sums, const float* __restrict__ scale, const float* __restrict__ mean,
    const float* __restrict__ variance, float* __restrict__ dgamma, float* __restrict__ dbeta, float* __restrict__ pqr,
    Backward d) {
    const int c = blockIdx.x * 32 + (threadIdx.x & 31);
    const float2 t = total(sums, c, d);
    if (threadIdx.x >= 32 || c >= d.c) return;
    NormBackward{scale, mean, variance, dgamma, dbeta, pqr, d.c, d.n, d.eps}.finish(c, t.x, t.y);
}

// The same where the statistics were given: the map is dh = scale * du, and they have gradients of their own.
extern "C" __global__ void __launch_bounds__(256)
    batch_norm_frozen_backward(const float2* __restrict__ sums, const float* __restrict__ scale,
                               const float* __restrict__ variance, float* __restrict__ dgamma,
                               float* __restrict__ dbeta, float* __restrict__ dmean, float* __restrict__ dvariance,
                               Backward d) {
    const int c = blockIdx.x * 32 + (threadIdx.x & 31);
    const float2 t = total(sums, c, d);
    if (threadIdx.x >= 32 || c >= d.c) return;
    const float precision = 1.0f / (variance[c] + d.eps), s = scale[c];
    if (dgamma) dgamma[c] += t.y * sqrtf(precision);
    if (dbeta) dbeta[c] += t.x;
    if (dmean) dmean[c] -= s * t.x;
    if (dvariance) dvariance[c] -= 0.5f * s * precision * t.y;
}

// What becomes of the partial gradients of one array.
struct Gradient {
    const float* parts;
    float* out;
    // Elements, parts, from one part to the next.
    int len, partials, stride;
    // Added to what is there, or stored.
    int add;
    // First of the blocks that work on it.
    u32 block;
};

// As many as a fused block has. Those that are missing begin past the last block.
struct Gradients {
    Gradient each[8];
};

// out[i] = sum over p of parts[p][i] for several arrays, each in ascending order of eight interleaved chains.
extern "C" __global__ void __launch_bounds__(256) sum_partials(Gradients all) {
    __shared__ float part[8][32];
    Gradient d = all.each[0];
#pragma unroll
    for (int i = 1; i < 8; ++i)
        if (blockIdx.x >= all.each[i].block) d = all.each[i];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, i = (blockIdx.x - d.block) * 32 + lane;
    float sum = 0.0f;
    if (i < d.len)
        for (int p = warp; p < d.partials; p += 8) sum += d.parts[(long long)p * d.stride + i];
    part[warp][lane] = sum;
    __syncthreads();
    if (warp != 0 || i >= d.len) return;
    sum = 0.0f;
#pragma unroll
    for (int j = 0; j < 8; ++j) sum += part[j][lane];
    d.out[i] = d.add ? d.out[i] + sum : sum;
}
