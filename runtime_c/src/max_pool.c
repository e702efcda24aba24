/* Max pool: y = clamp((max x * multiplier + constant) >> shift) over the taps inside the input. Every window
 * holds at least one of them. */

#include "mcuq/mcuq.h"
#include "pack.h"
#include "window.h"

/* Channels first .. first + count - 1 of one output pixel. */
static void maximum(const mcuq_max_pool_params *p, const uint8_t *input, mcuq_span rows, mcuq_span cols,
                    uint32_t first, uint32_t count, int8_t *largest)
{
    const uint32_t row_bytes = mcuq_row_bytes(p->input.channels, p->input.bits);
    int8_t codes[MCUQ_CHUNK];
    mcuq_fill(largest, p->input.bits == 8u ? INT8_MIN : 0, count);
    for (uint32_t i = 0; i < rows.count; i++) {
        const uint32_t y = rows.start + i * rows.step;
        const uint8_t *pixel = input + (y * p->input.width + cols.start) * row_bytes;
        for (uint32_t j = 0; j < cols.count; j++) {
            const int8_t *x = mcuq_view(pixel, first, count, p->input.bits, codes);
            for (uint32_t c = 0; c < count; c++) {
                largest[c] = x[c] > largest[c] ? x[c] : largest[c];
            }
            pixel += cols.step * row_bytes;
        }
    }
}

void mcuq_max_pool(const mcuq_max_pool_params *p, const void *input, void *output)
{
    const uint32_t output_bytes = mcuq_row_bytes(p->output.channels, p->output.bits);
    uint8_t *out = output;
    int8_t codes[MCUQ_CHUNK];
    for (uint32_t row = 0; row < p->output.height; row++) {
        const mcuq_span rows = mcuq_rows_inside(&p->window, row, p->input.height);
        for (uint32_t col = 0; col < p->output.width; col++) {
            const mcuq_span cols = mcuq_cols_inside(&p->window, col, p->input.width);
            for (uint32_t first = 0; first < p->output.channels; first += MCUQ_CHUNK) {
                const uint32_t count = mcuq_min(MCUQ_CHUNK, p->output.channels - first);
                maximum(p, input, rows, cols, first, count, codes);
                for (uint32_t c = 0; c < count; c++) {
                    codes[c] = (int8_t)mcuq_rescale(codes[c], &p->affine, p->clamp_lo, p->clamp_hi);
                }
                mcuq_pack(out, first, codes, count, p->output.bits);
            }
            out += output_bytes;
        }
    }
}
