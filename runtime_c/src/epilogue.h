/* What convolutions do with a finished accumulator: requantize, clamp, store at the output's width. */
#ifndef MCUQ_SRC_EPILOGUE_H
#define MCUQ_SRC_EPILOGUE_H

#include "mcuq/mcuq.h"
#include "pack.h"

/* Store output channel c of a pixel's row. Channels of a row come in ascending order (see mcuq_put). */
static inline void mcuq_store(const mcuq_conv2d_params *p, void *row, uint32_t c, int32_t acc)
{
    const uint32_t entry = p->per_channel_scale ? c : 0u;
    const int32_t code = mcuq_requantize(acc, p->multipliers[entry], p->shifts[entry], p->output_zero_point,
                                         p->clamp_lo, p->clamp_hi);
    if (p->output.bits == 8u) {
        ((int8_t *)row)[c] = (int8_t)code;
    } else if (p->output.bits == 32u) {
        ((int32_t *)row)[c] = code;
    } else {
        mcuq_put(row, c, p->output.bits, code);
    }
}

/* Zero point of output channel c's weights; call only when weight_zero_points is not NULL. */
static inline int32_t mcuq_weight_zero_point(const mcuq_conv2d_params *p, uint32_t c)
{
    return p->weight_zero_points[p->per_channel_zero_point ? c : 0u];
}

#endif
