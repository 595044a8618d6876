// Division by numbers that are known at the launch alone.
#pragma once
#include "common.cuh"

// Granlund and Montgomery, "Division by invariant integers using multiplication", 1994: exact for n below 2^31.
struct Divide {
    u32 magic;
    int shift, by;

    __device__ __forceinline__ int quotient(int n) const {
        return (int)((__umulhi((u32)n, magic) + (u32)n) >> shift);
    }
    // Quotient and remainder.
    __device__ __forceinline__ int split(int n, int& rest) const {
        const int q = quotient(n);
        rest = n - q * by;
        return q;
    }
};
