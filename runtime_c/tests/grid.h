/* Kernel test driver: reads cases from a file, runs one kernel per case, writes what it produced.
 *
 * tests/qemu/cases.py writes the file and knows every expected byte. A new kernel family adds a table of entries
 * (see grid_entry) in a file of its own and is linked in place of grid_extra_none.c.
 */
#ifndef MCUQ_TESTS_GRID_H
#define MCUQ_TESTS_GRID_H

#include "mcuq/mcuq.h"

#define GRID_NAME 48
#define GRID_SCALARS 32
#define GRID_BUFFERS 8

/* One record of the case file; the bytes of its buffers follow. All fields little-endian. */
typedef struct {
    char name[GRID_NAME]; /* of the kernel */
    int32_t scalars[GRID_SCALARS];
    struct {
        uint32_t align, bytes; /* align 1 means an odd address, 4 a multiple of four */
    } buffers[GRID_BUFFERS];
    uint32_t output_align, output_bytes, scratch_bytes;
    uint32_t shared; /* 0: the output is a buffer of its own; else buffer 0 lies shared - 1 bytes behind its first byte */
} grid_record;

typedef struct {
    const int32_t *scalars;
    void *buffers[GRID_BUFFERS]; /* NULL when empty */
    void *output, *scratch;
} grid_case;

typedef void (*grid_convolution)(const mcuq_conv2d_params *, const void *, void *, void *);

/* A kernel by name. run_convolution calls `convolution`; the other runners know their kernel. */
typedef struct {
    const char *name;
    void (*run)(const grid_case *, grid_convolution);
    grid_convolution convolution;
} grid_entry;

void grid_run_convolution(const grid_case *, grid_convolution);

/* Entries of further kernel families; the last has a NULL name. */
extern const grid_entry grid_extra[];

/* Memory for one case: from an arena on a target, from the heap under a sanitizer. Address a multiple of four,
 * or odd when align is 1; NULL when there is no room. All allocations end with grid_release. */
void *grid_allocate(uint32_t bytes, uint32_t align);
/* Nonzero when nothing was written just outside any allocation. */
int grid_intact(void);
void grid_release(void);

#endif
