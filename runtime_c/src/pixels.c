/* Raw pixels to int8 codes in place: p - 128 flips the highest bit. */
#include "mcuq/mcuq.h"

void mcuq_pixels_to_int8(void *data, size_t count)
{
    uint8_t *byte = data;
    for (uint8_t *end = byte + count; byte != end; byte++) {
        *byte ^= 0x80u;
    }
}
