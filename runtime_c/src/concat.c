/* Concatenation along the channels, each input rescaled: y = clamp((x * multiplier + constant) >> shift). */
#include "mcuq/mcuq.h"
#include "rescale_row.h"

void mcuq_concat(const mcuq_concat_params *p, const void *const *inputs, void *output)
{
    const uint32_t output_bytes = mcuq_row_bytes(p->output.channels, p->output.bits);
    const uint32_t pixels = (uint32_t)p->output.height * p->output.width;
    uint32_t first = 0;
    /* Inputs in order, so that a byte shared by two inputs is appended to from below (mcuq_put). */
    for (uint32_t i = 0; i < p->count; i++) {
        const mcuq_shape *shape = &p->inputs[i];
        const mcuq_rescale_rule rule = {p->affines[i], p->clamp_lo, p->clamp_hi, shape->bits, p->output.bits};
        const uint32_t input_bytes = mcuq_row_bytes(shape->channels, shape->bits);
        const uint8_t *in = inputs[i];
        uint8_t *out = output;
        for (uint32_t pixel = 0; pixel < pixels; pixel++) {
            mcuq_rescale_row(&rule, in, shape->channels, out, first);
            in += input_bytes;
            out += output_bytes;
        }
        first += shape->channels;
    }
}
