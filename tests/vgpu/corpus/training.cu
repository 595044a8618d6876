// What kernels of a training step are made of: packed bf16, tensor cores in bf16 and tf32 with transposing loads,
// asynchronous copies that fill with zeros, read-only vector loads, block-wide sums, tickets, approximate functions.
#include <cuda_bf16.h>

static __device__ unsigned int shared_address(const void* p) { return (unsigned int)__cvta_generic_to_shared(p); }

// y = relu(x * s + b) on pairs of bf16, eight values per thread by 16-byte loads; f32 inside, rounded once.
extern "C" __global__ void affine_relu_bf16(const uint4* x, const float* scale, const float* shift, uint4* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    uint4 v = __ldg(x + i);
    unsigned int w[4] = {v.x, v.y, v.z, v.w};
    float s = scale[0], b = shift[0];
    for (int k = 0; k < 4; ++k) {
        float lo = fmaxf(__uint_as_float(w[k] << 16) * s + b, 0.0f);
        float hi = fmaxf(__uint_as_float(w[k] & 0xffff0000u) * s + b, 0.0f);
        __nv_bfloat162 p = __floats2bfloat162_rn(lo, hi);
        w[k] = *(unsigned int*)&p;
    }
    y[i] = make_uint4(w[0], w[1], w[2], w[3]);
}

// y = a * b + c, then max(y, 0) by the packed instructions themselves.
extern "C" __global__ void packed_fma_bf16(const __nv_bfloat162* a, const __nv_bfloat162* b, const __nv_bfloat162* c, __nv_bfloat162* y) {
    int i = threadIdx.x;
    y[2 * i] = __hfma2(a[i], b[i], c[i]);
    y[2 * i + 1] = __hfma2_relu(a[i], b[i], c[i]);
}

// y[m][n] = sum a[m][k] b[k][n] in bf16, b by rows, so its fragments come from transposing loads. One warp per 16x16;
// the copies of rows past the end bring zeros. Extents: any m; n, k multiples of 16.
extern "C" __global__ void gemm_transposed(const __nv_bfloat16* a, const __nv_bfloat16* b, float* y, int m, int n, int k) {
    __shared__ __align__(16) __nv_bfloat16 sa[16 * 24], sb[16 * 24];
    int lane = threadIdx.x, row0 = blockIdx.y * 16, col0 = blockIdx.x * 16;
    float acc[2][4] = {};
    for (int k0 = 0; k0 < k; k0 += 16) {
        int r = lane / 2, c = lane % 2 * 8;
        int bytes = row0 + r < m ? 16 : 0;
        const __nv_bfloat16* from = a + (long long)min(row0 + r, m - 1) * k + k0 + c;
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(sa + r * 24 + c)), "l"(from), "r"(bytes));
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(sb + r * 24 + c)), "l"(b + (long long)(k0 + r) * n + col0 + c));
        asm volatile("cp.async.commit_group;\ncp.async.wait_all;");
        __syncwarp();
        unsigned int fa[4], fb[4];
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(fa[0]), "=r"(fa[1]), "=r"(fa[2]), "=r"(fa[3]) : "r"(shared_address(sa + lane % 16 * 24 + lane / 16 * 8)));
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(fb[0]), "=r"(fb[1]), "=r"(fb[2]), "=r"(fb[3]) : "r"(shared_address(sb + lane % 16 * 24 + lane / 16 * 8)));
        for (int j = 0; j < 2; ++j)
            asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                         : "+f"(acc[j][0]), "+f"(acc[j][1]), "+f"(acc[j][2]), "+f"(acc[j][3])
                         : "r"(fa[0]), "r"(fa[1]), "r"(fa[2]), "r"(fa[3]), "r"(fb[2 * j]), "r"(fb[2 * j + 1]));
        __syncwarp();
    }
    for (int j = 0; j < 2; ++j)
        for (int h = 0; h < 2; ++h) {
            int r = row0 + lane / 4 + 8 * h, c = col0 + 8 * j + lane % 4 * 2;
            if (r < m) *(float2*)(y + (long long)r * n + c) = make_float2(acc[j][2 * h], acc[j][2 * h + 1]);
        }
}

static __device__ unsigned int tf32(float v) {
    unsigned int r;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(v));
    return r;
}

// y[16][8] = sum a[16][k] b[8][k] in tf32, one warp.
extern "C" __global__ void gemm_tf32(const float* a, const float* b, float* y, int k) {
    int lane = threadIdx.x, g = lane / 4, t = lane % 4;
    float acc[4] = {};
    for (int k0 = 0; k0 < k; k0 += 8) {
        unsigned int fa[4], fb[2];
        for (int i = 0; i < 4; ++i) fa[i] = tf32(a[(g + i % 2 * 8) * k + k0 + t + i / 2 * 4]);
        for (int i = 0; i < 2; ++i) fb[i] = tf32(b[g * k + k0 + t + i * 4]);
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
                     : "r"(fa[0]), "r"(fa[1]), "r"(fa[2]), "r"(fa[3]), "r"(fb[0]), "r"(fb[1]));
    }
    for (int i = 0; i < 4; ++i) y[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = acc[i];
}

// Mean and variance of columns of x[rows][32 * blocks], a block per 32 columns with its tile in dynamic shared memory
// (more than 48 KiB of it); the last block to come counts all blocks.
extern "C" __global__ void column_moments(const float* x, float* mean, float* variance, unsigned int* ticket, int* blocks, int rows) {
    extern __shared__ __align__(16) float tile[];
    __shared__ float part[8][32];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, width = 32 * gridDim.x;
    for (int i = threadIdx.x; i < rows * 8; i += 256)
        *(float4*)(tile + 4 * i) = __ldg((const float4*)(x + (long long)(i / 8) * width + 32 * blockIdx.x) + i % 8);
    __syncthreads();
    float s = 0.0f;
    for (int r = warp; r < rows; r += 8) s += tile[32 * r + lane];
    part[warp][lane] = s;
    __syncthreads();
    s = 0.0f;
    for (int w = 0; w < 8; ++w) s += part[w][lane];
    float m = __fdividef(s, (float)rows), v = 0.0f;
    __syncthreads();
    for (int r = warp; r < rows; r += 8) v = fmaf(tile[32 * r + lane] - m, tile[32 * r + lane] - m, v);
    part[warp][lane] = v;
    __syncthreads();
    if (warp == 0) {
        v = 0.0f;
        for (int w = 0; w < 8; ++w) v += part[w][lane];
        mean[32 * blockIdx.x + lane] = m;
        variance[32 * blockIdx.x + lane] = v / rows;
    }
    if (threadIdx.x == 0 && atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1) *blocks = gridDim.x;
}

// Approximate functions as activations use them, with warp sums of integers.
extern "C" __global__ void activations(const float* x, float* y, int* positive) {
    int i = threadIdx.x;
    float v = x[i];
    y[4 * i] = v * __frcp_rn(1.0f + __expf(-v));
    y[4 * i + 1] = v * __saturatef(v / 6.0f + 0.5f);
    y[4 * i + 2] = rsqrtf(v * v + 1e-3f);
    y[4 * i + 3] = exp2f(v);
    int n = __reduce_add_sync(~0u, v > 0.0f ? 1 : 0);
    if ((i & 31) == 0) atomicAdd(positive, n);
}
