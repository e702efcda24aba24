/* Convolution, 8-bit weights, two roundings: layouts "pairs8t", "pairs8ct" (docs/kernels.md). */
#define PIXELS 4
#define TWICE
#include "conv2d_driver.h"

void mcuq_conv2d_w8_twice_dsp(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    static const mcuq_gemm gemm = {mcuq_gemm_w8_twice, 2, 2, 16, 3, 8, -128};
    conv2d(p, input, output, scratch, &gemm);
}

void mcuq_conv2d_w8c_twice_dsp(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    static const mcuq_gemm gemm = {mcuq_gemm_w8c_twice, 2, 2, 16, 5, 8, 1};
    conv2d(p, input, output, scratch, &gemm);
}
