// Odds and ends of the language: tables of branches, local arrays, calls, 64-bit and 8-bit data, packed halves,
// byte dot products, printf, assertions, constant memory, module variables.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

__constant__ float coefficients[8] = {1, 2, 3, 4, 5, 6, 7, 8};
__device__ int offset = 100;

// A dense switch: a table of branches.
extern "C" __global__ void dispatch(int* y, int k) {
    int v = y[threadIdx.x];
    switch (v % 9) {
        case 0: v = k + 1; break;
        case 1: v = k * 3; break;
        case 2: v = k / 7; break;
        case 3: v = k ^ 9; break;
        case 4: v = k % 5; break;
        case 5: v = ~k; break;
        case 6: v = __popc(k); break;
        case 7: v = __clz(k); break;
        default: v = -1;
    }
    y[threadIdx.x] = v + offset;
}

// A local array with an index known only at run time.
extern "C" __global__ void insertion_sort(const int* x, int* y, int n) {
    int a[16];
    const int* from = x + threadIdx.x * n;
    for (int i = 0; i < n; ++i) a[i] = from[i];
    for (int i = 1; i < n; ++i) {
        int v = a[i], j = i - 1;
        while (j >= 0 && a[j] > v) {
            a[j + 1] = a[j];
            --j;
        }
        a[j + 1] = v;
    }
    for (int i = 0; i < n; ++i) y[threadIdx.x * n + i] = a[i];
}

static __noinline__ __device__ float horner(float x, const float* c, int n) {
    float s = 0.0f;
    for (int i = n - 1; i >= 0; --i) s = s * x + c[i];
    return s;
}

extern "C" __global__ void polynomial(const float* x, float* y) {
    y[threadIdx.x] = horner(x[threadIdx.x], coefficients, 8) + horner(-x[threadIdx.x], coefficients, 3);
}

extern "C" __global__ void collatz(const unsigned long long* x, int* y) {
    unsigned long long v = x[threadIdx.x];
    int n = 0;
    while (v != 1) {
        v = v & 1 ? 3 * v + 1 : v / 2;
        ++n;
    }
    y[threadIdx.x] = n;
}

extern "C" __global__ void bytes(const uchar4* a, const char4* b, int* dot, uchar4* mixed, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    uchar4 u = a[i];
    char4 s = b[i];
    dot[i] = u.x * s.x + u.y * s.y + u.z * s.z + u.w * s.w;
    mixed[i] = make_uchar4(u.w, (unsigned char)(u.x + s.y), (unsigned char)min(u.y, 100), u.z >> 3);
}

extern "C" __global__ void packed_half(const __half2* a, const __half2* b, __half2* y, int n) {
    int i = threadIdx.x;
    if (i >= n) return;
    __half2 v = __hfma2(a[i], b[i], __float2half2_rn(0.5f));
    y[i] = __hmax2(__hmul2(v, v), __hadd2(a[i], b[i]));
}

extern "C" __global__ void packed_bf16(const __nv_bfloat162* a, const __nv_bfloat162* b, __nv_bfloat162* y, int n) {
    int i = threadIdx.x;
    if (i >= n) return;
    y[i] = __hfma2(a[i], b[i], __hmul2(a[i], a[i]));
}

extern "C" __global__ void special(const float* x, float* y, int n) {
    int i = threadIdx.x;
    if (i >= n) return;
    float v = x[i];
    y[i * 8 + 0] = expf(v);
    y[i * 8 + 1] = logf(fabsf(v) + 1.0f);
    y[i * 8 + 2] = sinf(v * 1000.0f);
    y[i * 8 + 3] = tanhf(v);
    y[i * 8 + 4] = sqrtf(fabsf(v));
    y[i * 8 + 5] = powf(fabsf(v), 1.7f);
    y[i * 8 + 6] = erff(v);
    y[i * 8 + 7] = v / 3.0f;
}

extern "C" __global__ void say(int n) {
    if (threadIdx.x < 2) printf("thread %d of %d: %.2f %s|%5u|%-4x|%lld\n", threadIdx.x, n, n / 4.0, "ok", 7u, 255, -5000000000ll);
}

struct Dims {
    int n;
    int table[6];
    float scale;
};

// A parameter struct indexed at run time.
extern "C" __global__ void by_value(Dims d, float* y) { y[threadIdx.x] = d.table[threadIdx.x % d.n] * d.scale; }

// Grid and block of three axes.
extern "C" __global__ void axes(int* y) {
    int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    int threads = blockDim.x * blockDim.y * blockDim.z;
    y[block * threads + thread] = block * 10000 + thread * 10 + (thread & 31) / 16;
}
