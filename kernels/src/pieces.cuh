// The touched ranges of flat buffers, cut on the host into pieces of at most 1,024 elements, one per block, so that no
// block searches.
#pragma once
#include "common.cuh"

struct Piece {
    // Element e of the piece is offset + e / row * stride + e % row.
    int offset, row, stride, len;
    // ceil(2^32 / row), if the piece has several rows.
    u32 magic;
    float decay;
    // Rows, strides and offsets are multiples of four elements.
    int vectors, unused;

    __device__ __forceinline__ int at(int e) const {
        if (row == len) return offset + e;
        // No 32-bit factor divides by one.
        const int line = row == 1 ? e : __umulhi(e, magic);
        return offset + line * stride + e - line * row;
    }
};

// This block's.
static __device__ __forceinline__ Piece piece(const int4* pieces) {
    const int4 a = __ldg(pieces + 2 * blockIdx.x), b = __ldg(pieces + 2 * blockIdx.x + 1);
    return {a.x, a.y, a.z, a.w, (u32)b.x, __int_as_float(b.y), b.z, b.w};
}
