/* mps3-an547: system counter of the SSE-300, 32 MHz, counts up; its lower word is read. */
#include "port.h"

#define COUNTER_CONTROL ((volatile uint32_t *)0x58100000u)
#define COUNTER_VALUE ((volatile uint32_t *)0x48000000u)

void mcuq_port_counter_start(void)
{
    *COUNTER_CONTROL = 1;
}

uint32_t mcuq_port_counter(void)
{
    return *COUNTER_VALUE;
}
