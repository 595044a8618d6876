// Planted defects, one per kernel. Each must be reported; tests/defects.rs says by which rule.

static __device__ unsigned int shared_address(const void* p) { return (unsigned int)__cvta_generic_to_shared(p); }

// Neighbours exchange through shared memory with no barrier.
extern "C" __global__ void missing_barrier(const float* x, float* y) {
    __shared__ float s[128];
    s[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = s[(threadIdx.x + 32) & 127];
}

// As above within one warp, where lock step hides it.
extern "C" __global__ void missing_syncwarp(const float* x, float* y) {
    __shared__ float s[32];
    s[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = s[31 - threadIdx.x];
}

// The tile is overwritten while slower warps still read it.
extern "C" __global__ void missing_trailing_barrier(const float* x, float* y, int n) {
    __shared__ float s[64];
    float t = 0.0f;
    for (int k = 0; k < n; ++k) {
        s[threadIdx.x] = x[k * 64 + threadIdx.x];
        __syncthreads();
        t += s[63 - threadIdx.x];
    }
    y[threadIdx.x] = t;
}

extern "C" __global__ void read_past_end(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i] + x[i + 1];
}

extern "C" __global__ void write_past_end(float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i <= n) y[i] = 1.0f;
}

extern "C" __global__ void missing_guard(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i] = 2.0f * x[i];
}

extern "C" __global__ void before_begin(const float* x, float* y) { y[threadIdx.x] = x[(int)threadIdx.x - 1]; }

extern "C" __global__ void shared_overflow(float* y, int k) {
    __shared__ float s[64];
    s[threadIdx.x + k] = 1.0f;
    __syncthreads();
    y[threadIdx.x] = s[threadIdx.x];
}

// The caller says fewer bytes of dynamic shared memory than are used.
extern "C" __global__ void dynamic_shared_too_small(float* y) {
    extern __shared__ float buffer[];
    buffer[threadIdx.x] = threadIdx.x;
    __syncthreads();
    y[threadIdx.x] = buffer[blockDim.x - 1 - threadIdx.x];
}

extern "C" __global__ void local_overflow(const int* x, int* y, int k) {
    int a[8];
    for (int i = 0; i < 8; ++i) a[i] = x[i];
    y[threadIdx.x] = a[k + threadIdx.x];
}

extern "C" __global__ void uninitialised_global(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x] + 1.0f; }

// 32 partials are read where the block has 4 warps.
extern "C" __global__ void uninitialised_shared(const float* x, float* y) {
    __shared__ float part[32];
    if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = x[threadIdx.x];
    __syncthreads();
    if (threadIdx.x < 32) {
        float v = part[threadIdx.x];
        for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
        if (threadIdx.x == 0) *y = v;
    }
}

// Half of the output is never written: found when it is copied back.
extern "C" __global__ void unwritten_output(float* y, int n) {
    int i = 2 * threadIdx.x;
    if (i < n) y[i] = 1.0f;
}

extern "C" __global__ void full_mask_in_branch(float* y) {
    float v = threadIdx.x;
    if (threadIdx.x < 7) v += __shfl_xor_sync(0xffffffffu, v, 1);
    y[threadIdx.x] = v;
}

extern "C" __global__ void mask_without_self(float* y) { y[threadIdx.x] = __shfl_down_sync(0x0000ffffu, (float)threadIdx.x, 1); }

extern "C" __global__ void ballot_in_loop(int* y) {
    int n = 0;
    for (int i = 0; i < (int)threadIdx.x; ++i) n += __popc(__ballot_sync(0xffffffffu, i & 1));
    y[threadIdx.x] = n;
}

extern "C" __global__ void barrier_in_branch(float* y) {
    __shared__ float s[64];
    s[threadIdx.x] = 1.0f;
    if (threadIdx.x < 40) __syncthreads();
    y[threadIdx.x] = s[threadIdx.x];
}

extern "C" __global__ void barrier_on_both_sides(float* y, int k) {
    __shared__ float s[64];
    s[threadIdx.x] = k;
    if (threadIdx.x & 1) {
        __syncthreads();
        s[threadIdx.x] += 1.0f;
    } else {
        __syncthreads();
        s[threadIdx.x] *= 3.0f;
    }
    y[threadIdx.x] = s[threadIdx.x];
}

extern "C" __global__ void early_return(const float* x, float* y, int n) {
    __shared__ float s[64];
    if (threadIdx.x >= n) return;
    s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = s[n - 1 - threadIdx.x];
}

// Warps go round the loop a different number of times.
extern "C" __global__ void uneven_barriers(float* y) {
    float v = 0.0f;
    for (int i = 0; i <= (int)threadIdx.x / 32; ++i) {
        __syncthreads();
        v += 1.0f;
    }
    y[threadIdx.x] = v;
}

extern "C" __global__ void sum_without_atomics(const float* x, float* y) {
    if (threadIdx.x == 0) *y += x[blockIdx.x];
}

// Each block writes one element of its right neighbour.
extern "C" __global__ void overlapping_blocks(float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = 1.0f;
    if (threadIdx.x == 0 && i + blockDim.x < n) y[i + blockDim.x] = 2.0f;
}

// A stencil in place: the border is the neighbour's result or its input, as it happens.
extern "C" __global__ void stencil_in_place(float* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float v = i + 1 < n ? x[i] + x[i + 1] : x[i];
    __syncthreads();
    x[i] = v;
}

// The last block adds what the others wrote, but no fence made it visible.
__device__ unsigned int ticket = 0;
extern "C" __global__ void missing_fence(const float* x, float* partial, float* y) {
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = x[blockIdx.x];
        if (atomicInc(&ticket, gridDim.x - 1) == gridDim.x - 1) {
            float t = 0.0f;
            for (int b = 0; b < gridDim.x; ++b) t += partial[b];
            *y = t;
        }
    }
}

// Some blocks count with atomics, one resets without.
extern "C" __global__ void plain_beside_atomic(int* count) {
    if (blockIdx.x == 1 && threadIdx.x == 0) *count = 0;
    atomicAdd(count, 1);
}

// Flags in shared memory without atomics.
extern "C" __global__ void shared_counter(int* y) {
    __shared__ int n;
    if (threadIdx.x == 0) n = 0;
    __syncthreads();
    n += 1;
    __syncthreads();
    y[threadIdx.x] = n;
}

extern "C" __global__ void misaligned_vector(const float* x, float* y) {
    float4 v = *(const float4*)(x + 1 + 4 * threadIdx.x);
    y[threadIdx.x] = v.x + v.w;
}

extern "C" __global__ void misaligned_shared(float* y) {
    __shared__ __align__(16) unsigned char s[256];
    for (int i = threadIdx.x; i < 256; i += blockDim.x) s[i] = i;
    __syncthreads();
    y[threadIdx.x] = *(float*)(s + 4 * threadIdx.x + 2);
}

extern "C" __global__ void use_pointer(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x]; }

extern "C" __global__ void null_pointer(const float* x, float* y) {
    if (x == 0) y[threadIdx.x] = x[threadIdx.x];
}

// The copies are committed but never waited for.
extern "C" __global__ void missing_wait(const float* x, float* y) {
    __shared__ float s[64];
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(s + threadIdx.x)), "l"(x + threadIdx.x));
    asm volatile("cp.async.commit_group;");
    __syncthreads();
    y[threadIdx.x] = s[63 - threadIdx.x];
}

// Two groups are in flight and one too many may stay so.
extern "C" __global__ void wait_for_too_few(const float* x, float* y) {
    __shared__ float s[2][64];
    for (int i = 0; i < 2; ++i) {
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(s[i] + threadIdx.x)), "l"(x + 64 * i + threadIdx.x));
        asm volatile("cp.async.commit_group;");
    }
    asm volatile("cp.async.wait_group 2;");
    __syncthreads();
    y[threadIdx.x] = s[0][63 - threadIdx.x];
}

// The wait is there, the barrier after it is not.
extern "C" __global__ void wait_without_barrier(const float* x, float* y) {
    __shared__ float s[64];
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(s + threadIdx.x)), "l"(x + threadIdx.x));
    asm volatile("cp.async.wait_all;");
    y[threadIdx.x] = s[63 - threadIdx.x];
}

// The next copy begins while other warps still read the stage.
extern "C" __global__ void stage_reused_too_early(const float* x, float* y, int n) {
    __shared__ float s[64];
    float t = 0.0f;
    for (int k = 0; k < n; ++k) {
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(s + threadIdx.x)), "l"(x + 64 * k + threadIdx.x));
        asm volatile("cp.async.wait_all;");
        __syncthreads();
        t += s[63 - threadIdx.x];
    }
    y[threadIdx.x] = t;
}

__constant__ float constants[4] = {1, 2, 3, 4};
extern "C" __global__ void write_constant(float* y) {
    float* p = const_cast<float*>(constants);
    asm volatile("{ .reg .u64 q; cvta.const.u64 q, constants; st.f32 [q], %0; }" ::"f"(y[0]));
    y[0] = p[1];
}

extern "C" __global__ void swapped_arguments(const float* x, float* y, int n) {
    int i = threadIdx.x;
    if (i < n) y[i] = x[i];
}

extern "C" __global__ void __launch_bounds__(128) bounded(float* y) { y[threadIdx.x] = 1.0f; }

extern "C" __global__ void spin(volatile int* flag) {
    while (*flag == 0) {}
}

extern "C" __global__ void trap_if(const int* x) {
    if (x[threadIdx.x] < 0) __trap();
}

// Half a warp asks for a matrix product.
extern "C" __global__ void half_a_warp_multiplies(float* y) {
    float c0 = 0, c1 = 0, c2 = 0, c3 = 0;
    if (threadIdx.x < 16)
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%4}, {%4}, {%0,%1,%2,%3};"
                     : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3) : "r"(0x3c003c00));
    y[threadIdx.x] = c0 + c1 + c2 + c3;
}
