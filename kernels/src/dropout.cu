// Dropout: an element is zeroed with probability `rate`, the others are multiplied by 1 / (1 - rate). Which ones is a
// function of key, epoch, step and the element's place in the step, so that backward draws the same numbers again and
// no mask is kept. A thread takes the four elements of one draw.
#include "elementwise.cuh"
#include "philox.cuh"

struct Dropout {
    u32 n;
    // Added to what is there, or stored.
    int add;
    // The step's number of the first element, low and high.
    u32 first, first_high;
    uint2 key;
    u32 epoch, step;
    float rate, kept;
};

template <class T>
static __device__ __forceinline__ void drop(const T* x, T* y, const Dropout& d) {
    const u32 t = blockIdx.x * 256 + threadIdx.x, skip = d.first & 3;
    const unsigned long long four = (((unsigned long long)d.first_high << 32 | d.first) >> 2) + t;
    // The first draw may belong to elements of images before these.
    const long long i = 4ll * t - skip;
    if (i >= d.n) return;
    const uint4 words = philox(make_uint4(d.epoch, d.step, (u32)four, (u32)(four >> 32)), d.key);
    auto factor = [&](u32 word) { return uniform(word) < d.rate ? 0.0f : d.kept; };
    const Pack<4> f = {factor(words.x), factor(words.y), factor(words.z), factor(words.w)};
    auto times = [](float factor, float v) { return factor * v; };
    if (skip == 0 && i + 4 <= d.n) {
        write(y + i, apply<4>(times, f, load<4>(x + i)), d.add);
        return;
    }
#pragma unroll
    for (int e = 0; e < 4; ++e)
        if (i + e >= 0 && i + e < d.n) write(y + i + e, Pack<1>{f.v[e] * load1(x + i + e)}, d.add);
}

#define KERNEL(T, TN)                                                                                           \
    extern "C" __global__ void __launch_bounds__(256)                                                           \
        dropout_##TN(const T* __restrict__ x, T* __restrict__ y, Dropout d) {                                   \
        drop(x, y, d);                                                                                          \
    }
KERNEL(float, f32)
KERNEL(bf16, bf16)
