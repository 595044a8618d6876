// Sums: within a warp by shuffles, within a block through shared memory, over the grid by atomics, by a last block
// that fences decide, and by a cooperative grid barrier. Integers and floats.
//
// Convention: x has n elements; results do not depend on the order of blocks except where floats are added by atomics.

static __device__ float warp_sum(float v) {
    for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}

// One block per row; the row's sum by shuffles and one partial per warp.
extern "C" __global__ void row_sum(const float* __restrict__ x, float* __restrict__ y, int n) {
    __shared__ float part[32];
    const float* row = x + (long long)blockIdx.x * n;
    float s = 0.0f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) s += row[i];
    s = warp_sum(s);
    if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = s;
    __syncthreads();
    // The first warp adds the partials of the warps that exist.
    if (threadIdx.x < 32) {
        s = threadIdx.x < (blockDim.x >> 5) ? part[threadIdx.x] : 0.0f;
        s = warp_sum(s);
        if (threadIdx.x == 0) y[blockIdx.x] = s;
    }
}

// The classic tree in shared memory.
extern "C" __global__ void tree_sum(const int* x, int* y, int n) {
    extern __shared__ int buffer[];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    buffer[threadIdx.x] = i < n ? x[i] : 0;
    __syncthreads();
    for (int s = blockDim.x / 2; s > 0; s >>= 1) {
        if (threadIdx.x < s) buffer[threadIdx.x] += buffer[threadIdx.x + s];
        __syncthreads();
    }
    if (threadIdx.x == 0) atomicAdd(y, buffer[0]);
}

// The last block to finish adds the partials: the fence makes them visible before the ticket is drawn.
__device__ unsigned int finished = 0;
extern "C" __global__ void last_block_sum(const float* x, float* partial, float* y, int n) {
    __shared__ float part[32];
    __shared__ bool last;
    float s = 0.0f;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) s += x[i];
    s = warp_sum(s);
    if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = s;
    __syncthreads();
    if (threadIdx.x == 0) {
        float t = 0.0f;
        for (int w = 0; w < blockDim.x / 32; ++w) t += part[w];
        partial[blockIdx.x] = t;
        __threadfence();
        last = atomicInc(&finished, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (last && threadIdx.x == 0) {
        float t = 0.0f;
        for (int b = 0; b < gridDim.x; ++b) t += partial[b];
        *y = t;
    }
}

// Two phases of one launch with a grid barrier between: only for cooperative launches.
__device__ volatile unsigned int arrived = 0;
extern "C" __global__ void grid_barrier_sum(const int* x, int* partial, int* y, int n) {
    int s = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) s += x[i];
    s = __reduce_add_sync(0xffffffffu, s);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = s;
        __threadfence();
        atomicAdd((unsigned int*)&arrived, 1u);
        while (arrived < gridDim.x) {}
        __threadfence();
    }
    __syncthreads();
    // Every block writes its own copy of the total.
    if (threadIdx.x == 0) {
        int t = 0;
        for (int b = 0; b < gridDim.x; ++b) t += partial[b];
        y[blockIdx.x] = t;
    }
}

extern "C" __global__ void dot_f64(const double* x, const double* y, double* z, int n) {
    __shared__ double part[64];
    double s = 0.0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) s = fma(x[i], y[i], s);
    part[threadIdx.x] = s;
    __syncthreads();
    for (int k = blockDim.x / 2; k > 0; k >>= 1) {
        if (threadIdx.x < k) part[threadIdx.x] += part[threadIdx.x + k];
        __syncthreads();
    }
    if (threadIdx.x == 0) *z = part[0];
}
