/* Raw pixels to int8 codes in place: p - 128 flips the highest bit. */
#include <string.h>

#include "mcuq/mcuq.h"

static void flip4(uint8_t *bytes)
{
    uint32_t word;
    void *const aligned = __builtin_assume_aligned(bytes, 4);
    memcpy(&word, aligned, sizeof word);
    word ^= 0x80808080u;
    memcpy(aligned, &word, sizeof word);
}

void mcuq_pixels_to_int8(void *data, size_t count)
{
    uint8_t *byte = data, *const end = byte + count;
    for (; byte != end && ((uintptr_t)byte & 3u) != 0u; byte++) {
        *byte ^= 0x80u;
    }
    for (; (size_t)(end - byte) >= 16u; byte += 16) {
        flip4(byte);
        flip4(byte + 4);
        flip4(byte + 8);
        flip4(byte + 12);
    }
    for (; byte != end; byte++) {
        *byte ^= 0x80u;
    }
}
