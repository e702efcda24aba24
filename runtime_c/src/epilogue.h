/* What convolutions do with finished accumulators: requantize, clamp, store at the output's width. */
#ifndef MCUQ_SRC_EPILOGUE_H
#define MCUQ_SRC_EPILOGUE_H

#include "mcuq/mcuq.h"
#include "pack.h"

/* Channels whose accumulators are collected before they are stored. */
#define MCUQ_RUN 16u

/* acc[i] = bias of channel c + i, less the channel's weight zero point times sum_x, the sum of the taps' codes. */
void mcuq_start_run(const mcuq_conv2d_params *p, uint32_t c, uint32_t count, int32_t sum_x, int32_t *acc);

/* Requantize acc[0 .. count - 1] and store them as channels c .. c + count - 1 of a pixel's row.
 * Runs of a row come in ascending order (mcuq_put). */
void mcuq_store_run(const mcuq_conv2d_params *p, void *row, uint32_t c, uint32_t count, const int32_t *acc);

#endif
