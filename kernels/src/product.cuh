// What the products of 1x1 convolutions share: tensor cores, asynchronous copies, gradients formed on load.
#pragma once
#include "common.cuh"

static __device__ __forceinline__ void copy16(u32 to, const void* from, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

static __device__ __forceinline__ u32 tf32(float v) {
    u32 r;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(v));
    return r;
}

// acc += a * b: 16 rows, 8 columns, 32 bytes of k.
static __device__ __forceinline__ void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1, bf16) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The factors are tf32 already.
static __device__ __forceinline__ void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1, float) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// What a lane feeds to the tensor cores: eight halves as pairs, or four floats as tf32.
static __device__ __forceinline__ void to_fragment(const float (&v)[8], u32 (&f)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) f[i] = pack(v[2 * i], v[2 * i + 1]);
}

static __device__ __forceinline__ void to_fragment(const float (&v)[4], u32 (&f)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) f[i] = tf32(v[i]);
}

// 16 bytes of a row that begins at channel c of `channels`, one by one where channels fill no vector; beyond the end 0.
template <bool VECTORS, class T>
static __device__ __forceinline__ uint4 load_row(const T* from, int c, int channels) {
    constexpr int E = 16 / sizeof(T);
    if (c >= channels) return make_uint4(0, 0, 0, 0);
    if (VECTORS) return load16(from + c);
    T part[E] = {};
#pragma unroll
    for (int e = 0; e < E; ++e)
        if (c + e < channels) part[e] = from[c + e];
    return *(const uint4*)part;
}

// Constants per channel of a gradient that is formed on load: dh = p * (d * act'(h * scale + shift)) + q * h + r.
// `which` is 0 to 4: p, q, r, scale, shift; those of a channel that does not exist are 0, as is then dh.
struct Formed {
    const float *pqr, *scale, *shift;
    int channels;
    __device__ __forceinline__ float constant(int which, int c) const {
        if (c >= channels || pqr == nullptr) return 0.0f;
        if (which < 3) return __ldg(pqr + which * channels + c);
        return scale == nullptr ? 0.0f : __ldg((which == 3 ? scale : shift) + c);
    }
};

// Which activation lies above, known only at run time: one product serves all.
enum Above { NOTHING_ABOVE, CLAMP_ABOVE, HSWISH_ABOVE, SWISH_ABOVE };

static __device__ __forceinline__ float slope_above(int above, float u, float lo, float hi) {
    if (above == CLAMP_ABOVE) return slope_selected<CLAMP>(u, lo, hi);
    if (above == HSWISH_ABOVE) return slope_selected<HSWISH>(u, lo, hi);
    return slope_selected<SWISH>(u, lo, hi);
}

// Eight words to 16 bytes and 16 bytes beside each other, by eight lanes at once: half of them (`turn` 4, else 0) begin
// with the second 16 bytes, so that no two are on one bank.
static __device__ __forceinline__ void store_words(const u32* to, const u32 (&v)[8], int turn) {
#pragma unroll
    for (int i = 0; i < 8; i += 4) {
        float w[4];
#pragma unroll
        for (int e = 0; e < 4; ++e) w[e] = __uint_as_float(turn ? v[4 - i + e] : v[i + e]);
        store_shared(shared_address(to + (i ^ turn)), w[0], w[1], w[2], w[3]);
    }
}
