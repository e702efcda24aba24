/* Program for the emulator's own tests: argv[1] chooses what it does. */
#include <string.h>

#include "port.h"

#define TURNS 100000u

/* 5 instructions a turn. */
static void loop(uint32_t turns)
{
#if defined(__riscv)
    __asm volatile("1: nop\n\tnop\n\tnop\n\taddi %0, %0, -1\n\tbnez %0, 1b" : "+r"(turns));
#else
    __asm volatile("1: nop\n\tnop\n\tsub %0, %0, #1\n\tcmp %0, #0\n\tbne 1b" : "+l"(turns) : : "cc");
#endif
}

static uint32_t fill(uint32_t bytes)
{
    volatile uint8_t frame[512];
    uint32_t sum = 0;
    for (uint32_t i = 0; i < bytes; i++) {
        frame[i] = (uint8_t)i;
    }
    for (uint32_t i = 0; i < bytes; i++) {
        sum += frame[i];
    }
    return sum;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "arguments") == 0) {
        for (int i = 2; i < argc; i++) {
            mcuq_port_print(argv[i]);
            mcuq_port_print("\n");
        }
        return 7;
    }
    if (strcmp(what, "count") == 0) {
        mcuq_port_counter_start();
        const uint32_t start = mcuq_port_counter();
        loop(TURNS);
        mcuq_port_print_number(mcuq_port_counter() - start);
        return 0;
    }
    if (strcmp(what, "stack") == 0) {
        mcuq_port_stack_paint();
        const uint32_t before = mcuq_port_stack_used();
        const uint32_t sum = fill(512);
        mcuq_port_print_number(sum == 0u ? 0u : mcuq_port_stack_used() - before);
        return 0;
    }
    if (strcmp(what, "wild") == 0) { /* nothing is there on the MPS2 machines */
        return (int)*(volatile uint32_t *)0xA8000000u;
    }
    if (strcmp(what, "forever") == 0) {
        for (;;) {
        }
    }
    return 2;
}
