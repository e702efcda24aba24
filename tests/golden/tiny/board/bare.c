/* What port/startup.c calls on a board without a debugger: main, then sleep.
 * SPDX-License-Identifier: MIT */
#include <stdint.h>

int main(void);
_Noreturn void mcuq_port_run(void);
_Noreturn void mcuq_port_fault(uint32_t exception);

static _Noreturn void sleep_forever(void)
{
    for (;;) {
        __asm volatile("wfi");
    }
}

_Noreturn void mcuq_port_run(void)
{
    main();
    sleep_forever();
}

/* The exception number stays in the first argument's register for the debugger. */
_Noreturn void mcuq_port_fault(uint32_t exception)
{
    (void)exception;
    sleep_forever();
}
