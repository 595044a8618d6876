// Softmax cross-entropy with label smoothing: target (1 - s) * onehot + s / classes. A warp per row, so every sum has
// one order.
#include "elementwise.cuh"

struct Loss {
    int rows, classes;
    float smoothing;
    // Added to what is there, or stored.
    int add;
};

// Rows of a block.
constexpr int ROWS = 4;

// Losses of rows, and the probabilities that the gradient needs. A label outside the classes gives no number.
template <class T>
static __device__ __forceinline__ void forward(const T* logits, const int* labels, float* losses, float* probabilities,
                                               const Loss& d) {
    const int row = blockIdx.x * ROWS + (threadIdx.x >> 5), lane = threadIdx.x & 31;
    if (row >= d.rows) return;
    const T* x = logits + (long long)row * d.classes;
    float most = __int_as_float(0xff800000);
    for (int i = lane; i < d.classes; i += 32) most = fmaxf(most, load1(x + i));
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, o));
    float powers = 0.0f, logs = 0.0f;
    for (int i = lane; i < d.classes; i += 32) {
        const float away = load1(x + i) - most;
        powers += __expf(away);
        logs += away;
    }
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) {
        powers += __shfl_xor_sync(0xffffffffu, powers, o);
        logs += __shfl_xor_sync(0xffffffffu, logs, o);
    }
    const float log_sum = logf(powers);
    if (probabilities) {
        float* p = probabilities + (long long)row * d.classes;
        const float inverse = 1.0f / powers;
        for (int i = lane; i < d.classes; i += 32) p[i] = __expf(load1(x + i) - most) * inverse;
    }
    if (lane != 0) return;
    const int label = labels[row];
    const float own = (u32)label < (u32)d.classes ? load1(x + label) - most - log_sum : __int_as_float(0x7fc00000);
    const float mean = logs / (float)d.classes - log_sum;
    losses[row] = -fmaf(d.smoothing, mean - own, own);
}

// The mean of the rows' losses, in one block.
extern "C" __global__ void __launch_bounds__(256)
    mean_loss(const float* __restrict__ losses, float* __restrict__ loss, Loss d) {
    __shared__ float part[8];
    float sum = 0.0f;
    for (int i = threadIdx.x; i < d.rows; i += 256) sum += losses[i];
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, o);
    if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) sum += part[i];
    *loss = sum / (float)d.rows;
}

// dx (+)= seed / rows * (p - target); the seed is the gradient of the loss, 1 if absent.
template <class T>
static __device__ __forceinline__ void backward(const float* probabilities, const int* labels, const float* seed,
                                                T* dx, const Loss& d) {
    const int row = blockIdx.x * ROWS + (threadIdx.x >> 5), lane = threadIdx.x & 31;
    if (row >= d.rows) return;
    const float scale = (seed ? *seed : 1.0f) / (float)d.rows, even = d.smoothing / (float)d.classes;
    const int label = labels[row];
    const long long first = (long long)row * d.classes;
    for (int i = lane; i < d.classes; i += 32) {
        const float target = even + (i == label ? 1.0f - d.smoothing : 0.0f);
        write(dx + first + i, Pack<1>{scale * (load1(probabilities + first + i) - target)}, d.add);
    }
}

#define EACH_TYPE(T, TN)                                                                                              \
    extern "C" __global__ void __launch_bounds__(128) softmax_cross_entropy_fwd_##TN(                                 \
        const T* __restrict__ logits, const int* __restrict__ labels, float* __restrict__ losses,                     \
        float* __restrict__ probabilities, Loss d) {                                                                  \
        forward(logits, labels, losses, probabilities, d);                                                            \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(128) softmax_cross_entropy_bwd_##TN(                                 \
        const float* __restrict__ probabilities, const int* __restrict__ labels, const float* __restrict__ seed,      \
        T* __restrict__ dx, Loss d) {                                                                                 \
        backward(probabilities, labels, seed, dx, d);                                                                 \
    }
EACH_TYPE(float, f32)
EACH_TYPE(bf16, bf16)
