/* Transposed convolution: a convolution over the input with zeros between its pixels. stride_height - 1 rows and
 * stride_width - 1 columns of them; the convolution itself moves by one pixel.
 *
 *   y[c] = requantize(bias[c] + sum x * (w - zw[c])),  taps outside the input or between its pixels read x = Zx
 *
 * Only taps on pixels are multiplied: with d = x - Zx the sum is base[c] + sum d * (w - zw[c]) over those, where
 * base[c] = bias[c] + Zx * sum (w - zw[c]) over all. These are accumulators of inputs that hold Zx elsewhere, so the
 * compiler's proof |bias| + max|x| * sum (|w| + |zw|) < 2^31 bounds every one of them.
 *
 * Weight layout "segments": per output channel and kernel tap one packed row of C / groups codes.
 * Scratch (mcuq/target/kernels.py): int32 base[O], uint16 numbers[kernel taps], int16 column[taps * C / groups], taps = the most
 * that lie on pixels: ceil(kernel / (stride / gcd(stride, dilation))) per axis.
 */
#include "epilogue.h"

typedef struct {
    const mcuq_conv2d_params *p;
    const uint8_t *input;
    uint32_t channels, segment, taps; /* of one group's input; bytes of one tap's weights; of the kernel */
    int32_t *base;
    int16_t *column;
    uint16_t *numbers;
} job;

/* sum w * d over `count` codes. */
MCUQ_TEMPLATE int32_t dot(const uint8_t *w, const int16_t *d, uint32_t count, uint32_t bits)
{
    const uint32_t per_byte = 8u / bits;
    int32_t sum = 0;
    for (uint32_t bytes = count / per_byte; bytes != 0u; bytes--) {
        for (uint32_t lane = 0; lane < per_byte; lane++) {
            sum += mcuq_weight(*w, lane, bits) * *d++;
        }
        w++;
    }
    for (uint32_t lane = 0; lane < count % per_byte; lane++) {
        sum += mcuq_weight(*w, lane, bits) * *d++;
    }
    return sum;
}

static int32_t zero_of(const mcuq_conv2d_params *p, uint32_t c)
{
    return p->weight_zero_points == NULL ? 0 : p->weight_zero_points[p->per_channel_zero_point ? c : 0u];
}

MCUQ_TEMPLATE void bases(const job *j, uint32_t bits)
{
    const mcuq_conv2d_params *p = j->p;
    const uint8_t *w = p->weights;
    for (uint32_t c = 0; c < p->output.channels; c++) {
        int32_t sum = -zero_of(p, c) * (int32_t)(j->taps * j->channels);
        for (uint32_t tap = 0; tap < j->taps; tap++) {
            for (uint32_t i = 0; i < j->channels; i++) {
                sum += mcuq_get_weight(w, i, bits);
            }
            w += j->segment;
        }
        j->base[c] = p->bias[c] + p->input_zero_point * sum;
    }
}

/* Input coordinate of a tap, or -1 beside the pixels. */
static int32_t pixel_of(uint32_t output, uint32_t tap, uint32_t dilation, uint32_t pad, uint32_t stride, uint32_t size)
{
    const int32_t at = (int32_t)(output + tap * dilation) - (int32_t)pad;
    if (at < 0 || (uint32_t)at % stride != 0u || (uint32_t)at / stride >= size) {
        return -1;
    }
    return (int32_t)((uint32_t)at / stride);
}

/* Column of the taps on pixels for output pixel (row, col) and the group whose inputs start at `first`. */
static uint32_t gather(const job *j, uint32_t row, uint32_t col, uint32_t first, int32_t *sum)
{
    const mcuq_conv2d_params *p = j->p;
    const mcuq_window *w = &p->window;
    const uint32_t row_bytes = mcuq_row_bytes(p->input.channels, p->input.bits);
    int16_t *column = j->column;
    uint32_t found = 0;
    *sum = 0;
    for (uint32_t ky = 0; ky < w->kernel_height; ky++) {
        const int32_t y = pixel_of(row, ky, w->dilation_height, w->pad_top, w->stride_height, p->input.height);
        for (uint32_t kx = 0; y >= 0 && kx < w->kernel_width; kx++) {
            const int32_t x = pixel_of(col, kx, w->dilation_width, w->pad_left, w->stride_width, p->input.width);
            if (x < 0) {
                continue;
            }
            const uint8_t *pixel = j->input + ((uint32_t)y * p->input.width + (uint32_t)x) * row_bytes;
            for (uint32_t i = 0; i < j->channels; i++) {
                const int32_t d = mcuq_get(pixel, first + i, p->input.bits) - p->input_zero_point;
                *sum += d;
                *column++ = (int16_t)d;
            }
            j->numbers[found++] = (uint16_t)(ky * w->kernel_width + kx);
        }
    }
    return found;
}

/* Output channels first .. last - 1 of one pixel. */
MCUQ_TEMPLATE void channels(const job *j, uint8_t *out, uint32_t first, uint32_t last, uint32_t found, int32_t sum,
                            uint32_t bits)
{
    int32_t acc[MCUQ_RUN];
    for (uint32_t c = first; c < last; c += MCUQ_RUN) {
        const uint32_t count = mcuq_min(MCUQ_RUN, last - c);
        for (uint32_t i = 0; i < count; i++) {
            const uint8_t *w = (const uint8_t *)j->p->weights + (c + i) * j->taps * j->segment;
            acc[i] = j->base[c + i] - zero_of(j->p, c + i) * sum;
            for (uint32_t tap = 0; tap < found; tap++) {
                acc[i] += dot(w + j->numbers[tap] * j->segment, j->column + tap * j->channels, j->channels, bits);
            }
        }
        mcuq_store_run(j->p, out, c, count, acc);
    }
}

MCUQ_TEMPLATE void transposed(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch,
                              uint32_t bits)
{
    const uint32_t outputs = (uint32_t)p->output.channels / p->groups;
    job j;
    j.p = p;
    j.input = input;
    j.channels = (uint32_t)p->input.channels / p->groups;
    j.segment = mcuq_row_bytes(j.channels, bits);
    j.taps = (uint32_t)p->window.kernel_height * p->window.kernel_width;
    j.base = scratch;
    j.numbers = (uint16_t *)(void *)(j.base + p->output.channels);
    j.column = (int16_t *)(void *)(j.numbers + j.taps);
    bases(&j, bits);
    uint8_t *out = output;
    for (uint32_t row = 0; row < p->output.height; row++) {
        for (uint32_t col = 0; col < p->output.width; col++) {
            for (uint32_t group = 0; group < p->groups; group++) {
                int32_t sum;
                const uint32_t found = gather(&j, row, col, group * j.channels, &sum);
                channels(&j, out, group * outputs, (group + 1u) * outputs, found, sum, bits);
            }
            out += mcuq_row_bytes(p->output.channels, p->output.bits);
        }
    }
}

#define TRANSPOSED(bits)                                                                                            \
    void mcuq_conv2d_transpose_w##bits(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch) \
    {                                                                                                               \
        transposed(p, input, output, scratch, bits##u);                                                             \
    }

TRANSPOSED(8)
TRANSPOSED(4)
TRANSPOSED(2)
