/* Rows of C channels (channels_last): a few pixels make one wide row, so that loops over few channels still fill
 * vectors. Arrays per column repeat the channels. A last part of a wide row is a prefix of one. */
#ifndef MCUQ_ROWS_H
#define MCUQ_ROWS_H

#include "norm.h"
#include <string.h>

typedef struct {
    Index columns, count, slices; /* columns of a wide row, values in all, slices that are summed on their own */
    int threads;
} Rows;

static inline Rows rows_of(const Shape *shape)
{
    const Index C = shape->channels, count = shape->images * shape->plane * C, wanted = count / (4 * BLOCK);
    Index columns = C;
    while (columns < 64 || columns % 16 != 0) {
        columns += C;
    }
    const Rows rows = {columns, count, wanted < 1 ? 1 : smaller(wanted, SLICES),
                       count > PARALLEL ? shape->threads : 1};
    return rows;
}

/* First value of slice k: slices start on wide rows. */
static inline Index row_start(const Rows rows, Index k)
{
    const Index whole = (rows.count + rows.columns - 1) / rows.columns;
    const Index first = whole / rows.slices * k + smaller(k, whole % rows.slices);
    return smaller(first * rows.columns, rows.count);
}

static inline void widen(float *wide, Index columns, const float *narrow, Index channels)
{
    for (Index c = 0; c < columns; c += channels) {
        memcpy(wide + c, narrow, (size_t)channels * sizeof *wide);
    }
}

#endif
