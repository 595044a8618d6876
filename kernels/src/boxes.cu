// Boxes of up to four axes that move from one array to another: channels that are joined, picked or shuffled, windows
// of parameters that are gathered and whose gradients are added. A thread takes one element, or 16 bytes where both
// sides lie so (`vector`).
#include "divide.cuh"
#include "elementwise.cuh"

struct Move {
    // Elements, or vectors.
    int n;
    // Added to what is there, or stored.
    int add;
    // Distances between neighbours along each axis, in elements.
    int from[4], to[4];
    // Lengths of the axes but the first.
    Divide by[3];
    // Of the box's first element, low and high.
    u32 offset_from, offset_from_high, offset_to, offset_to_high;
};

template <class T, int V>
static __device__ __forceinline__ void move(const T* x, T* y, const Move& d) {
    int rest = blockIdx.x * 256 + threadIdx.x;
    if (rest >= d.n) return;
    long long from = (long long)d.offset_from_high << 32 | d.offset_from;
    long long to = (long long)d.offset_to_high << 32 | d.offset_to;
#pragma unroll
    for (int axis = 3; axis >= 0; --axis) {
        int at = rest;
        if (axis > 0) rest = d.by[axis - 1].split(rest, at);
        from += (long long)at * d.from[axis];
        to += (long long)at * d.to[axis];
    }
    write(y + to, load<V>(x + from), d.add);
}

#define KERNEL(NAME, T, V)                                                                                      \
    extern "C" __global__ void __launch_bounds__(256)                                                           \
        NAME(const T* __restrict__ x, T* __restrict__ y, Move d) {                                              \
        move<T, V>(x, y, d);                                                                                    \
    }
KERNEL(boxes_f32, float, 1)
KERNEL(boxes_f32_vector, float, 4)
KERNEL(boxes_bf16, bf16, 1)
KERNEL(boxes_bf16_vector, bf16, 8)
