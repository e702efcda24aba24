/* Layers with one output pixel: layouts "octets8", "octets4", "octets2" and the same with z (docs/kernels.md). */
#define PIXELS 1
#include "conv2d_driver.h"

#define KERNEL(name, step_inputs, header_words, kernel, weight_bits, sum_factor) \
    void mcuq_fully_connected_##name##_dsp(const mcuq_conv2d_params *p, const void *input, void *output, \
                                           void *scratch); \
    void mcuq_fully_connected_##name##_dsp(const mcuq_conv2d_params *p, const void *input, void *output, \
                                           void *scratch) \
    { \
        static const mcuq_gemm gemm = { \
            mcuq_gemm_octets##kernel, 8, step_inputs, 32 / step_inputs, header_words, weight_bits, sum_factor}; \
        conv2d(p, input, output, scratch, &gemm); \
    }

KERNEL(w8, 2, 8, 8, 8, -128)
KERNEL(w8z, 2, 16, 8z, 8, 1)
KERNEL(w4, 4, 8, 4, 4, -8)
KERNEL(w4z, 4, 16, 4z, 4, 1)
KERNEL(w2, 2, 8, 2, 2, -2)
KERNEL(w2z, 2, 16, 2z, 2, 1)
