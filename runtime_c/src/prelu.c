/* Leaky rectifier with one slope per channel: y = clamp((d * factor + constant) >> shift), d = x - Zx, factor =
 * multiplier where d >= 0, else slopes[c]. No product or sum leaves int32 (proved by the compiler). */
#include "mcuq/mcuq.h"
#include "pack.h"

static void prelu_row(const mcuq_prelu_params *p, const uint8_t *input, uint8_t *output)
{
    int8_t codes[MCUQ_CHUNK];
    const int32_t *slopes = p->slopes;
    for (uint32_t done = 0; done < p->input.channels; done += MCUQ_CHUNK) {
        const uint32_t chunk = mcuq_min(MCUQ_CHUNK, p->input.channels - done);
        const int8_t *x = mcuq_view(input, done, chunk, p->input.bits, codes);
        int8_t *y = p->output.bits == 8u ? (int8_t *)output + done : codes;
        for (uint32_t i = 0; i < chunk; i++) {
            const int32_t d = x[i] - p->input_zero_point;
            const int32_t factor = d >= 0 ? p->affine.multiplier : slopes[i];
            y[i] = (int8_t)mcuq_clamp((d * factor + p->affine.constant) >> p->affine.shift, p->clamp_lo, p->clamp_hi);
        }
        slopes += chunk;
        if (p->output.bits != 8u) {
            mcuq_pack(output, done, codes, chunk, p->output.bits);
        }
    }
}

void mcuq_prelu(const mcuq_prelu_params *p, const void *input, void *output)
{
    const uint32_t input_bytes = mcuq_row_bytes(p->input.channels, p->input.bits);
    const uint32_t output_bytes = mcuq_row_bytes(p->input.channels, p->output.bits);
    const uint8_t *in = input;
    uint8_t *out = output;
    for (uint32_t pixels = (uint32_t)p->input.height * p->input.width; pixels != 0u; pixels--) {
        prelu_row(p, in, out);
        in += input_bytes;
        out += output_bytes;
    }
}
