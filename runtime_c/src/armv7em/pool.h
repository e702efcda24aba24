/* The part of a pooling window without dilation that lies inside the input. */
#ifndef MCUQ_ARMV7EM_POOL_H
#define MCUQ_ARMV7EM_POOL_H

#include "mcuq/dsp.h"

typedef struct {
    uint32_t first, count;
} mcuq_taps;

static inline mcuq_taps mcuq_clip_taps(uint32_t output, uint32_t stride, uint32_t pad, uint32_t kernel, uint32_t size)
{
    const int32_t start = (int32_t)(output * stride) - (int32_t)pad, end = start + (int32_t)kernel;
    const int32_t low = start < 0 ? 0 : start, high = end < (int32_t)size ? end : (int32_t)size;
    const mcuq_taps taps = {(uint32_t)low, (uint32_t)(high - low)};
    return taps;
}

#endif
