/* Convolution and fully connected, 8-bit weights: layouts "helium8", "helium8z" (docs/kernels.md). */
#include "conv2d_driver.h"

void mcuq_conv2d_w8_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    static const mcuq_mve_gemm gemm = {mcuq_mve_gemm_w8, mcuq_mve_gemm1_w8, 8, 0};
    mcuq_mve_conv2d(&gemm, p, input, output, scratch);
}

void mcuq_conv2d_w8z_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    static const mcuq_mve_gemm gemm = {mcuq_mve_gemm_w8z, mcuq_mve_gemm1_w8z, 8, 1};
    mcuq_mve_conv2d(&gemm, p, input, output, scratch);
}

void mcuq_conv2d_w8_twice_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    static const mcuq_mve_gemm gemm = {mcuq_mve_gemm_w8_twice, mcuq_mve_gemm1_w8_twice, 8, 0};
    mcuq_mve_conv2d(&gemm, p, input, output, scratch);
}

void mcuq_conv2d_w8z_twice_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    static const mcuq_mve_gemm gemm = {mcuq_mve_gemm_w8z_twice, mcuq_mve_gemm1_w8z_twice, 8, 1};
    mcuq_mve_conv2d(&gemm, p, input, output, scratch);
}
