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

static void sum8(const taps *t, uint32_t channel, int32_t *sums)
{
    for (int i = 0; i < 8; i++)
        sums[i] = 0;
    const int8_t *row = t->first + channel;
    for (uint32_t y = 0; y < t->rows; y++, row += t->row_bytes) {
        const int8_t *tap = row;
        for (uint32_t left = t->cols; left > 0;) {
            uint32_t now = left < LANE_TAPS ? left : LANE_TAPS;
            left -= now;
            uint32_t a = 0, b = 0, c = 0, d = 0;
#define TAP \
    do { \
        const uint32_t low = mcuq_load(tap), high = mcuq_load(tap + 4); \
        tap += t->channels; \
        a = mcuq_sxtab16(a, low); \
        b = mcuq_sxtab16_high(b, low); \
        c = mcuq_sxtab16(c, high); \
        d = mcuq_sxtab16_high(d, high); \
    } while (0)
            for (; now >= 4; now -= 4) {
                TAP;
                TAP;
                TAP;
                TAP;
            }
            for (; now > 0; now--)
                TAP;
#undef TAP
            const uint32_t lanes[4] = {a, b, c, d};
            for (int i = 0; i < 4; i++) {
                sums[(i & 1) + (i & 2) * 2] += (int16_t)lanes[i];
                sums[(i & 1) + (i & 2) * 2 + 2] += (int16_t)(lanes[i] >> 16);
            }
        }
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
                for (uint32_t i = 0; i < 8u; i++)
                    out[c + i] = (int8_t)mcuq_requantize(sums[i] - zero, multiplier, shift, p->output_zero_point,
                                                         p->clamp_lo, p->clamp_hi);
            }
            for (; c < channels; c++)
                out[c] = (int8_t)mcuq_requantize(sum1(&t, c) - zero, multiplier, shift, p->output_zero_point,
                                                 p->clamp_lo, p->clamp_hi);
        }
    }
}
