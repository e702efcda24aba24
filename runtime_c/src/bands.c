/* A convolution inside the addition that reads it, band by band: the emitted code convolves a band of output rows into
 * scratch and adds it, so that the convolution's output is never whole in memory. Output codes are those of the two
 * operators one after the other.
 *
 * A band is the convolution of the input from its first row on: rows above become the padding at the top.
 */
#include "mcuq/mcuq.h"

static void take_rows(mcuq_band *b)
{
    const int32_t first = b->top < 0 ? 0 : b->top;
    b->convolution.window.pad_top = (uint8_t)(first - b->top);
    b->convolution.input.height = (uint16_t)(b->height - first);
    b->input = b->start + (uint32_t)first * b->input_row;
}

void mcuq_band_start(mcuq_band *b, const mcuq_band_params *p, const void *input, const void *residual, void *output)
{
    b->convolution = *p->convolution;
    b->addition = *p->addition;
    b->bands = p->convolution->output.height / p->rows;
    b->height = p->convolution->input.height;
    b->top = -(int32_t)p->convolution->window.pad_top;
    b->step = (int32_t)p->rows * p->convolution->window.stride_height;
    b->convolution.output.height = p->rows;
    b->addition.shape.height = p->rows;
    b->start = input;
    b->residual = residual;
    b->output = output;
    const mcuq_shape *in = &p->convolution->input, *out = &p->addition->shape;
    const uint32_t bits = p->convolution_is_b ? p->addition->bits_a : p->addition->bits_b, pixels = p->rows * out->width;
    b->input_row = in->width * mcuq_row_bytes(in->channels, in->bits);
    b->residual_band = pixels * mcuq_row_bytes(out->channels, bits);
    b->output_band = pixels * mcuq_row_bytes(out->channels, out->bits);
    take_rows(b);
}

void mcuq_band_next(mcuq_band *b)
{
    b->bands--;
    b->top += b->step;
    b->residual += b->residual_band;
    b->output += b->output_band;
    take_rows(b);
}
