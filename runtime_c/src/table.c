/* A function of every code: y = entries[x - lowest code]. */
#include "mcuq/mcuq.h"
#include "pack.h"

/* In place when output rows are no longer: a chunk is read before it is written (as mcuq_rescale_row). */
static void table_row(const int8_t *zero, const mcuq_table_params *p, const uint8_t *input, uint32_t count,
                      uint8_t *output)
{
    int8_t codes[MCUQ_CHUNK];
    for (uint32_t done = 0; done < count; done += MCUQ_CHUNK) {
        const uint32_t chunk = mcuq_min(MCUQ_CHUNK, count - done);
        const int8_t *x = mcuq_view(input, done, chunk, p->input.bits, codes);
        int8_t *y = p->output.bits == 8u ? (int8_t *)output + done : codes;
        for (uint32_t i = 0; i < chunk; i++) {
            y[i] = zero[x[i]];
        }
        if (p->output.bits != 8u) {
            mcuq_pack(output, done, codes, chunk, p->output.bits);
        }
    }
}

void mcuq_table(const mcuq_table_params *p, const void *input, void *output)
{
    const int8_t *zero = p->entries + (p->input.bits == 8u ? 128 : 0);
    uint32_t pixels = (uint32_t)p->input.height * p->input.width;
    uint32_t channels = p->input.channels;
    if (p->input.bits == 8u && p->output.bits == 8u) { /* rows have no gaps */
        channels *= pixels;
        pixels = 1u;
    }
    const uint32_t input_bytes = mcuq_row_bytes(channels, p->input.bits);
    const uint32_t output_bytes = mcuq_row_bytes(channels, p->output.bits);
    const uint8_t *in = input;
    uint8_t *out = output;
    for (; pixels != 0u; pixels--) {
        table_row(zero, p, in, channels, out);
        in += input_bytes;
        out += output_bytes;
    }
}
