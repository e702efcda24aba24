/* CMSDK timer: 32 bits, counts down from its reload value. */
#ifndef MCUQ_PORT_COUNTER_CMSDK_H
#define MCUQ_PORT_COUNTER_CMSDK_H

#include <stdint.h>

typedef struct {
    volatile uint32_t control, value, reload;
} mcuq_cmsdk_timer;

static inline void mcuq_cmsdk_start(mcuq_cmsdk_timer *timer)
{
    timer->control = 0;
    timer->reload = 0xFFFFFFFFu;
    timer->value = 0xFFFFFFFFu;
    timer->control = 1; /* enable */
}

static inline uint32_t mcuq_cmsdk_ticks(const mcuq_cmsdk_timer *timer)
{
    return ~timer->value;
}

#endif
