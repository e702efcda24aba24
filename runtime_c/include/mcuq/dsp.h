/* Kernels for cores with the DSP extension (ARMv7E-M, ARMv8-M Mainline): parameters as for the portable kernels of
 * mcuq.h. weights: 4-byte aligned, in the layout that mcuq/target/kernels_dsp.py names with the function; the layouts
 * of conv2d and fully connected kernels hold bias, multipliers, shifts and weight zero points too.
 *
 * Suffix z: weight zero points; c: 8-bit weights without range condition; direct: int8 inputs read where they lie;
 * packed: inputs or outputs of 4 or 2 bits (max pool: both of the same); twice: two roundings (mcuq_requantize_twice), 8 bits
 * everywhere; sN: stride; pN: bytes of a depthwise plane row. */
#ifndef MCUQ_DSP_H
#define MCUQ_DSP_H

#include "mcuq/mcuq.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef void mcuq_conv2d_kernel(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);

mcuq_conv2d_kernel mcuq_conv2d_w8_dsp, mcuq_conv2d_w8z_dsp, mcuq_conv2d_w8c_dsp, mcuq_conv2d_w4_dsp,
    mcuq_conv2d_w4z_dsp, mcuq_conv2d_w2_dsp, mcuq_conv2d_w2z_dsp, mcuq_conv2d_w2_lanes2_dsp, mcuq_conv2d_w2_lanes4_dsp;

mcuq_conv2d_kernel mcuq_conv2d_w8_twice_dsp, mcuq_conv2d_w8c_twice_dsp;

mcuq_conv2d_kernel mcuq_fully_connected_w8_dsp, mcuq_fully_connected_w8z_dsp, mcuq_fully_connected_w4_dsp,
    mcuq_fully_connected_w4z_dsp, mcuq_fully_connected_w2_dsp, mcuq_fully_connected_w2z_dsp,
    mcuq_fully_connected_w8_direct_dsp, mcuq_fully_connected_w8z_direct_dsp, mcuq_fully_connected_w4_direct_dsp,
    mcuq_fully_connected_w4z_direct_dsp, mcuq_fully_connected_w2_direct_dsp, mcuq_fully_connected_w2z_direct_dsp;

#define MCUQ_DEPTHWISE3X3_PLANES(kind, stride, suffix) \
    mcuq_conv2d_kernel mcuq_depthwise3x3_##kind##_s##stride##_p16##suffix, \
        mcuq_depthwise3x3_##kind##_s##stride##_p32##suffix, mcuq_depthwise3x3_##kind##_s##stride##_p64##suffix, \
        mcuq_depthwise3x3_##kind##_s##stride##_p128##suffix, mcuq_depthwise3x3_##kind##_s##stride##_p256##suffix
#define MCUQ_DEPTHWISE3X3(bits) \
    MCUQ_DEPTHWISE3X3_PLANES(w##bits, 1, _dsp); \
    MCUQ_DEPTHWISE3X3_PLANES(w##bits, 2, _dsp); \
    MCUQ_DEPTHWISE3X3_PLANES(packed_w##bits, 1, _dsp); \
    MCUQ_DEPTHWISE3X3_PLANES(packed_w##bits, 2, _dsp)
MCUQ_DEPTHWISE3X3(8);
MCUQ_DEPTHWISE3X3(4);
MCUQ_DEPTHWISE3X3(2);
MCUQ_DEPTHWISE3X3_PLANES(w8, 1, _twice_dsp);
MCUQ_DEPTHWISE3X3_PLANES(w8, 2, _twice_dsp);
#undef MCUQ_DEPTHWISE3X3
#undef MCUQ_DEPTHWISE3X3_PLANES

mcuq_conv2d_kernel mcuq_depthwise_w8_s1_dsp, mcuq_depthwise_w8_s2_dsp, mcuq_depthwise_w4_s1_dsp, mcuq_depthwise_w4_s2_dsp,
    mcuq_depthwise_w2_s1_dsp, mcuq_depthwise_w2_s2_dsp;

void mcuq_add_dsp(const mcuq_add_params *p, const void *a, const void *b, void *output);
void mcuq_max_pool_dsp(const mcuq_max_pool_params *p, const void *input, void *output);
void mcuq_max_pool_packed_dsp(const mcuq_max_pool_params *p, const void *input, void *output);
void mcuq_avg_pool_dsp(const mcuq_avg_pool_params *p, const void *input, void *output);

#ifdef __cplusplus
}
#endif
#endif
