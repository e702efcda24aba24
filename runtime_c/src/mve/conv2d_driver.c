#include "conv2d_driver.h"

#include <stddef.h>

#include "codes.h"
#include "columns.h"

_Static_assert(sizeof(void *) != 4u || offsetof(mcuq_mve_frame, accumulators) == 88u, "gemm.S has other offsets");

enum { PIXELS = MCUQ_MVE_PIXELS, CHANNELS = MCUQ_MVE_CHANNELS };

/* A layer on its way. Weights: a word (log2 of what 4- and 2-bit inputs are multiplied by), parameters, weights. */
typedef struct {
    const mcuq_mve_gemm *gemm;
    const mcuq_conv2d_params *p;
    const uint8_t *input, *parameters, *weights;
    uint32_t depth, channels; /* at least CHANNELS are computed */
    uint32_t pair_bytes;      /* weights of two channels */
    uint32_t raised;
    int sums;   /* the kernel wants them */
    int inside; /* every column is a run of bytes of the input */
    int linear; /* moreover, the pixels of input and output correspond */
    mcuq_mve_frame frame;
} layer;

static int columns_inside(const mcuq_conv2d_params *p)
{
    const mcuq_window *w = &p->window;
    return p->input.bits == 8 && w->dilation_height == 1 && w->dilation_width == 1 &&
           (w->kernel_height == 1 || w->kernel_width == p->input.width) && w->pad_top == 0 && w->pad_left == 0 &&
           (p->output.height - 1) * w->stride_height + w->kernel_height <= p->input.height &&
           (p->output.width - 1) * w->stride_width + w->kernel_width <= p->input.width;
}

/* Minus a column's sum at the weights' position. */
static int32_t minus_sum(const layer *l, const int8_t *column)
{
    return (int32_t)(0u - ((uint32_t)mcuq_mve_sum(column, l->depth) << (8u - l->gemm->weight_bits)));
}

/* The next columns of a linear layer. */
static inline void set_pixels(layer *l, uint32_t first, uint32_t count)
{
    const int8_t *pixel = (const int8_t *)l->input + first * l->depth;
    for (uint32_t i = 0; i < count; i++, pixel += l->depth) {
        l->frame.columns[i] = pixel;
        if (l->sums)
            l->frame.sums[i] = minus_sum(l, pixel);
    }
}

/* Blocks of 64 inputs, and what lies behind them. */
static void set_lengths(layer *l)
{
    mcuq_mve_frame *const f = &l->frame;
    const uint32_t depth = l->depth, rest = depth % 64u, rest_bytes = (rest + 3u) / 4u;
    f->depth = depth;
    f->blocks = depth / 64u;
    if (l->gemm->weight_bits == 4u) {
        l->pair_bytes = depth;
        f->count = f->blocks;
        f->rest[0] = rest;
        f->advance = depth - ((depth + 15u) & ~15u);
        return;
    }
    f->count = (depth * l->gemm->weight_bits + 7u) >> 3;
    f->advance = l->pair_bytes = 2u * f->count;
    f->remainder = rest == 0 ? 0u : rest <= 16u ? 1u : 2u;
    f->few = rest;
    f->few_bytes = rest_bytes;
    uint32_t left = rest;
    for (uint32_t i = 0; i < 4u; i++) {
        f->rest[i] = left < rest_bytes ? left : rest_bytes;
        left -= f->rest[i];
    }
}

static void set_frame(layer *l)
{
    const uint32_t panels = (l->channels + CHANNELS - 1u) / CHANNELS;
    set_lengths(l);
    l->parameters = (const uint8_t *)l->p->weights + 4;
    l->weights = l->parameters + panels * (l->gemm->zero_points ? 40u : 36u);
    l->raised = *(const uint8_t *)l->p->weights;
    for (uint32_t i = 0; i < 4u; i++)
        l->frame.rounding[i] = 2 * l->p->output_zero_point + 1;
}

/* Column `index` of the frame for the window whose tap (0, 0) is input (y, x). */
static void set_column(layer *l, uint32_t index, int32_t y, int32_t x, int8_t *room)
{
    const int8_t *column = l->inside ? (const int8_t *)l->input + (y * l->p->input.width + x) * l->p->input.channels
                                     : mcuq_mve_column(l->p, l->input, y, x, room);
    if (l->raised > 0)
        mcuq_mve_raise(room, l->depth, l->raised);
    l->frame.columns[index] = column;
    if (l->sums)
        l->frame.sums[index] = minus_sum(l, column);
}

/* The columns of output pixels first, first + 1 ... */
static void set_columns(layer *l, uint32_t first, uint32_t count, int8_t *columns, uint32_t pitch)
{
    const mcuq_window *const w = &l->p->window;
    const uint32_t width = l->p->output.width, oy = first / width;
    uint32_t ox = first - oy * width;
    int32_t y = (int32_t)oy * w->stride_height - w->pad_top, x = (int32_t)ox * w->stride_width - w->pad_left;
    for (uint32_t i = 0; i < count; i++) {
        set_column(l, i, y, x, columns + i * pitch);
        x += w->stride_width;
        if (++ox == width) {
            ox = 0;
            x = -(int32_t)w->pad_left;
            y += w->stride_height;
        }
    }
}

/* All channels of the frame's columns; the last four overlap the ones before. Of an odd number they are stored again where two
 * channels share a byte. */
static void run(layer *l, mcuq_mve_matrix_kernel *kernel, int8_t *to)
{
    const uint32_t whole = l->channels / CHANNELS * CHANNELS;
    mcuq_mve_frame *const f = &l->frame;
    f->parameters = l->parameters;
    f->output = to;
    f->weights = l->weights;
    f->weights_end = l->weights + whole / 2u * l->pair_bytes;
    kernel(f);
    if (whole < l->channels) {
        const uint32_t first = l->channels - CHANNELS;
        f->output = to + first;
        f->weights = l->weights + (l->gemm->weight_bits == 4u && first % 2u ? whole : first) * l->pair_bytes / 2u;
        f->weights_end = f->weights + CHANNELS / 2u * l->pair_bytes;
        kernel(f);
    }
}

void mcuq_mve_conv2d(const mcuq_mve_gemm *gemm, const mcuq_conv2d_params *p, const void *input, void *output,
                     void *scratch)
{
    const uint32_t pixels = (uint32_t)p->output.height * p->output.width, out_bits = p->output.bits;
    const uint32_t outputs = p->output.channels, out_row = mcuq_row_bytes(outputs, out_bits);
    const uint32_t group = pixels < PIXELS ? 1u : (uint32_t)PIXELS;
    const int narrow = p->clamp_lo > -128 || p->clamp_hi < 127, direct = out_bits == 8u && outputs >= CHANNELS;
    layer l = {.gemm = gemm, .p = p, .input = input, .inside = columns_inside(p),
               .depth = (uint32_t)p->window.kernel_height * p->window.kernel_width * p->input.channels,
               .channels = outputs < CHANNELS ? (uint32_t)CHANNELS : outputs,
               .sums = gemm->zero_points || (gemm->weight_bits == 4u && group == 1u)};
    l.linear = l.inside && l.depth == p->input.channels && p->window.stride_height == 1 && p->window.stride_width == 1 &&
               p->output.width == p->input.width;
    const uint32_t pitch = (l.depth + 3u) & ~3u;
    int8_t *const columns = scratch, *const rows = columns + (l.inside ? 0u : pitch * group);
    set_frame(&l);
    l.frame.stride = l.channels;
    for (uint32_t first = 0; first < pixels; first += group) {
        if (first + group > pixels)
            first = pixels - group; /* the last group computes some pixels again */
        if (l.linear)
            set_pixels(&l, first, group);
        else
            set_columns(&l, first, group, columns, pitch);
        uint8_t *out = (uint8_t *)output + first * out_row;
        int8_t *const finished = direct ? (int8_t *)out : rows;
        run(&l, group == 1u ? gemm->one : gemm->three, finished);
        if (direct && !narrow)
            continue;
        for (uint32_t i = 0; i < group; i++, out += out_row)
            mcuq_mve_finish_row(finished + i * l.channels, out, outputs, out_bits, p->clamp_lo, p->clamp_hi);
    }
}
