/* Convolution of any kernel, stride, padding, dilation and groups.
 *
 *   y[c] = requantize(bias[c] + sum x * (w - zw[c])),  taps outside the input read x = Zx
 *
 * Two output pixels at a time: their receptive fields are gathered into two int8 columns (kernel rows, kernel
 * columns, channels of the group: the order of a weight row), then two output channels at a time take their dot
 * products. An 8-bit 1 x 1 kernel reads its columns in place. For 4- and 2-bit weights both columns are joined to
 * pairs, so that one multiplication serves two pixels (dot.c).
 *
 * Every partial sum stays within int32: |bias| + max|x| * sum (|w| + |zw|) < 2^31 is proved by the compiler.
 * In place: where outputs never reach what a later pair of pixels reads (mcuq/target/overlap.py), the output may be the
 * input; columns are then copied even where they lie ready.
 * Scratch (mcuq/target/kernels.py): int32 pairs[kernel_height * kernel_width * C/groups] for 4- and 2-bit weights,
 * then int8 columns[min(2, output pixels)][kernel_height * kernel_width * C/groups] unless they are read in place.
 */
#include "dot.h"
#include "epilogue.h"

/* Geometry that does not change over the image. */
typedef struct {
    const mcuq_conv2d_params *p;
    const uint8_t *input;
    uint32_t row_bytes; /* of one input pixel */
    uint32_t channels;  /* of one group's input */
    uint32_t column;    /* codes of one receptive field */
    uint32_t run;       /* neighbouring taps of a kernel row that lie side by side in memory as whole bytes */
    int direct;         /* columns are pixels of the input */
} geometry;

static geometry describe(const mcuq_conv2d_params *p, const void *input, const void *output, uint32_t group_channels)
{
    const mcuq_window *w = &p->window;
    geometry g;
    g.p = p;
    g.input = input;
    g.row_bytes = mcuq_row_bytes(p->input.channels, p->input.bits);
    g.channels = group_channels;
    g.column = (uint32_t)w->kernel_height * w->kernel_width * group_channels;
    g.run = 1u;
    if (p->groups == 1u && w->dilation_width == 1u && g.row_bytes * 8u == (uint32_t)p->input.channels * p->input.bits) {
        g.run = w->kernel_width;
    }
    g.direct = input != output && p->input.bits == 8u && w->kernel_height == 1u && w->kernel_width == 1u && w->pad_top == 0u &&
               w->pad_left == 0u && (p->output.height - 1u) * w->stride_height < p->input.height &&
               (p->output.width - 1u) * w->stride_width < p->input.width;
    return g;
}

/* Taps first .. first + count - 1 of a kernel row lie inside: those with 0 <= x + i * dilation < width. */
static void fill_kernel_row(const geometry *g, int8_t *column, const uint8_t *image_row, int32_t x, uint32_t first)
{
    const mcuq_conv2d_params *p = g->p;
    const int32_t step = p->window.dilation_width;
    uint32_t left = p->window.kernel_width;
    while (left != 0u) {
        uint32_t taps = 1u;
        if (image_row == NULL || x < 0 || x >= (int32_t)p->input.width) {
            mcuq_fill(column, p->input_zero_point, g->channels);
        } else {
            taps = mcuq_min(mcuq_min(g->run, left), p->input.width - (uint32_t)x);
            mcuq_unpack(column, image_row + (uint32_t)x * g->row_bytes, first, taps * g->channels, p->input.bits);
        }
        column += taps * g->channels;
        x += step * (int32_t)taps;
        left -= taps;
    }
}

/* The receptive field of output pixel (row, col) for a group whose input channels start at `first`. */
static const int8_t *gather(const geometry *g, int8_t *column, uint32_t row, uint32_t col, uint32_t first)
{
    const mcuq_window *w = &g->p->window;
    const uint32_t width = g->p->input.width;
    if (g->direct) {
        const uint32_t pixel = row * w->stride_height * width + col * w->stride_width;
        return (const int8_t *)g->input + pixel * g->row_bytes + first;
    }
    int8_t *next = column;
    int32_t y = (int32_t)(row * w->stride_height) - w->pad_top;
    const int32_t x = (int32_t)(col * w->stride_width) - w->pad_left;
    for (uint32_t tap = w->kernel_height; tap != 0u; tap--) {
        const int inside = y >= 0 && y < (int32_t)g->p->input.height;
        const uint8_t *image_row = inside ? g->input + (uint32_t)y * width * g->row_bytes : NULL;
        fill_kernel_row(g, next, image_row, x, first);
        next += w->kernel_width * g->channels;
        y += w->dilation_height;
    }
    return column;
}

/* Output channels first .. last - 1 of one or two pixels whose columns are x[0], x[1]. A missing second pixel
 * or channel repeats the first and is not stored. */
MCUQ_TEMPLATE void channels(const mcuq_conv2d_params *p, const int8_t *const x[2], uint8_t *const rows[2],
                            int32_t *pairs, uint32_t first, uint32_t last, uint32_t column,
                            uint32_t bits)
{
    const uint32_t weight_bytes = mcuq_row_bytes(column, bits);
    const uint8_t *w = (const uint8_t *)p->weights + first * weight_bytes;
    int32_t sums[2] = {0, 0};
    if (p->weight_zero_points != NULL) {
        sums[0] = mcuq_sum(x[0], column);
        sums[1] = mcuq_sum(x[1], column);
    }
    if (bits != 8u) {
        mcuq_make_pairs(pairs, x[0], x[1], column);
    }
    for (uint32_t c = first; c < last; c += MCUQ_RUN) {
        const uint32_t count = mcuq_min(MCUQ_RUN, last - c);
        int32_t acc[2][MCUQ_RUN];
        mcuq_start_run(p, c, count, sums[0], acc[0]);
        mcuq_start_run(p, c, count, sums[1], acc[1]);
        for (uint32_t i = 0; i < count; i += 2u) {
            const uint8_t *next = i + 1u < count ? w + weight_bytes : w;
            if (bits == 8u) {
                mcuq_dot_2x2_w8(&acc[0][i], &acc[1][i], w, next, x[0], x[1], column);
            } else if (bits == 4u) {
                mcuq_dot_pairs_w4(&acc[0][i], &acc[1][i], w, next, pairs, column);
            } else {
                mcuq_dot_pairs_w2(&acc[0][i], &acc[1][i], w, next, pairs, column);
            }
            w += 2u * weight_bytes;
        }
        mcuq_store_run(p, rows[0], c, count, acc[0]);
        if (rows[1] != NULL) {
            mcuq_store_run(p, rows[1], c, count, acc[1]);
        }
    }
}

MCUQ_TEMPLATE void conv2d(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch,
                          uint32_t group_inputs, uint32_t group_outputs, uint32_t bits)
{
    const geometry g = describe(p, input, output, group_inputs);
    const uint32_t output_bytes = mcuq_row_bytes(p->output.channels, p->output.bits);
    const uint32_t count = (uint32_t)p->output.height * p->output.width;
    int32_t *pairs = scratch;
    int8_t *columns = (int8_t *)(pairs + (bits != 8u ? g.column : 0u));
    uint8_t *out = output;
    uint32_t row = 0, col = 0;
    for (uint32_t done = 0; done < count; done += 2u) {
        const uint32_t pixels = mcuq_min(2u, count - done);
        uint32_t next_row = row, next_col = col + 1u;
        if (next_col == p->output.width) {
            next_row++;
            next_col = 0;
        }
        uint8_t *const rows[2] = {out, pixels == 2u ? out + output_bytes : NULL};
        uint32_t first_input = 0;
        for (uint32_t c = 0; c < p->output.channels; c += group_outputs) {
            const int8_t *x[2];
            x[0] = gather(&g, columns, row, col, first_input);
            x[1] = pixels == 2u ? gather(&g, columns + g.column, next_row, next_col, first_input) : x[0];
            channels(p, x, rows, pairs, c, c + group_outputs, g.column, bits);
            first_input += group_inputs;
        }
        row = next_row;
        col = next_col + 1u;
        if (col == p->output.width) {
            row++;
            col = 0;
        }
        out += 2u * output_bytes;
    }
}

/* The only divisions: once per call. */
#define CONV2D(bits)                                                                                                \
    void mcuq_conv2d_w##bits(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)           \
    {                                                                                                               \
        conv2d(p, input, output, scratch, (uint32_t)p->input.channels / p->groups,                                  \
               (uint32_t)p->output.channels / p->groups, bits##u);                                                  \
    }

CONV2D(8)
CONV2D(4)
CONV2D(2)
