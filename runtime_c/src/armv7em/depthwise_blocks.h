/* Four neighbouring outputs at a time of one channel of a depthwise convolution of any kernel: depthwise_blocks.S, or
 * depthwise_blocks_model.c elsewhere. */
#ifndef MCUQ_ARMV7EM_DEPTHWISE_BLOCKS_H
#define MCUQ_ARMV7EM_DEPTHWISE_BLOCKS_H

#include <stdint.h>

enum { MCUQ_DEPTHWISE_STEPS = 6 }; /* most steps of a kernel row */

/* Field order is known to depthwise_blocks.S. */
typedef struct {
    int32_t bias, multiplier;
    int32_t rounding; /* (2 * output_zero_point + 1) << v */
    uint32_t v;       /* shift - 33 */
    uint32_t channels;    /* bytes between neighbouring outputs */
    int32_t output_step;  /* from behind the last output of a row to the first of the next */
    int32_t plane_step;   /* bytes from behind the last block's first input to the next row's first */
    uint32_t blocks;      /* of a row, at least 1 */
    uint32_t rows;        /* at least 1 */
    const uint32_t *weights, *weights_end;
    const int16_t *plane; /* top left input of the first output; 4-byte aligned for stride 2 */
    int8_t *output;
    uint32_t pitch; /* bytes of a plane row */
    uint32_t steps; /* of a kernel row, 1 .. MCUQ_DEPTHWISE_STEPS */
} mcuq_depthwise_blocks;

typedef void mcuq_depthwise_block_kernel(const mcuq_depthwise_blocks *b);

/* Stride 1: a step is two words, taps (2j, 2j + 1) for the even outputs and (2j - 1, 2j) for the odd ones. Stride 2: one
 * word, taps (2j, 2j + 1). Taps that the kernel does not have are 0. */
mcuq_depthwise_block_kernel mcuq_depthwise_blocks_s1, mcuq_depthwise_blocks_s2;

#endif
