// 1x1 convolution, gradient of the input: y[m][n] = sum over k of g[m][k] w[k][n], where the gradient g is formed on load,
//   g = p * (d * act'(h * scale + shift)) + q * h + r     per channel p, q, r: batch norm's backward, linear in both;
// without h it is d itself. What is added to y: another gradient (that of a residual), and what is there already.
//
// d, h [m, k] with m = images * plane rows, w [k, n] (the filter [out, in]: out is summed over), y [m, n].
// The project pass of a block also needs sums over rows of the values as stored, v = y[m][n], with u = h2 * scale2 + shift2
// and x = h2 - mean2: of v * act(u), v * act'(u), v * act'(u) * x, act'(u), act'(u) * x per image, or without
// squeeze-excite the second and third only. Sums of the part of image i that lies in tile j stand at i + j.
#include "product.cuh"

struct DataGradient {
    int m, k, n, plane;
    // Tiles of 128 rows that a block makes, and in each of them tiles of 64 columns.
    int tiles, columns;
    int above, five, accumulate;
    // Bounds of the activation above, and of that whose slope enters the sums.
    float lo_above, hi_above, lo, hi;
};

template <class T>
struct Arguments {
    const T *d, *h;
    const float *scale, *shift, *pqr;
    const T *w, *more, *h2;
    const float *scale2, *shift2, *mean2;
    T* y;
    float* sums;
};

constexpr int BM = 128, BN = 64, THREADS = 128, NO_SUMS = -1;

// Pitch of the filter's words: rows of k four apart fall on banks eight apart.
constexpr int PITCH = BN + 8;

// A tile in shared memory, [128][64]. The pieces of two rows that are written at once fall on different banks.
template <class T>
static __device__ __forceinline__ uint4* place(unsigned char* tile, int row, int slot) {
    constexpr int SLOTS = BN * sizeof(T) / 16;
    return (uint4*)tile + row * SLOTS + (sizeof(T) == 2 ? slot ^ (row & 1) << 2 : slot ^ (row & 1));
}

// Adds what else flows into V values of a row.
template <class T, bool VECTORS, int V>
static __device__ __forceinline__ void add_more(const Arguments<T>& a, const DataGradient& d, int row, int col,
                                                float (&v)[V]) {
    if (row >= d.m || col >= d.n) return;
    const long long at = (long long)row * d.n;
#pragma unroll
    for (int source = 0; source < 2; ++source) {
        const T* from = source == 0 ? a.more : d.accumulate ? a.y : nullptr;
        if (from == nullptr) continue;
#pragma unroll
        for (int part = 0; part < V; part += 16 / (int)sizeof(T)) {
            float w[16 / sizeof(T)];
            uint4 raw;
            if (col + part >= d.n) continue;
            // y is written during the launch: no read-only load.
            if (VECTORS && source == 1)
                raw = *(const uint4*)(from + at + col + part);
            else
                raw = load_row<VECTORS>(from + at, col + part, d.n);
            Vec<T>::unpack(raw, w);
#pragma unroll
            for (int e = 0; e < (int)(16 / sizeof(T)); ++e) v[part + e] += w[e];
        }
    }
}

// Stores a warp's 32 rows of a tile and takes their sums. All rows are in shared memory already.
template <class T, int SUMS, bool VECTORS>
static __device__ __forceinline__ void leave(const Arguments<T>& a, const DataGradient& d, unsigned char* tile,
                                             float* parts, int index, int n0) {
    constexpr int E = 16 / sizeof(T), SLOTS = BN / E;
    const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5;
    const int row0 = index * BM + warp * 32, rows = min(max(d.m - row0, 0), 32);
    T* to = a.y + (long long)row0 * d.n + n0;
#pragma unroll 4
    for (int i = lane; i < rows * SLOTS; i += 32) {
        const int row = i / SLOTS, slot = i % SLOTS;
        if (n0 + slot * E >= d.n) continue;
        const uint4* have = place<T>(tile, warp * 32 + row, slot);
        if (VECTORS) {
            *(uint4*)(to + row * d.n + slot * E) = *have;
        } else {
#pragma unroll
            for (int e = 0; e < E; ++e)
                if (n0 + slot * E + e < d.n) to[row * d.n + slot * E + e] = ((const T*)have)[e];
        }
    }
    if (SUMS == NO_SUMS) return;
    constexpr int ACT = SUMS == NO_SUMS ? CLAMP : SUMS;
    // The lane's two columns: neighbours for halves, 32 apart for floats.
    int col[2];
    bool exists[2];
    float s[2], b[2], m[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        col[i] = n0 + (sizeof(T) == 2 ? 2 * lane + i : lane + 32 * i);
        exists[i] = col[i] < d.n;
        s[i] = exists[i] ? __ldg(a.scale2 + col[i]) : 0.0f;
        b[i] = exists[i] ? __ldg(a.shift2 + col[i]) : 0.0f;
        m[i] = exists[i] ? __ldg(a.mean2 + col[i]) : 0.0f;
    }
    const int first = index * BM, last = min(first + BM, d.m);
    for (int image = first / d.plane; image * d.plane < last; ++image) {
        float sum[5][2] = {};
        const int from = max(image * d.plane, row0), until = min((image + 1) * d.plane, row0 + rows);
        const T* h2 = a.h2 + (long long)from * d.n + col[0];
        // The lane's place in a row of the tile; in the next row it is 64 or 16 bytes away, see `place`.
        u32 at = (from - first) * BN * (u32)sizeof(T) +
                 (sizeof(T) == 2 ? ((lane >> 2) ^ (from - first & 1) << 2) : ((lane >> 2) ^ (from - first & 1))) * 16 +
                 (lane & 3) * 4;
        const u32 base = shared_address(tile);
        auto rows_of = [&](const bool all_five) {
#pragma unroll 4
            for (int row = from; row < until; ++row, h2 += d.n) {
                float v[2], h[2];
                if (sizeof(T) == 2) {
                    u32 two;
                    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(two) : "r"(base + at));
                    v[0] = low(two), v[1] = high(two);
                    at = (at + BN * 2) ^ 64;
                } else {
                    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(v[0]) : "r"(base + at));
                    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(v[1]) : "r"(base + at + 128));
                    at = (at + BN * 4) ^ 16;
                }
                if (sizeof(T) == 2 && VECTORS) {
                    const u32 both = exists[0] ? __ldg((const u32*)h2) : 0;
                    h[0] = low(both), h[1] = high(both);
                } else {
#pragma unroll
                    for (int i = 0; i < 2; ++i) h[i] = exists[i] ? load1(h2 + (sizeof(T) == 2 ? i : 32 * i)) : 0.0f;
                }
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const float u = fmaf(h[i], s[i], b[i]), z = slope_selected<ACT>(u, d.lo, d.hi), x = h[i] - m[i];
                    const float vz = v[i] * z;
                    sum[1][i] += vz;
                    sum[2][i] = fmaf(vz, x, sum[2][i]);
                    if (all_five) {
                        sum[0][i] = fmaf(v[i], activate<ACT>(u, d.lo, d.hi), sum[0][i]);
                        sum[3][i] += z;
                        sum[4][i] = fmaf(z, x, sum[4][i]);
                    }
                }
            }
        };
        if (d.five)
            rows_of(true);
        else
            rows_of(false);
        // Everyone has left the product's, or the previous image's, numbers.
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
            for (int j = 0; j < 5; ++j)
                parts[(warp * 5 + j) * BN + (sizeof(T) == 2 ? 2 * lane + i : lane + 32 * i)] = sum[j][i];
        __syncthreads();
        // Warps in ascending order.
        auto total = [&](int j, int column) {
            float all = 0.0f;
#pragma unroll
            for (int w = 0; w < 4; ++w) all += parts[(w * 5 + j) * BN + column];
            return all;
        };
        const long long sums_at = index + image;
        if (d.five) {
            for (int i = tid; i < 5 * BN; i += THREADS) {
                const int column = i % BN, j = i / BN;
                if (n0 + column < d.n) a.sums[(sums_at * 5 + j) * d.n + n0 + column] = total(j, column);
            }
        } else if (tid < BN && n0 + tid < d.n) {
            ((float2*)a.sums)[sums_at * d.n + n0 + tid] = make_float2(total(1, tid), total(2, tid));
        }
    }
}

// Tensor cores: bf16, or f32 by tf32. Four warps of 32 rows each. The order of k is free as long as both factors agree: a
// lane loads 16 bytes of a row of d and h, which are its share of two multiplications, and forms them in registers. A
// word of the filter in shared memory is two rows of k of a column (bf16) or one (tf32); the order of n is free too:
// columns are dealt so that a lane takes four neighbours at once, and ends up with eight neighbours per 32. The gradient
// is formed for the first tile of columns and kept in shared memory for the others, each lane for itself.
template <class T, int SUMS, bool VECTORS>
static __device__ __forceinline__ void gradient_mma(const Arguments<T>& a, const DataGradient& d) {
    constexpr int E = 16 / sizeof(T), CHUNK = 4 * E;
    extern __shared__ __align__(16) unsigned char memory[];
    u32* weights = (u32*)memory;                              // [2][16][72]
    unsigned char* tile = memory + 2 * 16 * PITCH * 4;        // [128][64]
    float* constants = (float*)(tile + BM * BN * sizeof(T));  // [5][k rounded up]
    const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5, g = lane >> 2, t = lane & 3;
    const int chunks = (d.k + CHUNK - 1) / CHUNK, padded = chunks * CHUNK;
    const bool formed = a.h != nullptr;
    // The lane's factors of the first tile of columns, kept for the others: [warp][chunk][4][lane], 16 bytes each.
    const u32 kept = shared_address(constants + 5 * padded) + (warp * chunks * 4 * 32 + lane) * 16;
    int n0 = 0;

    if (formed) {
        const Formed f = {a.pqr, a.scale, a.shift, d.k};
        const int kinds = d.above ? 5 : 3;
        for (int which = 0; which < kinds; ++which)
            for (int i = tid; i < padded; i += THREADS) constants[which * padded + i] = f.constant(which, i);
    }
    // A thread brings eight columns of a row of words.
    const int word = tid >> 3, column = (tid & 7) * 8;
    uint4 coming[2];
    auto fetch = [&](int chunk) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int k = sizeof(T) == 2 ? chunk * CHUNK + 2 * word + i : chunk * CHUNK + word;
            const int col = n0 + column + (sizeof(T) == 2 ? 0 : 4 * i);
            coming[i] = make_uint4(0, 0, 0, 0);
            if (k < d.k) coming[i] = load_row<VECTORS>(a.w + (long long)k * d.n, col, d.n);
        }
    };
    auto arrive = [&](int chunk) {
        // Word 4 t + j is the lane t's for its j-th factor.
        const int row = (word & 3) * 4 + (word >> 2);
        u32* to = weights + ((chunk & 1) * 16 + row) * PITCH + column;
        const u32 x[4] = {coming[0].x, coming[0].y, coming[0].z, coming[0].w};
        const u32 y[4] = {coming[1].x, coming[1].y, coming[1].z, coming[1].w};
        u32 v[8];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (sizeof(T) == 2) {
                v[2 * i] = __byte_perm(x[i], y[i], 0x5410), v[2 * i + 1] = __byte_perm(x[i], y[i], 0x7632);
            } else {
                v[i] = tf32(__uint_as_float(x[i])), v[4 + i] = tf32(__uint_as_float(y[i]));
            }
        }
        store_words(to, v, tid & 4);
    };

    const int first = blockIdx.x * d.tiles;
    for (int index = first; index < first + d.tiles && index * BM < d.m; ++index) {
        const int row0 = index * BM + warp * 32, rows = min(max(d.m - row0, 0), 32);
        uint4 raw[4], raw_h[4];
        for (int turn = 0; turn < d.columns; ++turn) {
            n0 = (blockIdx.y * d.columns + turn) * BN;
            if (n0 >= d.n) break;
            const bool wide = n0 + BN / 2 < d.n;  // else the second half of the columns does not exist
            auto load = [&](int chunk) {
                const int k = chunk * CHUNK + t * E;
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    raw[i] = raw_h[i] = make_uint4(0, 0, 0, 0);
                    if (i * 8 + g < rows) {
                        const long long at = (long long)(row0 + i * 8 + g) * d.k;
                        raw[i] = load_row<VECTORS>(a.d + at, k, d.k);
                        if (formed) raw_h[i] = load_row<VECTORS>(a.h + at, k, d.k);
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
            // Everyone has left the previous tile's filter and sums.
            __syncthreads();
            fetch(0);
            if (turn == 0) load(0);
            arrive(0);
#pragma unroll 1
            for (int chunk = 0; chunk < chunks; ++chunk) {
                // This piece has arrived, and all have left the one before.
                __syncthreads();
                const u32 from = shared_address(weights + ((chunk & 1) * 16 + t) * PITCH + 4 * g);
                const u32 k = shared_address(constants) + (chunk * CHUNK + t * E) * 4;
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    u32 f[2][4];
#pragma unroll
                    for (int half = 0; half < 2; ++half) {
                        const u32 place = kept + ((chunk * 4 + 2 * i + half) * 32) * 16;
                        if (turn > 0) {
                            float w[4];
                            load_shared(place, w);
#pragma unroll
                            for (int e = 0; e < 4; ++e) f[half][e] = __float_as_uint(w[e]);
                            continue;
                        }
                        float v[E];
                        Vec<T>::unpack(raw[2 * i + half], v);
                        if (formed) {
                            float h[E];
                            Vec<T>::unpack(raw_h[2 * i + half], h);
#pragma unroll
                            for (int e = 0; e < E; e += 4) {
                                float p[4], q[4], r[4];
                                if (d.above) {
                                    load_shared(k + (3 * padded + e) * 4, p);
                                    load_shared(k + (4 * padded + e) * 4, q);
#pragma unroll
                                    for (int c = 0; c < 4; ++c)
                                        v[e + c] *= slope_above(d.above, fmaf(h[e + c], p[c], q[c]), d.lo_above, d.hi_above);
                                }
                                load_shared(k + e * 4, p);
                                load_shared(k + (padded + e) * 4, q);
                                load_shared(k + (2 * padded + e) * 4, r);
#pragma unroll
                                for (int c = 0; c < 4; ++c) v[e + c] = fmaf(v[e + c], p[c], fmaf(h[e + c], q[c], r[c]));
                            }
                        }
                        to_fragment(v, f[half]);
                        if (d.columns > 1)
                            store_shared(place, __uint_as_float(f[half][0]), __uint_as_float(f[half][1]),
                                         __uint_as_float(f[half][2]), __uint_as_float(f[half][3]));
                    }
                    // The next piece comes where this one's registers have become free.
                    if (chunk + 1 < chunks) {
                        if (i == 0) {
                            fetch(chunk + 1);
                        } else {
                            arrive(chunk + 1);
                            if (turn == 0) load(chunk + 1);
                        }
                    }
#pragma unroll
                    for (int pair = 0; pair < 2; ++pair) {
                        const u32 factor[4] = {f[0][2 * pair], f[1][2 * pair], f[0][2 * pair + 1], f[1][2 * pair + 1]};
#pragma unroll
                        for (int group = 0; group < 2; ++group) {
                            if (group == 1 && !wide) break;
                            float b0[4], b1[4];
                            load_shared(from + (2 * pair * 4 * PITCH + group * 32) * 4, b0);
                            load_shared(from + ((2 * pair + 1) * 4 * PITCH + group * 32) * 4, b1);
#pragma unroll
                            for (int j = 0; j < 4; ++j)
                                multiply(acc[i][group * 4 + j], factor, __float_as_uint(b0[j]), __float_as_uint(b1[j]), T());
                        }
                    }
                }
            }
            __syncwarp();
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int group = 0; group < 2; ++group) {
                    const int row = warp * 32 + i * 8 + g, e = (i & 1) * 2;
                    const float(*c)[4] = &acc[i >> 1][group * 4];
                    float v[8];
#pragma unroll
                    for (int j = 0; j < 4; ++j) v[j] = c[j][e], v[4 + j] = c[j][e + 1];
                    if (SUMS == NO_SUMS) add_more<T, VECTORS>(a, d, index * BM + row, n0 + group * 32 + 8 * t, v);
                    if (sizeof(T) == 2) {
                        *place<T>(tile, row, group * 4 + t) =
                            make_uint4(pack(v[0], v[1]), pack(v[2], v[3]), pack(v[4], v[5]), pack(v[6], v[7]));
                    } else {
                        *(float4*)place<T>(tile, row, group * 8 + 2 * t) = make_float4(v[0], v[1], v[2], v[3]);
                        *(float4*)place<T>(tile, row, group * 8 + 2 * t + 1) = make_float4(v[4], v[5], v[6], v[7]);
                    }
                }
            __syncwarp();
            leave<T, SUMS, VECTORS>(a, d, tile, (float*)memory, index, n0);
        }
    }
}

// f32 without tensor cores: every product and sum is an f32 fused multiply-add, in ascending order of k. A thread makes
// 8 x 8 values; both factors lie in shared memory with k outermost, the gradient formed once for all columns of the block.
template <int SUMS, bool VECTORS>
static __device__ __forceinline__ void gradient_fma(const Arguments<float>& a, const DataGradient& d) {
    constexpr int BK = 16, PA = BM + 4, PB = BN + 4;
    extern __shared__ __align__(16) unsigned char memory[];
    float* sa = (float*)memory;                           // [16][128 + 4]
    float* sb = sa + BK * PA;                             // [16][64 + 4]
    unsigned char* tile = (unsigned char*)(sb + BK * PB);  // [128][64]
    const int tid = threadIdx.x, tx = tid & 7, ty = tid >> 3, n0 = blockIdx.y * BN;
    const u32 from_a = shared_address(sa + ty * 4), from_b = shared_address(sb + tx * 4);
    const bool formed = a.h != nullptr;
    const Formed constants = {a.pqr, a.scale, a.shift, d.k};

    for (int index = blockIdx.x * d.tiles; index < (blockIdx.x + 1) * d.tiles && index * BM < d.m; ++index) {
        const int row0 = index * BM;
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
            float c[5][4];
            if (formed) {
#pragma unroll
                for (int which = 0; which < 5; ++which)
#pragma unroll
                    for (int e = 0; e < 4; ++e)
                        c[which][e] = which < 3 || d.above ? constants.constant(which, k + e) : 0.0f;
            }
#pragma unroll
            for (int i = 0; i < BM / 32; ++i) {
                const int r = i * 32 + (tid >> 2), row = row0 + r;
                float v[4] = {}, h[4] = {};
                if (row < d.m) {
                    Vec<float>::unpack(load_row<VECTORS>(a.d + (long long)row * d.k, k, d.k), v);
                    if (formed) Vec<float>::unpack(load_row<VECTORS>(a.h + (long long)row * d.k, k, d.k), h);
                }
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    if (formed) {
                        if (d.above) v[e] *= slope_above(d.above, fmaf(h[e], c[3][e], c[4][e]), d.lo_above, d.hi_above);
                        v[e] = fmaf(v[e], c[0][e], fmaf(h[e], c[1][e], c[2][e]));
                    }
                    sa[(part * 4 + e) * PA + r] = v[e];
                }
            }
            const int kw = k0 + (tid >> 3), column = (tid & 7) * 4;
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                float v[4] = {};
                if (kw < d.k)
                    Vec<float>::unpack(load_row<VECTORS>(a.w + (long long)kw * d.n, n0 + column + 32 * i, d.n), v);
                store_shared(shared_address(sb + (tid >> 3) * PB + column + 32 * i), v[0], v[1], v[2], v[3]);
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
        // The previous tile has left shared memory: k has at least one piece, which began with a barrier.
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const int row = (i & 4) * 16 + ty * 4 + (i & 3);
#pragma unroll
            for (int j = 0; j < 8; j += 4) {
                float v[4] = {acc[i][j], acc[i][j + 1], acc[i][j + 2], acc[i][j + 3]};
                if (SUMS == NO_SUMS) add_more<float, VECTORS>(a, d, row0 + row, n0 + j * 8 + tx * 4, v);
                *(float4*)place<float>(tile, row, j * 2 + tx) = make_float4(v[0], v[1], v[2], v[3]);
            }
        }
        __syncthreads();
        leave<float, SUMS, VECTORS>(a, d, tile, (float*)memory, index, n0);
    }
}

// `scalar` variants serve channels that fill no vector of 16 bytes.
#define KERNEL(NAME, BLOCKS, T, ...)                                                                                  \
    extern "C" __global__ void __launch_bounds__(128, BLOCKS) pointwise_conv2d_bwd_x_##NAME(                               \
        const T* d, const T* h, const float* scale, const float* shift, const float* pqr, const T* w, const T* more,  \
        const T* h2, const float* scale2, const float* shift2, const float* mean2, T* y, float* sums,                 \
        DataGradient dims) {                                                                                          \
        const Arguments<T> a = {d, h, scale, shift, pqr, w, more, h2, scale2, shift2, mean2, y, sums};                \
        __VA_ARGS__(a, dims);                                                                                         \
    }
#define EACH_TYPE(SUFFIX, SUMS)                                               \
    KERNEL(f32##SUFFIX, 3, float, gradient_fma<SUMS, true>)                      \
    KERNEL(f32##SUFFIX##_scalar, 2, float, gradient_fma<SUMS, false>)            \
    KERNEL(tf32##SUFFIX, 2, float, gradient_mma<float, SUMS, true>)              \
    KERNEL(tf32##SUFFIX##_scalar, 2, float, gradient_mma<float, SUMS, false>)    \
    KERNEL(bf16##SUFFIX, 3, bf16, gradient_mma<bf16, SUMS, true>)                \
    KERNEL(bf16##SUFFIX##_scalar, 2, bf16, gradient_mma<bf16, SUMS, false>)
EACH_TYPE(, NO_SUMS)
EACH_TYPE(_sums_clamp, CLAMP)
EACH_TYPE(_sums_hswish, HSWISH)
EACH_TYPE(_sums_swish, SWISH)
