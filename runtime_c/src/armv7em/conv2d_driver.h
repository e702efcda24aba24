/* Convolution over a matrix kernel: columns of PIXELS output pixels at a time, then all channels. Include with
 * PIXELS defined, and TWICE for kernels with two roundings, whose channels have their own shifts. Scratch: columns, then in one
 * place what is never there at once: the packed codes of a column (unless words of codes are whole) and finished rows (unless the
 * kernel stores in the output itself); mcuq/target/kernels_dsp.py adds up the same. */
#ifdef LANE_SHIFT
#include "lane_columns.h"
#else
#include "columns.h"
#endif
#include "gemm.h"

typedef struct {
    const mcuq_conv2d_params *p;
    const uint8_t *input;
    uint8_t *packed; /* where words of codes are not whole: the codes of a column without gaps, else NULL */
    uint32_t zeros;  /* a word of codes of the input's zero point */
    uint32_t inner_height, inner_width, row_bytes; /* see find_inner */
} column_source;

/* Taps of an output pixel along a row: `before` left of the input, `inside`, `after`. */
typedef struct {
    int32_t left; /* input column of tap 0 */
    uint32_t before, inside, after;
} tap_span;

static inline tap_span clip(const mcuq_conv2d_params *p, int32_t left)
{
    const int32_t taps = p->window.kernel_width, width = p->input.width;
    int32_t before = left < 0 ? -left : 0, end = width - left < taps ? width - left : taps;
    before = before < taps ? before : taps;
    end = end > before ? end : before;
    const tap_span span = {left, (uint32_t)before, (uint32_t)(end - before), (uint32_t)(taps - end)};
    return span;
}

/* Column of the window whose tap (0, 0) is input (y, x), of whole words: tap rows are runs of the input, expanded where they lie. */
static int32_t column_of_words(const column_source *s, int32_t y, int32_t x, column_end at)
{
    const mcuq_conv2d_params *p = s->p;
    const mcuq_window *w = &p->window;
    const uint32_t channels = p->input.channels, bits = p->input.bits;
    const int32_t height = p->input.height, width = p->input.width, zero = p->input_zero_point;
    const int32_t pixel = (int32_t)mcuq_row_bytes(channels, bits);
    const tap_span span = clip(p, x);
    for (uint32_t ky = w->kernel_height; ky > 0; ky--, y += w->dilation_height) {
        if (y < 0 || y >= height) {
            at = fill(at, zero, w->kernel_width * channels);
        } else if (w->dilation_width == 1) {
            const int32_t start = (y * width + span.left + (int32_t)span.before) * pixel;
            if (span.before > 0)
                at = fill(at, zero, span.before * channels);
            if (span.inside > 0)
                at = expand(at, s->input + start, span.inside * channels, bits);
            if (span.after > 0)
                at = fill(at, zero, span.after * channels);
        } else {
            int32_t tap = x;
            for (uint32_t kx = w->kernel_width; kx > 0; kx--, tap += w->dilation_width)
                at = tap < 0 || tap >= width ? fill(at, zero, channels)
                                             : expand(at, s->input + (y * width + tap) * pixel, channels, bits);
        }
    }
    return at.sum;
}

#ifndef LANE_SHIFT

/* Bytes of taps outside the input; up to three more are written. */
static __attribute__((noinline)) uint8_t *border(uint8_t *out, uint32_t zeros, uint32_t count)
{
    uint8_t *end = out + count;
    for (; out < end; out += 4)
        mcuq_store(out, zeros);
    return end;
}

/* Bytes of taps inside the input. */
static __attribute__((noinline)) uint8_t *copy(uint8_t *out, const uint8_t *codes, uint32_t count)
{
    uint8_t *end = out + count;
    if (count >= 4) {
        const uint32_t last = mcuq_load(codes + count - 4);
        for (; end - out > 4; out += 4, codes += 4)
            mcuq_store(out, mcuq_load(codes));
        mcuq_store(end - 4, last);
        return end;
    }
    while (out < end) {
        *out++ = *codes++;
        __asm__("" : "+r"(out)); /* else gcc calls memcpy, for a few bytes */
    }
    return end;
}

/* A tap row of pixels of whole bytes. */
static uint8_t *copy_row(const column_source *s, int32_t y, const tap_span *span, uint32_t pixel, uint8_t *out)
{
    if (y < 0 || y >= s->p->input.height)
        return border(out, s->zeros, s->p->window.kernel_width * pixel);
    const int32_t x = span->left + (int32_t)span->before;
    if (span->before > 0)
        out = border(out, s->zeros, span->before * pixel);
    out = copy(out, s->input + (uint32_t)(y * s->p->input.width + x) * pixel, span->inside * pixel);
    return span->after > 0 ? border(out, s->zeros, span->after * pixel) : out;
}

/* Where the next code goes: `filled` bits, below 16, wait in `word`. */
typedef struct {
    uint8_t *out;
    uint32_t word, filled;
} code_end;

static inline uint8_t *store_half(uint8_t *out, uint32_t word)
{
    const uint16_t half = (uint16_t)word;
    memcpy(out, &half, sizeof half);
    return out + sizeof half;
}

/* A tap row of any pixels, code after code. */
static void join_row(const column_source *s, int32_t y, int32_t x, code_end *end)
{
    const mcuq_shape *in = &s->p->input;
    const uint32_t pixel = mcuq_row_bytes(in->channels, in->bits), pixel_bits = (uint32_t)in->channels * in->bits;
    const uint32_t last = (pixel_bits - 1u) & 15u, mask = 0xFFFFu >> (15u - last); /* last + 1 bits behind whole halves */
    const uint32_t width = y >= 0 && y < in->height ? in->width : 0u;
    const uint8_t *row = s->input + (uint32_t)y * width * pixel;
    code_end at = *end;
    for (uint32_t kx = s->p->window.kernel_width; kx > 0; kx--, x += s->p->window.dilation_width) {
        const uint8_t *codes = (const uint8_t *)&s->zeros;
        uint32_t step = 0;
        if ((uint32_t)x < width) {
            codes = row + (uint32_t)x * pixel;
            step = 2;
        }
        for (uint32_t halves = (pixel_bits - 1u) / 16u; halves > 0; halves--, codes += step) {
            at.word |= load_half(codes) << at.filled;
            at.out = store_half(at.out, at.word);
            at.word >>= 16;
        }
        at.word |= ((last >= 8u ? load_half(codes) : *codes) & mask) << at.filled;
        at.filled += last + 1u;
        if (at.filled >= 16u) {
            at.out = store_half(at.out, at.word);
            at.word >>= 16;
            at.filled -= 16u;
        }
    }
    *end = at;
}

/* Column of pixels that do not fill words: packed without gaps, zeros behind, then expanded at once. */
static int32_t column_of_codes(const column_source *s, int32_t y, int32_t x, column_end at)
{
    const mcuq_conv2d_params *p = s->p;
    const mcuq_window *w = &p->window;
    const uint32_t bits = p->input.bits, pixel_bits = p->input.channels * bits;
    const tap_span span = clip(p, x);
    const int whole = pixel_bits % 8u == 0 && w->dilation_width == 1;
    code_end end = {s->packed, 0, 0};
    for (uint32_t ky = w->kernel_height; ky > 0; ky--, y += w->dilation_height) {
        if (whole)
            end.out = copy_row(s, y, &span, pixel_bits / 8u, end.out);
        else
            join_row(s, y, x, &end);
    }
    mcuq_store(end.out, end.word);
    const uint32_t depth = (uint32_t)w->kernel_height * w->kernel_width * p->input.channels;
    return expand(at, s->packed, (depth + 3u) & ~3u, bits).sum;
}

/* The same for 3 x 3 taps of 3 int8 channels, all inside the input: the usual first layer. */
static __attribute__((noinline)) int32_t column_of_27(const uint8_t *codes, uint32_t row_bytes, column_end at)
{
    const uint8_t *below = codes + row_bytes, *last = below + row_bytes;
    at = expand_word(expand_word(at, mcuq_load(codes)), mcuq_load(codes + 4));
    at = expand_word(expand_word(at, codes[8] | mcuq_load(below) << 8), mcuq_load(below + 3));
    at = expand_word(at, load_half(below + 7) | load_half(last) << 16);
    return expand_word(expand_word(at, mcuq_load(last + 2)), mcuq_load(last + 5) >> 8).sum;
}

static inline int32_t column(const column_source *s, int32_t y, int32_t x, column_end at)
{
    if (s->packed == NULL)
        return column_of_words(s, y, x, at);
    if (s->inner_width > 0) {
        if ((uint32_t)y < s->inner_height && (uint32_t)x < s->inner_width)
            return column_of_27(s->input + (uint32_t)y * s->row_bytes + 3u * (uint32_t)x, s->row_bytes, at);
    }
    return column_of_codes(s, y, x, at);
}

/* 3 x 3 x 3 windows: how many top left corners have the whole window inside the input; 0 for other windows. */
static void find_inner(column_source *s)
{
    const mcuq_shape *in = &s->p->input;
    const mcuq_window *w = &s->p->window;
    s->row_bytes = 3u * in->width;
    if (in->bits == 8 && in->channels == 3 && w->kernel_height == 3 && w->kernel_width == 3 &&
        w->dilation_height == 1 && w->dilation_width == 1 && in->height >= 3 && in->width >= 3) {
        s->inner_height = in->height - 2u;
        s->inner_width = in->width - 2u;
    }
}

#else /* selected for whole words only */

static inline int32_t column(const column_source *s, int32_t y, int32_t x, column_end at)
{
    return column_of_words(s, y, x, at);
}

static void find_inner(column_source *s)
{
    s->inner_width = 0;
}

#endif

#ifndef TWICE

/* Columns and sums times 2^k; x * 2^k fits int16 (mcuq/target/kernels_dsp.py). Lanes are scaled after their sums. */
static __attribute__((noinline)) void raise_shifts(mcuq_gemm_frame *frame, uint32_t *next)
{
    const uint32_t scale = frame->scale;
    for (uint32_t i = 0; i < PIXELS; i++)
        frame->sums[i] = (int32_t)((uint32_t)frame->sums[i] * scale);
#ifndef LANE_SHIFT
    const uint32_t kept = ((0u - scale) & 0xFFFFu) * 0x00010001u;
    for (; next != frame->columns_end; next += 2) { /* whole groups of four inputs */
        next[0] = next[0] * scale & kept;
        next[1] = next[1] * scale & kept;
    }
#else
    (void)next;
#endif
}

#endif

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
    int8_t *rows = (int8_t *)(columns + padded / 2u * COLUMN_WORDS);
    const uint32_t row_stride = (panels * gemm->channels + 3u) & ~3u;
    const uint32_t out_row = mcuq_row_bytes(channels, out_bits);
    const int whole = p->input.channels * in_bits % 32u == 0;
    const uint32_t ones = 0xFFu >> (8u - in_bits); /* a code */
    const uint32_t zeros = ((uint32_t)p->input_zero_point & ones) * (0xFFFFFFFFu / ones);
    column_source source = {p, input, whole ? NULL : (uint8_t *)rows, zeros, 0, 0, 0};
    find_inner(&source);
#ifdef TWICE
    const uint32_t raised = 0, v = 0;
#else
    const uint32_t raised = p->shift < 33u ? 33u - p->shift : 0u, v = p->shift + raised - 33u;
#endif
    mcuq_gemm_frame frame; /* an initializer would clear the rest of it first: a call of memset */
    frame.columns = columns;
    frame.skipped_steps = (gemm->unrolled - padded / gemm->step_inputs % gemm->unrolled) % gemm->unrolled;
    frame.columns_end = columns + padded / 2u * COLUMN_WORDS;
    frame.stride = direct ? channels : row_stride;
    frame.rounding = (int32_t)((2u * (uint32_t)p->output_zero_point + 1u) << v);
    frame.v = v;
    frame.weights_end = (const uint32_t *)p->weights + panels * (gemm->header_words + words + gemm->channels);
    frame.weights = p->weights;
    frame.scale = 1u << raised;
    const uint32_t width = p->output.width;
    const int32_t stride_y = p->window.stride_height, stride_x = p->window.stride_width;
    uint32_t step = PIXELS;
    for (uint32_t first = 0; first < pixels; first += step) {
        uint32_t end = pixels; /* what lies behind is the pixel before it again */
        if (first + PIXELS > pixels && pixels >= PIXELS) {
            if (input != output) {
                first = pixels - PIXELS; /* the last group computes some pixels again */
            } else if (direct) { /* their inputs are gone: one pixel at a time, stored PIXELS times in one place */
                step = 1;
                frame.stride = 0;
                end = first + 1u;
            }
        }
        const uint32_t oy = first / width;
        uint32_t ox = first - oy * width;
        int32_t y = (int32_t)oy * stride_y - p->window.pad_top, x = (int32_t)ox * stride_x - p->window.pad_left;
        for (uint32_t i = 0; i < PIXELS; i++) {
            frame.sums[i] = gemm->sum_factor * column(&source, y, x, start_column(columns, i));
            if (first + i + 1u >= end)
                continue;
            x += stride_x;
            if (++ox == width) {
                ox = 0;
                x = -(int32_t)p->window.pad_left;
                y += stride_y;
            }
        }
#ifndef TWICE
        if (frame.scale > 1u)
            raise_shifts(&frame, columns);
#endif
        uint8_t *out = (uint8_t *)output + first * out_row;
        frame.output = direct ? (int8_t *)out : rows;
        gemm->run(&frame);
        if (direct && !narrow)
            continue;
        for (uint32_t i = 0; i < PIXELS && first + i < end; i++, out += out_row)
            mcuq_finish_row(frame.output + i * frame.stride, out, channels, out_bits, p->clamp_lo, p->clamp_hi);
    }
}
