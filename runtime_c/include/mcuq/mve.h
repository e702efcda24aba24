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

/* pN: bytes of a plane row. */
void mcuq_depthwise3x3_w8_p16_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w8_p32_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w8_p64_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w8_p112_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w4_p16_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w4_p32_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w4_p64_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w4_p112_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w2_p16_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w2_p32_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w2_p64_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise3x3_w2_p112_mve(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);

#ifdef __cplusplus
}
#endif
#endif
