// Kernels of the host-side tests: small, so that what is tested is the driver and not the arithmetic.
#ifndef __CUDACC_RTC__
#include <cassert>
#include <cstdio>
#endif

extern "C" __global__ void axpy(float a, const float *x, float *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = a * x[i] + y[i];
}

extern "C" __global__ void fill(int *out, int value, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = value + i;
}

// Copies; leaves the last `skip` elements of the output alone.
extern "C" __global__ void copy_some(const float *in, float *out, int n, int skip) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n - skip) out[i] = in[i];
}

// No guard: threads past the end write past the end.
extern "C" __global__ void unguarded(int *out) {
    out[blockIdx.x * blockDim.x + threadIdx.x] = 1;
}

// Reverses each block through dynamic shared memory.
extern "C" __global__ void reverse(const int *in, int *out) {
    extern __shared__ int tile[];
    int base = blockIdx.x * blockDim.x;
    tile[threadIdx.x] = in[base + threadIdx.x];
    __syncthreads();
    out[base + threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}

__constant__ float coefficients[4];
__device__ unsigned int calls;

// A polynomial whose coefficients the host writes; counts its threads.
extern "C" __global__ void polynomial(const float *x, float *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float v = x[i];
    y[i] = coefficients[0] + v * (coefficients[1] + v * (coefficients[2] + v * coefficients[3]));
    atomicAdd(&calls, 1u);
}

struct Mixed {
    float a;
    double b;
    unsigned char c;
    unsigned long long d;
};

// A parameter passed by value, with gaps.
extern "C" __global__ void mixed(Mixed m, double *out) {
    out[0] = m.a;
    out[1] = m.b;
    out[2] = m.c;
    out[3] = (double)m.d;
}

extern "C" __global__ void __launch_bounds__(64) bounded(int *out) { out[threadIdx.x] = 64; }

extern "C" __global__ void nothing() {}

extern "C" __global__ void stop() { __trap(); }

extern "C" __global__ void hello(int value) { printf("block %d says %d\n", (int)blockIdx.x, value); }

// A device-side assertion that fails where the value is no multiple of three.
extern "C" __global__ void insist(const int *in) {
    int value = in[threadIdx.x];
    assert(value % 3 == 0);
}
