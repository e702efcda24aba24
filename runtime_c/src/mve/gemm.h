/* The matrix kernels' interface (gemm.S): all output channels of three columns of int8 inputs, two channels at a time. */
#ifndef MCUQ_MVE_GEMM_H
#define MCUQ_MVE_GEMM_H

#include <stdint.h>

#include "mcuq/mve.h"

enum { MCUQ_MVE_PIXELS = 3 };

/* What one call reads; gemm.S has the same offsets. */
typedef struct {
    const int8_t *columns[MCUQ_MVE_PIXELS];
    uint32_t channel_bytes; /* weights of one channel */
    int8_t *output;
    uint32_t stride;  /* bytes between the outputs of two pixels */
    int32_t rounding; /* 2 * output_zero_point + 1 */
    const uint8_t *weights;
    uint32_t panel_bytes;
    const uint8_t *weights_end;
    int32_t sums[MCUQ_MVE_PIXELS]; /* of each column; read by the kernels with weight zero points only */
    uint32_t blocks;  /* whole blocks of 16 weight bytes: 32 inputs at 4 bits, 64 at 2 bits */
    uint32_t rest[4]; /* inputs beyond them that each field of the last bytes holds */
} mcuq_mve_frame;

void mcuq_mve_gemm_w8(mcuq_mve_frame *frame);
void mcuq_mve_gemm_w8z(mcuq_mve_frame *frame);
void mcuq_mve_gemm_w4(mcuq_mve_frame *frame);
void mcuq_mve_gemm_w4z(mcuq_mve_frame *frame);
void mcuq_mve_gemm_w2(mcuq_mve_frame *frame);
void mcuq_mve_gemm_w2z(mcuq_mve_frame *frame);

#endif
