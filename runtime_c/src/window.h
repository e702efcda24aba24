/* The part of a pooling window that lies inside the input. */
#ifndef MCUQ_SRC_WINDOW_H
#define MCUQ_SRC_WINDOW_H

#include "mcuq/mcuq.h"

/* Taps of one axis that lie inside: the first at input coordinate `start`, then `count` of them `step` apart. */
typedef struct {
    uint32_t start, count, step;
} mcuq_span;

MCUQ_ONCE mcuq_span mcuq_clip_span(uint32_t output, uint32_t stride, uint32_t pad, uint32_t kernel,
                                       uint32_t dilation, uint32_t size)
{
    mcuq_span span = {0, 0, dilation};
    int32_t at = (int32_t)(output * stride) - (int32_t)pad;
    for (; kernel != 0u; kernel--, at += (int32_t)dilation) {
        if (at >= 0 && at < (int32_t)size) {
            if (span.count == 0u) {
                span.start = (uint32_t)at;
            }
            span.count++;
        }
    }
    return span;
}

static inline mcuq_span mcuq_rows_inside(const mcuq_window *w, uint32_t output_row, uint32_t height)
{
    return mcuq_clip_span(output_row, w->stride_height, w->pad_top, w->kernel_height, w->dilation_height, height);
}

static inline mcuq_span mcuq_cols_inside(const mcuq_window *w, uint32_t output_col, uint32_t width)
{
    return mcuq_clip_span(output_col, w->stride_width, w->pad_left, w->kernel_width, w->dilation_width, width);
}

#endif
