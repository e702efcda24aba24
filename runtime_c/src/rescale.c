/* Requantizing copy, clip, change of bits: y = clamp((x * multiplier + constant) >> shift).
 * No partial sum leaves int32 (the compiler chooses the shift so). */
#include "mcuq/mcuq.h"
#include "rescale_row.h"

void mcuq_rescale_copy(const mcuq_rescale_params *p, const void *input, void *output)
{
    const mcuq_rescale_rule rule = {p->affine, p->clamp_lo, p->clamp_hi, p->input.bits, p->output.bits};
    const uint32_t input_bytes = mcuq_row_bytes(p->input.channels, p->input.bits);
    const uint32_t output_bytes = mcuq_row_bytes(p->output.channels, p->output.bits);
    const uint8_t *in = input;
    uint8_t *out = output;
    for (uint32_t pixels = (uint32_t)p->input.height * p->input.width; pixels != 0u; pixels--) {
        mcuq_rescale_row(&rule, in, p->input.channels, out, 0);
        in += input_bytes;
        out += output_bytes;
    }
}
