/* Convolution, 8-bit weights: layouts "pairs8", "pairs8z", "pairs8c" (docs/kernels.md). */
#define PIXELS 4
#include "conv2d_driver.h"

void mcuq_conv2d_w8_dsp(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    static const mcuq_gemm gemm = {mcuq_gemm_w8, 2, 2, 16, 2, 8, -128};
    conv2d(p, input, output, scratch, &gemm);
}

void mcuq_conv2d_w8z_dsp(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    static const mcuq_gemm gemm = {mcuq_gemm_w8z, 2, 2, 16, 4, 8, 1};
    conv2d(p, input, output, scratch, &gemm);
}

void mcuq_conv2d_w8c_dsp(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    static const mcuq_gemm gemm = {mcuq_gemm_w8c, 2, 2, 16, 4, 8, 1};
    conv2d(p, input, output, scratch, &gemm);
}
