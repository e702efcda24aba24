/* microbit: nRF51 TIMER0, 16 MHz, 32 bits; the value is captured into CC0 on request. */
#include "port.h"

#define TIMER0(offset) ((volatile uint32_t *)(0x40008000u + (offset)))

void mcuq_port_counter_start(void)
{
    *TIMER0(0x508u) = 3; /* BITMODE: 32 bits */
    *TIMER0(0x510u) = 0; /* PRESCALER: 2^0 */
    *TIMER0(0x000u) = 1; /* TASKS_START */
}

uint32_t mcuq_port_counter(void)
{
    *TIMER0(0x040u) = 1; /* TASKS_CAPTURE[0] */
    return *TIMER0(0x540u);
}
