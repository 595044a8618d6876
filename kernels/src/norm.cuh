// Batch norm's backward pass of a channel, once its sums are known.
#pragma once
#include "common.cuh"

struct NormBackward {
    const float *scale, *mean, *variance;
    // Added to, where wanted.
    float *dgamma, *dbeta;
    // [3][c]
    float* pqr;
    int c;
    // Values behind the sums.
    float n, eps;
    // From the sums of du and of du * (h - mean): the gradients of weight and bias, and the linear map
    //   dh = p * du + q * h + r = scale * (du - sum / n - (h - mean) * product / (n * (variance + eps)))
    __device__ __forceinline__ void finish(int channel, float sum, float product) const {
        const float precision = 1.0f / (variance[channel] + eps), s = scale[channel];
        if (dgamma) dgamma[channel] += product * sqrtf(precision);
        if (dbeta) dbeta[channel] += sum;
        const float q = -s * precision * product / n;
        pqr[channel] = s;
        pqr[c + channel] = q;
        pqr[2 * c + channel] = -s * sum / n - q * mean[channel];
    }
};
