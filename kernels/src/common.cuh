// What all kernels share: element types, 16-byte vectors, activations, moments. No header of a toolkit is needed.
//
// Conventions: activations are NHWC; arithmetic is f32 whatever the elements are; sums have a fixed order and never
// use floating-point atomics, so the same inputs give the same bits under every schedule.
#pragma once

typedef unsigned int u32;
typedef unsigned short u16;

struct bf16 {
    u16 bits;
};

// Which function follows the affine map. CLAMP serves the identity, ReLU and ReLU6 by its bounds.
enum Act { CLAMP, HSWISH, SWISH };

static __device__ __forceinline__ float low(u32 pair) { return __uint_as_float(pair << 16); }
static __device__ __forceinline__ float high(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }

// Two floats rounded to nearest even: `a` in the low half.
static __device__ __forceinline__ u32 pack(float a, float b) {
    u32 r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(b), "f"(a));
    return r;
}

// The clamp that lets NaN through, so that a broken step cannot hide behind a ReLU.
static __device__ __forceinline__ float clamp(float v, float lo, float hi) {
    float r;
    asm("{\n.reg .f32 t;\nmax.NaN.f32 t, %1, %2;\nmin.NaN.f32 %0, t, %3;\n}" : "=f"(r) : "f"(v), "f"(lo), "f"(hi));
    return r;
}

template <int ACT>
static __device__ __forceinline__ float activate(float u, float lo, float hi) {
    if (ACT == CLAMP) return clamp(u, lo, hi);
    // u * relu6(u + 3) / 6; the saturation gives 0 for NaN, the product NaN again.
    if (ACT == HSWISH) {
        float part;
        asm("fma.rn.sat.f32 %0, %1, %2, %3;" : "=f"(part) : "f"(u), "f"(1.0f / 6.0f), "f"(0.5f));
        return u * part;
    }
    return __fdividef(u, 1.0f + __expf(-u));
}

// The derivative at u; at kinks as PyTorch.
template <int ACT>
static __device__ __forceinline__ float slope(float u, float lo, float hi) {
    if (ACT == CLAMP) return u > lo && u < hi ? 1.0f : 0.0f;
    if (ACT == HSWISH) return u <= -3.0f ? 0.0f : u >= 3.0f ? 1.0f : fmaf(u, 1.0f / 3.0f, 0.5f);
    float s = __fdividef(1.0f, 1.0f + __expf(-u));
    return s * fmaf(u, 1.0f - s, 1.0f);
}

// The same by selections, where the compiler would make branches: fewer slots, but more registers at once than the
// depthwise passes have.
template <int ACT>
static __device__ __forceinline__ float slope_selected(float u, float lo, float hi) {
    if (ACT != HSWISH) return slope<ACT>(u, lo, hi);
    float r;
    asm("{\n.reg .pred p, q;\n.reg .f32 t;\nfma.rn.f32 t, %1, %2, %3;\nsetp.le.f32 p, %1, %4;\nsetp.ge.f32 q, %1, %5;\n"
        "selp.f32 t, 0f00000000, t, p;\nselp.f32 %0, 0f3F800000, t, q;\n}"
        : "=f"(r)
        : "f"(u), "f"(1.0f / 3.0f), "f"(0.5f), "f"(-3.0f), "f"(3.0f));
    return r;
}

// Elements in 16 bytes, as floats.
template <class T>
struct Vec;

template <>
struct Vec<float> {
    static constexpr int N = 4;
    static __device__ __forceinline__ void unpack(uint4 t, float (&v)[4]) {
        v[0] = __uint_as_float(t.x), v[1] = __uint_as_float(t.y);
        v[2] = __uint_as_float(t.z), v[3] = __uint_as_float(t.w);
    }
};

template <>
struct Vec<bf16> {
    static constexpr int N = 8;
    static __device__ __forceinline__ void unpack(uint4 t, float (&v)[8]) {
        v[0] = low(t.x), v[1] = high(t.x), v[2] = low(t.y), v[3] = high(t.y);
        v[4] = low(t.z), v[5] = high(t.z), v[6] = low(t.w), v[7] = high(t.w);
    }
};

// Count, mean and sum of squared deviations of some values; merged by Chan's rule.
struct Moments {
    float n, mean, m2;
    // Others join; the result does not depend on who held which when the order of merging is fixed.
    __device__ __forceinline__ void merge(float bn, float bmean, float bm2) {
        float all = n + bn;
        if (all == 0.0f) return;
        float d = bmean - mean, part = bn / all;
        mean = fmaf(d, part, mean);
        m2 += fmaf(d * d, n * part, bm2);
        n = all;
    }
};

// 16 bytes that nobody writes during the launch.
static __device__ __forceinline__ uint4 load16(const void* p) { return __ldg((const uint4*)p); }

// Whether this block is the last of `blocks` that come here with a counter, to be asked by all its threads together. What
// the others wrote before they came can then be read, around this multiprocessor's own cache: __ldcg. The counter is zero
// before the first and after the last. `word` is shared memory that nobody uses meanwhile.
static __device__ __forceinline__ bool is_last(u32* counter, u32 blocks, u32* word) {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) *word = atomicInc(counter, blocks - 1);
    __syncthreads();
    if (*word != blocks - 1) return false;
    __threadfence();
    __syncthreads();
    return true;
}

static __device__ __forceinline__ float load1(const float* p) { return __ldg(p); }
static __device__ __forceinline__ float load1(const bf16* p) { return low(__ldg((const u16*)p)); }

// 16 bytes to shared memory. The compiler takes vector stores apart when it likes the parts; this it leaves whole.
static __device__ __forceinline__ void store_shared(u32 address, float a, float b, float c, float d) {
    asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(address), "f"(a), "f"(b), "f"(c), "f"(d) : "memory");
}

static __device__ __forceinline__ u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

// And from there. (NVRTC 12.0 takes some of these loads apart or not as its own addresses happen to fall: the bytes of the
// PTX would differ from run to run.)
static __device__ __forceinline__ void load_shared(u32 address, float* v) {
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v[0]), "=f"(v[1]), "=f"(v[2]), "=f"(v[3])
                 : "r"(address)
                 : "memory");
}
