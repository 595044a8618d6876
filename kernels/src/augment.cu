// From 8-bit images to the floats that a network reads: crop with padding, mirror, colour jitter, normalise, erase; the
// same bits as the CPU's pipeline, whose 8-bit steps are those of Pillow.
//
// `augment_plan` draws what happens to each image, `augment_contrast` measures the gray mean that a change of contrast
// needs, `augment` makes the pixels. Draws are those of the position (epoch, 0, image), in the order of the CPU.
#include "elementwise.cuh"
#include "philox.cuh"

// What happens to one image; the host may write it instead.
struct Plan {
    // The square's corner in the padded image; mirrored or not.
    int top, left, flip;
    // Steps of jitter, two bits each, the first lowest: 0 brightness, 1 contrast, 2 saturation, 3 none.
    int steps;
    float brightness, contrast, saturation;
    // Gray mean before the change of contrast.
    int mean;
    // The rectangle that becomes zero, in the output.
    int erase_top, erase_left, erase_height, erase_width;
};

struct Augment {
    int images, h, w, from, size, channels, padding;
    // Numbers of corners to draw from, 1 and more; 0: the corner is fixed.
    int corners_y, corners_x, top, left;
    float flip;
    // Steps that are on, as bits; lowest factors and their spans.
    int jitter;
    float low[3], span[3];
    // Side of the square that is cut out, 0 for none.
    int cutout;
    u32 epoch;
    uint2 key;
    // Source channels of the outputs.
    int source[3];
    // Pixels of a block.
    int piece;
};

// Successive words at a position.
struct Draws {
    uint2 key;
    uint4 counter, words;
    int used;

    __device__ __forceinline__ u32 word() {
        if (used == 4) {
            words = philox(counter, key);
            ++counter.w;
            used = 0;
        }
        const u32 w = used == 0 ? words.x : used == 1 ? words.y : used == 2 ? words.z : words.w;
        ++used;
        return w;
    }
    // Uniform in 0..n without bias (Lemire's rejection).
    __device__ __forceinline__ int below(u32 n) {
        const u32 floor = (0u - n) % n;
        for (;;) {
            const u32 w = word();
            if (w * n >= floor) return (int)__umulhi(w, n);
        }
    }
};

extern "C" __global__ void __launch_bounds__(128)
    augment_plan(const int* __restrict__ indices, Plan* __restrict__ plans, Augment d) {
    const int i = blockIdx.x * 128 + threadIdx.x;
    if (i >= d.images) return;
    Draws draws = {d.key, make_uint4(d.epoch, 0, (u32)indices[i], 0), make_uint4(0, 0, 0, 0), 4};
    Plan p = {d.top, d.left, 0, 0x3f, 0.0f, 0.0f, 0.0f, 0, 0, 0, 0, 0};
    if (d.corners_y > 0) {
        p.top = draws.below((u32)d.corners_y);
        p.left = draws.below((u32)d.corners_x);
    }
    p.flip = uniform(draws.word()) < d.flip;
    if (d.jitter) {
        // Fisher and Yates over three.
        int order[3] = {0, 1, 2};
        const int a = draws.below(3);
        const int last = a == 0 ? order[0] : a == 1 ? order[1] : order[2];
        order[0] = a == 0 ? 2 : 0;
        order[1] = a == 1 ? 2 : 1;
        if (draws.below(2) == 0) {
            const int first = order[0];
            order[0] = order[1];
            order[1] = first;
        }
        float factor[3];
#pragma unroll
        for (int k = 0; k < 3; ++k) factor[k] = __fadd_rn(d.low[k], __fmul_rn(d.span[k], uniform(draws.word())));
        p.brightness = factor[0], p.contrast = factor[1], p.saturation = factor[2];
        auto step = [&](int k) { return d.jitter >> k & 1 ? k : 3; };
        p.steps = step(order[0]) | step(order[1]) << 2 | step(last) << 4;
    }
    if (d.cutout > 0) {
        auto span = [&](int& start, int& len) {
            const int centre = draws.below((u32)d.size);
            start = max(centre - d.cutout / 2, 0);
            len = min(centre + d.cutout - d.cutout / 2, d.size) - start;
        };
        span(p.erase_top, p.erase_height);
        span(p.erase_left, p.erase_width);
    }
    plans[i] = p;
}

// Pillow's conversion to "L": ITU-R 601-2 in 16-bit fixed point, rounded.
static __device__ __forceinline__ int gray(const int (&v)[3]) {
    return (19595 * v[0] + 38470 * v[1] + 7471 * v[2] + 0x8000) >> 16;
}

// Pillow's blend: base + factor * (value - base), cut to 0..255, rounded towards zero; no fused step.
static __device__ __forceinline__ int blend(int base, int value, float factor) {
    const float v = __fadd_rn((float)base, __fmul_rn(factor, __fsub_rn((float)value, (float)base)));
    return min(max(__float2int_rz(v), 0), 255);
}

// The pixel of the square at (y, x), with the steps of jitter before number `end`. Returns whether it has colours.
static __device__ __forceinline__ bool pixel(const unsigned char* images, const Augment& d, const Plan& p, int image,
                                             int y, int x, int end, int (&v)[3]) {
    const int row = p.top + y - d.padding, column = p.left + x - d.padding;
    const bool inside = (u32)row < (u32)d.h && (u32)column < (u32)d.w;
    const unsigned char* from = images + (((long long)image * d.h + row) * d.w + column) * d.from;
    v[0] = inside ? __ldg(from) : 0;
    bool colours = d.from == 3;
    if (colours) {
        v[1] = inside ? __ldg(from + 1) : 0;
        v[2] = inside ? __ldg(from + 2) : 0;
        // For a gray network colours go first.
        if (d.channels == 1) v[0] = gray(v), colours = false;
    }
    if (!colours) v[1] = v[2] = v[0];
    for (int k = 0; k < end; ++k) {
        const int step = p.steps >> 2 * k & 3;
        if (step == 3 || (step == 2 && !colours)) continue;
        const int base = step == 0 ? 0 : step == 1 ? p.mean : gray(v);
        const float factor = step == 0 ? p.brightness : step == 1 ? p.contrast : p.saturation;
#pragma unroll
        for (int c = 0; c < 3; ++c) v[c] = blend(base, v[c], factor);
    }
    return colours;
}

// A block per image: the gray mean of the square as it is before its contrast changes. Sums are of integers.
extern "C" __global__ void __launch_bounds__(256)
    augment_contrast(const unsigned char* __restrict__ images, Plan* __restrict__ plans, Augment d) {
    __shared__ unsigned long long part[8];
    const int image = blockIdx.x, pixels = d.size * d.size;
    const Plan p = plans[image];
    int end = 0;
    while (end < 3 && (p.steps >> 2 * end & 3) != 1) ++end;
    // No such step: nobody reads the mean.
    if (end == 3) return;
    unsigned long long sum = 0;
    for (int i = threadIdx.x; i < pixels; i += 256) {
        int v[3];
        const int y = i / d.size;
        const bool colours = pixel(images, d, p, image, y, i - y * d.size, end, v);
        sum += (u32)(colours ? gray(v) : v[0]);
    }
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, o);
    if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    sum = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) sum += part[i];
    // Half rounds up.
    plans[image].mean = (int)((2 * sum + (u32)pixels) / (2ull * (u32)pixels));
}

// Pixels of the output: a block takes `piece` of one image, 256 at a time, through shared memory so that neighbours
// store neighbouring floats. table [channels, 256] holds what each byte becomes.
template <class T>
static __device__ __forceinline__ void augment(const unsigned char* images, const Plan* plans, const float* table, T* y,
                                               const Augment& d) {
    __shared__ float floats[3 * 256], out[3 * 256];
    const int image = blockIdx.y, pixels = d.size * d.size, c = d.channels;
    for (int i = threadIdx.x; i < c * 256; i += 256) floats[i] = __ldg(table + i);
    const Plan p = plans[image];
    const int end = min((int)(blockIdx.x + 1) * d.piece, pixels);
    for (int first = blockIdx.x * d.piece; first < end; first += 256) {
        // The table is there; the outputs before have been stored.
        __syncthreads();
        const int i = first + threadIdx.x;
        if (i < end) {
            const int line = i / d.size, column = i - line * d.size;
            int v[3];
            const bool colours = pixel(images, d, p, image, line, p.flip ? d.size - 1 - column : column, 3, v);
            const bool erased = (u32)(line - p.erase_top) < (u32)p.erase_height &&
                                (u32)(column - p.erase_left) < (u32)p.erase_width;
#pragma unroll
            for (int k = 0; k < 3; ++k) {
                if (k >= c) break;
                const int from = colours ? d.source[k] : 0;
                const int byte = from == 0 ? v[0] : from == 1 ? v[1] : v[2];
                out[threadIdx.x * c + k] = erased ? 0.0f : floats[k * 256 + byte];
            }
        }
        __syncthreads();
        const int len = min(256, end - first) * c;
        T* to = y + ((long long)image * pixels + first) * c;
        for (int k = threadIdx.x; k < len; k += 256) store1(to + k, out[k]);
    }
}

#define KERNEL(T, TN)                                                                                              \
    extern "C" __global__ void __launch_bounds__(256)                                                              \
        augment_##TN(const unsigned char* __restrict__ images, const Plan* __restrict__ plans,                     \
                     const float* __restrict__ table, T* __restrict__ y, Augment d) {                              \
        augment(images, plans, table, y, d);                                                                       \
    }
KERNEL(float, f32)
KERNEL(bf16, bf16)
