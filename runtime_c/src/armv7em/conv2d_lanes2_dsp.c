/* Convolution of 2-bit inputs with symmetric 2-bit weights: layout "lanes" (docs/kernels.md). */
#define PIXELS 4
#define LANE_SHIFT 13
#include "conv2d_driver.h"

void mcuq_conv2d_w2_lanes2_dsp(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    static const mcuq_gemm gemm = {mcuq_gemm_lanes2, 2, 8, 8, 2, 2, -2};
    conv2d(p, input, output, scratch, &gemm);
}
