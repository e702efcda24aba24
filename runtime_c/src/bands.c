/* Convolutions band by band, so that their output is never whole in memory: the emitted code convolves a band of output rows
 * into scratch and adds it, pools it or writes it into a concatenation. Output codes are those of the whole convolution.
 *
 * A band is the convolution of the input from its first row on: rows above become the padding at the top.
 * A pool's band needs several, and some of them again for the next one: those move to the front. Rows between are skipped.
 */
#include <string.h>

#include "mcuq/mcuq.h"

static void take_rows(mcuq_rows *r)
{
    const int32_t first = r->top < 0 ? 0 : r->top;
    r->convolution.window.pad_top = (uint8_t)(first - r->top);
    r->convolution.input.height = (uint16_t)(r->height - first);
    r->input = r->start + (uint32_t)first * r->input_row;
}

void mcuq_rows_start(mcuq_rows *r, const mcuq_conv2d_params *p, uint32_t rows, const void *input)
{
    r->convolution = *p;
    r->bands = p->output.height / rows;
    r->height = p->input.height;
    r->top = -(int32_t)p->window.pad_top;
    r->step = (int32_t)(rows * p->window.stride_height);
    r->convolution.output.height = (uint16_t)rows;
    r->start = input;
    r->input_row = p->input.width * mcuq_row_bytes(p->input.channels, p->input.bits);
    take_rows(r);
}

void mcuq_rows_next(mcuq_rows *r)
{
    r->bands--;
    r->top += r->step;
    take_rows(r);
}

void mcuq_band_start(mcuq_band *b, const mcuq_band_params *p, const void *input, const void *residual, void *output)
{
    mcuq_rows_start(&b->rows, p->convolution, p->rows, input);
    b->addition = *p->addition;
    b->addition.shape.height = p->rows;
    b->residual = residual;
    b->output = output;
    const mcuq_shape *out = &p->addition->shape;
    const uint32_t bits = p->convolution_is_b ? p->addition->bits_a : p->addition->bits_b, pixels = p->rows * out->width;
    b->residual_band = pixels * mcuq_row_bytes(out->channels, bits);
    b->output_band = pixels * mcuq_row_bytes(out->channels, out->bits);
}

void mcuq_band_next(mcuq_band *b)
{
    mcuq_rows_next(&b->rows);
    b->residual += b->residual_band;
    b->output += b->output_band;
}

/* The pool's band whose window starts at row `top`. */
static void take_band(mcuq_pool_band *b)
{
    const mcuq_conv2d_params *p = b->params->convolution;
    const int32_t end = b->top + b->params->span, height = p->output.height;
    b->first = b->top < 0 ? 0u : (uint32_t)b->top;
    b->last = (uint32_t)(end < height ? end : height);
    b->height = (uint16_t)(b->last - b->first);
    b->pad_top = (uint8_t)((int32_t)b->first - b->top);
    if (b->done < b->first) {
        b->done = b->first;
        b->part.top = (int32_t)(b->done * p->window.stride_height) - p->window.pad_top;
        take_rows(&b->part);
    }
    b->row = b->rows + (b->done - b->first) * b->row_bytes;
}

void mcuq_pool_band_start(mcuq_pool_band *b, const mcuq_pool_band_params *p, const void *input, void *rows, void *output)
{
    const mcuq_shape *out = &p->convolution->output;
    mcuq_rows_start(&b->part, p->convolution, p->rows, input);
    b->params = p;
    b->bands = p->bands;
    b->top = -(int32_t)p->top;
    b->done = 0;
    b->rows = rows;
    b->output = output;
    b->row_bytes = out->width * mcuq_row_bytes(out->channels, out->bits);
    take_band(b);
}

void mcuq_pool_band_call(mcuq_pool_band *b)
{
    mcuq_rows_next(&b->part);
    b->done += b->params->rows;
    b->row += b->params->rows * b->row_bytes;
}

void mcuq_pool_band_next(mcuq_pool_band *b)
{
    const uint32_t before = b->first, had = b->done;
    b->bands--;
    b->top += b->params->step;
    b->output += b->params->output_band;
    take_band(b);
    if (had > b->first)
        memmove(b->rows, b->rows + (b->first - before) * b->row_bytes, (had - b->first) * b->row_bytes);
}
