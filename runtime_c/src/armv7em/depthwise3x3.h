/* Rows of one channel of a 3 x 3 depthwise convolution: depthwise3x3.S, or depthwise3x3_model.c elsewhere. */
#ifndef MCUQ_ARMV7EM_DEPTHWISE3X3_H
#define MCUQ_ARMV7EM_DEPTHWISE3X3_H

#include <stdint.h>

#include "mcuq/mcuq.h"

/* Field order is known to depthwise3x3.S. */
typedef struct {
    int32_t bias;
    int32_t rounding;      /* (2 * output_zero_point + 1) << v */
    uint32_t channels;     /* bytes between neighbouring outputs */
    int32_t output_step;   /* added to the output pointer after every row */
    const int16_t *end;    /* plane row after the last */
    uint32_t blocks;       /* outputs (stride 2) or pairs of outputs (stride 1) in a row, 1..chain; 0: one output */
    const int16_t *plane;  /* top left input of the first output, 4-byte aligned */
    int8_t *output;
    uint32_t v;            /* shift - 33; with two roundings shift - 32 */
    uint32_t weights[6];   /* of each kernel row: (w0, w1) and (w1, w2) as int16 pairs */
    int32_t multiplier;
} mcuq_depthwise_rows;

/* Two neighbouring channels of `rows` rows of int8 codes into two planes. Field order is known to depthwise3x3.S. */
typedef struct {
    const uint8_t *codes;
    uint32_t channels;    /* bytes between neighbouring pixels, at any width */
    int16_t *left, *right;
    uint32_t width, rows; /* at least 1 */
    uint32_t row_bytes;   /* of the input */
    uint32_t plane_step;  /* bytes from the end of a plane row to the next one's start */
} mcuq_depthwise_gather;

void mcuq_depthwise_gather8(const mcuq_depthwise_gather *g);

/* The same for codes of 4 and 2 bits, the left channel's at bit `shift` of a byte. */
void mcuq_depthwise_gather4(const mcuq_depthwise_gather *g, uint32_t shift);
void mcuq_depthwise_gather2(const mcuq_depthwise_gather *g, uint32_t shift);

/* Clamps outputs of channels `channel` and `channel` + 1, two bytes a pixel, and packs them into the pixels at `out`. */
typedef void mcuq_depthwise_merge_kernel(const mcuq_conv2d_params *p, const int8_t *bytes, uint8_t *out, uint32_t pixels,
                                         uint32_t channel);
mcuq_depthwise_merge_kernel mcuq_depthwise_merge;

typedef void mcuq_depthwise_row_kernel(const mcuq_depthwise_rows *rows);

/* Most blocks of a row, by stride and the plane's row bytes. */
enum {
    MCUQ_DEPTHWISE_CHAIN_1_16 = 3,
    MCUQ_DEPTHWISE_CHAIN_1_32 = 7,
    MCUQ_DEPTHWISE_CHAIN_1_64 = 4,
    MCUQ_DEPTHWISE_CHAIN_1_128 = 4,
    MCUQ_DEPTHWISE_CHAIN_1_256 = 4,
    MCUQ_DEPTHWISE_CHAIN_2_16 = 3,
    MCUQ_DEPTHWISE_CHAIN_2_32 = 3,
    MCUQ_DEPTHWISE_CHAIN_2_64 = 3,
    MCUQ_DEPTHWISE_CHAIN_2_128 = 3,
    MCUQ_DEPTHWISE_CHAIN_2_256 = 3
};

/* _s1: stride 1; _s2: stride 2; _pN: N bytes between two rows of the plane; _twice: two roundings, of doubled sums. */
mcuq_depthwise_row_kernel mcuq_depthwise_rows_s1_p16, mcuq_depthwise_rows_s1_p32, mcuq_depthwise_rows_s1_p64,
    mcuq_depthwise_rows_s1_p128, mcuq_depthwise_rows_s1_p256, mcuq_depthwise_rows_s2_p16, mcuq_depthwise_rows_s2_p32,
    mcuq_depthwise_rows_s2_p64, mcuq_depthwise_rows_s2_p128, mcuq_depthwise_rows_s2_p256;
mcuq_depthwise_row_kernel mcuq_depthwise_rows_s1_p16_twice, mcuq_depthwise_rows_s1_p32_twice,
    mcuq_depthwise_rows_s1_p64_twice, mcuq_depthwise_rows_s1_p128_twice, mcuq_depthwise_rows_s1_p256_twice,
    mcuq_depthwise_rows_s2_p16_twice, mcuq_depthwise_rows_s2_p32_twice, mcuq_depthwise_rows_s2_p64_twice,
    mcuq_depthwise_rows_s2_p128_twice, mcuq_depthwise_rows_s2_p256_twice;

#endif
