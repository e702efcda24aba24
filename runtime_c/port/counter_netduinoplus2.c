/* netduinoplus2: TIM2 counts up; in QEMU at 1 GHz. */
#include "port.h"

#define TIM2_CR1 ((volatile uint32_t *)0x40000000u)
#define TIM2_CNT ((volatile uint32_t *)0x40000024u)

void mcuq_port_counter_start(void)
{
    *TIM2_CR1 = 1; /* enable */
}

uint32_t mcuq_port_counter(void)
{
    return *TIM2_CNT;
}
