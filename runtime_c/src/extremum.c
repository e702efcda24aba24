/* Elementwise maximum or minimum of two tensors, each rescaled to the output's grid first. In place as add.c. */
#include "mcuq/mcuq.h"
#include "pack.h"

static void extremum_row(const mcuq_extremum_params *p, const uint8_t *a, const uint8_t *b, uint8_t *output)
{
    int8_t codes_a[MCUQ_CHUNK], codes_b[MCUQ_CHUNK];
    for (uint32_t done = 0; done < p->shape.channels; done += MCUQ_CHUNK) {
        const uint32_t chunk = mcuq_min(MCUQ_CHUNK, p->shape.channels - done);
        const int8_t *xa = mcuq_view(a, done, chunk, p->bits_a, codes_a);
        const int8_t *xb = mcuq_view(b, done, chunk, p->bits_b, codes_b);
        int8_t *y = p->shape.bits == 8u ? (int8_t *)output + done : codes_a;
        for (uint32_t i = 0; i < chunk; i++) {
            const int32_t ya = mcuq_rescale(xa[i], &p->a, p->clamp_lo, p->clamp_hi);
            const int32_t yb = mcuq_rescale(xb[i], &p->b, p->clamp_lo, p->clamp_hi);
            y[i] = (int8_t)((ya < yb) == (p->smallest != 0u) ? ya : yb);
        }
        if (p->shape.bits != 8u) {
            mcuq_pack(output, done, codes_a, chunk, p->shape.bits);
        }
    }
}

void mcuq_extremum(const mcuq_extremum_params *p, const void *a, const void *b, void *output)
{
    const uint32_t bytes_a = mcuq_row_bytes(p->shape.channels, p->bits_a);
    const uint32_t bytes_b = mcuq_row_bytes(p->shape.channels, p->bits_b);
    const uint32_t output_bytes = mcuq_row_bytes(p->shape.channels, p->shape.bits);
    const uint8_t *row_a = a;
    const uint8_t *row_b = b;
    uint8_t *out = output;
    for (uint32_t pixels = (uint32_t)p->shape.height * p->shape.width; pixels != 0u; pixels--) {
        extremum_row(p, row_a, row_b, out);
        row_a += bytes_a;
        row_b += bytes_b;
        out += output_bytes;
    }
}
