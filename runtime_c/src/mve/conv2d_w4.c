/* Convolution and fully connected, 4-bit weights: layouts "helium4", "helium4z", for fewer than three pixels
 * "helium4one", "helium4onez" (docs/kernels.md). */
#include "conv2d_driver.h"

void mcuq_conv2d_w4_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    static const mcuq_mve_gemm gemm = {mcuq_mve_gemm_w4, mcuq_mve_gemm1_w4, 4, 0};
    mcuq_mve_conv2d(&gemm, p, input, output, scratch);
}

void mcuq_conv2d_w4z_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    static const mcuq_mve_gemm gemm = {mcuq_mve_gemm_w4z, mcuq_mve_gemm1_w4z, 4, 1};
    mcuq_mve_conv2d(&gemm, p, input, output, scratch);
}
