/* Start of a Cortex-M (vector table, FPU/MVE switch) or RV32 (entry, trap vector) core: .data and .bss, stack paint, then
 * mcuq_port_run().
 *
 * This file holds no floating-point code: nothing may touch a vector register before CPACR is written.
 * Symbols come from the linker script (sections.ld). No vector but reset is expected to fire; any other ends in
 * mcuq_port_fault with the exception number, on RV32 the trap's cause.
 */
#include <stdint.h>

#include "port.h"

#define STACK_PAINT 0xDEADBEEFu

extern uint32_t __stack_limit[], __stack_top[];
extern uint32_t __data_load[], __data_start[], __data_end[];
extern uint32_t __bss_start[], __bss_end[];

_Noreturn void mcuq_port_run(void);
_Noreturn void mcuq_port_fault(uint32_t exception);

static uint32_t *stack_pointer(void)
{
    uint32_t *sp;
#if defined(__riscv)
    __asm volatile("mv %0, sp" : "=r"(sp));
#else
    __asm volatile("mov %0, sp" : "=r"(sp));
#endif
    return sp;
}

static inline __attribute__((always_inline)) void paint_below(uint32_t *end)
{
    for (volatile uint32_t *word = __stack_limit; word < end; word++) {
        *word = STACK_PAINT;
    }
}

/* Words the call itself may use below the caller's stack pointer are left alone. */
void mcuq_port_stack_paint(void)
{
    paint_below(stack_pointer() - 8);
}

uint32_t mcuq_port_stack_used(void)
{
    const volatile uint32_t *word = __stack_limit;
    while (word < __stack_top && *word == STACK_PAINT) {
        word++;
    }
    return (uint32_t)((const volatile char *)__stack_top - (const volatile char *)word);
}

_Noreturn void mcuq_port_reset(void)
{
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* CPACR: full access to CP10 and CP11 */
    __asm volatile("dsb\n\tisb" ::: "memory");
#endif
    const volatile uint32_t *from = __data_load;
    for (volatile uint32_t *to = __data_start; to < __data_end; to++) {
        *to = *from++;
    }
    for (volatile uint32_t *to = __bss_start; to < __bss_end; to++) {
        *to = 0;
    }
    paint_below(stack_pointer() - 8);
    mcuq_port_run();
}

#if defined(__riscv)
/* The first bytes of the code: machine mode, interrupts off. */
__attribute__((section(".vectors"), naked, used, noreturn)) void mcuq_port_entry(void)
{
    __asm volatile(".option arch, +zicsr\n\t"
                   "la sp, __stack_top\n\t"
                   "la t0, unexpected\n\t"
                   "csrw mtvec, t0\n\t"
                   "tail mcuq_port_reset");
}

/* mtvec keeps two bits for its mode. */
__attribute__((aligned(4), used)) static _Noreturn void unexpected(void)
{
    uint32_t cause;
    __asm volatile(".option arch, +zicsr\n\tcsrr %0, mcause" : "=r"(cause));
    mcuq_port_fault(cause);
}
#else
static _Noreturn void unexpected(void)
{
    uint32_t exception;
    __asm volatile("mrs %0, ipsr" : "=r"(exception));
    mcuq_port_fault(exception);
}

typedef void (*vector)(void);

__attribute__((section(".vectors"), used)) static const struct {
    uint32_t *stack;
    vector handlers[15];
} vectors = {__stack_top,
             {mcuq_port_reset, unexpected, unexpected, unexpected, unexpected, unexpected, unexpected, unexpected,
              unexpected, unexpected, unexpected, unexpected, unexpected, unexpected, unexpected}};
#endif
