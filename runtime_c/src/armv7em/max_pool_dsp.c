/* Max pool of int8 tensors, four channels at a time: SSUB8 and SEL take the larger bytes. Windows without dilation. */
#include "pool.h"
#include "simd.h"

/* out[c] = largest of `rows` x `cols` taps; row_bytes between tap rows. */
static void maximum(const int8_t *input, int8_t *out, uint32_t channels, mcuq_taps rows, mcuq_taps cols, uint32_t row_bytes)
{
    uint32_t c = 0;
    if (rows.count == 2 && cols.count == 2) {
        const int8_t *below = input + row_bytes;
        for (; c + 4u <= channels; c += 4u) {
            const uint32_t top = mcuq_max8(mcuq_load(input + c), mcuq_load(input + channels + c));
            const uint32_t bottom = mcuq_max8(mcuq_load(below + c), mcuq_load(below + channels + c));
            mcuq_store(out + c, mcuq_max8(top, bottom));
        }
    }
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

void mcuq_max_pool_dsp(const mcuq_max_pool_params *p, const void *input, void *output)
{
    const mcuq_window *w = &p->window;
    const uint32_t channels = p->input.channels, row_bytes = p->input.width * channels;
    const int same = p->affine.multiplier == 1 && p->affine.constant == 0 && p->affine.shift == 0;
    int8_t *out = output;
    for (uint32_t oy = 0; oy < p->output.height; oy++) {
        const mcuq_taps rows = mcuq_clip_taps(oy, w->stride_height, w->pad_top, w->kernel_height, p->input.height);
        const int8_t *row = (const int8_t *)input + rows.first * row_bytes;
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
