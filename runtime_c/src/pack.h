/* Packed rows of codes: element access, and whole rows to and from int8.
 *
 * A row holds its codes from the lowest bits of its first byte upwards; it ends on a byte, whose unused high
 * bits are zero. Activations are int8 at 8 bits and unsigned below; weights are two's complement at any width.
 */
#ifndef MCUQ_SRC_PACK_H
#define MCUQ_SRC_PACK_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "mcuq/numerics.h"

/* Template bodies are inlined with constant bits: one source, one specialized loop per width. */
#define MCUQ_TEMPLATE static inline __attribute__((always_inline))

/* gcc -O2 alone does not unroll a loop of four. */
#define MCUQ_UNROLL_4 _Pragma("GCC unroll 4")

/* Codes handled at a time by the elementwise kernels: a chunk starts on a byte at every width. */
#define MCUQ_CHUNK 32u

/* Activation code c of a row. bits: 8, 4 or 2. */
static inline int32_t mcuq_get(const uint8_t *row, uint32_t c, uint32_t bits)
{
    if (bits == 8u) {
        return (int8_t)row[c];
    }
    const uint32_t at = c * bits;
    return (int32_t)(((uint32_t)row[at >> 3] >> (at & 7u)) & ((1u << bits) - 1u));
}

/* Field number `lane` of a byte of weights, sign extended. bits: 8, 4 or 2; lane < 8 / bits. */
MCUQ_TEMPLATE int32_t mcuq_weight(uint32_t byte, uint32_t lane, uint32_t bits)
{
    return (int32_t)(byte << (32u - bits * (lane + 1u))) >> (32u - bits);
}

/* Weight code c of a row. */
static inline int32_t mcuq_get_weight(const uint8_t *row, uint32_t c, uint32_t bits)
{
    const uint32_t at = c * bits;
    return (int32_t)((uint32_t)row[at >> 3] << (32u - bits - (at & 7u))) >> (32u - bits);
}

/* Append code c to a row that is written in ascending order: the first code of a byte also clears the rest. */
static inline void mcuq_put(uint8_t *row, uint32_t c, uint32_t bits, int32_t code)
{
    const uint32_t at = c * bits;
    const uint32_t shift = at & 7u;
    const uint32_t before = shift != 0u ? row[at >> 3] : 0u;
    row[at >> 3] = (uint8_t)(before | (((uint32_t)code << shift) & 0xFFu));
}

/* Activation codes first .. first + count - 1 of a row to int8. Output must not overlap the row. */
void mcuq_unpack(int8_t *codes, const uint8_t *row, uint32_t first, uint32_t count, uint32_t bits);

/* Append int8 codes to a row as codes first .. first + count - 1. Codes must fit the bits. */
void mcuq_pack(uint8_t *row, uint32_t first, const int8_t *codes, uint32_t count, uint32_t bits);

/* Codes first .. first + count - 1 as int8: where they are at 8 bits, else unpacked into buffer. */
static inline const int8_t *mcuq_view(const uint8_t *row, uint32_t first, uint32_t count, uint32_t bits,
                                      int8_t *buffer)
{
    if (bits == 8u) {
        return (const int8_t *)row + first;
    }
    mcuq_unpack(buffer, row, first, count, bits);
    return buffer;
}

/* memset; a loop where the library's would be larger than all that calls it. */
static inline void mcuq_fill(int8_t *bytes, int32_t value, uint32_t count)
{
#if MCUQ_SMALL
    for (const int8_t *end = bytes + count; bytes != end; bytes++) {
        *bytes = (int8_t)value;
        __asm__("" : "+r"(bytes)); /* else gcc calls memset */
    }
#else
    memset(bytes, value, count);
#endif
}

/* memcpy of words, likewise. */
static inline void mcuq_copy_words(int32_t *to, const int32_t *from, uint32_t count)
{
#if MCUQ_SMALL
    for (const int32_t *end = from + count; from != end; from++, to++) {
        *to = *from;
        __asm__("" : "+r"(to));
    }
#else
    memcpy(to, from, count * sizeof *to);
#endif
}

static inline uint32_t mcuq_min(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

#endif
