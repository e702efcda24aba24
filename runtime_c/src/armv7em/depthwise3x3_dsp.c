/* Depthwise 3 x 3, stride 1 or 2, by planes: two channels of a strip of rows are gathered into int16 planes, then
 * each plane is convolved (depthwise3x3.S). Weight layout "nines". Output codes of 4 and 2 bits are
 * computed as bytes of one channel pair and merged.
 *
 * With TWICE, as depthwise3x3_twice_dsp.c compiles it once more, for two roundings: weights and bias are doubled.
 *
 * Scratch: two planes of plane_rows * pitch bytes, then, below 8 output bits, 2 bytes per output pixel of a strip.
 * mcuq/target/kernels_dsp.py adds up the same. */
#include "depthwise3x3.h"
#include "mcuq/dsp.h"
#include "simd.h"

enum { PLANE_BYTES = 2048 }; /* strips keep a plane below this */

struct strip;
struct inside;

/* One function of this file: row kernel, how weights (less their zero point, times 2^scale) are loaded, how planes are
 * filled, how outputs below 8 bits are packed (NULL: never), plane rows. */
typedef struct variant {
    mcuq_depthwise_row_kernel *rows;
    void (*load)(const uint8_t *codes, int32_t zero, uint32_t scale, uint32_t *pairs);
    void (*gather)(const struct strip *s, const struct inside *in, uint32_t channel, int both);
    mcuq_depthwise_merge_kernel *merge;
    uint16_t pitch;
    uint8_t weight_bytes; /* of a channel */
    uint8_t chain;        /* most blocks of a row at a time */
} variant;

typedef struct strip {
    const mcuq_conv2d_params *p;
    const uint8_t *input;
    uint8_t *output;
    int16_t *planes[2];
    int8_t *bytes; /* outputs of a channel pair, or NULL */
    uint32_t pitch, stride;
    uint32_t blocks;      /* of an output row */
    uint32_t plane_words; /* int16 from the first to the last plane row of the outputs */
    int32_t rounding;
    int32_t first_row, rows; /* output rows of the strip */
    const variant *kind;
} strip;

/* Input rows and columns of the strip's planes that lie inside the input. */
typedef struct inside {
    int32_t top, bottom, width; /* rows top..bottom-1 of the input; columns 0..width-1 */
    uint32_t offset;            /* of its first code in the plane, in int16 */
} inside;

static inside clip(const strip *s)
{
    const int32_t needed = (int32_t)(((uint32_t)s->rows - 1u) * s->stride) + 3;
    const int32_t start = s->first_row * (int32_t)s->stride - s->p->window.pad_top;
    const int32_t columns = (int32_t)((s->p->output.width - 1u) * s->stride) + 3 - s->p->window.pad_left;
    inside in = {start < 0 ? 0 : start, start + needed, columns, 0};
    in.bottom = in.bottom < s->p->input.height ? in.bottom : s->p->input.height;
    in.width = in.width < s->p->input.width ? in.width : s->p->input.width;
    in.offset = (uint32_t)(in.top - start) * (s->pitch / 2u) + s->p->window.pad_left;
    return in;
}

/* Both planes get the input's zero point everywhere; gathering overwrites what is inside. */
static void fill(const strip *s)
{
    const uint32_t rows = ((uint32_t)s->rows - 1u) * s->stride + 3u;
    const uint32_t pair = ((uint32_t)s->p->input_zero_point & 0xFFFFu) * 0x00010001u;
    for (int i = 0; i < 2; i++) {
        uint32_t *word = (uint32_t *)(void *)s->planes[i];
        for (uint32_t n = rows * s->pitch / 4u; n > 0; n--)
            *word++ = pair;
    }
}

static void gather8(const strip *s, const inside *in, uint32_t channel, int both)
{
    const uint32_t channels = s->p->input.channels, row_bytes = s->p->input.width * channels;
    const uint8_t *codes = s->input + (uint32_t)in->top * row_bytes + channel;
    int16_t *left = s->planes[0] + in->offset;
    if (both) {
        const mcuq_depthwise_gather g = {
            codes, channels, left, s->planes[1] + in->offset, (uint32_t)in->width, (uint32_t)(in->bottom - in->top),
            row_bytes, s->pitch - 2u * (uint32_t)in->width};
        mcuq_depthwise_gather8(&g);
        return;
    }
    for (int32_t y = in->top; y < in->bottom; y++, codes += row_bytes, left += s->pitch / 2u)
        for (int32_t x = 0; x < in->width; x++)
            left[x] = (int8_t)codes[(uint32_t)x * channels];
}

#ifndef TWICE

/* Inputs of 8, 4 or 2 bits. */
static void gather(const strip *s, const inside *in, uint32_t channel, int both)
{
    const uint32_t bits = s->p->input.bits, row = mcuq_row_bytes(s->p->input.channels, bits);
    const uint32_t row_bytes = s->p->input.width * row;
    if (bits == 8) {
        gather8(s, in, channel, both);
        return;
    }
    const mcuq_depthwise_gather g = {
        s->input + (uint32_t)in->top * row_bytes + (channel * bits >> 3), row, s->planes[0] + in->offset,
        s->planes[1] + in->offset, (uint32_t)in->width, (uint32_t)(in->bottom - in->top), row_bytes,
        s->pitch - 2u * (uint32_t)in->width};
    if (bits == 4)
        mcuq_depthwise_gather4(&g, 0);
    else
        mcuq_depthwise_gather2(&g, channel * 2u & 7u);
}

#endif

/* (low of a, low of b) and (low of a, high of b). */
static inline uint32_t low_low(uint32_t a, uint32_t b)
{
    return (a & 0xFFFFu) | b << 16;
}

static inline uint32_t low_high(uint32_t a, uint32_t b)
{
    return (a & 0xFFFFu) | (b & 0xFFFF0000u);
}

/* 9 bytes as the pairs of mcuq_depthwise_rows. */
static inline void load_weights8(const uint8_t *codes, uint32_t *pairs)
{
    for (int k = 0; k < 2; k++) {
        const uint32_t word = mcuq_load(codes + 3 * k), even = mcuq_sxtb16(word), odd = mcuq_sxtb16_high(word);
        pairs[2 * k] = low_low(even, odd);
        pairs[2 * k + 1] = low_high(odd, even);
    }
    const uint32_t word = mcuq_load(codes + 5), even = mcuq_sxtb16(word), odd = mcuq_sxtb16_high(word);
    pairs[4] = low_high(odd, even);
    pairs[5] = low_high(even >> 16, odd);
}

/* (high of a, low of b) and (high of a, high of b). */
static inline uint32_t high_low(uint32_t a, uint32_t b)
{
    return a >> 16 | b << 16;
}

static inline uint32_t high_high(uint32_t a, uint32_t b)
{
    return a >> 16 | (b & 0xFFFF0000u);
}

/* 9 nibbles or crumbs, stored + half their range: in the half words of the first word, lowest first, (w0, w1),
 * (w3, w4), (w6, w7), (w2, w5); then w8. Gives (code - zero) * 2^scale. */
static inline void load_weights_packed(const uint8_t *codes, uint32_t bits, int32_t zero, uint32_t scale,
                                       uint32_t *pairs)
{
    uint32_t word = (bits == 4 ? mcuq_load(codes) : codes[0] | (uint32_t)codes[1] << 8 | (uint32_t)codes[2] << 16);
    const uint32_t last = bits == 4 ? codes[4] & 15u : word >> 8 & 3u;
    const uint32_t lanes = ((1u << bits) - 1u) * 0x00010001u;
    /* Stored codes and their offset (0 .. 2^bits - 1) stay non-negative: lanes do not meet. */
    const uint32_t offset = ((uint32_t)((1 << (bits - 1u)) + zero) << scale) * 0x00010001u;
    for (int k = 0; k < 3; k++, word >>= bits)
        pairs[2 * k] = mcuq_sub16((word & lanes) << scale, offset);
    const uint32_t third = mcuq_sub16((word & lanes) << scale, offset);
    pairs[1] = high_low(pairs[0], third);
    pairs[3] = high_high(pairs[2], third);
    pairs[5] = high_low(pairs[4], (last << scale) - (offset & 0xFFFFu));
}

/* Every weight minus the zero point, times 2^scale. */
static void adjust_weights(uint32_t *pairs, int32_t zero, uint32_t scale)
{
    for (int i = 0; i < 6; i++) {
        const int32_t low = ((int16_t)pairs[i] - zero) * (1 << scale);
        const int32_t high = ((int16_t)(pairs[i] >> 16) - zero) * (1 << scale);
        pairs[i] = low_low((uint32_t)low, (uint32_t)high);
    }
}

static void load8(const uint8_t *codes, int32_t zero, uint32_t scale, uint32_t *pairs)
{
    load_weights8(codes, pairs);
#ifdef TWICE
    for (int i = 0; zero == 0 && i < 6; i++)
        pairs[i] = pairs[i] << 1 & 0xFFFEFFFFu;
    if (zero == 0)
        return;
#endif
    if (zero != 0 || scale != 0)
        adjust_weights(pairs, zero, scale);
}

#ifndef TWICE

static void load4(const uint8_t *codes, int32_t zero, uint32_t scale, uint32_t *pairs)
{
    load_weights_packed(codes, 4, zero, scale, pairs);
}

static void load2(const uint8_t *codes, int32_t zero, uint32_t scale, uint32_t *pairs)
{
    load_weights_packed(codes, 2, zero, scale, pairs);
}

#endif

/* All outputs of a strip of one channel; `step` bytes between neighbouring outputs. */
static inline void convolve(const strip *s, uint32_t channel, const int16_t *plane, int8_t *output, uint32_t step)
{
    const mcuq_conv2d_params *p = s->p;
    const uint32_t shift = p->shifts != NULL ? p->shifts[channel] : p->shift;
#ifdef TWICE
    const uint32_t scale = 1; /* shift >= 32 */
#else
    const uint32_t scale = shift < 33u ? 33u - shift : 0u; /* kernels_dsp.py bounds it */
#endif
    int32_t zero = 0;
    if (p->weight_zero_points != NULL)
        zero = p->weight_zero_points[p->per_channel_zero_point ? channel : 0u];
    const uint32_t width = p->output.width, per_block = s->stride == 1u ? 2u : 1u;
    mcuq_depthwise_rows r;
    r.bias = (int32_t)((uint32_t)p->bias[channel] << scale);
    r.multiplier = p->multipliers[p->per_channel_scale ? channel : 0u];
    r.v = shift + scale - 33u;
    r.rounding = (int32_t)((uint32_t)s->rounding << r.v);
    r.channels = step;
    s->kind->load((const uint8_t *)p->weights + channel * s->kind->weight_bytes, zero, scale, r.weights);
    r.plane = plane;
    r.end = plane + s->plane_words;
    r.output = output;
    uint32_t blocks = s->blocks;
    for (; blocks > 0; blocks -= r.blocks) {
        r.blocks = blocks < s->kind->chain ? blocks : s->kind->chain;
        r.output_step = (int32_t)((width - r.blocks * per_block) * step);
        s->kind->rows(&r);
        r.plane += 2u * r.blocks;
        r.end += 2u * r.blocks;
        r.output += r.blocks * per_block * step;
    }
    if (per_block == 2u && (width & 1u)) {
        r.blocks = 0;
        r.output_step = (int32_t)(width * step);
        s->kind->rows(&r);
    }
}

static void depthwise(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch,
                      const variant *kind)
{
    const uint32_t pitch = kind->pitch;
    strip s = {.p = p, .input = input, .output = output, .pitch = pitch, .kind = kind};
    s.stride = p->window.stride_height;
    s.rounding = 2 * p->output_zero_point + 1;
    s.blocks = s.stride == 1u ? p->output.width / 2u : p->output.width;
    const uint32_t most = ((PLANE_BYTES / pitch < 9u ? 9u : PLANE_BYTES / pitch) - 3u) / s.stride + 1u;
    const uint32_t height = p->output.height, channels = p->output.channels;
    const uint32_t strip_rows = height < most ? height : most;
    const uint32_t plane = ((strip_rows - 1u) * s.stride + 3u) * pitch;
    const uint32_t out_row = mcuq_row_bytes(channels, p->output.bits);
    s.planes[0] = scratch;
    s.planes[1] = s.planes[0] + plane / 2u;
    s.bytes = kind->merge == NULL || p->output.bits == 8 ? NULL : (int8_t *)(s.planes[1] + plane / 2u);
    for (uint32_t y = 0; y < height; y += strip_rows) {
        s.first_row = (int32_t)y;
        s.rows = (int32_t)(height - y < strip_rows ? height - y : strip_rows);
        s.plane_words = (uint32_t)s.rows * s.stride * (pitch / 2u);
        fill(&s);
        const inside in = clip(&s);
        for (uint32_t c = 0; c < channels; c += 2u) {
            const uint32_t count = channels - c < 2u ? 1u : 2u;
            kind->gather(&s, &in, c, count == 2u);
            for (uint32_t i = 0; i < count; i++) {
                if (s.bytes != NULL)
                    convolve(&s, c + i, s.planes[i], s.bytes + i, 2u);
                else
                    convolve(&s, c + i, s.planes[i], (int8_t *)s.output + y * p->output.width * channels + c + i, channels);
            }
            if (s.bytes != NULL)
                kind->merge(p, s.bytes, s.output + y * p->output.width * out_row, (uint32_t)s.rows * p->output.width, c);
        }
    }
    if (s.bytes == NULL && (p->clamp_lo > -128 || p->clamp_hi < 127))
        mcuq_clamp_row8(output, output, height * p->output.width * channels, p->clamp_lo, p->clamp_hi);
}

#define KERNEL(name, bits, stride, pitch, suffix, ...) \
    void mcuq_depthwise3x3_##name##_s##stride##_p##pitch##suffix##_dsp(const mcuq_conv2d_params *p, const void *input, \
                                                                       void *output, void *scratch) \
    { \
        static const variant kind = {mcuq_depthwise_rows_s##stride##_p##pitch##suffix, load##bits, __VA_ARGS__, pitch, \
                                     (9 * bits + 7) / 8, MCUQ_DEPTHWISE_CHAIN_##stride##_##pitch}; \
        depthwise(p, input, output, scratch, &kind); \
    }

#ifdef TWICE
#define KERNELS(pitch) KERNEL(w8, 8, 1, pitch, _twice, gather8, NULL) KERNEL(w8, 8, 2, pitch, _twice, gather8, NULL)
#else
/* int8 on both sides, which need no more than the first of each pair has; any codes. */
#define BOTH(bits, stride, pitch) \
    KERNEL(w##bits, bits, stride, pitch, , gather8, NULL) \
    KERNEL(packed_w##bits, bits, stride, pitch, , gather, mcuq_depthwise_merge)

#define KERNELS(pitch) \
    BOTH(8, 1, pitch) BOTH(8, 2, pitch) BOTH(4, 1, pitch) BOTH(4, 2, pitch) BOTH(2, 1, pitch) BOTH(2, 2, pitch)
#endif

KERNELS(16)
KERNELS(32)
KERNELS(64)
KERNELS(128)
KERNELS(256)
