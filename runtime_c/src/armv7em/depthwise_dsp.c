/* Depthwise of any kernel up to MCUQ_DEPTHWISE_STEPS steps wide, stride 1 or 2 along rows: two channels of a strip of rows
 * are gathered into int16 planes, then each is convolved four outputs at a time (depthwise_blocks.S). Weight layout
 * "rows". A layer of one column is computed as one of one row.
 *
 * Scratch: two planes, a channel's weights, then, where outputs are below 8 bits or fewer than four a row, two bytes per
 * output of a strip, at least four a row. mcuq/target/kernels_dsp.py adds up the same. */
#include "depthwise3x3.h"
#include "depthwise_blocks.h"
#include "mcuq/dsp.h"
#include "simd.h"

enum { PLANE_BYTES = 1024, SPARE_ROWS = 3, BLOCK = 4 }; /* strips: about so much, or so many rows more than a window */

/* One function of this file. */
typedef struct {
    mcuq_depthwise_block_kernel *run;
    uint32_t *(*load)(uint32_t *out, const uint8_t *codes, uint32_t rows, uint32_t width, int32_t zero, uint32_t scale);
    uint8_t bits, stride;
} variant;

/* An axis of the layer. */
typedef struct {
    int32_t input, output, kernel, stride, pad;
} axis;

typedef struct {
    const mcuq_conv2d_params *p;
    const variant *kind;
    const uint8_t *input;
    uint8_t *output;
    axis down, across;
    int16_t *planes[2];
    uint32_t *weights;
    int8_t *bytes; /* outputs of a channel pair, or NULL */
    uint32_t pitch, steps;
    int32_t first_row, rows; /* output rows of the strip */
} strip;

/* Input rows and columns of the strip that lie inside the input. */
typedef struct {
    int32_t top, bottom, width;
    uint32_t offset; /* of its first code in the plane, in int16 */
} inside;

static inside clip(const strip *s)
{
    const axis *down = &s->down, *across = &s->across;
    const int32_t start = s->first_row * down->stride - down->pad;
    const int32_t end = start + (s->rows - 1) * down->stride + down->kernel;
    const int32_t columns = (across->output - 1) * across->stride + across->kernel - across->pad;
    inside in = {start < 0 ? 0 : start, end < down->input ? end : down->input,
                 columns < across->input ? columns : across->input, 0};
    in.offset = (uint32_t)(in.top - start) * (s->pitch / 2u) + (uint32_t)across->pad;
    return in;
}

/* Both planes get the input's zero point everywhere; gathering overwrites what is inside. */
static void fill(const strip *s)
{
    const uint32_t pair = ((uint32_t)s->p->input_zero_point & 0xFFFFu) * 0x00010001u;
    uint32_t *word = (uint32_t *)(void *)s->planes[0]; /* the second follows the first */
    for (uint32_t *end = s->weights; word != end; word++)
        *word = pair;
}

static void gather(const strip *s, const inside *in, uint32_t channel)
{
    const mcuq_shape *shape = &s->p->input;
    const uint32_t bits = shape->bits, pixel = mcuq_row_bytes(shape->channels, bits);
    const uint32_t row_bytes = (uint32_t)s->across.input * pixel;
    const mcuq_depthwise_gather g = {s->input + (uint32_t)in->top * row_bytes + (channel * bits >> 3),
                                     pixel,
                                     s->planes[0] + in->offset,
                                     s->planes[1] + in->offset,
                                     (uint32_t)in->width,
                                     (uint32_t)(in->bottom - in->top),
                                     row_bytes,
                                     s->pitch - 2u * (uint32_t)in->width};
    if (in->bottom <= in->top || in->width <= 0)
        return;
    if (bits == 4) {
        mcuq_depthwise_gather4(&g, 0);
    } else if (bits == 2) {
        mcuq_depthwise_gather2(&g, channel * 2u & 7u);
    } else if (channel + 1u < shape->channels) {
        mcuq_depthwise_gather8(&g);
    } else {
        const uint8_t *codes = g.codes;
        int16_t *left = g.left;
        for (uint32_t y = g.rows; y > 0; y--, left += s->pitch / 2u, codes += row_bytes)
            for (uint32_t x = 0; x < g.width; x++)
                left[x] = (int8_t)codes[x * pixel];
    }
}

/* Weight code `tap` of a channel. */
static inline int32_t weight(const uint8_t *codes, uint32_t tap, uint32_t bits)
{
    const uint32_t at = tap * bits;
    return (int32_t)((uint32_t)codes[at >> 3] << (32u - bits - (at & 7u))) >> (32u - bits);
}

/* Weights of a channel less their zero point, times 2^scale, as the block kernels read them; returns their end. */
static inline __attribute__((always_inline)) uint32_t *load(uint32_t *out, const uint8_t *codes, uint32_t rows,
                                                            uint32_t width, int32_t zero, uint32_t scale, uint32_t bits,
                                                            uint32_t stride)
{
    uint32_t tap = 0;
    for (; rows > 0; rows--) {
        uint32_t before = 0, x = 0;
        for (; x < width; x += 2) {
            const uint32_t even = (uint32_t)(weight(codes, tap++, bits) - zero) << scale;
            const uint32_t odd = x + 1u == width ? 0u : (uint32_t)(weight(codes, tap++, bits) - zero) << scale;
            *out++ = (even & 0xFFFFu) | odd << 16;
            if (stride == 1u)
                *out++ = (before & 0xFFFFu) | even << 16;
            before = odd;
        }
        if (stride == 1u && x == width) { /* an even width: the odd outputs' last tap */
            *out++ = 0;
            *out++ = before & 0xFFFFu;
        }
    }
    return out;
}

/* All outputs of a strip of one channel; `step` bytes between neighbouring outputs. */
static void convolve(const strip *s, uint32_t channel, const int16_t *plane, int8_t *output, uint32_t step)
{
    const mcuq_conv2d_params *p = s->p;
    const uint32_t shift = p->shifts != NULL ? p->shifts[channel] : p->shift;
    const uint32_t scale = shift < 33u ? 33u - shift : 0u; /* kernels_dsp.py bounds it */
    int32_t zero = 0;
    if (p->weight_zero_points != NULL)
        zero = p->weight_zero_points[p->per_channel_zero_point ? channel : 0u];
    const uint32_t stride = s->kind->stride, rows = (uint32_t)s->down.kernel, width = (uint32_t)s->across.kernel;
    const uint8_t *codes = (const uint8_t *)p->weights + channel * mcuq_row_bytes(rows * width, s->kind->bits);
    const int32_t outputs = s->across.output, wide = outputs < BLOCK ? BLOCK : outputs;
    mcuq_depthwise_blocks b;
    b.bias = (int32_t)((uint32_t)p->bias[channel] << scale);
    b.multiplier = p->multipliers[p->per_channel_scale ? channel : 0u];
    b.v = shift + scale - 33u;
    b.rounding = (int32_t)((2u * (uint32_t)p->output_zero_point + 1u) << b.v);
    b.channels = step;
    b.weights = s->weights;
    b.weights_end = s->kind->load(s->weights, codes, rows, width, zero, scale);
    b.plane = plane;
    b.output = output;
    b.pitch = s->pitch;
    b.steps = s->steps;
    b.rows = (uint32_t)s->rows;
    b.blocks = (uint32_t)wide / BLOCK;
    for (;;) { /* whole blocks from the left, then one that overlaps the last of them */
        const int32_t done = (int32_t)b.blocks * BLOCK;
        b.output_step = (wide - done) * (int32_t)step;
        b.plane_step = s->down.stride * (int32_t)s->pitch - 2 * done * (int32_t)stride;
        s->kind->run(&b);
        if (b.output != output || wide % BLOCK == 0)
            break;
        b.blocks = 1;
        b.plane += (uint32_t)(wide - BLOCK) * stride;
        b.output += (uint32_t)(wide - BLOCK) * step;
    }
}

/* Outputs of channels `channel` and its neighbour from bytes to where they belong. */
static void store(const strip *s, uint32_t channel)
{
    const mcuq_conv2d_params *p = s->p;
    const uint32_t channels = p->output.channels, columns = (uint32_t)s->across.output;
    const uint32_t pixels = (uint32_t)s->rows * columns, row = columns * mcuq_row_bytes(channels, p->output.bits);
    uint8_t *out = s->output + (uint32_t)s->first_row * row;
    if (columns < BLOCK) { /* close up */
        int8_t *to = s->bytes;
        for (const int8_t *from = to; to != s->bytes + 2u * pixels; from += 2u * BLOCK)
            for (uint32_t i = 0; i < 2u * columns; i++)
                *to++ = from[i];
    }
    if (p->output.bits != 8) {
        mcuq_depthwise_merge(p, s->bytes, out, pixels, channel);
        return;
    }
    out += channel;
    for (uint32_t i = 0; i < pixels; i++, out += channels) {
        out[0] = (uint8_t)s->bytes[2u * i];
        if (channel + 1u < channels)
            out[1] = (uint8_t)s->bytes[2u * i + 1u];
    }
}

static void find_axes(strip *s)
{
    const mcuq_conv2d_params *p = s->p;
    const mcuq_window *w = &p->window;
    const axis down = {p->input.height, p->output.height, w->kernel_height, w->stride_height, w->pad_top};
    const axis across = {p->input.width, p->output.width, w->kernel_width, w->stride_width, w->pad_left};
    const int turned = across.input == 1 && across.output == 1 && across.kernel == 1;
    s->down = turned ? across : down;
    s->across = turned ? down : across;
}

static void depthwise(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch, const variant *kind)
{
    strip s;
    s.p = p;
    s.kind = kind;
    s.input = input;
    s.output = output;
    find_axes(&s);
    const uint32_t kernel = (uint32_t)s.down.kernel, stride = (uint32_t)s.down.stride, height = (uint32_t)s.down.output;
    const uint32_t width = (uint32_t)s.across.kernel, outputs = (uint32_t)s.across.output;
    const uint32_t wide = outputs < BLOCK ? BLOCK : outputs, channels = p->output.channels;
    s.steps = kind->stride == 1u ? width / 2u + 1u : (width + 1u) / 2u;
    s.pitch = 4u * (kind->stride == 1u ? (wide + 1u) / 2u + s.steps - 1u : wide - 1u + s.steps);
    const uint32_t fitting = PLANE_BYTES / s.pitch < kernel + SPARE_ROWS ? kernel + SPARE_ROWS : PLANE_BYTES / s.pitch;
    const uint32_t most = (fitting - kernel) / stride + 1u, strip_rows = height < most ? height : most;
    const uint32_t plane = ((strip_rows - 1u) * stride + kernel) * s.pitch;
    s.planes[0] = scratch;
    s.planes[1] = s.planes[0] + plane / 2u;
    s.weights = (uint32_t *)(void *)(s.planes[1] + plane / 2u);
    const int direct = p->output.bits == 8 && outputs >= BLOCK;
    s.bytes = direct ? NULL : (int8_t *)(s.weights + (kind->stride == 1u ? 2u : 1u) * kernel * s.steps);
    for (uint32_t y = 0; y < height; y += strip_rows) {
        s.first_row = (int32_t)y;
        s.rows = (int32_t)(height - y < strip_rows ? height - y : strip_rows);
        fill(&s);
        const inside in = clip(&s);
        for (uint32_t c = 0; c < channels; c += 2u) {
            gather(&s, &in, c);
            for (uint32_t i = 0; i < 2u && c + i < channels; i++) {
                int8_t *out = direct ? (int8_t *)s.output + y * outputs * channels + c + i : s.bytes + i;
                convolve(&s, c + i, s.planes[i], out, direct ? channels : 2u);
            }
            if (!direct)
                store(&s, c);
        }
    }
    if (p->output.bits == 8 && (p->clamp_lo > -128 || p->clamp_hi < 127))
        mcuq_clamp_row8(output, output, height * outputs * channels, p->clamp_lo, p->clamp_hi);
}

#define KERNEL(bits, stride) \
    static uint32_t *load##bits##_s##stride(uint32_t *out, const uint8_t *codes, uint32_t rows, uint32_t width, \
                                            int32_t zero, uint32_t scale) \
    { \
        return load(out, codes, rows, width, zero, scale, bits, stride); \
    } \
    void mcuq_depthwise_w##bits##_s##stride##_dsp(const mcuq_conv2d_params *p, const void *input, void *output, \
                                                  void *scratch) \
    { \
        static const variant kind = {mcuq_depthwise_blocks_s##stride, load##bits##_s##stride, bits, stride}; \
        depthwise(p, input, output, scratch, &kind); \
    }

KERNEL(8, 1)
KERNEL(8, 2)
KERNEL(4, 1)
KERNEL(4, 2)
KERNEL(2, 1)
KERNEL(2, 2)
