/* A border of one code around the rescaled input; its width is output minus input size. */
#include "mcuq/mcuq.h"
#include "rescale_row.h"

/* A pixel of the border. */
static void fill(uint8_t *row, const mcuq_pad_params *p)
{
    for (uint32_t c = 0; c < p->output.channels; c++) {
        mcuq_put(row, c, p->output.bits, p->border);
    }
}

void mcuq_pad(const mcuq_pad_params *p, const void *input, void *output)
{
    const mcuq_rescale_rule rule = {p->affine, p->clamp_lo, p->clamp_hi, p->input.bits, p->output.bits};
    const uint32_t input_bytes = mcuq_row_bytes(p->input.channels, p->input.bits);
    const uint32_t output_bytes = mcuq_row_bytes(p->output.channels, p->output.bits);
    const uint32_t bottom = (uint32_t)p->pad_top + p->input.height;
    const uint32_t right = (uint32_t)p->pad_left + p->input.width;
    const uint8_t *in = input;
    uint8_t *out = output;
    for (uint32_t y = 0; y < p->output.height; y++) {
        for (uint32_t x = 0; x < p->output.width; x++) {
            if (y < p->pad_top || y >= bottom || x < p->pad_left || x >= right) {
                fill(out, p);
            } else { /* inside pixels come in the input's own order */
                mcuq_rescale_row(&rule, in, p->input.channels, out, 0);
                in += input_bytes;
            }
            out += output_bytes;
        }
    }
}
