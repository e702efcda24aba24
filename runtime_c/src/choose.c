/* Chosen rows and columns: output pixel (y, x) is input pixel (rows[y], columns[x]). Nearest resizing, borders that
 * repeat or reflect. */
#include <string.h>

#include "mcuq/mcuq.h"

void mcuq_choose(const mcuq_choose_params *p, const void *input, void *output)
{
    const uint32_t bytes = mcuq_row_bytes(p->input.channels, p->input.bits);
    uint8_t *out = output;
    for (uint32_t y = 0; y < p->output.height; y++) {
        const uint8_t *row = (const uint8_t *)input + (uint32_t)p->rows[y] * p->input.width * bytes;
        for (uint32_t x = 0; x < p->output.width; x++) {
            memcpy(out, row + p->columns[x] * bytes, bytes);
            out += bytes;
        }
    }
}
