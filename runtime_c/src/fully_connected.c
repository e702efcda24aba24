/* Fully connected layer: one output pixel, the kernel covers the whole input.
 *
 *   y[c] = requantize(bias[c] + sum x * (w - zw[c]))
 *
 * Overflow: as in conv2d.c. Scratch: the unpacked input, int8[height * width * channels], for 4- and 2-bit
 * inputs; none for 8 bits.
 */
#include "dot.h"
#include "epilogue.h"

/* The input as one int8 column; rows of 4- and 2-bit codes are unpacked into scratch. */
static const int8_t *column_of(const mcuq_shape *shape, const void *input, int8_t *scratch)
{
    if (shape->bits == 8u) {
        return input;
    }
    const uint32_t row_bytes = mcuq_row_bytes(shape->channels, shape->bits);
    const uint8_t *row = input;
    int8_t *next = scratch;
    for (uint32_t pixels = (uint32_t)shape->height * shape->width; pixels != 0u; pixels--) {
        mcuq_unpack(next, row, 0, shape->channels, shape->bits);
        next += shape->channels;
        row += row_bytes;
    }
    return scratch;
}

MCUQ_TEMPLATE void fully_connected(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch,
                                   uint32_t bits, mcuq_dot_2x1 dot)
{
    const uint32_t column = (uint32_t)p->input.height * p->input.width * p->input.channels;
    const uint32_t weight_bytes = mcuq_row_bytes(column, bits);
    const int8_t *x = column_of(&p->input, input, scratch);
    const int32_t sum = p->weight_zero_points != NULL ? mcuq_sum(x, column) : 0;
    const uint8_t *w = p->weights;
    for (uint32_t c = 0; c < p->output.channels; c += MCUQ_RUN) {
        const uint32_t count = mcuq_min(MCUQ_RUN, p->output.channels - c);
        int32_t acc[MCUQ_RUN];
        mcuq_start_run(p, c, count, sum, acc);
        for (uint32_t i = 0; i < count; i += 2u) { /* a missing second channel repeats the first */
            dot(acc + i, w, i + 1u < count ? w + weight_bytes : w, x, column);
            w += 2u * weight_bytes;
        }
        mcuq_store_run(p, output, c, count, acc);
    }
}

#define FULLY_CONNECTED(bits)                                                                                       \
    void mcuq_fully_connected_w##bits(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)  \
    {                                                                                                               \
        fully_connected(p, input, output, scratch, bits##u, mcuq_dot_2x1_w##bits);                                  \
    }

FULLY_CONNECTED(8)
FULLY_CONNECTED(4)
FULLY_CONNECTED(2)
