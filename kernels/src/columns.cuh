// Arrays [rows, c] seen by columns: who works where, sums over rows, maps of rows.
//
// A row is cut into vectors of 16 bytes (`scalar` variants: of one element, for channels that fill no vector). A block
// is `across` neighbouring vectors wide and as many rows deep as its threads allow, so a thread meets the same
// channels in every row, keeps their constants and sums in registers, and neighbours read neighbouring addresses.
#pragma once
#include "elementwise.cuh"

struct Rows {
    // Rows of one image, or of all; channels.
    int rows, c;
    // Rows of a block, vectors across a block.
    int piece, across;
    // Added to what is there, or stored.
    int add;
    // Factor of a mean.
    float even;
};

// Where a thread works.
struct Place {
    int channel, row, end, step;
    // Rows before those of this block's image.
    long long before;
    bool mine;
};

// The rows of `image`.
template <int V>
static __device__ __forceinline__ Place place(const Rows& d, int image) {
    const int across = d.across, down = blockDim.x / across, r = threadIdx.x / across, col = threadIdx.x - r * across;
    Place p;
    p.channel = (blockIdx.y * across + col) * V;
    const int first = blockIdx.x * d.piece;
    p.row = first + r;
    p.end = min(first + d.piece, d.rows);
    p.step = down;
    p.before = (long long)image * d.rows;
    // Threads beyond whole rows and vectors beyond the channels idle.
    p.mine = r < down && p.channel < d.c;
    return p;
}

// Constants of a thread's channels; `other` if there are none.
template <int V>
static __device__ __forceinline__ Pack<V> constants(const float* p, int channel, float other) {
    Pack<V> r;
#pragma unroll
    for (int e = 0; e < V; ++e) r.v[e] = other;
    if (p == nullptr) return r;
    if constexpr (V == 8) {
        const Pack<4> a = load<4>(p + channel), b = load<4>(p + channel + 4);
#pragma unroll
        for (int e = 0; e < 8; ++e) r.v[e] = e < 4 ? a.v[e] : b.v[e - 4];
        return r;
    } else {
        return load<V>(p + channel);
    }
}

// K sums over the rows of this block for each of its channels: `each(row, offset, sums)` adds one vector of a
// row to sums[k][e], `finish(channel, sums)` gets the K totals of a channel, in one thread. Rows of a block are added in
// ascending order of the thread that had them.
template <int V, int K, class Each, class Finish>
static __device__ __forceinline__ void column_sums(const Rows& d, const Place& p, Each each, Finish finish) {
    // The pitch spreads the vectors' elements over the banks, both as threads write and as channels read.
    constexpr int PITCH = 256 + 32 / V;
    __shared__ float part[K * V][PITCH];
    float sums[K][V] = {};
    if (p.mine)
        for (int row = p.row; row < p.end; row += p.step) each(row, (p.before + row) * d.c + p.channel, sums);
#pragma unroll
    for (int k = 0; k < K; ++k)
#pragma unroll
        for (int e = 0; e < V; ++e) part[k * V + e][threadIdx.x] = sums[k][e];
    __syncthreads();
    for (int i = threadIdx.x; i < d.across * V; i += blockDim.x) {
        const int col = i / V, e = i % V, channel = (blockIdx.y * d.across + col) * V + e;
        if (channel >= d.c) break;
        float total[K] = {};
        for (int at = col; at < p.step * d.across; at += d.across)
#pragma unroll
            for (int k = 0; k < K; ++k) total[k] += part[k * V + e][at];
        finish(channel, total);
    }
}

// For all rows of this block: y (+)= f(offset, row before this thread's channels).
template <int V, class T, class F>
static __device__ __forceinline__ void map_rows(T* y, const Rows& d, const Place& p, F f) {
#pragma unroll 2
    for (int row = p.row; row < p.end; row += p.step) {
        const long long at = (p.before + row) * d.c + p.channel;
        write(y + at, f(at), d.add);
    }
}
