/* virt: retired instructions of an RV32 core; QEMU counts the ns of virtual time, one an instruction with shift=0. */
#include "port.h"

void mcuq_port_counter_start(void)
{
}

uint32_t mcuq_port_counter(void)
{
    uint32_t value;
    __asm volatile(".option arch, +zicsr\n\tcsrr %0, minstret" : "=r"(value)::"memory");
    return value;
}
