// Matrix products: tiles in shared memory, tensor cores by mma.sync with asynchronous copies, tensor cores by wmma.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <mma.h>

// y[m][n] = sum a[m][k] b[k][n], 16x16 tiles, any extents.
extern "C" __global__ void gemm_tiled(const float* a, const float* b, float* y, int m, int n, int k) {
    __shared__ float ta[16][17], tb[16][17];
    int row = blockIdx.y * 16 + threadIdx.y, col = blockIdx.x * 16 + threadIdx.x;
    float s = 0.0f;
    for (int k0 = 0; k0 < k; k0 += 16) {
        ta[threadIdx.y][threadIdx.x] = row < m && k0 + threadIdx.x < k ? a[row * k + k0 + threadIdx.x] : 0.0f;
        tb[threadIdx.y][threadIdx.x] = k0 + threadIdx.y < k && col < n ? b[(k0 + threadIdx.y) * n + col] : 0.0f;
        __syncthreads();
        for (int i = 0; i < 16; ++i) s += ta[threadIdx.y][i] * tb[i][threadIdx.x];
        __syncthreads();
    }
    if (row < m && col < n) y[row * n + col] = s;
}

// y[m][n] = sum a[m][k] b[n][k] in bf16 with f32 sums. A block of 4 warps makes 64x64; m, n multiples of 64, k of 32.
// Two stages of shared memory: copies of the next tile run while this one is multiplied.
constexpr int TILE = 64, DEEP = 32, PITCH = DEEP + 8;

static __device__ void copy16(void* to, const void* from) {
    unsigned int s = (unsigned int)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(s), "l"(from));
}

static __device__ void fetch(const __nv_bfloat16* a, const __nv_bfloat16* b, __nv_bfloat16* sa, __nv_bfloat16* sb, int k0, int k) {
    for (int i = threadIdx.x; i < TILE * DEEP / 8; i += 128) {
        int r = i / (DEEP / 8), c = i % (DEEP / 8) * 8;
        copy16(sa + r * PITCH + c, a + (long long)(blockIdx.y * TILE + r) * k + k0 + c);
        copy16(sb + r * PITCH + c, b + (long long)(blockIdx.x * TILE + r) * k + k0 + c);
    }
    asm volatile("cp.async.commit_group;");
}

extern "C" __global__ void __launch_bounds__(128)
    gemm_mma(const __nv_bfloat16* a, const __nv_bfloat16* b, float* y, int m, int n, int k) {
    __shared__ __align__(16) __nv_bfloat16 sa[2][TILE * PITCH], sb[2][TILE * PITCH];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int wm = warp / 2 * 32, wn = warp % 2 * 32;
    float acc[2][4][4] = {};
    fetch(a, b, sa[0], sb[0], 0, k);
    for (int t = 0; t < k / DEEP; ++t) {
        int now = t & 1;
        if (t + 1 < k / DEEP) {
            fetch(a, b, sa[now ^ 1], sb[now ^ 1], (t + 1) * DEEP, k);
            asm volatile("cp.async.wait_group 1;");
        } else {
            asm volatile("cp.async.wait_group 0;");
        }
        // The tile that has arrived is visible to all warps.
        __syncthreads();
        for (int kk = 0; kk < DEEP; kk += 16) {
            unsigned int fa[2][4], fb[4][2];
            for (int i = 0; i < 2; ++i) {
                const __nv_bfloat16* p = sa[now] + (wm + 16 * i + lane % 16) * PITCH + kk + lane / 16 * 8;
                unsigned int s = (unsigned int)__cvta_generic_to_shared(p);
                asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                             : "=r"(fa[i][0]), "=r"(fa[i][1]), "=r"(fa[i][2]), "=r"(fa[i][3]) : "r"(s));
            }
            for (int j = 0; j < 4; ++j) {
                const __nv_bfloat16* p = sb[now] + (wn + 8 * j + lane % 8) * PITCH + kk + lane / 8 % 2 * 8;
                unsigned int s = (unsigned int)__cvta_generic_to_shared(p);
                asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                             : "=r"(fb[j][0]), "=r"(fb[j][1]) : "r"(s));
            }
            for (int i = 0; i < 2; ++i)
                for (int j = 0; j < 4; ++j)
                    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                                 : "+f"(acc[i][j][0]), "+f"(acc[i][j][1]), "+f"(acc[i][j][2]), "+f"(acc[i][j][3])
                                 : "r"(fa[i][0]), "r"(fa[i][1]), "r"(fa[i][2]), "r"(fa[i][3]), "r"(fb[j][0]), "r"(fb[j][1]));
        }
        // Nobody may still read this stage when the next copy into it begins.
        __syncthreads();
    }
    for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 4; ++j)
            for (int e = 0; e < 4; ++e) {
                int r = blockIdx.y * TILE + wm + 16 * i + lane / 4 + e / 2 * 8;
                int c = blockIdx.x * TILE + wn + 8 * j + lane % 4 * 2 + e % 2;
                y[(long long)r * n + c] = acc[i][j][e];
            }
}

// 16x16 tiles of y = a b in f16 with f32 sums, one warp per tile; the scale is applied to the fragment's elements.
extern "C" __global__ void gemm_wmma(const __half* a, const __half* b, float* y, int n, int k, float scale) {
    using namespace nvcuda::wmma;
    fragment<matrix_a, 16, 16, 16, __half, row_major> fa;
    fragment<matrix_b, 16, 16, 16, __half, row_major> fb;
    fragment<accumulator, 16, 16, 16, float> acc;
    fill_fragment(acc, 0.0f);
    for (int k0 = 0; k0 < k; k0 += 16) {
        load_matrix_sync(fa, a + blockIdx.y * 16 * k + k0, k);
        load_matrix_sync(fb, b + k0 * n + blockIdx.x * 16, n);
        mma_sync(acc, fa, fb, acc);
    }
    for (int i = 0; i < acc.num_elements; ++i) acc.x[i] *= scale;
    store_matrix_sync(y + blockIdx.y * 16 * n + blockIdx.x * 16, acc, n, mem_row_major);
}
