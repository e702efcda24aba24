/* What a program under test needs from the machine it runs on: files, console, exit, instruction counter.
 *
 * One implementation is linked: host.c on a computer, or startup.c + semihost.c + one counter_*.c on an emulated
 * core. Kernels and generated models do not use any of this.
 */
#ifndef MCUQ_PORT_H
#define MCUQ_PORT_H

#include <stddef.h>
#include <stdint.h>

#define MCUQ_PORT_READ 1  /* "rb" */
#define MCUQ_PORT_WRITE 5 /* "wb" */

/* Handle of an open file, or -1. */
int mcuq_port_open(const char *path, int mode);
/* Bytes read; fewer than asked only at the end of the file. */
size_t mcuq_port_read(int file, void *data, size_t bytes);
/* Bytes written; fewer than asked only when the disk is full. */
size_t mcuq_port_write(int file, const void *data, size_t bytes);
void mcuq_port_close(int file);

/* Zero-terminated text to standard output. */
void mcuq_port_print(const char *text);
void mcuq_port_print_number(uint32_t value);

/* Ends the program with process exit status code & 0xFF. */
_Noreturn void mcuq_port_exit(int code);

/* Starts the counter; call once. */
void mcuq_port_counter_start(void);
/* Ticks since some moment, modulo 2^32. mcuq/target/core.py has the ticks per instruction of every machine. */
uint32_t mcuq_port_counter(void);

/* Bytes of stack used at most since the last paint (0 on the host). Painting misses a frame's untouched bytes. */
uint32_t mcuq_port_stack_used(void);
void mcuq_port_stack_paint(void);

#endif
