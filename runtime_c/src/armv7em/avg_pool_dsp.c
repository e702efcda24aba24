/* Average pool of int8 tensors: SXTAB16 sums four channels in half-word lanes. Windows without dilation.
 * A lane holds the sum of 256 taps: 256 * -128 = -2^15; longer sums are moved to 32 bits in between. */
#include "pool.h"
#include "simd.h"

enum { LANE_TAPS = 256 };

typedef struct {
    const int8_t *first; /* tap 0 of channel 0 */
    uint32_t channels, row_bytes;
    uint32_t rows, cols;
} taps;

/* Taps that are neighbours in memory: the whole window when it covers whole rows. */
static taps merge_rows(taps t)
{
    if (t.row_bytes == t.cols * t.channels) {
        t.cols *= t.rows;
        t.rows = 1;
    }
    return t;
}

/* lanes += `count` taps `step` bytes apart, at most LANE_TAPS of them; returns the tap after the last. */
static __attribute__((noinline)) const int8_t *sum_lanes(const int8_t *tap, uint32_t step, uint32_t count,
                                                         uint32_t lanes[4])
{
    uint32_t a = 0, b = 0, c = 0, d = 0;
#define TAP \
    do { \
        const uint32_t low = mcuq_load(tap), high = mcuq_load(tap + 4); \
        tap += step; \
        a = mcuq_sxtab16(a, low); \
        b = mcuq_sxtab16_high(b, low); \
        c = mcuq_sxtab16(c, high); \
        d = mcuq_sxtab16_high(d, high); \
        __asm__("" : "+r"(tap)); /* keeps one pointer: gcc would form four addresses ahead and spill them */ \
    } while (0)
    for (; count >= 4; count -= 4) {
        TAP;
        TAP;
        TAP;
        TAP;
    }
    for (; count > 0; count--)
        TAP;
#undef TAP
    lanes[0] = a;
    lanes[1] = b;
    lanes[2] = c;
    lanes[3] = d;
    return tap;
}

static inline void add_lanes(int32_t *sums, uint32_t lanes)
{
    sums[0] += (int16_t)lanes;
    sums[2] += (int16_t)(lanes >> 16);
}

static void sum8(const taps *t, uint32_t channel, int32_t *sums)
{
    for (int i = 0; i < 8; i += 4)
        sums[i] = sums[i + 1] = sums[i + 2] = sums[i + 3] = 0;
    const int8_t *row = t->first + channel;
    for (uint32_t y = 0; y < t->rows; y++, row += t->row_bytes) {
        const int8_t *tap = row;
        for (uint32_t left = t->cols; left > 0;) {
            const uint32_t now = left < LANE_TAPS ? left : LANE_TAPS;
            uint32_t lanes[4];
            tap = sum_lanes(tap, t->channels, now, lanes);
            left -= now;
            add_lanes(sums, lanes[0]);
            add_lanes(sums + 1, lanes[1]);
            add_lanes(sums + 4, lanes[2]);
            add_lanes(sums + 5, lanes[3]);
        }
    }
}

/* Out of line: shifts below 33 are rare, channels beyond eights few. */
static __attribute__((noinline)) int8_t requantize1(const mcuq_avg_pool_params *p, int32_t sum, int32_t multiplier,
                                                    uint32_t shift)
{
    return (int8_t)mcuq_requantize(sum, multiplier, shift, p->output_zero_point, p->clamp_lo, p->clamp_hi);
}

/* mcuq_requantize of eight sums - zero; the high word of the product suffices from shift 33 on. */
static void requantize8(const mcuq_avg_pool_params *p, const int32_t *sums, int32_t zero, int32_t multiplier,
                        uint32_t shift, int8_t *out)
{
    const int32_t lo = p->clamp_lo, hi = p->clamp_hi;
    if (shift < 33u) {
        for (int i = 0; i < 8; i++)
            out[i] = requantize1(p, sums[i] - zero, multiplier, shift);
        return;
    }
    const int32_t rounding = (int32_t)((uint32_t)(2 * p->output_zero_point + 1) << (shift - 33u));
    for (int i = 0; i < 8; i++) {
        const int32_t code = mcuq_smmla(sums[i] - zero, multiplier, rounding) >> (shift - 32u);
        out[i] = (int8_t)mcuq_clamp(code, lo, hi);
    }
}

static int32_t sum1(const taps *t, uint32_t channel)
{
    int32_t sum = 0;
    for (uint32_t y = 0; y < t->rows; y++)
        for (uint32_t x = 0; x < t->cols; x++)
            sum += t->first[y * t->row_bytes + x * t->channels + channel];
    return sum;
}

void mcuq_avg_pool_dsp(const mcuq_avg_pool_params *p, const void *input, void *output)
{
    const mcuq_window *w = &p->window;
    const uint32_t channels = p->input.channels, row_bytes = p->input.width * channels;
    int8_t *out = output;
    for (uint32_t oy = 0; oy < p->output.height; oy++) {
        const mcuq_taps rows = mcuq_clip_taps(oy, w->stride_height, w->pad_top, w->kernel_height, p->input.height);
        for (uint32_t ox = 0; ox < p->output.width; ox++, out += channels) {
            const mcuq_taps cols = mcuq_clip_taps(ox, w->stride_width, w->pad_left, w->kernel_width, p->input.width);
            const uint32_t count = rows.count * cols.count, entry = p->table_length == 1u ? 0u : count - 1u;
            const int32_t multiplier = p->multipliers[entry], zero = (int32_t)count * p->input_zero_point;
            const uint32_t shift = p->shifts[entry];
            const taps t = merge_rows((taps){(const int8_t *)input + rows.first * row_bytes + cols.first * channels,
                                             channels, row_bytes, rows.count, cols.count});
            uint32_t c = 0;
            for (; c + 8u <= channels; c += 8u) {
                int32_t sums[8];
                sum8(&t, c, sums);
                requantize8(p, sums, zero, multiplier, shift, out + c);
            }
            for (; c < channels; c++)
                out[c] = requantize1(p, sum1(&t, c) - zero, multiplier, shift);
        }
    }
}
