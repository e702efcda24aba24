/* The same codes in (height, width, channels) order under another shape: rows are taken apart and repacked. */
#include <string.h>

#include "mcuq/mcuq.h"
#include "pack.h"

void mcuq_reshape(mcuq_shape input, mcuq_shape output, const void *source, void *destination)
{
    const uint32_t bits = input.bits;
    const uint32_t count = (uint32_t)input.height * input.width * input.channels;
    if (bits >= 8u) { /* rows have no gaps */
        memmove(destination, source, (size_t)count * (bits >> 3));
        return;
    }
    const uint32_t input_bytes = mcuq_row_bytes(input.channels, bits);
    const uint32_t output_bytes = mcuq_row_bytes(output.channels, bits);
    const uint8_t *in = source;
    uint8_t *out = destination;
    uint32_t from = 0, to = 0;
    for (uint32_t left = count; left != 0u; left--) {
        mcuq_put(out, to++, bits, mcuq_get(in, from++, bits));
        if (from == input.channels) {
            from = 0;
            in += input_bytes;
        }
        if (to == output.channels) {
            to = 0;
            out += output_bytes;
        }
    }
}
