/* Convolution, 4- and 2-bit weights: layouts "quads4", "quads4z", "quads2", "quads2z" (docs/kernels.md). */
#define PIXELS 2
#include "conv2d_driver.h"

void mcuq_conv2d_w4_dsp(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    static const mcuq_gemm gemm = {mcuq_gemm_w4, 4, 4, 16, 4, 4, -8};
    conv2d(p, input, output, scratch, &gemm);
}

void mcuq_conv2d_w4z_dsp(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    static const mcuq_gemm gemm = {mcuq_gemm_w4z, 4, 4, 16, 8, 4, 1};
    conv2d(p, input, output, scratch, &gemm);
}

void mcuq_conv2d_w2_dsp(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    static const mcuq_gemm gemm = {mcuq_gemm_w2, 4, 4, 8, 4, 2, -2};
    conv2d(p, input, output, scratch, &gemm);
}

void mcuq_conv2d_w2z_dsp(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    static const mcuq_gemm gemm = {mcuq_gemm_w2z, 4, 4, 8, 8, 2, 1};
    conv2d(p, input, output, scratch, &gemm);
}
