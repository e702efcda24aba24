/* Columns of 4 pixels of 2- or 4-bit inputs, two pixels in every half word: x(even pixel) + x(odd pixel) * 2^LANE_SHIFT.
 * Word 2 * j + i / 2 holds pair j of pixel i; pairs as in columns.h, whole words of codes only. An odd pixel is added to
 * what the even one before it wrote. */
#include "simd.h"

#define COLUMN_WORDS 2

typedef struct {
    uint32_t *next;
    int32_t sum;
    uint32_t odd;
} column_end;

static inline column_end start_column(uint32_t *columns, uint32_t pixel)
{
    const column_end at = {columns + pixel / 2u, 0, pixel & 1u};
    return at;
}

static inline __attribute__((always_inline)) void put(column_end *at, uint32_t offset, uint32_t pair, uint32_t odd)
{
    uint32_t *word = at->next + offset * COLUMN_WORDS;
    *word = odd ? *word | pair << LANE_SHIFT : pair;
    at->sum = mcuq_smlad(pair, 0x00010001u, at->sum);
}

/* 2-bit codes 16 at a time, 4-bit codes 8 at a time. */
static inline __attribute__((always_inline)) column_end expand_lane(column_end at, const uint8_t *codes, uint32_t count,
                                                                    uint32_t odd)
{
#if LANE_SHIFT == 13
    for (; count >= 16; count -= 16, codes += 4, at.next += 8 * COLUMN_WORDS) {
        const uint32_t word = mcuq_load(codes);
        put(&at, 0, word & 0x00030003u, odd);
        put(&at, 1, word >> 2 & 0x00030003u, odd);
        put(&at, 2, word >> 4 & 0x00030003u, odd);
        put(&at, 3, word >> 6 & 0x00030003u, odd);
        put(&at, 4, word >> 8 & 0x00030003u, odd);
        put(&at, 5, word >> 10 & 0x00030003u, odd);
        put(&at, 6, word >> 12 & 0x00030003u, odd);
        put(&at, 7, word >> 14 & 0x00030003u, odd);
    }
#else
    for (; count >= 8; count -= 8, codes += 4, at.next += 4 * COLUMN_WORDS) {
        const uint32_t word = mcuq_load(codes);
        put(&at, 0, word & 0x000F000Fu, odd);
        put(&at, 1, word >> 4 & 0x000F000Fu, odd);
        put(&at, 2, word >> 8 & 0x000F000Fu, odd);
        put(&at, 3, word >> 12 & 0x000F000Fu, odd);
    }
#endif
    return at;
}

static column_end expand(column_end at, const uint8_t *codes, uint32_t count, uint32_t bits)
{
    (void)bits;
    return at.odd ? expand_lane(at, codes, count, 1) : expand_lane(at, codes, count, 0);
}

static column_end fill(column_end at, int32_t code, uint32_t count)
{
    const uint32_t pair = (uint32_t)code * 0x00010001u;
    at.sum += code * (int32_t)count;
    for (; count >= 2; count -= 2, at.next += COLUMN_WORDS)
        *at.next = at.odd ? *at.next | pair << LANE_SHIFT : pair;
    return at;
}
