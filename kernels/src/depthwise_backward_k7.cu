// Depthwise convolution, backward, 7x7: see the header.
#include "depthwise_backward.cuh"

EACH_TYPE(7, 1)
EACH_TYPE(7, 2)
