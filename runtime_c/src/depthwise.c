/* Depthwise convolution, one filter per channel.
 *
 *   y[c] = requantize(bias[c] + sum over taps x[c] * (w[c] - zw[c])),  taps outside the input read x = Zx
 *
 * Per output pixel the byte offsets of the taps are found once; then four channels at a time (they start on a byte
 * at every width) run over the taps with their accumulators in registers. The last one to three channels go one
 * by one.
 *
 * Every partial sum stays within int32: |bias| + max|x| * sum (|w| + |zw|) < 2^31 is proved by the compiler.
 * Scratch (mcuq/target/kernels.py): int32 offsets[kernel_height * kernel_width].
 */
#include "epilogue.h"

#define OUTSIDE (-1)
#define LANES 4u

/* Offset of every tap of output pixel (row, col) from the start of the input, or OUTSIDE. */
static void find_taps(const mcuq_conv2d_params *p, int32_t *offsets, uint32_t row, uint32_t col)
{
    const mcuq_window *w = &p->window;
    const int32_t height = p->input.height, width = p->input.width;
    const int32_t row_bytes = (int32_t)mcuq_row_bytes(p->input.channels, p->input.bits);
    int32_t y = (int32_t)(row * w->stride_height) - w->pad_top;
    for (uint32_t i = w->kernel_height; i != 0u; i--) {
        int32_t x = (int32_t)(col * w->stride_width) - w->pad_left;
        for (uint32_t j = w->kernel_width; j != 0u; j--) {
            const int inside = y >= 0 && y < height && x >= 0 && x < width;
            *offsets++ = inside ? (y * width + x) * row_bytes : OUTSIDE;
            x += w->dilation_width;
        }
        y += w->dilation_height;
    }
}

/* Activation `lane` of four that start at a byte; bits is constant. */
MCUQ_TEMPLATE int32_t activation(const uint8_t *x, uint32_t lane, uint32_t bits)
{
    return mcuq_get(x, lane, bits);
}

MCUQ_TEMPLATE int32_t weight(const uint8_t *w, uint32_t lane, uint32_t bits)
{
    return mcuq_weight(w[lane * bits >> 3], lane & (8u / bits - 1u), bits);
}

/* acc[lane] += sum over taps x * w for four channels, whose codes lie at x_at in a pixel and at w in a tap's row
 * of weights. border: four codes Zx. */
MCUQ_TEMPLATE void four_channels(int32_t acc[LANES], const int32_t *offsets, uint32_t taps, const uint8_t *x_base,
                                 const uint8_t *border, const uint8_t *w, uint32_t weight_bytes, uint32_t x_bits,
                                 uint32_t bits)
{
    int32_t s0 = acc[0], s1 = acc[1], s2 = acc[2], s3 = acc[3];
    for (const int32_t *end = offsets + taps; offsets != end; offsets++) {
        const int32_t offset = *offsets;
        const uint8_t *x = offset == OUTSIDE ? border : x_base + offset;
        s0 += activation(x, 0, x_bits) * weight(w, 0, bits);
        s1 += activation(x, 1, x_bits) * weight(w, 1, bits);
        s2 += activation(x, 2, x_bits) * weight(w, 2, bits);
        s3 += activation(x, 3, x_bits) * weight(w, 3, bits);
        w += weight_bytes;
    }
    acc[0] = s0;
    acc[1] = s1;
    acc[2] = s2;
    acc[3] = s3;
}

/* Sum of channel c's activations over the taps, for weights with a zero point. */
static int32_t tap_sum(const mcuq_conv2d_params *p, const int32_t *offsets, uint32_t taps, const uint8_t *input,
                       uint32_t c)
{
    int32_t sum = 0;
    for (const int32_t *end = offsets + taps; offsets != end; offsets++) {
        sum += *offsets == OUTSIDE ? p->input_zero_point : mcuq_get(input + *offsets, c, p->input.bits);
    }
    return sum;
}

/* acc[0] += channel c's products over the taps; for the last channels, fewer than four. */
static void one_channel(const mcuq_conv2d_params *p, int32_t *acc, const int32_t *offsets, uint32_t taps,
                        const uint8_t *input, uint32_t c, uint32_t bits)
{
    const uint32_t weight_bytes = mcuq_row_bytes(p->output.channels, bits);
    const uint8_t *w = p->weights;
    int32_t sum = *acc;
    for (const int32_t *end = offsets + taps; offsets != end; offsets++) {
        const int32_t x = *offsets == OUTSIDE ? p->input_zero_point : mcuq_get(input + *offsets, c, p->input.bits);
        sum += x * mcuq_get_weight(w, c, bits);
        w += weight_bytes;
    }
    *acc = sum;
}

/* Channels c .. c + count - 1 of one output pixel; c is a multiple of four. */
MCUQ_TEMPLATE void channels(const mcuq_conv2d_params *p, int32_t *acc, const int32_t *offsets, uint32_t taps,
                            const uint8_t *input, const uint8_t *border, uint32_t c, uint32_t count, uint32_t bits)
{
    const uint32_t weight_bytes = mcuq_row_bytes(p->output.channels, bits);
    const uint8_t *w = (const uint8_t *)p->weights + (c * bits >> 3);
    uint32_t i = 0;
    for (; i + LANES <= count; i += LANES, w += LANES * bits >> 3) {
        if (p->input.bits == 8u) {
            four_channels(acc + i, offsets, taps, input + (c + i), border, w, weight_bytes, 8u, bits);
        } else if (p->input.bits == 4u) {
            four_channels(acc + i, offsets, taps, input + ((c + i) >> 1), border, w, weight_bytes, 4u, bits);
        } else {
            four_channels(acc + i, offsets, taps, input + ((c + i) >> 2), border, w, weight_bytes, 2u, bits);
        }
    }
    for (; i < count; i++) {
        one_channel(p, acc + i, offsets, taps, input, c + i, bits);
    }
    if (p->weight_zero_points != NULL) {
        for (i = 0; i < count; i++) {
            const int32_t zero = p->weight_zero_points[p->per_channel_zero_point ? c + i : 0u];
            acc[i] -= zero * tap_sum(p, offsets, taps, input, c + i);
        }
    }
}

MCUQ_TEMPLATE void depthwise(const mcuq_conv2d_params *p, const void *input, void *output, int32_t *offsets,
                             uint32_t bits)
{
    const uint32_t taps = (uint32_t)p->window.kernel_height * p->window.kernel_width;
    const uint32_t output_bytes = mcuq_row_bytes(p->output.channels, p->output.bits);
    uint8_t border[LANES];
    for (uint32_t lane = 0; lane < LANES; lane++) {
        mcuq_put(border, lane, p->input.bits, p->input_zero_point);
    }
    uint8_t *out = output;
    for (uint32_t row = 0; row < p->output.height; row++) {
        for (uint32_t col = 0; col < p->output.width; col++) {
            find_taps(p, offsets, row, col);
            for (uint32_t c = 0; c < p->output.channels; c += MCUQ_RUN) {
                const uint32_t count = mcuq_min(MCUQ_RUN, p->output.channels - c);
                int32_t acc[MCUQ_RUN];
                mcuq_copy_words(acc, p->bias + c, count);
                channels(p, acc, offsets, taps, input, border, c, count, bits);
                mcuq_store_run(p, out, c, count, acc);
            }
            out += output_bytes;
        }
    }
}

#define DEPTHWISE(bits)                                                                                             \
    void mcuq_depthwise_w##bits(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)        \
    {                                                                                                               \
        depthwise(p, input, output, scratch, bits##u);                                                              \
    }

DEPTHWISE(8)
DEPTHWISE(4)
DEPTHWISE(2)
