/* Elementwise product: y = requantize((a - Za) * (b - Zb)). Sizes of b that are 1 are repeated. */
#include "mcuq/mcuq.h"
#include "pack.h"

/* In place of a when output rows are no longer than a's. */
static void mul_row(const mcuq_mul_params *p, const uint8_t *a, const uint8_t *b, uint8_t *output)
{
    int8_t codes_a[MCUQ_CHUNK], codes_b[MCUQ_CHUNK];
    const uint32_t step = p->b.channels > 1u ? 1u : 0u;
    for (uint32_t done = 0; done < p->a.channels; done += MCUQ_CHUNK) {
        const uint32_t chunk = mcuq_min(MCUQ_CHUNK, p->a.channels - done);
        const int8_t *xa = mcuq_view(a, done, chunk, p->a.bits, codes_a);
        const int8_t *xb = mcuq_view(b, done * step, step != 0u ? chunk : 1u, p->b.bits, codes_b);
        int8_t *y = p->output_bits == 8u ? (int8_t *)output + done : codes_a;
        for (uint32_t i = 0; i < chunk; i++) {
            const int32_t product = (xa[i] - p->zero_point_a) * (*xb - p->zero_point_b);
            y[i] = (int8_t)mcuq_requantize(product, p->multiplier, p->shift, p->output_zero_point, p->clamp_lo,
                                           p->clamp_hi);
            xb += step;
        }
        if (p->output_bits != 8u) {
            mcuq_pack(output, done, codes_a, chunk, p->output_bits);
        }
    }
}

void mcuq_mul(const mcuq_mul_params *p, const void *a, const void *b, void *output)
{
    const uint32_t bytes_a = mcuq_row_bytes(p->a.channels, p->a.bits);
    const uint32_t bytes_b = mcuq_row_bytes(p->b.channels, p->b.bits);
    const uint32_t output_bytes = mcuq_row_bytes(p->a.channels, p->output_bits);
    const uint32_t next_column = p->b.width > 1u ? bytes_b : 0u;
    const uint32_t next_row = p->b.height > 1u ? bytes_b * p->b.width : 0u;
    const uint8_t *row_a = a;
    const uint8_t *line_b = b;
    uint8_t *out = output;
    for (uint32_t y = 0; y < p->a.height; y++) {
        const uint8_t *row_b = line_b;
        for (uint32_t x = 0; x < p->a.width; x++) {
            mul_row(p, row_a, row_b, out);
            row_a += bytes_a;
            row_b += next_column;
            out += output_bytes;
        }
        line_b += next_row;
    }
}
