// Depthwise 3x3 convolution, stride 1, padding 1, planes [c][h][w], three storage formats; sums in f32.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

static __device__ float to_float(float v) { return v; }
static __device__ float to_float(__half v) { return __half2float(v); }
static __device__ float to_float(__nv_bfloat16 v) { return __bfloat162float(v); }
static __device__ void store(float* p, float v) { *p = v; }
static __device__ void store(__half* p, float v) { *p = __float2half_rn(v); }
static __device__ void store(__nv_bfloat16* p, float v) { *p = __float2bfloat16_rn(v); }

// A 16x16 tile with its border of one; channels in z.
template <typename T>
static __device__ void depthwise(const T* x, const T* w, T* y, int h, int wd) {
    __shared__ float tile[18][19];
    int c = blockIdx.z, oy = blockIdx.y * 16, ox = blockIdx.x * 16;
    const T* plane = x + (long long)c * h * wd;
    for (int i = threadIdx.y * 16 + threadIdx.x; i < 18 * 18; i += 256) {
        int iy = oy + i / 18 - 1, ix = ox + i % 18 - 1;
        tile[i / 18][i % 18] = iy >= 0 && iy < h && ix >= 0 && ix < wd ? to_float(plane[iy * wd + ix]) : 0.0f;
    }
    __syncthreads();
    float s = 0.0f;
#pragma unroll
    for (int k = 0; k < 9; ++k) s += tile[threadIdx.y + k / 3][threadIdx.x + k % 3] * to_float(w[c * 9 + k]);
    int row = oy + threadIdx.y, col = ox + threadIdx.x;
    if (row < h && col < wd) store(y + ((long long)c * h + row) * wd + col, s);
}

extern "C" __global__ void depthwise_f32(const float* x, const float* w, float* y, int h, int wd) { depthwise(x, w, y, h, wd); }
extern "C" __global__ void depthwise_f16(const __half* x, const __half* w, __half* y, int h, int wd) { depthwise(x, w, y, h, wd); }
extern "C" __global__ void depthwise_bf16(const __nv_bfloat16* x, const __nv_bfloat16* w, __nv_bfloat16* y, int h, int wd) { depthwise(x, w, y, h, wd); }

// One thread per pixel straight from global memory: the kernel whose speed is quoted.
extern "C" __global__ void __launch_bounds__(256)
    depthwise_direct(const float* __restrict__ x, const float* __restrict__ w, float* __restrict__ y, int h, int wd, int c) {
    __shared__ float sw[9];
    int ch = blockIdx.z;
    if (threadIdx.x < 9) sw[threadIdx.x] = w[ch * 9 + threadIdx.x];
    __syncthreads();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= h * wd) return;
    int row = i / wd, col = i % wd;
    float s = 0.0f;
#pragma unroll
    for (int dy = -1; dy <= 1; ++dy)
#pragma unroll
        for (int dx = -1; dx <= 1; ++dx) {
            int r = row + dy, q = col + dx;
            if (r >= 0 && r < h && q >= 0 && q < wd) s += x[(ch * h + r) * wd + q] * sw[(dy + 1) * 3 + dx + 1];
        }
    y[(long long)ch * h * wd + i] = s;
}
