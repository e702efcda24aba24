/* The matrix kernels' interface (gemm.S): all output channels of three columns of int8 inputs, or of one, four channels
 * at a time. */
#ifndef MCUQ_MVE_GEMM_H
#define MCUQ_MVE_GEMM_H

#include <stdint.h>

#include "mcuq/mve.h"

enum { MCUQ_MVE_PIXELS = 3, MCUQ_MVE_CHANNELS = 4 };

/* What one call reads; gemm.S has the same offsets. */
typedef struct {
    const int8_t *columns[MCUQ_MVE_PIXELS];
    uint32_t count; /* weight bytes of one channel; 4 bits: blocks of 64 inputs */
    int8_t *output;         /* moved behind what was written by the kernels of three columns */
    uint32_t stride;        /* bytes between the outputs of two pixels */
    const uint8_t *parameters; /* of the next four channels; moved behind them */
    const uint8_t *weights, *weights_end;
    uint32_t advance; /* from where a kernel of three columns leaves the weights of two channels to the next */
    int32_t sums[MCUQ_MVE_PIXELS]; /* minus each column's at the weights' position, if needed */
    uint32_t blocks;     /* 2 bits: blocks of 64 inputs */
    uint32_t rest[4];    /* inputs beyond them that each field of the last bytes holds; 4 bits: all inputs beyond */
    int32_t rounding[4]; /* 2 * output_zero_point + 1 */
    int32_t accumulators[MCUQ_MVE_PIXELS][MCUQ_MVE_CHANNELS];
    uint32_t remainder;      /* behind the blocks: 0 nothing, 1 `few` inputs in `few_bytes`, 2 `rest` */
    uint32_t few, few_bytes; /* at most 16 inputs, in order */
    uint32_t depth;          /* inputs */
} mcuq_mve_frame;

typedef void mcuq_mve_matrix_kernel(mcuq_mve_frame *frame);
mcuq_mve_matrix_kernel mcuq_mve_gemm_w8, mcuq_mve_gemm_w8z, mcuq_mve_gemm_w4, mcuq_mve_gemm_w4z,
    mcuq_mve_gemm_w2, mcuq_mve_gemm_w2z;
mcuq_mve_matrix_kernel mcuq_mve_gemm1_w8, mcuq_mve_gemm1_w8z, mcuq_mve_gemm1_w4, mcuq_mve_gemm1_w4z,
    mcuq_mve_gemm1_w2, mcuq_mve_gemm1_w2z;
/* Two roundings. */
mcuq_mve_matrix_kernel mcuq_mve_gemm_w8_twice, mcuq_mve_gemm_w8z_twice, mcuq_mve_gemm1_w8_twice,
    mcuq_mve_gemm1_w8z_twice;

#endif
