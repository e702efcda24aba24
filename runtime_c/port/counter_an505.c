/* mps2-an505: CMSDK timer 0 at its secure address, 20 MHz. */
#include "counter_cmsdk.h"
#include "port.h"

#define TIMER ((mcuq_cmsdk_timer *)0x50000000u)

void mcuq_port_counter_start(void)
{
    mcuq_cmsdk_start(TIMER);
}

uint32_t mcuq_port_counter(void)
{
    return mcuq_cmsdk_ticks(TIMER);
}
