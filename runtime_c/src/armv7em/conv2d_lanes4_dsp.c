/* Convolution of 4-bit inputs with symmetric 2-bit weights: layout "lanes" (docs/kernels.md). */
#define PIXELS 4
#define LANE_SHIFT 11
#include "conv2d_driver.h"

void mcuq_conv2d_w2_lanes4_dsp(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    static const mcuq_gemm gemm = {mcuq_gemm_lanes4, 2, 8, 5, 2, 2, -2};
    conv2d(p, input, output, scratch, &gemm);
}
