/* Depthwise 3 x 3 over planes: what the kernels of depthwise3x3_patches.S read. */
#ifndef MCUQ_MVE_DEPTHWISE3X3_H
#define MCUQ_MVE_DEPTHWISE3X3_H

#include <stdint.h>

#include "mcuq/mve.h"

/* A tile of outputs, all channels one after another; depthwise3x3_patches.S has the same offsets. */
typedef struct {
    uint8_t taps[16], tap_mask_shift[16], tap_mask[16]; /* byte, left shift and field of each weight of a patch */
    uint8_t patch[16], second_patch[16];                /* plane offsets of the inputs of a patch */
    uint32_t places[4];                                 /* offsets of four outputs */
    int8_t ones[4][16];                                 /* the windows of a patch */
    uint8_t weights[32];                                /* scratch behind zeros: windows further to the right or below */
    const uint8_t *codes;                               /* of the channel, inside the input */
    int8_t *inside;                                     /* their plane */
    uint32_t rows, columns, row_bytes, pitch, pixel_bytes;
    int8_t *plane;
    int8_t *output;
    const int32_t *scales;  /* bias, multiplier */
    const uint8_t *records; /* shift, zero point if any, nine codes */
    uint32_t record_bytes;
    int32_t rounding; /* 2 * output zero point + 1 */
    uint32_t channels_left;
    uint32_t groups, odd_column, pairs;
    int32_t wrap[2], last_pair[2];
    uint32_t right_shift;
    const uint8_t *moved_weights;
    uint32_t pairs_left;
    uint32_t output_step[2]; /* bytes of two pixels, of one */
    uint32_t position;       /* log2 of what weights are multiplied by */
    uint32_t input_bit, input_bits, output_bit, output_bits; /* the channel's place in its bytes; packed kernels */
    uint32_t input_mask;
    int32_t lowest[4], highest[4];
    uint32_t output_place[4]; /* output_bit */
} mcuq_mve_depthwise_frame;

typedef void mcuq_mve_depthwise_kernel(mcuq_mve_depthwise_frame *frame);
mcuq_mve_depthwise_kernel mcuq_mve_depthwise_s1, mcuq_mve_depthwise_s1z, mcuq_mve_depthwise_s2, mcuq_mve_depthwise_s2z;
/* Inputs or outputs of 4 or 2 bits. */
mcuq_mve_depthwise_kernel mcuq_mve_depthwise_s1p, mcuq_mve_depthwise_s1zp, mcuq_mve_depthwise_s2p,
    mcuq_mve_depthwise_s2zp;
/* Two roundings. */
mcuq_mve_depthwise_kernel mcuq_mve_depthwise_s1_twice, mcuq_mve_depthwise_s1z_twice, mcuq_mve_depthwise_s2_twice,
    mcuq_mve_depthwise_s2z_twice;

void mcuq_mve_depthwise3x3(mcuq_mve_depthwise_kernel *kernel, const mcuq_conv2d_params *p, const void *input,
                           void *output, void *scratch, uint32_t weight_bits, uint32_t zero_points);

#endif
