// Row-wise kernels: softmax, layer norm, transpose.

static __device__ float block_reduce(float v, float* part, bool maximum) {
    for (int o = 16; o > 0; o >>= 1) {
        float u = __shfl_xor_sync(0xffffffffu, v, o);
        v = maximum ? fmaxf(v, u) : v + u;
    }
    __syncthreads();
    if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = v;
    __syncthreads();
    v = part[0];
    for (int w = 1; w < blockDim.x / 32; ++w) v = maximum ? fmaxf(v, part[w]) : v + part[w];
    return v;
}

extern "C" __global__ void softmax(const float* __restrict__ x, float* __restrict__ y, int n) {
    __shared__ float part[32];
    const float* row = x + (long long)blockIdx.x * n;
    float m = __int_as_float(0xff800000);
    for (int i = threadIdx.x; i < n; i += blockDim.x) m = fmaxf(m, row[i]);
    m = block_reduce(m, part, true);
    float s = 0.0f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) s += __expf(row[i] - m);
    s = block_reduce(s, part, false);
    for (int i = threadIdx.x; i < n; i += blockDim.x) y[(long long)blockIdx.x * n + i] = __expf(row[i] - m) / s;
}

extern "C" __global__ void layer_norm(const float* x, const float* gain, const float* bias, float* y, int n, float eps) {
    __shared__ float part[32];
    const float* row = x + (long long)blockIdx.x * n;
    float s = 0.0f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) s += row[i];
    float mean = block_reduce(s, part, false) / n;
    s = 0.0f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) s += (row[i] - mean) * (row[i] - mean);
    float scale = rsqrtf(block_reduce(s, part, false) / n + eps);
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        y[(long long)blockIdx.x * n + i] = (row[i] - mean) * scale * gain[i] + bias[i];
}

// 32x32 tiles by blocks of 32x8; a column of padding keeps the banks apart (PAD = 0 makes the slow version).
template <int PAD>
static __device__ void transpose_tile(const float* x, float* y, int rows, int cols, float (*tile)[32 + PAD]) {
    int c = blockIdx.x * 32 + threadIdx.x;
    for (int k = threadIdx.y; k < 32; k += 8) {
        int r = blockIdx.y * 32 + k;
        if (r < rows && c < cols) tile[k][threadIdx.x] = x[r * cols + c];
    }
    __syncthreads();
    int r = blockIdx.y * 32 + threadIdx.x;
    for (int k = threadIdx.y; k < 32; k += 8) {
        int d = blockIdx.x * 32 + k;
        if (r < rows && d < cols) y[d * rows + r] = tile[threadIdx.x][k];
    }
}

extern "C" __global__ void transpose(const float* x, float* y, int rows, int cols) {
    __shared__ float tile[32][33];
    transpose_tile<1>(x, y, rows, cols, tile);
}

extern "C" __global__ void transpose_conflicts(const float* x, float* y, int rows, int cols) {
    __shared__ float tile[32][32];
    transpose_tile<0>(x, y, rows, cols, tile);
}

// The same copy with vectors that are adjacent between lanes, and with vectors that are blocked by thread.
extern "C" __global__ void copy_strided(const float4* x, float4* y, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = x[i];
}

extern "C" __global__ void copy_blocked(const float4* x, float4* y, int n) {
    int per = n / blockDim.x;
    for (int i = 0; i < per; ++i) y[threadIdx.x * per + i] = x[threadIdx.x * per + i];
}
