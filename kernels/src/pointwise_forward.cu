// 1x1 convolution, forward: y[m][n] = sum over k of z[m][k] w[n][k], z = act(x * scale + shift) * gate, with the
// statistics of y as stored.
//
// x [m, k] with m = images * plane rows, w [n, k], y [m, n]; scale, shift [k]; gate [images, k]. A block makes 64 columns
// of `tiles` tiles of 128 rows one after another and writes (mean, sum of squared deviations) per column, beside their
// count, once for all of them.
#include "product.cuh"

struct Pointwise {
    int m, k, n, plane;
    // Tiles of 128 rows that a block makes.
    int tiles;
    float lo, hi;
};

constexpr int BM = 128, BN = 64, THREADS = 128;

// What the tensor cores take of 4 bytes of the filter.
static __device__ __forceinline__ u32 factor(u32 bits, bf16) { return bits; }
static __device__ __forceinline__ u32 factor(u32 bits, float) { return tf32(__uint_as_float(bits)); }

// Merges the moments that the block's parts hold of each column: parts[i][3][64], in ascending order of i.
static __device__ __forceinline__ void finish(const float* parts, int count, float2* moments, float* counts, int n) {
    __syncthreads();
    const int column = threadIdx.x;
    if (column >= BN) return;
    Moments m = {0.0f, 0.0f, 0.0f};
    for (int i = 0; i < count; ++i, parts += 3 * BN) m.merge(parts[column], parts[BN + column], parts[2 * BN + column]);
    const int col = blockIdx.y * BN + column;
    if (col < n) moments[(long long)blockIdx.x * n + col] = make_float2(m.mean, m.m2);
    if (blockIdx.y == 0 && column == 0) counts[blockIdx.x] = m.n;
}

// A column's running sums about the first value seen.
struct Running {
    float pivot, sum, squares;
    __device__ __forceinline__ void add(float v) {
        v -= pivot;
        sum += v;
        squares = fmaf(v, v, squares);
    }
    __device__ __forceinline__ void put(float* part, float n) const {
        part[0] = n;
        part[BN] = n > 0.0f ? pivot + sum / n : 0.0f;
        part[2 * BN] = n > 0.0f ? fmaxf(squares - sum * sum / n, 0.0f) : 0.0f;
    }
};

// Tensor cores: bf16, or f32 by tf32. Four warps of 32 rows each. The order of k is free as long as both factors agree:
// a lane loads 16 bytes of a row of x, which are its share of two multiplications, transforms them in registers, and
// takes the same 16 bytes of a row of w from shared memory. The order of n is free too: columns are dealt so that a
// lane ends up with eight neighbours per 32, which leave as 16-byte pieces. w arrives by asynchronous copies, 64 bytes
// of k at a time, one piece ahead.
template <class T, int ACT, bool VECTORS>
static __device__ __forceinline__ void forward_mma(const T* __restrict__ x, const float* __restrict__ scale,
                                                   const float* __restrict__ shift, const float* __restrict__ gate,
                                                   const T* __restrict__ w, T* __restrict__ y,
                                                   float2* __restrict__ moments, float* __restrict__ counts,
                                                   const Pointwise& d) {
    constexpr int E = 16 / sizeof(T), CHUNK = 4 * E, SLOTS = BN / E;
    extern __shared__ __align__(16) unsigned char memory[];
    unsigned char* weights = memory;                       // [2][64 columns][64 bytes of k]
    unsigned char* exchange = memory + 2 * BN * 64;        // [4 warps][32 rows][64 columns]
    float* affine = (float*)(exchange + BM * BN * sizeof(T));  // [2][k rounded up]
    const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5, g = lane >> 2, t = lane & 3;
    const bool wide = blockIdx.y * BN + BN / 2 < d.n;  // else the second half of the columns does not exist
    const int n0 = blockIdx.y * BN, chunks = (d.k + CHUNK - 1) / CHUNK, padded = chunks * CHUNK;
    T* own = (T*)exchange + warp * 32 * BN;

    for (int i = tid; i < padded; i += THREADS) {
        const bool known = i < d.k && scale != nullptr;
        affine[i] = known ? scale[i] : 1.0f;
        affine[padded + i] = known ? shift[i] : 0.0f;
    }
    auto fetch = [&](int chunk) {
        unsigned char* to = weights + (chunk & 1) * BN * 64;
        if (VECTORS) {
#pragma unroll
            for (int j = 0; j < BN * 4 / THREADS; ++j) {
                const int i = j * THREADS + tid, col = n0 + i / 4, k = chunk * CHUNK + i % 4 * E;
                // Columns and k past the end are filled with zeros; their address is that of the first.
                const bool exists = col < d.n && k < d.k;
                copy16(shared_address(to) + i * 16, w + (exists ? col * d.k + k : 0), exists ? 16 : 0);
            }
        } else {
            for (int i = tid; i < BN * CHUNK; i += THREADS) {
                const int col = n0 + i / CHUNK, k = chunk * CHUNK + i % CHUNK;
                T v = {};
                if (col < d.n && k < d.k) v = w[col * d.k + k];
                ((T*)to)[i] = v;
            }
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
    };

    // Moments of the lane's two columns: neighbours for halves, 32 apart for floats. They rest in shared memory, since
    // the product needs the registers.
    float* resting = affine + 2 * padded + tid;
#pragma unroll
    for (int i = 0; i < 6; ++i) resting[i * THREADS] = 0.0f;
    const int first = blockIdx.x * d.tiles;

    for (int tile = first; tile < first + d.tiles && tile * BM < d.m; ++tile) {
        const int row0 = tile * BM + warp * 32, rows = min(max(d.m - row0, 0), 32);
        const T* rows_of_x = x + (long long)row0 * d.k;
        uint4 raw[4];
        auto load = [&](int chunk) {
            const int k = chunk * CHUNK + t * E;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                raw[i] = make_uint4(0, 0, 0, 0);
                if (i * 8 + g < rows && k < d.k) {
                    const T* from = rows_of_x + (i * 8 + g) * d.k + k;
                    if (VECTORS) {
                        raw[i] = load16(from);
                    } else {
                        T part[E] = {};
#pragma unroll
                        for (int e = 0; e < E; ++e)
                            if (k + e < d.k) part[e] = from[e];
                        raw[i] = *(const uint4*)part;
                    }
                }
            }
        };
        float acc[2][8][4];
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
            for (int j = 0; j < 8; ++j)
#pragma unroll
                for (int e = 0; e < 4; ++e) acc[i][j][e] = 0.0f;
        // Nobody reads the first buffer any more: the last turn of the previous tile began with a barrier, and if it
        // used this buffer the next one follows only after all have left it.
        __syncthreads();
        fetch(0);
        load(0);
#pragma unroll 1
        for (int chunk = 0; chunk < chunks; ++chunk) {
            asm volatile("cp.async.wait_all;" ::: "memory");
            // This piece has arrived for all, and all have left the one before.
            __syncthreads();
            if (chunk + 1 < chunks) fetch(chunk + 1);
            const int k = chunk * CHUNK + t * E;
            const unsigned char* from = weights + (chunk & 1) * BN * 64 + (8 * (g >> 1) + (g & 1)) * 64 + t * 16;
            const float *scales = affine + k, *shifts = scales + padded;
            // Sixteen rows at a time: all 32 at once would halve the loads of w, but registers run out.
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                u32 f[2][4];
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    const int row = row0 + i * 16 + h * 8 + g;
                    float v[E];
                    Vec<T>::unpack(raw[2 * i + h], v);
#pragma unroll
                    for (int e = 0; e < E; e += 4) {
                        const float4 a = *(const float4*)(scales + e), b = *(const float4*)(shifts + e);
                        v[e] = activate<ACT>(fmaf(v[e], a.x, b.x), d.lo, d.hi);
                        v[e + 1] = activate<ACT>(fmaf(v[e + 1], a.y, b.y), d.lo, d.hi);
                        v[e + 2] = activate<ACT>(fmaf(v[e + 2], a.z, b.z), d.lo, d.hi);
                        v[e + 3] = activate<ACT>(fmaf(v[e + 3], a.w, b.w), d.lo, d.hi);
                    }
                    if (gate != nullptr && row < d.m) {
                        const float* factors = gate + (long long)(row / d.plane) * d.k + k;
#pragma unroll
                        for (int e = 0; e < E; ++e) v[e] *= k + e < d.k ? __ldg(factors + e) : 0.0f;
                    }
                    to_fragment(v, f[h]);
                }
                if (i == 1 && chunk + 1 < chunks) load(chunk + 1);
                const u32 first[4] = {f[0][0], f[1][0], f[0][1], f[1][1]};
                const u32 second[4] = {f[0][2], f[1][2], f[0][3], f[1][3]};
#pragma unroll
                for (int j = 0; j < 8; ++j) {
                    if (j == 4 && !wide) break;
                    const uint4 b = *(const uint4*)(from + ((j & 4) * 8 + (j & 3) * 2) * 64);
                    multiply(acc[i][j], first, factor(b.x, T()), factor(b.y, T()), T());
                    multiply(acc[i][j], second, factor(b.z, T()), factor(b.w, T()), T());
                }
            }
        }
        // Rows change hands within the warp. Halves of odd rows change places, so that the pieces of two rows that are
        // written at once fall on different banks.
        auto place = [&](int row, int slot) {
            return (uint4*)own + row * SLOTS + (sizeof(T) == 2 ? slot ^ (row & 1) << 2 : slot ^ (row & 1));
        };
        __syncwarp();
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int group = 0; group < 2; ++group) {
                const int row = i * 8 + g, j = group * 4, e = (i & 1) * 2;
                const float(*c)[4] = &acc[i >> 1][j];
                if (sizeof(T) == 2) {
                    *place(row, group * 4 + t) = make_uint4(pack(c[0][e], c[0][e + 1]), pack(c[1][e], c[1][e + 1]),
                                                            pack(c[2][e], c[2][e + 1]), pack(c[3][e], c[3][e + 1]));
                } else {
                    *(float4*)place(row, group * 8 + 2 * t) = make_float4(c[0][e], c[0][e + 1], c[1][e], c[1][e + 1]);
                    *(float4*)place(row, group * 8 + 2 * t + 1) = make_float4(c[2][e], c[2][e + 1], c[3][e], c[3][e + 1]);
                }
            }
        __syncwarp();
        // The statistics are those of what the next pass will read.
        Running column[2];
#pragma unroll
        for (int i = 0; i < 2; ++i)
            column[i] = {resting[3 * i * THREADS], resting[(3 * i + 1) * THREADS], resting[(3 * i + 2) * THREADS]};
        for (int row = 0; row < rows; ++row) {
            float v[2];
            if (sizeof(T) == 2) {
                const u32 two = ((const u32*)place(row, lane >> 2))[lane & 3];
                v[0] = low(two), v[1] = high(two);
            } else {
                v[0] = ((const float*)place(row, lane >> 2))[lane & 3];
                v[1] = ((const float*)place(row, 8 + (lane >> 2)))[lane & 3];
            }
            if (tile == first && row == 0) column[0].pivot = v[0], column[1].pivot = v[1];
            column[0].add(v[0]);
            column[1].add(v[1]);
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            resting[3 * i * THREADS] = column[i].pivot;
            resting[(3 * i + 1) * THREADS] = column[i].sum;
            resting[(3 * i + 2) * THREADS] = column[i].squares;
        }
        T* to = y + (long long)row0 * d.n + n0;
#pragma unroll 4
        for (int i = lane; i < rows * SLOTS; i += 32) {
            const int row = i / SLOTS, slot = i % SLOTS;
            if (n0 + slot * E >= d.n) continue;
            const uint4* have = place(row, slot);
            if (VECTORS) {
                *(uint4*)(to + row * d.n + slot * E) = *have;
            } else {
#pragma unroll
                for (int e = 0; e < E; ++e)
                    if (n0 + slot * E + e < d.n) to[row * d.n + slot * E + e] = ((const T*)have)[e];
            }
        }
    }
    // Tiles but the last are full, and of the last a warp has what is left of its rows.
    int counted = 0;
    for (int tile = first; tile < first + d.tiles; ++tile) counted += min(max(d.m - tile * BM - warp * 32, 0), 32);
    __syncthreads();
    float* parts = (float*)memory;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const Running column = {resting[3 * i * THREADS], resting[(3 * i + 1) * THREADS], resting[(3 * i + 2) * THREADS]};
        column.put(parts + warp * 3 * BN + (sizeof(T) == 2 ? 2 * lane + i : lane + 32 * i), (float)counted);
    }
    finish(parts, 4, moments, counts, d.n);
}

// f32 without tensor cores: every product and sum is an f32 fused multiply-add, in ascending order of k. A thread makes
// 8 x 8 values; both factors lie in shared memory with k outermost, the activated x once for all columns of the block.
template <int ACT, bool VECTORS>
static __device__ __forceinline__ void forward_fma(const float* __restrict__ x, const float* __restrict__ scale,
                                                   const float* __restrict__ shift, const float* __restrict__ gate,
                                                   const float* __restrict__ w, float* __restrict__ y,
                                                   float2* __restrict__ moments, float* __restrict__ counts,
                                                   const Pointwise& d) {
    constexpr int BK = 16, PA = BM + 4, PB = BN + 4;
    extern __shared__ __align__(16) float shared[];
    float* sa = shared;            // [16][128 + 4]
    float* sb = shared + BK * PA;  // [16][64 + 4]
    const int tid = threadIdx.x, tx = tid & 7, ty = tid >> 3, n0 = blockIdx.y * BN;
    const u32 from_a = shared_address(sa + ty * 4), from_b = shared_address(sb + tx * 4);
    Running column[8] = {};
    int counted = 0;

    for (int tile = blockIdx.x * d.tiles; tile < (blockIdx.x + 1) * d.tiles && tile * BM < d.m; ++tile) {
        const int row0 = tile * BM;
        float acc[8][8];
#pragma unroll
        for (int i = 0; i < 8; ++i)
#pragma unroll
            for (int j = 0; j < 8; ++j) acc[i][j] = 0.0f;
#pragma unroll 1
        for (int k0 = 0; k0 < d.k; k0 += BK) {
            // Everyone has left the previous piece.
            __syncthreads();
            // Four lanes take 64 bytes of a row; a lane's four values go to four rows of k.
            const int part = tid & 3, k = k0 + part * 4;
            float a[4], b[4];
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const bool known = k + e < d.k && scale != nullptr;
                a[e] = known ? __ldg(scale + k + e) : 1.0f;
                b[e] = known ? __ldg(shift + k + e) : 0.0f;
            }
            auto four = [&](const float* from, bool exists, float (&v)[4]) {
#pragma unroll
                for (int e = 0; e < 4; ++e) v[e] = 0.0f;
                if (!exists) return;
                if (VECTORS) {
                    if (k < d.k) Vec<float>::unpack(load16(from), v);
                } else {
#pragma unroll
                    for (int e = 0; e < 4; ++e)
                        if (k + e < d.k) v[e] = __ldg(from + e);
                }
            };
#pragma unroll
            for (int i = 0; i < BM / 32; ++i) {
                const int r = i * 32 + (tid >> 2), row = row0 + r;
                float v[4];
                four(x + (long long)row * d.k + k, row < d.m, v);
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    v[e] = activate<ACT>(fmaf(v[e], a[e], b[e]), d.lo, d.hi);
                    if (gate != nullptr && row < d.m && k + e < d.k)
                        v[e] *= __ldg(gate + (long long)(row / d.plane) * d.k + k + e);
                    sa[(part * 4 + e) * PA + r] = v[e];
                }
            }
#pragma unroll
            for (int i = 0; i < BN / 32; ++i) {
                const int c = i * 32 + (tid >> 2), col = n0 + c;
                float v[4];
                four(w + (long long)col * d.k + k, col < d.n, v);
#pragma unroll
                for (int e = 0; e < 4; ++e) sb[(part * 4 + e) * PB + c] = v[e];
            }
            __syncthreads();
#pragma unroll
            for (int kk = 0; kk < BK; ++kk) {
                float p[8], q[8];
                load_shared(from_a + kk * PA * 4, p);
                load_shared(from_a + kk * PA * 4 + 256, p + 4);
                load_shared(from_b + kk * PB * 4, q);
                load_shared(from_b + kk * PB * 4 + 128, q + 4);
#pragma unroll
                for (int i = 0; i < 8; ++i)
#pragma unroll
                    for (int j = 0; j < 8; ++j) acc[i][j] = fmaf(p[i], q[j], acc[i][j]);
            }
        }
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const int row = row0 + (i & 4) * 16 + ty * 4 + (i & 3);
            if (row >= d.m) continue;
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                if (counted == 0) column[j].pivot = acc[i][j];
                column[j].add(acc[i][j]);
            }
            ++counted;
#pragma unroll
            for (int j = 0; j < 8; j += 4) {
                const int col = n0 + j * 8 + tx * 4;
                float* to = y + (long long)row * d.n + col;
                if (VECTORS) {
                    if (col < d.n) *(float4*)to = make_float4(acc[i][j], acc[i][j + 1], acc[i][j + 2], acc[i][j + 3]);
                } else {
#pragma unroll
                    for (int e = 0; e < 4; ++e)
                        if (col + e < d.n) to[e] = acc[i][j + e];
                }
            }
        }
    }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < 8; ++j)
        column[j].put(shared + ty * 3 * BN + (j & 4) * 8 + tx * 4 + (j & 3), (float)counted);
    finish(shared, 16, moments, counts, d.n);
}

// `scalar` variants serve channels that fill no vector of 16 bytes.
#define KERNEL(NAME, T, ...)                                                                                       \
    extern "C" __global__ void __launch_bounds__(128, 3) pointwise_conv2d_fwd_##NAME(                              \
        const T* x, const float* scale, const float* shift, const float* gate, const T* w, T* y, float2* moments,  \
        float* counts, Pointwise d) {                                                                              \
        __VA_ARGS__(x, scale, shift, gate, w, y, moments, counts, d);                                              \
    }
#define EACH_TYPE(ACT_NAME, ACT)                                     \
    KERNEL(f32_##ACT_NAME, float, forward_fma<ACT, true>)            \
    KERNEL(f32_##ACT_NAME##_scalar, float, forward_fma<ACT, false>)  \
    KERNEL(tf32_##ACT_NAME, float, forward_mma<float, ACT, true>)    \
    KERNEL(tf32_##ACT_NAME##_scalar, float, forward_mma<float, ACT, false>) \
    KERNEL(bf16_##ACT_NAME, bf16, forward_mma<bf16, ACT, true>)      \
    KERNEL(bf16_##ACT_NAME##_scalar, bf16, forward_mma<bf16, ACT, false>)
EACH_TYPE(clamp, CLAMP)
EACH_TYPE(hswish, HSWISH)
EACH_TYPE(swish, SWISH)
