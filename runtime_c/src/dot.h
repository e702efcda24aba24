/* Dot products of packed weight rows with int8 columns: the inner loops of conv2d and fully connected. */
#ifndef MCUQ_SRC_DOT_H
#define MCUQ_SRC_DOT_H

#include "pack.h"

/* acc0[0..1] += w0.x0, w1.x0 and acc1[0..1] += w0.x1, w1.x1 over `count` codes; 8-bit weights. */
void mcuq_dot_2x2_w8(int32_t acc0[2], int32_t acc1[2], const uint8_t *w0, const uint8_t *w1, const int8_t *x0,
                     const int8_t *x1, uint32_t count);

/* The same for 4- and 2-bit weights, with the two columns side by side in pairs[i] = x0[i] + 65536 * x1[i]. */
typedef void mcuq_dot_pairs(int32_t acc0[2], int32_t acc1[2], const uint8_t *w0, const uint8_t *w1,
                            const int32_t *pairs, uint32_t count);
mcuq_dot_pairs mcuq_dot_pairs_w4, mcuq_dot_pairs_w2;

/* acc[0..1] += w0.x, w1.x over `count` codes. */
typedef void mcuq_dot_2x1(int32_t acc[2], const uint8_t *w0, const uint8_t *w1, const int8_t *x, uint32_t count);
mcuq_dot_2x1 mcuq_dot_2x1_w8, mcuq_dot_2x1_w4, mcuq_dot_2x1_w2;

void mcuq_make_pairs(int32_t *pairs, const int8_t *x0, const int8_t *x1, uint32_t count);

/* Sum of a column, for weights with a zero point: sum x*(w - z) = sum x*w - z * sum x. */
int32_t mcuq_sum(const int8_t *x, uint32_t count);

#endif
