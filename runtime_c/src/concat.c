/* One input of a concatenation, rescaled into its channels of every output pixel:
 * y = clamp((x * multiplier + constant) >> shift). Pixels, chunks and codes run from the last to the first, so that an input
 * at the output's own address is spread in place: no output byte lies before the input byte it comes from. */
#include <string.h>

#include "mcuq/mcuq.h"
#include "pack.h"

/* Write codes first .. first + count - 1 of a row of `channels`. Other codes in bytes they share stay; bits behind the row's
 * last code become zero. */
static void put_codes(uint8_t *row, uint32_t first, const int8_t *codes, uint32_t count, uint32_t channels, uint32_t bits)
{
    const uint32_t start = first * bits, end = (first + count) * bits;
    const uint32_t above = ~((1u << (end & 7u)) - 1u);
    const uint32_t behind = (end & 7u) != 0u && first + count < channels ? row[end >> 3] & above : 0u;
    if ((start & 7u) != 0u) {
        row[start >> 3] = (uint8_t)(row[start >> 3] & ((1u << (start & 7u)) - 1u));
    }
    mcuq_pack(row, first, codes, count, bits);
    if (behind != 0u) {
        row[end >> 3] = (uint8_t)(row[end >> 3] | behind);
    }
}

static void put_row(const mcuq_concat_params *p, const uint8_t *input, uint8_t *output)
{
    int8_t codes[MCUQ_CHUNK];
    const uint32_t count = p->input.channels, bits = p->output.bits;
    uint32_t done = (count - 1u) / MCUQ_CHUNK * MCUQ_CHUNK;
    for (uint32_t chunk = count - done;; chunk = MCUQ_CHUNK, done -= MCUQ_CHUNK) {
        const int8_t *x = mcuq_view(input, done, chunk, p->input.bits, codes);
        int8_t *y = bits == 8u ? (int8_t *)output + p->first + done : codes;
        for (uint32_t i = chunk; i-- > 0u;) {
            y[i] = (int8_t)mcuq_rescale(x[i], &p->affine, p->clamp_lo, p->clamp_hi);
        }
        if (bits != 8u) {
            put_codes(output, p->first + done, codes, chunk, p->output.channels, bits);
        }
        if (done == 0u) {
            return;
        }
    }
}

uint8_t *mcuq_concat(const mcuq_concat_params *p, const void *input, void *output)
{
    const uint32_t pixels = (uint32_t)p->input.height * p->input.width;
    const uint32_t input_bytes = mcuq_row_bytes(p->input.channels, p->input.bits);
    const uint32_t output_bytes = mcuq_row_bytes(p->output.channels, p->output.bits);
    const int kept = p->affine.multiplier == 1 && p->affine.constant == 0 && p->affine.shift == 0u &&
                     p->input.bits == 8u && p->output.bits == 8u && p->clamp_lo <= INT8_MIN && p->clamp_hi >= INT8_MAX;
    const uint8_t *in = (const uint8_t *)input + pixels * input_bytes;
    uint8_t *const end = (uint8_t *)output + pixels * output_bytes, *out = end;
    while (out != output) {
        in -= input_bytes;
        out -= output_bytes;
        if (kept) {
            memmove(out + p->first, in, input_bytes);
        } else {
            put_row(p, in, out);
        }
    }
    return end;
}
