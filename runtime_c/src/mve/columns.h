/* Columns of int8 inputs: tap rows one after another, in the input itself where they already lie so. */
#ifndef MCUQ_MVE_COLUMNS_H
#define MCUQ_MVE_COLUMNS_H

#include "gemm.h"

/* The column of the window whose tap (0, 0) is input (y, x); `column` has room for it. */
const int8_t *mcuq_mve_column(const mcuq_conv2d_params *p, const uint8_t *input, int32_t y, int32_t x, int8_t *column);

/* Multiplies a column by 2^bits. */
void mcuq_mve_raise(int8_t *column, uint32_t depth, uint32_t bits);

/* Sum of a column. */
int32_t mcuq_mve_sum(const int8_t *column, uint32_t depth);

#endif
