/* Max pool of int8 tensors, 16 channels at a time. Windows without dilation. */
#include <arm_mve.h>

#include "armv7em/pool.h"
#include "codes.h"
#include "mcuq/mve.h"

/* out[c] = largest of `rows` x `cols` taps; row_bytes between tap rows. */
static void maximum(const int8_t *input, int8_t *out, uint32_t channels, mcuq_taps rows, mcuq_taps cols, uint32_t row_bytes)
{
    for (uint32_t c = 0; c < channels; c += 16u) {
        const mve_pred16_t inside = vctp8q(channels - c);
        int8x16_t largest = vdupq_n_s8(INT8_MIN);
        const int8_t *row = input + c;
        for (uint32_t y = rows.count; y > 0; y--, row += row_bytes) {
            const int8_t *tap = row;
            for (uint32_t x = cols.count; x > 0; x--, tap += channels)
                largest = vmaxq_s8(largest, vldrbq_z_s8(tap, inside));
        }
        vstrbq_p_s8(out + c, largest, inside);
    }
}

/* A row of outputs of 2 x 2 windows side by side. */
static void maximum2x2(const int8_t *top, int8_t *out, uint32_t channels, uint32_t width, uint32_t row_bytes)
{
    for (; width > 0; width--, top += channels)
        for (uint32_t c = channels; c > 0;) {
            const mve_pred16_t inside = vctp8q(c);
            const uint32_t step = c < 16u ? c : 16u;
            const int8_t *const bottom = top + row_bytes;
            const int8x16_t above = vmaxq_s8(vldrbq_z_s8(top, inside), vldrbq_z_s8(top + channels, inside));
            const int8x16_t below = vmaxq_s8(vldrbq_z_s8(bottom, inside), vldrbq_z_s8(bottom + channels, inside));
            vstrbq_p_s8(out, vmaxq_s8(above, below), inside);
            c -= step;
            top += step;
            out += step;
        }
}

void mcuq_max_pool_mve(const mcuq_max_pool_params *p, const void *input, void *output)
{
    const mcuq_window *w = &p->window;
    const uint32_t channels = p->input.channels, row_bytes = p->input.width * channels;
    const int same = p->affine.multiplier == 1 && p->affine.constant == 0 && p->affine.shift == 0;
    const int halving = w->kernel_height == 2 && w->kernel_width == 2 && w->stride_width == 2 && w->pad_left == 0 &&
                        2u * p->output.width <= p->input.width;
    int8_t *out = output;
    for (uint32_t oy = 0; oy < p->output.height; oy++) {
        const mcuq_taps rows = mcuq_clip_taps(oy, w->stride_height, w->pad_top, w->kernel_height, p->input.height);
        const int8_t *const row = (const int8_t *)input + rows.first * row_bytes;
        if (halving && rows.count == 2) {
            maximum2x2(row, out, channels, p->output.width, row_bytes);
            out += p->output.width * channels;
            continue;
        }
        for (uint32_t ox = 0; ox < p->output.width; ox++, out += channels) {
            const mcuq_taps cols = mcuq_clip_taps(ox, w->stride_width, w->pad_left, w->kernel_width, p->input.width);
            maximum(row + cols.first * channels, out, channels, rows, cols, row_bytes);
        }
    }
    const uint32_t count = (uint32_t)(out - (int8_t *)output);
    out = output;
    if (!same)
        for (uint32_t i = 0; i < count; i++)
            out[i] = (int8_t)mcuq_rescale(out[i], &p->affine, p->clamp_lo, p->clamp_hi);
    else if (p->clamp_lo > -128 || p->clamp_hi < 127)
        mcuq_mve_finish_row(out, (uint8_t *)out, count, 8, p->clamp_lo, p->clamp_hi);
}
