// Depthwise convolution, backward, 5x5: see the header.
#include "depthwise_backward.cuh"

EACH_TYPE(5, 1)
EACH_TYPE(5, 2)
