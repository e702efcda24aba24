/* Depthwise 3 x 3, 8-bit weights. */
#include "depthwise3x3.h"

void mcuq_depthwise3x3_w8_s1_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    mcuq_mve_depthwise3x3(mcuq_mve_depthwise_s1, p, input, output, scratch, 8, 0);
}

void mcuq_depthwise3x3_w8_s1p_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    mcuq_mve_depthwise3x3(mcuq_mve_depthwise_s1p, p, input, output, scratch, 8, 0);
}

void mcuq_depthwise3x3_w8z_s1_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    mcuq_mve_depthwise3x3(mcuq_mve_depthwise_s1z, p, input, output, scratch, 8, 1);
}

void mcuq_depthwise3x3_w8z_s1p_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    mcuq_mve_depthwise3x3(mcuq_mve_depthwise_s1zp, p, input, output, scratch, 8, 1);
}

void mcuq_depthwise3x3_w8_s2_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    mcuq_mve_depthwise3x3(mcuq_mve_depthwise_s2, p, input, output, scratch, 8, 0);
}

void mcuq_depthwise3x3_w8_s2p_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    mcuq_mve_depthwise3x3(mcuq_mve_depthwise_s2p, p, input, output, scratch, 8, 0);
}

void mcuq_depthwise3x3_w8z_s2_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    mcuq_mve_depthwise3x3(mcuq_mve_depthwise_s2z, p, input, output, scratch, 8, 1);
}

void mcuq_depthwise3x3_w8z_s2p_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    mcuq_mve_depthwise3x3(mcuq_mve_depthwise_s2zp, p, input, output, scratch, 8, 1);
}

void mcuq_depthwise3x3_w8_s1_twice_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    mcuq_mve_depthwise3x3(mcuq_mve_depthwise_s1_twice, p, input, output, scratch, 8, 0);
}

void mcuq_depthwise3x3_w8_s2_twice_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    mcuq_mve_depthwise3x3(mcuq_mve_depthwise_s2_twice, p, input, output, scratch, 8, 0);
}

void mcuq_depthwise3x3_w8z_s1_twice_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    mcuq_mve_depthwise3x3(mcuq_mve_depthwise_s1z_twice, p, input, output, scratch, 8, 1);
}

void mcuq_depthwise3x3_w8z_s2_twice_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    mcuq_mve_depthwise3x3(mcuq_mve_depthwise_s2z_twice, p, input, output, scratch, 8, 1);
}
