/* Rows of packed codes to and from int8. */
#include "pack.h"

#include <string.h>

/* Whole bytes of unsigned fields; bits is constant. */
MCUQ_TEMPLATE void unpack_bytes(int8_t *codes, const uint8_t *bytes, uint32_t count, uint32_t bits)
{
    const uint32_t mask = (1u << bits) - 1u;
    for (const uint8_t *end = bytes + count; bytes != end; bytes++) {
        const uint32_t byte = *bytes;
        for (uint32_t at = 0; at < 8u; at += bits) {
            *codes++ = (int8_t)((byte >> at) & mask);
        }
    }
}

MCUQ_TEMPLATE void pack_bytes(uint8_t *bytes, const int8_t *codes, uint32_t count, uint32_t bits)
{
    for (uint8_t *end = bytes + count; bytes != end; bytes++) {
        uint32_t byte = 0;
        for (uint32_t at = 0; at < 8u; at += bits) {
            byte |= (uint32_t)*codes++ << at;
        }
        *bytes = (uint8_t)byte;
    }
}

void mcuq_unpack(int8_t *codes, const uint8_t *row, uint32_t first, uint32_t count, uint32_t bits)
{
    if (MCUQ_SMALL) {
        for (const uint32_t end = first + count; first != end; first++) {
            *codes++ = (int8_t)mcuq_get(row, first, bits);
        }
        return;
    }
    if (bits == 8u) {
        memcpy(codes, row + first, count);
        return;
    }
    const uint32_t last = first + count;
    const uint32_t per_byte = bits == 4u ? 2u : 4u;
    while (first < last && (first & (per_byte - 1u)) != 0u) { /* up to a byte boundary */
        *codes++ = (int8_t)mcuq_get(row, first++, bits);
    }
    const uint32_t bytes = ((last - first) * bits) >> 3;
    if (bits == 4u) {
        unpack_bytes(codes, row + (first >> 1), bytes, 4u);
    } else {
        unpack_bytes(codes, row + (first >> 2), bytes, 2u);
    }
    codes += bytes * per_byte;
    first += bytes * per_byte;
    while (first < last) {
        *codes++ = (int8_t)mcuq_get(row, first++, bits);
    }
}

void mcuq_pack(uint8_t *row, uint32_t first, const int8_t *codes, uint32_t count, uint32_t bits)
{
    if (MCUQ_SMALL) {
        for (const uint32_t end = first + count; first != end; first++) {
            mcuq_put(row, first, bits, *codes++);
        }
        return;
    }
    if (bits == 8u) {
        memcpy(row + first, codes, count);
        return;
    }
    const uint32_t last = first + count;
    const uint32_t per_byte = bits == 4u ? 2u : 4u;
    while (first < last && (first & (per_byte - 1u)) != 0u) {
        mcuq_put(row, first++, bits, *codes++);
    }
    const uint32_t bytes = ((last - first) * bits) >> 3;
    if (bits == 4u) {
        pack_bytes(row + (first >> 1), codes, bytes, 4u);
    } else {
        pack_bytes(row + (first >> 2), codes, bytes, 2u);
    }
    codes += bytes * per_byte;
    first += bytes * per_byte;
    while (first < last) {
        mcuq_put(row, first++, bits, *codes++);
    }
}
