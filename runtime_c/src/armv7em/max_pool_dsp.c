/* Max pool of int8 tensors, four channels at a time: SSUB8 and SEL take the larger bytes. Windows without dilation. */
#include "pool.h"
#include "simd.h"

/* out[c] = largest of `rows` x `cols` taps; row_bytes between tap rows. */
static void maximum(const int8_t *input, int8_t *out, uint32_t channels, mcuq_taps rows, mcuq_taps cols, uint32_t row_bytes)
{
    uint32_t c = 0;
    for (; c + 4u <= channels; c += 4u) {
        uint32_t largest = 0x80808080u;
        const int8_t *row = input + c;
        for (uint32_t y = rows.count; y > 0; y--, row += row_bytes) {
            const int8_t *tap = row;
            for (uint32_t x = cols.count; x > 0; x--, tap += channels)
                largest = mcuq_max8(largest, mcuq_load(tap));
        }
        mcuq_store(out + c, largest);
    }
    for (; c < channels; c++) {
        int8_t largest = INT8_MIN;
        for (uint32_t y = 0; y < rows.count; y++)
            for (uint32_t x = 0; x < cols.count; x++) {
                const int8_t code = input[y * row_bytes + x * channels + c];
                largest = code > largest ? code : largest;
            }
        out[c] = largest;
    }
}

/* A row of outputs of 2 x 2 windows side by side; channels a multiple of 4. */
static void maximum2x2(const int8_t *top, const int8_t *bottom, int8_t *out, uint32_t channels, uint32_t width)
{
    for (; width > 0; width--, top += channels, bottom += channels)
        for (const int8_t *end = out + channels; out != end; out += 4, top += 4, bottom += 4) {
            const uint32_t above = mcuq_max8(mcuq_load(top), mcuq_load(top + channels));
            const uint32_t below = mcuq_max8(mcuq_load(bottom), mcuq_load(bottom + channels));
            mcuq_store(out, mcuq_max8(above, below));
        }
}

void mcuq_max_pool_dsp(const mcuq_max_pool_params *p, const void *input, void *output)
{
    const mcuq_window *w = &p->window;
    const uint32_t channels = p->input.channels, row_bytes = p->input.width * channels;
    const int same = p->affine.multiplier == 1 && p->affine.constant == 0 && p->affine.shift == 0;
    const int halving = w->kernel_height == 2 && w->kernel_width == 2 && w->stride_width == 2 && w->pad_left == 0 &&
                        2u * p->output.width <= p->input.width && channels % 4u == 0;
    int8_t *out = output;
    for (uint32_t oy = 0; oy < p->output.height; oy++) {
        const mcuq_taps rows = mcuq_clip_taps(oy, w->stride_height, w->pad_top, w->kernel_height, p->input.height);
        const int8_t *row = (const int8_t *)input + rows.first * row_bytes;
        if (halving && rows.count == 2) {
            maximum2x2(row, row + row_bytes, out, channels, p->output.width);
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
        mcuq_clamp_row8(out, out, count, p->clamp_lo, p->clamp_hi);
}
