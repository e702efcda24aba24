/* Columns: the inputs of a group of PIXELS output pixels as int16 pairs, pixel-interleaved. Include with PIXELS
 * defined (1, 2 or 4).
 *
 * Word PIXELS * j + i is pair j of pixel i. Pairs follow what one instruction unpacks from a word of packed codes:
 * of every 4 int8 codes (0,2) (1,3); of 8 nibbles (0,4) (1,5) (2,6) (3,7); of 16 crumbs (i, i + 8). What is left of a
 * column behind its whole words goes by 8 and 4 codes, the first half paired with the second.
 * mcuq/target/layouts_dsp.py orders the weights the same way.
 */
#include "simd.h"

typedef struct {
    uint32_t *next; /* next pair of this pixel */
    int32_t sum;
} column_end;

#define COLUMN_WORDS PIXELS /* of a pair of inputs of all pixels */

static inline column_end start_column(uint32_t *columns, uint32_t pixel)
{
    const column_end at = {columns + pixel, 0};
    return at;
}

#define PUT(offset, word) \
    do { \
        const uint32_t put_word = (word); \
        at.next[(offset) * COLUMN_WORDS] = put_word; \
        at.sum = mcuq_smlad(put_word, 0x00010001u, at.sum); \
    } while (0)

/* Four int8 codes to pairs 2n and 2n + 1. */
#define PUT_CODES(n) \
    do { \
        const uint32_t codes_word = mcuq_load(codes + 4 * (n)); \
        PUT(2 * (n), mcuq_sxtb16(codes_word)); \
        PUT(2 * (n) + 1, mcuq_sxtb16_high(codes_word)); \
    } while (0)

static __attribute__((noinline)) column_end expand8(column_end at, const uint8_t *codes, uint32_t count)
{
    for (; count >= 16; count -= 16, codes += 16, at.next += 8 * PIXELS) {
        PUT_CODES(0);
        PUT_CODES(1);
        PUT_CODES(2);
        PUT_CODES(3);
    }
    for (; count >= 4; count -= 4, codes += 4, at.next += 2 * PIXELS)
        PUT_CODES(0);
    return at;
}

static inline uint32_t load_half(const uint8_t *codes)
{
    uint16_t half;
    memcpy(&half, codes, sizeof half);
    return half;
}

static inline column_end expand4(column_end at, const uint8_t *codes, uint32_t count)
{
    for (; count >= 8; count -= 8, codes += 4, at.next += 4 * PIXELS) {
        const uint32_t word = mcuq_load(codes);
        PUT(0, word & 0x000F000Fu);
        PUT(1, word >> 4 & 0x000F000Fu);
        PUT(2, word >> 8 & 0x000F000Fu);
        PUT(3, word >> 12 & 0x000F000Fu);
    }
    if (count > 0) {
        const uint32_t half = load_half(codes), word = half | half << 8;
        PUT(0, word & 0x000F000Fu);
        PUT(1, word >> 4 & 0x000F000Fu);
    }
    return at;
}

static inline column_end expand2(column_end at, const uint8_t *codes, uint32_t count)
{
    for (; count >= 16; count -= 16, codes += 4, at.next += 8 * PIXELS) {
        const uint32_t word = mcuq_load(codes);
        PUT(0, word & 0x00030003u);
        PUT(1, word >> 2 & 0x00030003u);
        PUT(2, word >> 4 & 0x00030003u);
        PUT(3, word >> 6 & 0x00030003u);
        PUT(4, word >> 8 & 0x00030003u);
        PUT(5, word >> 10 & 0x00030003u);
        PUT(6, word >> 12 & 0x00030003u);
        PUT(7, word >> 14 & 0x00030003u);
    }
    if (count >= 8) {
        const uint32_t half = load_half(codes), word = half | half << 8;
        PUT(0, word & 0x00030003u);
        PUT(1, word >> 2 & 0x00030003u);
        PUT(2, word >> 4 & 0x00030003u);
        PUT(3, word >> 6 & 0x00030003u);
        count -= 8;
        codes += 2;
        at.next += 4 * PIXELS;
    }
    if (count > 0) {
        const uint32_t word = *codes | (uint32_t)*codes << 12;
        PUT(0, word & 0x00030003u);
        PUT(1, word >> 2 & 0x00030003u);
    }
    return at;
}

static column_end expand(column_end at, const uint8_t *codes, uint32_t count, uint32_t bits)
{
    if (bits == 8)
        return expand8(at, codes, count);
    return bits == 4 ? expand4(at, codes, count) : expand2(at, codes, count);
}

static __attribute__((noinline)) column_end fill(column_end at, int32_t code, uint32_t count)
{
    const uint32_t pair = ((uint32_t)code & 0xFFFFu) * 0x00010001u;
    at.sum += code * (int32_t)count;
    for (; count >= 2; count -= 2, at.next += PIXELS)
        *at.next = pair;
    return at;
}

/* Four int8 codes in a register. */
static inline column_end expand_word(column_end at, uint32_t codes)
{
    PUT(0, mcuq_sxtb16(codes));
    PUT(1, mcuq_sxtb16_high(codes));
    at.next += 2 * PIXELS;
    return at;
}

#undef PUT_CODES
#undef PUT
