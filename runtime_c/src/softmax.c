/* Softmax over the channels of every pixel, in integers:
 *
 *   e_i = T[max x - x_i],  S = sum e_i,  y_i = min(127, (256 e_i + S/2) div S - 128)
 *
 * e_i <= 2^15 and at most 65535 channels give S < 2^31; the largest code alone gives S >= 2^15 > 0.
 */
#include "mcuq/mcuq.h"
#include "pack.h"

/* (256 e + S/2) div S for e <= S < 2^31: eight steps of long division, then the rounding half. */
static uint32_t share_of_256(uint32_t e, uint32_t total)
{
    uint32_t quotient = e >= total;
    uint32_t rest = e >= total ? e - total : e;
    for (uint32_t bit = 0; bit < 8u; bit++) {
        rest <<= 1; /* rest < total < 2^31 */
        quotient <<= 1;
        if (rest >= total) {
            rest -= total;
            quotient++;
        }
    }
    return quotient + (rest + (total >> 1) >= total);
}

/* Out of line: read three times, but few. */
static __attribute__((noinline)) int32_t code_at(const uint8_t *row, uint32_t c, uint32_t bits)
{
    return mcuq_get(row, c, bits);
}

static void softmax_row(const uint16_t *table, const uint8_t *row, uint32_t channels, uint32_t bits, int8_t *out)
{
    int32_t largest = code_at(row, 0, bits);
    for (uint32_t c = 1; c < channels; c++) {
        const int32_t x = code_at(row, c, bits);
        largest = x > largest ? x : largest;
    }
    uint32_t total = 0;
    for (uint32_t c = 0; c < channels; c++) {
        total += table[largest - code_at(row, c, bits)];
    }
    for (uint32_t c = 0; c < channels; c++) {
        const uint32_t share = share_of_256(table[largest - code_at(row, c, bits)], total);
        out[c] = (int8_t)((int32_t)mcuq_min(share, 255u) - 128);
    }
}

void mcuq_softmax(const uint16_t *table, mcuq_shape input, const void *source, int8_t *destination)
{
    const uint32_t row_bytes = mcuq_row_bytes(input.channels, input.bits);
    const uint8_t *row = source;
    for (uint32_t pixels = (uint32_t)input.height * input.width; pixels != 0u; pixels--) {
        softmax_row(table, row, input.channels, input.bits, destination);
        row += row_bytes;
        destination += input.channels;
    }
}
