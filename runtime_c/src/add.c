/* Elementwise sum: y = clamp((a * multiplier_a + b * multiplier_b + constant) >> shift), one rounding.
 * No partial sum leaves int32 (the compiler chooses the shift so). In place: as mcuq_rescale_row. */
#include "mcuq/mcuq.h"
#include "pack.h"

static void add_row(const mcuq_add_params *p, const uint8_t *a, const uint8_t *b, uint8_t *output)
{
    const int32_t ma = p->multiplier_a, mb = p->multiplier_b, constant = p->constant;
    const int32_t lo = p->clamp_lo, hi = p->clamp_hi;
    const uint32_t shift = p->shift;
    int8_t codes_a[MCUQ_CHUNK], codes_b[MCUQ_CHUNK];
    for (uint32_t done = 0; done < p->shape.channels; done += MCUQ_CHUNK) {
        const uint32_t chunk = mcuq_min(MCUQ_CHUNK, p->shape.channels - done);
        const int8_t *xa = mcuq_view(a, done, chunk, p->bits_a, codes_a);
        const int8_t *xb = mcuq_view(b, done, chunk, p->bits_b, codes_b);
        int8_t *y = p->shape.bits == 8u ? (int8_t *)output + done : codes_a;
        for (uint32_t i = 0; i < chunk; i++) {
            y[i] = (int8_t)mcuq_clamp((xa[i] * ma + xb[i] * mb + constant) >> shift, lo, hi);
        }
        if (p->shape.bits != 8u) {
            mcuq_pack(output, done, codes_a, chunk, p->shape.bits);
        }
    }
}

void mcuq_add(const mcuq_add_params *p, const void *a, const void *b, void *output)
{
    const uint32_t bytes_a = mcuq_row_bytes(p->shape.channels, p->bits_a);
    const uint32_t bytes_b = mcuq_row_bytes(p->shape.channels, p->bits_b);
    const uint32_t output_bytes = mcuq_row_bytes(p->shape.channels, p->shape.bits);
    const uint8_t *row_a = a;
    const uint8_t *row_b = b;
    uint8_t *out = output;
    for (uint32_t pixels = (uint32_t)p->shape.height * p->shape.width; pixels != 0u; pixels--) {
        add_row(p, row_a, row_b, out);
        row_a += bytes_a;
        row_b += bytes_b;
        out += output_bytes;
    }
}
