// Prefix sums, histogram, compaction: warp-synchronous code and atomics.

// Inclusive scan of up to 1024 elements by one block: shuffles within warps, then over the warps' totals.
extern "C" __global__ void scan(const int* x, int* y, int n) {
    __shared__ int totals[32];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int v = threadIdx.x < n ? x[threadIdx.x] : 0;
    for (int o = 1; o < 32; o <<= 1) {
        int u = __shfl_up_sync(0xffffffffu, v, o);
        if (lane >= o) v += u;
    }
    if (lane == 31) totals[warp] = v;
    __syncthreads();
    if (warp == 0) {
        int t = lane < (blockDim.x >> 5) ? totals[lane] : 0;
        for (int o = 1; o < 32; o <<= 1) {
            int u = __shfl_up_sync(0xffffffffu, t, o);
            if (lane >= o) t += u;
        }
        if (lane < (blockDim.x >> 5)) totals[lane] = t;
    }
    __syncthreads();
    if (warp > 0) v += totals[warp - 1];
    if (threadIdx.x < n) y[threadIdx.x] = v;
}

// 256 bins: shared atomics per block, global atomics to merge.
extern "C" __global__ void histogram(const unsigned char* x, unsigned int* bins, int n) {
    __shared__ unsigned int local[256];
    for (int i = threadIdx.x; i < 256; i += blockDim.x) local[i] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) atomicAdd(&local[x[i]], 1u);
    __syncthreads();
    for (int i = threadIdx.x; i < 256; i += blockDim.x)
        if (local[i]) atomicAdd(&bins[i], local[i]);
}

// Keeps the positive elements of a warp's 32, in order, and says how many.
extern "C" __global__ void compact(const int* x, int* y, int* count) {
    int v = x[threadIdx.x];
    unsigned int keep = __ballot_sync(0xffffffffu, v > 0);
    int place = __popc(keep & ((1u << threadIdx.x) - 1));
    if (v > 0) y[place] = v;
    if (threadIdx.x == 0) *count = __popc(keep);
}

// One atomic per distinct key of a warp: the lanes of a key elect the lowest.
extern "C" __global__ void aggregate(const int* key, int* bins) {
    int k = key[blockIdx.x * 32 + threadIdx.x];
    unsigned int peers = __match_any_sync(0xffffffffu, k);
    int leader = __ffs(peers) - 1;
    if (threadIdx.x == leader) atomicAdd(&bins[k], __popc(peers));
    // The leader's value reaches its peers through a mask that only they share.
    int from = __shfl_sync(peers, k, leader);
    if (from != k) bins[k] = -1000000;
}

// Warp-synchronous reduction in shared memory, with the barriers that it needs.
extern "C" __global__ void shared_warp_max(const float* x, float* y) {
    __shared__ float s[4][32];
    int lane = threadIdx.x & 31, w = threadIdx.x >> 5;
    s[w][lane] = x[blockIdx.x * blockDim.x + threadIdx.x];
    __syncwarp();
    for (int o = 16; o > 0; o >>= 1) {
        float v = lane < o ? fmaxf(s[w][lane], s[w][lane + o]) : 0.0f;
        __syncwarp();
        if (lane < o) s[w][lane] = v;
        __syncwarp();
    }
    if (lane == 0) y[blockIdx.x * (blockDim.x >> 5) + w] = s[w][0];
}

// Minimum and maximum of keys through redux and atomics on a 64-bit word.
extern "C" __global__ void extremes(const int* x, int* lo, int* hi, unsigned long long* sum, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    int v = i < n ? x[i] : 0;
    int a = __reduce_min_sync(0xffffffffu, v), b = __reduce_max_sync(0xffffffffu, v);
    if ((threadIdx.x & 31) == 0) {
        atomicMin(lo, a);
        atomicMax(hi, b);
    }
    atomicAdd(sum, (unsigned long long)(unsigned int)(v & 0xffff));
}
