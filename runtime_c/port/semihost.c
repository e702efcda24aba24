/* Files, console, command line and exit by semihosting, as QEMU provides it: BKPT 0xAB on Arm, on RISC-V an EBREAK between
 * two shifts that do nothing; the operations are the same. */
#include <string.h>

#include "port.h"

#define SYS_OPEN 0x01u
#define SYS_CLOSE 0x02u
#define SYS_WRITE 0x05u
#define SYS_READ 0x06u
#define SYS_GET_CMDLINE 0x15u
#define SYS_EXIT_EXTENDED 0x20u
#define STOPPED_APPLICATION_EXIT 0x20026u

#define COMMAND_LINE_BYTES 512
#define ARGUMENTS 16
#define FAULT_EXIT_CODE 126

int main(int argc, char **argv);
_Noreturn void mcuq_port_run(void);
_Noreturn void mcuq_port_fault(uint32_t exception);

#if defined(__riscv)
__attribute__((noinline, aligned(64))) /* the three instructions must lie in one page */
#endif
static uintptr_t semihost(uintptr_t operation, const uintptr_t *block)
{
#if defined(__riscv)
    register uintptr_t first __asm("a0") = operation;
    register const uintptr_t *second __asm("a1") = block;
    __asm volatile(".option push\n\t.option norvc\n\t"
                   "slli zero, zero, 0x1f\n\tebreak\n\tsrai zero, zero, 7\n\t.option pop"
                   : "+r"(first)
                   : "r"(second)
                   : "memory");
#else
    register uintptr_t first __asm("r0") = operation;
    register const uintptr_t *second __asm("r1") = block;
    __asm volatile("bkpt 0xAB" : "+r"(first) : "r"(second) : "memory");
#endif
    return first;
}

int mcuq_port_open(const char *path, int mode)
{
    const uintptr_t block[3] = {(uintptr_t)path, (uintptr_t)mode, strlen(path)};
    return (int)semihost(SYS_OPEN, block);
}

/* READ and WRITE answer the number of bytes NOT transferred. */
size_t mcuq_port_read(int file, void *data, size_t bytes)
{
    size_t done = 0;
    while (done < bytes) {
        const uintptr_t block[3] = {(uintptr_t)file, (uintptr_t)data + done, bytes - done};
        const size_t step = bytes - done - semihost(SYS_READ, block);
        if (step == 0u || step > bytes) {
            break;
        }
        done += step;
    }
    return done;
}

size_t mcuq_port_write(int file, const void *data, size_t bytes)
{
    const uintptr_t block[3] = {(uintptr_t)file, (uintptr_t)data, bytes};
    return bytes - semihost(SYS_WRITE, block);
}

void mcuq_port_close(int file)
{
    const uintptr_t block[1] = {(uintptr_t)file};
    semihost(SYS_CLOSE, block);
}

void mcuq_port_print(const char *text)
{
    static int console = -1; /* SYS_WRITE0 would go to the emulator's standard error */
    if (console == -1) {
        console = mcuq_port_open(":tt", 4);
    }
    mcuq_port_write(console, text, strlen(text));
}

void mcuq_port_print_number(uint32_t value)
{
    static const uint32_t powers[10] = {1000000000u, 100000000u, 10000000u, 1000000u, 100000u,
                                        10000u,      1000u,      100u,      10u,      1u};
    char text[11];
    uint32_t length = 0;
    for (uint32_t i = 0; i < 10u; i++) {
        char digit = '0';
        for (; value >= powers[i]; value -= powers[i]) {
            digit++;
        }
        if (digit != '0' || length != 0u || i == 9u) {
            text[length++] = digit;
        }
    }
    text[length] = '\0';
    mcuq_port_print(text);
}

_Noreturn void mcuq_port_exit(int code)
{
    const uintptr_t block[2] = {STOPPED_APPLICATION_EXIT, (uintptr_t)code};
    for (;;) {
        semihost(SYS_EXIT_EXTENDED, block);
    }
}

/* Splits the command line at blanks and calls main. */
_Noreturn void mcuq_port_run(void)
{
    static char line[COMMAND_LINE_BYTES];
    static char *arguments[ARGUMENTS + 1];
    uintptr_t block[2] = {(uintptr_t)line, sizeof line - 1u};
    int count = 0;
    if (semihost(SYS_GET_CMDLINE, block) == 0u) {
        char *next = line;
        while (*next != '\0' && count < ARGUMENTS) {
            arguments[count++] = next;
            while (*next != '\0' && *next != ' ') {
                next++;
            }
            while (*next == ' ') {
                *next++ = '\0';
            }
        }
    }
    mcuq_port_exit(main(count, arguments));
}

_Noreturn void mcuq_port_fault(uint32_t exception)
{
    mcuq_port_print("fault: exception ");
    mcuq_port_print_number(exception);
    mcuq_port_print("\n");
    mcuq_port_exit(FAULT_EXIT_CODE);
}
