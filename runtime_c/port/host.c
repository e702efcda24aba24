/* Files and console of a computer by stdio. There is no instruction counter: it stays 0. */
#include <stdio.h>
#include <stdlib.h>

#include "port.h"

#define FILES 16

static FILE *files[FILES];

int mcuq_port_open(const char *path, int mode)
{
    for (int i = 0; i < FILES; i++) {
        if (files[i] == NULL) {
            files[i] = fopen(path, mode == MCUQ_PORT_READ ? "rb" : "wb");
            return files[i] != NULL ? i : -1;
        }
    }
    return -1;
}

size_t mcuq_port_read(int file, void *data, size_t bytes)
{
    return fread(data, 1, bytes, files[file]);
}

size_t mcuq_port_write(int file, const void *data, size_t bytes)
{
    return fwrite(data, 1, bytes, files[file]);
}

void mcuq_port_close(int file)
{
    fclose(files[file]);
    files[file] = NULL;
}

void mcuq_port_print(const char *text)
{
    fputs(text, stdout);
}

void mcuq_port_print_number(uint32_t value)
{
    printf("%lu", (unsigned long)value);
}

_Noreturn void mcuq_port_exit(int code)
{
    exit(code & 0xFF);
}

void mcuq_port_counter_start(void)
{
}

uint32_t mcuq_port_counter(void)
{
    return 0;
}

uint32_t mcuq_port_stack_used(void)
{
    return 0;
}

void mcuq_port_stack_paint(void)
{
}
