// Loops over flat arrays and the accesses they are made of.
//
// A thread takes the elements that fill 16 bytes of the narrowest type, and the last one what fills no vector; arrays
// begin at multiples of 16 bytes. What is added to is read by plain loads: the read-only ones need memory that nobody
// writes.
#pragma once
#include "common.cuh"

// Elements of a vector, as floats.
template <int W>
struct Pack {
    float v[W];
};

template <int W>
static __device__ __forceinline__ Pack<W> unpack(const bf16*, uint4 t) {
    Pack<W> p;
    Vec<bf16>::unpack(t, p.v);
    return p;
}

template <int W>
static __device__ __forceinline__ Pack<W> unpack(const float*, uint4 t) {
    Pack<W> p;
    Vec<float>::unpack(t, p.v);
    return p;
}

static __device__ __forceinline__ Pack<4> unpack(uint2 t) { return {low(t.x), high(t.x), low(t.y), high(t.y)}; }

// W elements that nobody writes during the launch: 16 bytes, or 8 where bf16 goes with f32; W of 1 is one element.
template <int W, class T>
static __device__ __forceinline__ Pack<W> load(const T* p) {
    if constexpr (W == 1)
        return {load1(p)};
    else if constexpr (W * sizeof(T) == 8)
        return unpack(__ldg((const uint2*)p));
    else
        return unpack<W>(p, load16(p));
}

// V constants beside each other.
template <int V>
static __device__ __forceinline__ void constants(const float* p, float (&v)[V]) {
    if constexpr (V == 1) {
        v[0] = load1(p);
    } else {
#pragma unroll
        for (int i = 0; i < V; i += 4) {
            const Pack<4> four = load<4>(p + i);
            v[i] = four.v[0], v[i + 1] = four.v[1], v[i + 2] = four.v[2], v[i + 3] = four.v[3];
        }
    }
}

static __device__ __forceinline__ void store1(float* p, float v) { *p = v; }
static __device__ __forceinline__ void store1(bf16* p, float v) { p->bits = (u16)pack(v, 0.0f); }

static __device__ __forceinline__ void store(float* p, const Pack<1>& a) { store1(p, a.v[0]); }
static __device__ __forceinline__ void store(bf16* p, const Pack<1>& a) { store1(p, a.v[0]); }

static __device__ __forceinline__ void store(float* p, const Pack<4>& a) {
    *(float4*)p = make_float4(a.v[0], a.v[1], a.v[2], a.v[3]);
}
static __device__ __forceinline__ void store(bf16* p, const Pack<4>& a) {
    *(uint2*)p = make_uint2(pack(a.v[0], a.v[1]), pack(a.v[2], a.v[3]));
}
static __device__ __forceinline__ void store(bf16* p, const Pack<8>& a) {
    *(uint4*)p = make_uint4(pack(a.v[0], a.v[1]), pack(a.v[2], a.v[3]), pack(a.v[4], a.v[5]), pack(a.v[6], a.v[7]));
}

static __device__ __forceinline__ float read1(const float* p) { return *p; }
static __device__ __forceinline__ float read1(const bf16* p) { return low(p->bits); }

// What lies where this launch writes.
template <int W, class T>
static __device__ __forceinline__ Pack<W> read(const T* p) {
    if constexpr (W == 1)
        return {read1(p)};
    else if constexpr (W * sizeof(T) == 8)
        return unpack(*(const uint2*)p);
    else
        return unpack<W>(p, *(const uint4*)p);
}

// Stores, or adds to what is there.
template <int W, class T>
static __device__ __forceinline__ void write(T* p, Pack<W> a, bool add) {
    if (add) {
        const Pack<W> old = read<W>(p);
#pragma unroll
        for (int e = 0; e < W; ++e) a.v[e] += old.v[e];
    }
    store(p, a);
}

template <int W, class F, class... P>
static __device__ __forceinline__ Pack<W> apply(F f, const P&... p) {
    Pack<W> r;
#pragma unroll
    for (int e = 0; e < W; ++e) r.v[e] = f(p.v[e]...);
    return r;
}

// Elements of a thread.
template <class... T>
static constexpr int LANES = ((sizeof(T) == 2) && ...) ? 8 : 4;

// y[i] (+)= f(x[i]...), n elements; blocks of 256 threads.
template <class F, class Y, class... X>
static __device__ __forceinline__ void each(u32 n, bool add, F f, Y* y, const X*... x) {
    constexpr int W = LANES<Y, X...>;
    const u32 i = (blockIdx.x * 256 + threadIdx.x) * W;
    if (i + W <= n) {
        write(y + i, apply<W>(f, load<W>(x + i)...), add);
    } else {
#pragma unroll 1
        for (u32 e = i; e < n; ++e) write(y + e, apply<1>(f, load<1>(x + e)...), add);
    }
}
