/* Average pool: y = requantize(sum (x - Zx), multipliers[n - 1], shifts[n - 1]) over the n taps inside the input.
 * Every window holds at least one of them. The sum of n <= 255 * 255 taps stays below 2^24. */
#include "mcuq/mcuq.h"
#include "pack.h"
#include "window.h"

/* sums[c] = sum of the taps' codes, channels first .. first + count - 1 of one output pixel. */
static void sum_taps(const mcuq_avg_pool_params *p, const uint8_t *input, mcuq_span rows, mcuq_span cols,
                     uint32_t first, uint32_t count, int32_t *sums)
{
    const uint32_t row_bytes = mcuq_row_bytes(p->input.channels, p->input.bits);
    int8_t codes[MCUQ_CHUNK];
    mcuq_fill((int8_t *)sums, 0, count * (uint32_t)sizeof *sums);
    for (uint32_t i = 0; i < rows.count; i++) {
        const uint32_t y = rows.start + i * rows.step;
        const uint8_t *pixel = input + (y * p->input.width + cols.start) * row_bytes;
        for (uint32_t j = 0; j < cols.count; j++) {
            const int8_t *x = mcuq_view(pixel, first, count, p->input.bits, codes);
            for (uint32_t c = 0; c < count; c++) {
                sums[c] += x[c];
            }
            pixel += cols.step * row_bytes;
        }
    }
}

void mcuq_avg_pool(const mcuq_avg_pool_params *p, const void *input, void *output)
{
    const uint32_t output_bytes = mcuq_row_bytes(p->output.channels, p->output.bits);
    uint8_t *out = output;
    int32_t sums[MCUQ_CHUNK];
    int8_t codes[MCUQ_CHUNK];
    for (uint32_t row = 0; row < p->output.height; row++) {
        const mcuq_span rows = mcuq_rows_inside(&p->window, row, p->input.height);
        for (uint32_t col = 0; col < p->output.width; col++) {
            const mcuq_span cols = mcuq_cols_inside(&p->window, col, p->input.width);
            const uint32_t taps = rows.count * cols.count;
            const uint32_t entry = p->table_length == 1u ? 0u : taps - 1u;
            const int32_t zero = (int32_t)taps * p->input_zero_point;
            for (uint32_t first = 0; first < p->output.channels; first += MCUQ_CHUNK) {
                const uint32_t count = mcuq_min(MCUQ_CHUNK, p->output.channels - first);
                sum_taps(p, input, rows, cols, first, count, sums);
                for (uint32_t c = 0; c < count; c++) {
                    codes[c] = (int8_t)mcuq_requantize(sums[c] - zero, p->multipliers[entry], p->shifts[entry],
                                                       p->output_zero_point, p->clamp_lo, p->clamp_hi);
                }
                mcuq_pack(out, first, codes, count, p->output.bits);
            }
            out += output_bytes;
        }
    }
}
