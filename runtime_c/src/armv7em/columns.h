/* Columns: the inputs of a group of PIXELS output pixels as int16 pairs, pixel-interleaved. Include with PIXELS
 * defined (1, 2 or 4).
 *
 * Word PIXELS * j + i is pair j of pixel i. Pairs follow what one instruction unpacks from a word of packed codes:
 * of every 4 int8 codes (0,2) (1,3); of 8 nibbles (0,4) (1,5) (2,6) (3,7); of 16 crumbs (i, i + 8). Where a pixel's
 * channels do not fill whole words, taps are first gathered as bytes and paired as int8. mcuq/target/layouts.py
 * orders the weights the same way.
 */
#include "simd.h"

typedef struct {
    uint32_t *next; /* next pair of this pixel */
    int32_t sum;
} column_end;

#define PUT(offset, word) \
    do { \
        const uint32_t put_word = (word); \
        at.next[(offset) * PIXELS] = put_word; \
        at.sum = mcuq_smlad(put_word, 0x00010001u, at.sum); \
    } while (0)

static inline column_end expand8(column_end at, const uint8_t *codes, uint32_t count)
{
    for (; count >= 16; count -= 16, codes += 16, at.next += 8 * PIXELS)
        for (int i = 0; i < 4; i++) {
            const uint32_t word = mcuq_load(codes + 4 * i);
            PUT(2 * i, mcuq_sxtb16(word));
            PUT(2 * i + 1, mcuq_sxtb16_high(word));
        }
    for (; count >= 4; count -= 4, codes += 4, at.next += 2 * PIXELS) {
        const uint32_t word = mcuq_load(codes);
        PUT(0, mcuq_sxtb16(word));
        PUT(1, mcuq_sxtb16_high(word));
    }
    return at;
}

static inline column_end expand4(column_end at, const uint8_t *codes, uint32_t count)
{
    for (; count >= 8; count -= 8, codes += 4, at.next += 4 * PIXELS) {
        const uint32_t word = mcuq_load(codes);
        for (int i = 0; i < 4; i++)
            PUT(i, word >> (4 * i) & 0x000F000Fu);
    }
    return at;
}

static inline column_end expand2(column_end at, const uint8_t *codes, uint32_t count)
{
    for (; count >= 16; count -= 16, codes += 4, at.next += 8 * PIXELS) {
        const uint32_t word = mcuq_load(codes);
        for (int i = 0; i < 8; i++)
            PUT(i, word >> (2 * i) & 0x00030003u);
    }
    return at;
}

static column_end expand(column_end at, const uint8_t *codes, uint32_t count, uint32_t bits)
{
    if (bits == 8)
        return expand8(at, codes, count);
    return bits == 4 ? expand4(at, codes, count) : expand2(at, codes, count);
}

static column_end fill(column_end at, int32_t code, uint32_t count)
{
    const uint32_t pair = ((uint32_t)code & 0xFFFFu) * 0x00010001u;
    at.sum += code * (int32_t)count;
    for (; count >= 2; count -= 2, at.next += PIXELS)
        *at.next = pair;
    return at;
}

#undef PUT
