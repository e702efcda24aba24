/* The matrix kernels' interface: gemm_w8.S, gemm_w4.S, gemm_w2.S, gemm_octets.S, gemm_direct.S, gemm_lanes.S. */
#ifndef MCUQ_ARMV7EM_GEMM_H
#define MCUQ_ARMV7EM_GEMM_H

#include <stdint.h>

#include "mcuq/mcuq.h"

/* What one call reads; field order is the frame of gemm.inc.h. */
typedef struct {
    const uint32_t *columns;
    uint32_t skipped_steps; /* of the first pass through the unrolled loop */
    const uint32_t *columns_end;
    int8_t *output;
    uint32_t stride;
    int32_t rounding; /* (2 * output_zero_point + 1) << v */
    uint32_t v;       /* the layer's shift, raised, less 33; of kernels with two roundings 0 */
    const uint32_t *weights_end;
    const uint32_t *weights;
    int32_t sums[4]; /* sum_factor * scale * sum of the inputs, of each pixel */
    uint32_t scale;  /* 2^k: how far the layer's shifts are raised; columns hold x * 2^k, those of lanes x */
} mcuq_gemm_frame;

/* The same for gemm_direct.S, which reads int8 inputs where they lie; depth is a multiple of 4. */
typedef struct {
    const int8_t *inputs;
    uint32_t skipped_steps;
    const int8_t *inputs_end;
    int8_t *output;
    const uint32_t *records; /* 8 multipliers */
    int32_t rounding;        /* (2 * output_zero_point + 1) << v */
    uint32_t v;              /* shift - 33 */
    const uint32_t *weights_end;
    const uint32_t *weights;
    int32_t sum;          /* sum_factor * sum of the inputs */
    uint32_t record_step; /* bytes from one panel's record to the next; 0: one for all */
    uint32_t unused[2];
} mcuq_direct_frame;

/* One matrix kernel and the shape of its panels. */
typedef struct {
    void (*run)(const mcuq_gemm_frame *frame);
    uint8_t channels;     /* of a panel */
    uint8_t step_inputs;  /* inputs of one unrolled step */
    uint8_t unrolled;     /* steps in the loop */
    uint8_t header_words; /* beside a panel's weights and multipliers; shifts behind them included */
    uint8_t weight_bits;
    int16_t sum_factor;
} mcuq_gemm;

void mcuq_gemm_w8(const mcuq_gemm_frame *frame);
void mcuq_gemm_w8z(const mcuq_gemm_frame *frame);
void mcuq_gemm_w8c(const mcuq_gemm_frame *frame);
void mcuq_gemm_w8_twice(const mcuq_gemm_frame *frame);
void mcuq_gemm_w8c_twice(const mcuq_gemm_frame *frame);
void mcuq_gemm_w4(const mcuq_gemm_frame *frame);
void mcuq_gemm_w4z(const mcuq_gemm_frame *frame);
void mcuq_gemm_w2(const mcuq_gemm_frame *frame);
void mcuq_gemm_w2z(const mcuq_gemm_frame *frame);
void mcuq_gemm_lanes2(const mcuq_gemm_frame *frame);
void mcuq_gemm_lanes4(const mcuq_gemm_frame *frame);
void mcuq_gemm_octets8(const mcuq_gemm_frame *frame);
void mcuq_gemm_octets8z(const mcuq_gemm_frame *frame);
void mcuq_gemm_octets4(const mcuq_gemm_frame *frame);
void mcuq_gemm_octets4z(const mcuq_gemm_frame *frame);
void mcuq_gemm_octets2(const mcuq_gemm_frame *frame);
void mcuq_gemm_octets2z(const mcuq_gemm_frame *frame);
void mcuq_gemm_direct8(const mcuq_direct_frame *frame);
void mcuq_gemm_direct8z(const mcuq_direct_frame *frame);
void mcuq_gemm_direct4(const mcuq_direct_frame *frame);
void mcuq_gemm_direct4z(const mcuq_direct_frame *frame);
void mcuq_gemm_direct2(const mcuq_direct_frame *frame);
void mcuq_gemm_direct2z(const mcuq_direct_frame *frame);

#endif
