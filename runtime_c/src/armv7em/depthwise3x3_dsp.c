/* Depthwise 3 x 3, stride 1 or 2, by planes: two channels of a strip of rows are gathered into int16 planes, then
 * each plane is convolved (depthwise3x3.S). Weight layout "rows" (9 codes a channel). Output codes of 4 and 2 bits are
 * computed as bytes of one channel pair and merged.
 *
 * Scratch: two planes of plane_rows * pitch bytes, then, below 8 output bits, 2 bytes per output pixel of a strip.
 * mcuq/target/kernels_dsp.py adds up the same. */
#include "depthwise3x3.h"
#include "simd.h"

enum { PLANE_BYTES = 2048 }; /* strips keep a plane below this */

typedef struct {
    const mcuq_conv2d_params *p;
    const uint8_t *input;
    uint8_t *output;
    int16_t *planes[2];
    int8_t *bytes; /* outputs of a channel pair, or NULL */
    uint32_t pitch, stride, weight_bits;
    int32_t first_row, rows; /* output rows of the strip */
    mcuq_depthwise_row_kernel *kernel;
} strip;

/* Input rows and columns of the strip's planes that lie inside the input. */
typedef struct {
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
    const uint32_t channels = s->p->input.channels, width = (uint32_t)in->width;
    const uint8_t *codes = s->input + (uint32_t)in->top * s->p->input.width * channels + channel;
    int16_t *left = s->planes[0] + in->offset, *right = s->planes[1] + in->offset;
    for (int32_t y = in->top; y < in->bottom; y++) {
        const uint8_t *next = codes;
        uint32_t x = width;
        if (both)
            for (; x >= 2; x -= 2, next += 2 * channels, left += 2, right += 2) {
                uint16_t first, second;
                memcpy(&first, next, sizeof first);
                memcpy(&second, next + channels, sizeof second);
                const uint32_t pixels = first | (uint32_t)second << 16;
                mcuq_store(left, mcuq_sxtb16(pixels));
                mcuq_store(right, mcuq_sxtb16_high(pixels));
            }
        for (; x > 0; x--, next += channels) {
            *left++ = (int8_t)next[0];
            if (both)
                *right++ = (int8_t)next[1];
        }
        left += s->pitch / 2u - width;
        right += both ? s->pitch / 2u - width : 0u;
        codes += s->p->input.width * channels;
    }
}

static void gather_packed(const strip *s, const inside *in, uint32_t channel)
{
    const uint32_t bits = s->p->input.bits, mask = (1u << bits) - 1u;
    const uint32_t row = mcuq_row_bytes(s->p->input.channels, bits), shift = channel * bits & 7u;
    const uint8_t *codes = s->input + (uint32_t)in->top * s->p->input.width * row + (channel * bits >> 3);
    int16_t *left = s->planes[0] + in->offset, *right = s->planes[1] + in->offset;
    for (int32_t y = in->top; y < in->bottom; y++) {
        const uint8_t *next = codes;
        for (int32_t x = 0; x < in->width; x++, next += row) {
            const uint32_t code = (uint32_t)*next >> shift;
            left[x] = (int16_t)(code & mask);
            right[x] = (int16_t)(code >> bits & mask);
        }
        left += s->pitch / 2u;
        right += s->pitch / 2u;
        codes += s->p->input.width * row;
    }
}

/* Weight codes of a channel minus their zero point, times 2^scale, as the pairs of mcuq_depthwise_rows. */
static inline void load_weights(const strip *s, uint32_t channel, int32_t zero, uint32_t scale, uint32_t *pairs)
{
    const uint32_t bits = s->weight_bits;
    const uint8_t *codes = (const uint8_t *)s->p->weights + channel * ((9u * bits + 7u) >> 3);
    int32_t w[9];
    if (bits == 8) {
        for (int i = 0; i < 9; i++)
            w[i] = (int8_t)codes[i];
    } else { /* 36 or 18 bits */
        uint32_t low = codes[0] | (uint32_t)codes[1] << 8 | (uint32_t)codes[2] << 16;
        if (bits == 4)
            low |= (uint32_t)codes[3] << 24;
        for (uint32_t i = 0; i < 9u; i++)
            w[i] = (int32_t)(low << (i * bits < 32u ? 32u - bits - i * bits : 0u)) >> (32u - bits);
        if (bits == 4)
            w[8] = (int32_t)((uint32_t)codes[4] << 28) >> 28;
    }
    for (int i = 0; i < 9; i++)
        w[i] = (int32_t)((uint32_t)(w[i] - zero) << scale);
    for (int k = 0; k < 3; k++, pairs += 2) {
        pairs[0] = ((uint32_t)w[3 * k] & 0xFFFFu) | (uint32_t)w[3 * k + 1] << 16;
        pairs[1] = ((uint32_t)w[3 * k + 1] & 0xFFFFu) | (uint32_t)w[3 * k + 2] << 16;
    }
}

/* All outputs of a strip of one channel; `step` bytes between neighbouring outputs. */
static void convolve(const strip *s, uint32_t channel, const int16_t *plane, int8_t *output, uint32_t step)
{
    const mcuq_conv2d_params *p = s->p;
    const uint32_t scale_at = p->per_channel_scale ? channel : 0u;
    const uint32_t shift = p->shifts[scale_at];
    const uint32_t scale = shift < 33u ? 33u - shift : 0u; /* kernels_dsp.py bounds it */
    int32_t zero = 0;
    if (p->weight_zero_points != NULL)
        zero = p->weight_zero_points[p->per_channel_zero_point ? channel : 0u];
    const uint32_t width = p->output.width, pitch = s->pitch / 2u;
    mcuq_depthwise_rows r;
    r.bias = (int32_t)((uint32_t)p->bias[channel] << scale);
    r.multiplier = p->multipliers[scale_at];
    r.v = shift + scale - 33u;
    r.rounding = (int32_t)((uint32_t)(2 * p->output_zero_point + 1) << r.v);
    r.channels = step;
    load_weights(s, channel, zero, scale, r.weights);
    const int16_t *end = plane + (uint32_t)s->rows * s->stride * pitch;
    const uint32_t per_block = s->stride == 1u ? 2u : 1u;
    uint32_t blocks = width / per_block;
    for (uint32_t x = 0; blocks > 0; blocks -= r.blocks, x += r.blocks * per_block) {
        r.blocks = blocks < 7u ? blocks : 7u;
        r.output_step = (int32_t)((width - r.blocks * per_block) * step);
        r.plane = plane + x * s->stride;
        r.end = end + x * s->stride;
        r.output = output + x * step;
        s->kernel(&r);
    }
    if (per_block == 2u && (width & 1u)) {
        r.blocks = 0;
        r.output_step = (int32_t)(width * step);
        r.plane = plane + width - 1u;
        r.end = end + width - 1u;
        r.output = output + (width - 1u) * step;
        s->kernel(&r);
    }
}

/* Clamps and merges the byte outputs of channels `channel`, `channel` + 1 into packed rows. */
static void merge(const strip *s, uint32_t channel, uint32_t count)
{
    const mcuq_conv2d_params *p = s->p;
    const uint32_t bits = p->output.bits, row = mcuq_row_bytes(p->output.channels, bits), shift = channel * bits & 7u;
    const uint32_t pixels = (uint32_t)s->rows * p->output.width;
    uint8_t *out = s->output + (uint32_t)s->first_row * p->output.width * row + (channel * bits >> 3);
    const int8_t *bytes = s->bytes;
    for (uint32_t i = 0; i < pixels; i++, out += row, bytes += 2) {
        uint32_t pair = (uint32_t)mcuq_clamp(bytes[0], p->clamp_lo, p->clamp_hi);
        if (count == 2u)
            pair |= (uint32_t)mcuq_clamp(bytes[1], p->clamp_lo, p->clamp_hi) << bits;
        *out = (uint8_t)((shift == 0u ? 0u : *out) | pair << shift);
    }
}

static void depthwise(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch,
                      uint32_t weight_bits, uint32_t pitch, mcuq_depthwise_row_kernel *stride1,
                      mcuq_depthwise_row_kernel *stride2)
{
    strip s = {.p = p, .input = input, .output = output, .pitch = pitch, .weight_bits = weight_bits};
    s.stride = p->window.stride_height;
    s.kernel = s.stride == 1u ? stride1 : stride2;
    const uint32_t most = ((PLANE_BYTES / pitch < 9u ? 9u : PLANE_BYTES / pitch) - 3u) / s.stride + 1u;
    const uint32_t height = p->output.height, channels = p->output.channels;
    const uint32_t strip_rows = height < most ? height : most;
    const uint32_t plane = ((strip_rows - 1u) * s.stride + 3u) * pitch;
    s.planes[0] = scratch;
    s.planes[1] = s.planes[0] + plane / 2u;
    s.bytes = p->output.bits == 8 ? NULL : (int8_t *)(s.planes[1] + plane / 2u);
    for (uint32_t y = 0; y < height; y += strip_rows) {
        s.first_row = (int32_t)y;
        s.rows = (int32_t)(height - y < strip_rows ? height - y : strip_rows);
        fill(&s);
        const inside in = clip(&s);
        for (uint32_t c = 0; c < channels; c += 2u) {
            const uint32_t count = channels - c < 2u ? 1u : 2u;
            if (p->input.bits == 8)
                gather8(&s, &in, c, count == 2u);
            else
                gather_packed(&s, &in, c);
            for (uint32_t i = 0; i < count; i++) {
                if (s.bytes != NULL)
                    convolve(&s, c + i, s.planes[i], s.bytes + i, 2u);
                else
                    convolve(&s, c + i, s.planes[i], (int8_t *)s.output + y * p->output.width * channels + c + i, channels);
            }
            if (s.bytes != NULL)
                merge(&s, c, count);
        }
    }
    if (p->output.bits == 8 && (p->clamp_lo > -128 || p->clamp_hi < 127))
        mcuq_clamp_row8(output, output, height * p->output.width * channels, p->clamp_lo, p->clamp_hi);
}

#define KERNEL(bits, pitch) \
    void mcuq_depthwise3x3_w##bits##_p##pitch##_dsp(const mcuq_conv2d_params *p, const void *input, void *output, \
                                                    void *scratch); \
    void mcuq_depthwise3x3_w##bits##_p##pitch##_dsp(const mcuq_conv2d_params *p, const void *input, void *output, \
                                                    void *scratch) \
    { \
        depthwise(p, input, output, scratch, bits, pitch, mcuq_depthwise_rows_s1_p##pitch, \
                  mcuq_depthwise_rows_s2_p##pitch); \
    }

#define KERNELS(pitch) KERNEL(8, pitch) KERNEL(4, pitch) KERNEL(2, pitch)

KERNELS(16)
KERNELS(32)
KERNELS(64)
KERNELS(128)
KERNELS(256)
