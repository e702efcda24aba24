/* Kernels for cores with Helium (Cortex-M55): parameters as for the portable kernels of mcuq.h. weights: 4-byte
 * aligned, in the layout that mcuq/target/kernels_mve.py names with the function; they hold bias, multipliers, shifts
 * and weight zero points too. Suffix z: weight zero points. */
#ifndef MCUQ_MVE_H
#define MCUQ_MVE_H

#include "mcuq/mcuq.h"

#ifdef __cplusplus
extern "C" {
#endif

void mcuq_conv2d_w8_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_conv2d_w8z_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_conv2d_w4_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_conv2d_w4z_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_conv2d_w2_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_conv2d_w2z_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);

/* sN: stride; p: inputs or outputs of 4 or 2 bits. */
void mcuq_depthwise3x3_w8_s1_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w8_s1p_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w8z_s1_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w8z_s1p_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w8_s2_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w8_s2p_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w8z_s2_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w8z_s2p_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w4_s1_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w4_s1p_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w4z_s1_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w4z_s1p_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w4_s2_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w4_s2p_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w4z_s2_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w4z_s2p_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w2_s1_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w2_s1p_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w2z_s1_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w2z_s1p_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w2_s2_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w2_s2p_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w2z_s2_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w2z_s2p_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);

/* Two roundings (mcuq_requantize_twice), 8 bits everywhere. */
void mcuq_conv2d_w8_twice_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_conv2d_w8z_twice_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w8_s1_twice_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w8_s2_twice_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w8z_s1_twice_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w8z_s2_twice_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);

/* packed: inputs or output of 4 or 2 bits. */
void mcuq_add_packed_mve(const mcuq_add_params *p, const void *a, const void *b, void *output);
void mcuq_add_mve(const mcuq_add_params *p, const void *a, const void *b, void *output);
void mcuq_max_pool_mve(const mcuq_max_pool_params *p, const void *input, void *output);
void mcuq_avg_pool_mve(const mcuq_avg_pool_params *p, const void *input, void *output);

#ifdef __cplusplus
}
#endif
#endif
