// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), the same words as
// `engine::Rng`: a value is a function of key and counter (epoch, step, image or element, draw).
#pragma once
#include "common.cuh"

static __device__ __forceinline__ uint4 philox(uint4 c, uint2 key) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const u32 a = 0xd2511f53u, b = 0xcd9e8d57u;
        c = make_uint4(__umulhi(b, c.z) ^ c.y ^ key.x, b * c.z, __umulhi(a, c.x) ^ c.w ^ key.y, a * c.x);
        key.x += 0x9e3779b9u;
        key.y += 0xbb67ae85u;
    }
    return c;
}

// Uniform in [0, 1) with 24 bits.
static __device__ __forceinline__ float uniform(u32 word) { return (float)(word >> 8) * (1.0f / 16777216.0f); }
