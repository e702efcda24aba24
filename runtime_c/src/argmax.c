/* Lowest index of the largest code of every pixel's channels. */
#include "mcuq/mcuq.h"
#include "pack.h"

static int32_t code_at(const uint8_t *row, uint32_t c, uint32_t bits)
{
    return bits == 32u ? ((const int32_t *)(const void *)row)[c] : mcuq_get(row, c, bits);
}

void mcuq_argmax(mcuq_shape input, const void *source, int32_t *destination)
{
    const uint32_t row_bytes = mcuq_row_bytes(input.channels, input.bits);
    const uint8_t *row = source;
    for (uint32_t pixels = (uint32_t)input.height * input.width; pixels != 0u; pixels--) {
        int32_t index = 0;
        int32_t largest = code_at(row, 0, input.bits);
        for (uint32_t c = 1; c < input.channels; c++) {
            const int32_t code = code_at(row, c, input.bits);
            if (code > largest) {
                largest = code;
                index = (int32_t)c;
            }
        }
        *destination++ = index;
        row += row_bytes;
    }
}
