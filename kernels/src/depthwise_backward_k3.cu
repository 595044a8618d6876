// Depthwise convolution, backward, 3x3: see the header.
#include "depthwise_backward.cuh"

EACH_TYPE(3, 1)
EACH_TYPE(3, 2)
