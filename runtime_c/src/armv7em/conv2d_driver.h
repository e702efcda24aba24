/* Convolution over a matrix kernel: columns of PIXELS output pixels at a time, then all channels. Include with
 * PIXELS defined. Scratch: columns, then finished rows (unless the kernel stores in the output itself), then the
 * bytes of one column (unless words of codes are whole); mcuq/target/kernels_dsp.py adds up the same. */
#include "columns.h"
#include "gemm.h"

typedef struct {
    const mcuq_conv2d_params *p;
    const uint8_t *input;
    uint8_t *bytes; /* gathered column, or NULL */
    uint32_t depth; /* inputs of a column */
} column_source;

/* Codes of one tap row as bytes; `count` pixels of the input from `codes` on. */
static uint8_t *gather(uint8_t *out, const uint8_t *codes, uint32_t pixels, const mcuq_shape *shape)
{
    const uint32_t bits = shape->bits, channels = shape->channels, row = mcuq_row_bytes(channels, bits);
    if (bits == 8) {
        uint32_t count = pixels * channels;
        for (; count >= 4; count -= 4, codes += 4, out += 4)
            mcuq_store(out, mcuq_load(codes));
        for (; count > 0; count--)
            *out++ = *codes++;
        return out;
    }
    const uint32_t mask = (1u << bits) - 1u;
    for (; pixels > 0; pixels--, codes += row)
        for (uint32_t c = 0; c < channels; c++)
            *out++ = (uint8_t)((uint32_t)codes[c * bits >> 3] >> (c * bits & 7u) & mask);
    return out;
}

/* `taps` neighbouring pixels of the input, or of the zero point where codes is NULL. */
static inline column_end put(column_end at, const column_source *s, const uint8_t *codes, uint32_t taps, uint8_t **bytes)
{
    const mcuq_shape *shape = &s->p->input;
    const uint32_t count = taps * shape->channels;
    if (s->bytes == NULL) {
        if (codes == NULL)
            return fill(at, s->p->input_zero_point, count);
        return expand(at, codes, count, shape->bits);
    }
    if (codes != NULL) {
        *bytes = gather(*bytes, codes, taps, shape);
    } else {
        memset(*bytes, (uint8_t)s->p->input_zero_point, count);
        *bytes += count;
    }
    return at;
}

/* Writes the column of output pixel (oy, ox); returns the sum of its inputs. */
static int32_t column(const column_source *s, int32_t oy, int32_t ox, uint32_t *first)
{
    const mcuq_conv2d_params *p = s->p;
    const mcuq_window *w = &p->window;
    const int32_t height = p->input.height, width = p->input.width;
    const int32_t pixel = (int32_t)mcuq_row_bytes(p->input.channels, p->input.bits);
    const int32_t left = ox * w->stride_width - w->pad_left, step = w->dilation_width;
    int32_t y = oy * w->stride_height - w->pad_top;
    column_end at = {first, 0};
    uint8_t *bytes = s->bytes;
    int32_t before = 0, inside = w->kernel_width; /* taps left of the input, taps in it */
    if (step == 1) {
        before = left < 0 ? -left : 0;
        before = before < inside ? before : inside;
        inside = width - left < inside ? width - left : inside;
        inside = inside > before ? inside - before : 0;
    }
    const int32_t after = w->kernel_width - before - inside;
    for (uint32_t ky = 0; ky < w->kernel_height; ky++, y += w->dilation_height) {
        if (y < 0 || y >= height) {
            at = put(at, s, NULL, w->kernel_width, &bytes);
            continue;
        }
        const int32_t row = (y * width + left) * pixel; /* of tap 0, possibly left of the input */
        if (step == 1) {
            if (before > 0)
                at = put(at, s, NULL, (uint32_t)before, &bytes);
            if (inside > 0)
                at = put(at, s, s->input + row + before * pixel, (uint32_t)inside, &bytes);
            if (after > 0)
                at = put(at, s, NULL, (uint32_t)after, &bytes);
            continue;
        }
        for (int32_t kx = 0, x = left; kx < w->kernel_width; kx++, x += step)
            at = put(at, s, x < 0 || x >= width ? NULL : s->input + row + kx * step * pixel, 1, &bytes);
    }
    if (s->bytes != NULL) {
        const uint32_t padded = (s->depth + 3u) & ~3u;
        for (uint32_t i = s->depth; i < padded; i++)
            *bytes++ = 0;
        at = expand8(at, s->bytes, padded);
    }
    return at.sum;
}

static void conv2d(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch, const mcuq_gemm *gemm)
{
    const uint32_t in_bits = p->input.bits, out_bits = p->output.bits, channels = p->output.channels;
    const uint32_t depth = (uint32_t)p->window.kernel_height * p->window.kernel_width * p->input.channels;
    const uint32_t padded = (depth + 3u) & ~3u;
    const uint32_t panels = (channels + gemm->channels - 1u) / gemm->channels;
    const uint32_t words = gemm->channels * gemm->weight_bits * padded / 32u;
    const uint32_t pixels = (uint32_t)p->output.height * p->output.width;
    const int direct = out_bits == 8u && panels * gemm->channels == channels && pixels >= PIXELS;
    const int narrow = p->clamp_lo > -128 || p->clamp_hi < 127;
    uint32_t *columns = scratch;
    int8_t *rows = (int8_t *)(columns + padded / 2u * PIXELS);
    const uint32_t row_stride = (panels * gemm->channels + 3u) & ~3u;
    const uint32_t out_row = mcuq_row_bytes(channels, out_bits);
    const int whole = p->input.channels * in_bits % 32u == 0;
    const column_source source = {p, input, whole ? NULL : (uint8_t *)rows + (direct ? 0u : row_stride * PIXELS), depth};
    mcuq_gemm_frame frame = {
        .columns = columns,
        .skipped_steps = (0u - padded / gemm->step_inputs) & (gemm->unrolled - 1u),
        .columns_end = columns + padded / 2u * PIXELS,
        .stride = direct ? channels : row_stride,
        .rounding = 2 * p->output_zero_point + 1,
        .weights = p->weights,
        .weights_end = (const uint32_t *)p->weights + panels * (gemm->header_words + words + 2u * gemm->channels),
    };
    const uint32_t width = p->output.width;
    for (uint32_t first = 0; first < pixels; first += PIXELS) {
        if (first + PIXELS > pixels && pixels >= PIXELS)
            first = pixels - PIXELS; /* the last group computes some pixels again */
        uint32_t oy = first / width, ox = first - oy * width;
        for (uint32_t i = 0; i < PIXELS; i++) {
            frame.sums[i] = gemm->sum_factor * column(&source, (int32_t)oy, (int32_t)ox, columns + i);
            if (first + i + 1u < pixels && ++ox == width) {
                ox = 0;
                oy++;
            }
        }
        uint8_t *out = (uint8_t *)output + first * out_row;
        frame.output = direct ? (int8_t *)out : rows;
        gemm->run(&frame);
        if (direct && !narrow)
            continue;
        for (uint32_t i = 0; i < PIXELS && first + i < pixels; i++, out += out_row)
            mcuq_finish_row(frame.output + i * frame.stride, out, channels, out_bits, p->clamp_lo, p->clamp_hi);
    }
}
