/* One channel of a depthwise strip (depthwise3x3_rows.S). */
#ifndef MCUQ_MVE_DEPTHWISE3X3_H
#define MCUQ_MVE_DEPTHWISE3X3_H

#include <stdint.h>

#include "mcuq/mve.h"

/* depthwise3x3_rows.S has the same offsets. */
typedef struct {
    int32_t weights[9];
    const int8_t *plane; /* input of the next four outputs */
    int8_t *output;      /* these */
    int32_t bias;
    uint32_t row_bytes; /* of the output */
    uint32_t threes, rest; /* rows: 3 * threes + rest */
    int32_t multiplier, rounding, shift; /* shift: of the product's high word, negative */
    uint32_t channels;
    const int8_t *last; /* input of the last four outputs of a row */
} mcuq_mve_channel;

typedef void mcuq_mve_depthwise_kernel(mcuq_mve_channel *channel);
mcuq_mve_depthwise_kernel mcuq_mve_depthwise_p16, mcuq_mve_depthwise_p32, mcuq_mve_depthwise_p64,
    mcuq_mve_depthwise_p112;

/* A channel's codes of `rows` input rows of `columns` pixels, into plane rows of `pitch` bytes. */
typedef struct {
    const uint8_t *codes;
    int8_t *plane;
    uint32_t rows, columns, row_bytes, pitch, channels;
} mcuq_mve_gather_frame;
void mcuq_mve_gather(const mcuq_mve_gather_frame *frame);

void mcuq_mve_depthwise3x3(mcuq_mve_depthwise_kernel *kernel, const mcuq_conv2d_params *p, const void *input,
                           void *output, void *scratch, uint32_t weight_bits, uint32_t pitch);

#endif
