/* Convolution and fully connected, 2-bit weights: layouts "helium2", "helium2z" (docs/kernels.md). */
#include "conv2d_driver.h"

void mcuq_conv2d_w2_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    static const mcuq_mve_gemm gemm = {mcuq_mve_gemm_w2, mcuq_mve_gemm1_w2, 2, 0};
    mcuq_mve_conv2d(&gemm, p, input, output, scratch);
}

void mcuq_conv2d_w2z_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    static const mcuq_mve_gemm gemm = {mcuq_mve_gemm_w2z, mcuq_mve_gemm1_w2z, 2, 1};
    mcuq_mve_conv2d(&gemm, p, input, output, scratch);
}
