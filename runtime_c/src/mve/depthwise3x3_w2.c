/* Depthwise 3 x 3, 2-bit weights. */
#include "depthwise3x3.h"

void mcuq_depthwise3x3_w2_p16_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    mcuq_mve_depthwise3x3(mcuq_mve_depthwise_p16, p, input, output, scratch, 2, 16);
}

void mcuq_depthwise3x3_w2_p32_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    mcuq_mve_depthwise3x3(mcuq_mve_depthwise_p32, p, input, output, scratch, 2, 32);
}

void mcuq_depthwise3x3_w2_p64_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    mcuq_mve_depthwise3x3(mcuq_mve_depthwise_p64, p, input, output, scratch, 2, 64);
}

void mcuq_depthwise3x3_w2_p112_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    mcuq_mve_depthwise3x3(mcuq_mve_depthwise_p112, p, input, output, scratch, 2, 112);
}
