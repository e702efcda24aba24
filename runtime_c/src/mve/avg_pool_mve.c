/* Average pool of int8 tensors, 8 channels at a time in half-word lanes. Windows without dilation.
 * A lane holds the sum of 256 taps: 256 * -128 = -2^15; longer sums are moved to 32 bits in between. */
#include <arm_mve.h>

#include "armv7em/pool.h"
#include "mcuq/mve.h"

enum { LANE_TAPS = 256, VECTOR_SHIFT = 32 };

typedef struct {
    uint32_t channels, row_bytes;
    uint32_t rows, cols;
} taps;

/* Sums of the even and of the odd of 8 channels. */
typedef struct {
    int32x4_t even, odd;
} sums8;

static int16x8_t sum_lanes(const int8_t *row, const taps *t, uint32_t rows, mve_pred16_t inside)
{
    int16x8_t sum = vdupq_n_s16(0);
    for (; rows > 0; rows--, row += t->row_bytes) {
        const int8_t *tap = row;
        for (uint32_t x = t->cols; x > 0; x--, tap += t->channels)
            sum = vaddq_s16(sum, vldrbq_z_s16(tap, inside));
    }
    return sum;
}

static sums8 sum_window(const int8_t *first, const taps *t, mve_pred16_t inside)
{
    sums8 s = {vdupq_n_s32(0), vdupq_n_s32(0)};
    const uint32_t most = LANE_TAPS / t->cols;
    for (uint32_t left = t->rows; left > 0;) {
        const uint32_t now = left < most ? left : most;
        const int16x8_t part = sum_lanes(first, t, now, inside);
        s.even = vaddq_s32(s.even, vmovlbq_s16(part));
        s.odd = vaddq_s32(s.odd, vmovltq_s16(part));
        first += now * t->row_bytes;
        left -= now;
    }
    return s;
}

/* mcuq_requantize of sums less `zero`; VQDMULH doubles, so that its high word suffices from shift 32 on. */
static int32x4_t requantize(const mcuq_avg_pool_params *p, int32x4_t sum, int32_t zero, int32_t multiplier,
                            uint32_t shift)
{
    sum = vsubq_n_s32(sum, zero);
    if (shift < VECTOR_SHIFT) {
        int32_t lanes[4];
        vst1q_s32(lanes, sum);
        for (int i = 0; i < 4; i++)
            lanes[i] = mcuq_requantize(lanes[i], multiplier, shift, p->output_zero_point, p->clamp_lo, p->clamp_hi);
        return vld1q_s32(lanes);
    }
    const int32_t rounding = (2 * p->output_zero_point + 1) * (int32_t)(1u << (shift - VECTOR_SHIFT));
    sum = vqaddq_n_s32(vqdmulhq_n_s32(sum, multiplier), rounding);
    sum = vshlq_r_s32(sum, VECTOR_SHIFT - 1 - (int32_t)shift);
    return vminq_s32(vmaxq_s32(sum, vdupq_n_s32(p->clamp_lo)), vdupq_n_s32(p->clamp_hi));
}

static void pool(const mcuq_avg_pool_params *p, const int8_t *first, taps t, int8_t *out)
{
    const uint32_t count = t.rows * t.cols, entry = p->table_length == 1u ? 0u : count - 1u;
    const int32_t multiplier = p->multipliers[entry], zero = (int32_t)count * p->input_zero_point;
    if (t.row_bytes == t.cols * t.channels && count <= LANE_TAPS) { /* taps that are neighbours in memory */
        t.cols = count;
        t.rows = 1;
    }
    for (uint32_t c = 0; c < t.channels; c += 8u) {
        const mve_pred16_t inside = vctp16q(t.channels - c);
        const sums8 s = sum_window(first + c, &t, inside);
        const int32x4_t even = requantize(p, s.even, zero, multiplier, p->shifts[entry]);
        const int32x4_t odd = requantize(p, s.odd, zero, multiplier, p->shifts[entry]);
        vstrbq_p_s16(out + c, vmovntq_s32(vreinterpretq_s16_s32(even), odd), inside);
    }
}

void mcuq_avg_pool_mve(const mcuq_avg_pool_params *p, const void *input, void *output)
{
    const mcuq_window *w = &p->window;
    const uint32_t channels = p->input.channels, row_bytes = p->input.width * channels;
    int8_t *out = output;
    for (uint32_t oy = 0; oy < p->output.height; oy++) {
        const mcuq_taps rows = mcuq_clip_taps(oy, w->stride_height, w->pad_top, w->kernel_height, p->input.height);
        for (uint32_t ox = 0; ox < p->output.width; ox++, out += channels) {
            const mcuq_taps cols = mcuq_clip_taps(ox, w->stride_width, w->pad_left, w->kernel_width, p->input.width);
            const taps t = {channels, row_bytes, rows.count, cols.count};
            pool(p, (const int8_t *)input + rows.first * row_bytes + cols.first * channels, t, out);
        }
    }
}
