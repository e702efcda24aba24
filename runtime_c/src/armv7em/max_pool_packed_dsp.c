/* Max pool of 4- or 2-bit tensors, the same bits on both sides, four bytes at a time: codes are masked apart, a byte each, and
 * SSUB8 and SEL take the larger ones. Windows without dilation. */
#include "pool.h"
#include "simd.h"

/* One to four bytes; no more is read or written. */
static inline __attribute__((always_inline)) uint32_t load_bytes(const uint8_t *at, uint32_t count)
{
    if (count >= 4u)
        return mcuq_load(at);
    uint32_t word = at[0];
    if (count > 1u)
        word |= (uint32_t)at[1] << 8;
    if (count > 2u)
        word |= (uint32_t)at[2] << 16;
    return word;
}

static inline __attribute__((always_inline)) void store_bytes(uint8_t *at, uint32_t word, uint32_t count)
{
    if (count >= 4u) {
        mcuq_store(at, word);
        return;
    }
    at[0] = (uint8_t)word;
    if (count > 1u)
        at[1] = (uint8_t)(word >> 8);
    if (count > 2u)
        at[2] = (uint8_t)(word >> 16);
}

/* The part of a window inside the input: `rows` x `columns` pixels of `pixel` bytes; row_bytes between tap rows. */
typedef struct {
    uint32_t rows, columns, pixel, row_bytes;
} taps;

/* Largest codes over the taps of `count` bytes, or of four. */
static inline __attribute__((always_inline)) uint32_t largest(const uint8_t *row, const taps *t, uint32_t count, uint32_t bits)
{
    const uint32_t mask = bits == 4u ? 0x0F0F0F0Fu : 0x03030303u;
    uint32_t a = 0, b = 0, c = 0, d = 0;
    for (uint32_t y = t->rows; y > 0; y--, row += t->row_bytes) {
        const uint8_t *tap = row;
        for (uint32_t x = t->columns; x > 0; x--, tap += t->pixel) {
            const uint32_t word = load_bytes(tap, count);
            a = mcuq_max8(a, word & mask);
            b = mcuq_max8(b, word >> bits & mask);
            if (bits == 2u) {
                c = mcuq_max8(c, word >> 4 & mask);
                d = mcuq_max8(d, word >> 6 & mask);
            }
        }
    }
    return a | b << bits | c << 4 | d << 6;
}

/* One output pixel: words from its first byte on, the last overlapping the one before; fewer than four bytes alone. */
static inline __attribute__((always_inline)) void pool_pixel(const uint8_t *input, uint8_t *out, const taps *t, uint32_t bits)
{
    const uint32_t pixel = t->pixel;
    if (pixel < 4u) {
        store_bytes(out, largest(input, t, pixel, bits), pixel);
        return;
    }
    for (uint32_t at = 0; at < pixel; at += 4u) {
        const uint32_t first = at + 4u <= pixel ? at : pixel - 4u;
        mcuq_store(out + first, largest(input + first, t, 4u, bits));
    }
}

static void rescale_rows(const mcuq_max_pool_params *p, uint8_t *out, uint32_t pixels)
{
    const uint32_t bits = p->output.bits, channels = p->output.channels, pixel = mcuq_row_bytes(channels, bits);
    for (; pixels > 0; pixels--, out += pixel)
        for (uint32_t c = 0; c < channels; c++) {
            const int32_t mask = (1 << bits) - 1;
            const uint32_t byte = c * bits >> 3, shift = c * bits & 7u;
            const int32_t code = out[byte] >> shift & mask, other = out[byte] & ~(mask << shift);
            out[byte] = (uint8_t)(other | mcuq_rescale(code, &p->affine, p->clamp_lo, p->clamp_hi) << shift);
        }
}

void mcuq_max_pool_packed_dsp(const mcuq_max_pool_params *p, const void *input, void *output)
{
    const mcuq_window *w = &p->window;
    const uint32_t bits = p->input.bits;
    taps t;
    t.pixel = mcuq_row_bytes(p->input.channels, bits);
    t.row_bytes = p->input.width * t.pixel;
    uint8_t *out = output;
    for (uint32_t oy = 0; oy < p->output.height; oy++) {
        const mcuq_taps rows = mcuq_clip_taps(oy, w->stride_height, w->pad_top, w->kernel_height, p->input.height);
        const uint8_t *row = (const uint8_t *)input + rows.first * t.row_bytes;
        t.rows = rows.count;
        for (uint32_t ox = 0; ox < p->output.width; ox++, out += t.pixel) {
            const mcuq_taps cols = mcuq_clip_taps(ox, w->stride_width, w->pad_left, w->kernel_width, p->input.width);
            const uint8_t *first = row + cols.first * t.pixel;
            t.columns = cols.count;
            if (bits == 4u)
                pool_pixel(first, out, &t, 4u);
            else
                pool_pixel(first, out, &t, 2u);
        }
    }
    const int same = p->affine.multiplier == 1 && p->affine.constant == 0 && p->affine.shift == 0;
    if (!same || p->clamp_lo > 0 || p->clamp_hi < (1 << bits) - 1)
        rescale_rows(p, output, (uint32_t)p->output.height * p->output.width);
}
