/* Dot products, two weight rows against one or two columns. Each is a function of its own, so that the compiler
 * gives the loop all registers. Bounds: see conv2d.c. */
#include "dot.h"

/* Thumb-1 can address memory and multiply with eight registers only. gcc spills pointers there unless told which
 * values to keep in them; sums can live in the others. Elsewhere these say nothing. */
#if defined(__thumb__) && !defined(__thumb2__)
#define THUMB1 1
#define LOW_REGISTER(value) __asm("" : "+l"(value))
#define HIGH_REGISTER(value) __asm("" : "+h"(value))
#else
#define THUMB1 0
#define LOW_REGISTER(value)
#define HIGH_REGISTER(value)
#endif

/* 8-bit weights on Thumb-1, and in the smallest code: one index for all four rows; a product overwrites a factor no
 * longer needed. 17 instructions for four products on Thumb-1. */
MCUQ_TEMPLATE void dot_2x2_indexed(int32_t acc0[2], int32_t acc1[2], const int8_t *w0, const int8_t *w1,
                                   const int8_t *x0, const int8_t *x1, uint32_t count)
{
    int32_t s00 = acc0[0], s10 = acc0[1], s01 = acc1[0], s11 = acc1[1];
    w0 += count;
    w1 += count;
    x0 += count;
    x1 += count;
    for (int32_t i = -(int32_t)count; i != 0; i++) {
        LOW_REGISTER(w0);
        LOW_REGISTER(w1);
        LOW_REGISTER(x0);
        LOW_REGISTER(x1);
        LOW_REGISTER(i);
        HIGH_REGISTER(s00);
        HIGH_REGISTER(s10);
        HIGH_REGISTER(s01);
        HIGH_REGISTER(s11);
        int32_t v0 = x0[i], a0 = w0[i];
        const int32_t product = a0 * v0;
        s00 += product;
        HIGH_REGISTER(s00);
        int32_t a1 = w1[i];
        v0 *= a1;
        s10 += v0;
        HIGH_REGISTER(s10);
        const int32_t v1 = x1[i];
        a0 *= v1;
        s01 += a0;
        HIGH_REGISTER(s01);
        a1 *= v1;
        s11 += a1;
        HIGH_REGISTER(s11);
    }
    acc0[0] = s00;
    acc0[1] = s10;
    acc1[0] = s01;
    acc1[1] = s11;
}

/* 8-bit weights elsewhere, four taps at a time: 16 loads and 16 multiply-accumulates. */
MCUQ_TEMPLATE void dot_2x2(int32_t acc0[2], int32_t acc1[2], const int8_t *w0, const int8_t *w1, const int8_t *x0,
                           const int8_t *x1, uint32_t count)
{
    int32_t s00 = acc0[0], s10 = acc0[1], s01 = acc1[0], s11 = acc1[1];
    for (uint32_t fours = count >> 2; fours != 0u; fours--) {
        MCUQ_UNROLL_4 for (uint32_t tap = 0; tap < 4u; tap++) {
            s00 += w0[tap] * x0[tap];
            s10 += w1[tap] * x0[tap];
            s01 += w0[tap] * x1[tap];
            s11 += w1[tap] * x1[tap];
        }
        w0 += 4;
        w1 += 4;
        x0 += 4;
        x1 += 4;
    }
    for (uint32_t tap = 0; tap < (count & 3u); tap++) {
        s00 += w0[tap] * x0[tap];
        s10 += w1[tap] * x0[tap];
        s01 += w0[tap] * x1[tap];
        s11 += w1[tap] * x1[tap];
    }
    acc0[0] = s00;
    acc0[1] = s10;
    acc1[0] = s01;
    acc1[1] = s11;
}

void mcuq_dot_2x2_w8(int32_t acc0[2], int32_t acc1[2], const uint8_t *w0, const uint8_t *w1, const int8_t *x0,
                     const int8_t *x1, uint32_t count)
{
    if (THUMB1 || MCUQ_SMALL) {
        dot_2x2_indexed(acc0, acc1, (const int8_t *)w0, (const int8_t *)w1, x0, x1, count);
    } else {
        dot_2x2(acc0, acc1, (const int8_t *)w0, (const int8_t *)w1, x0, x1, count);
    }
}

void mcuq_make_pairs(int32_t *pairs, const int8_t *x0, const int8_t *x1, uint32_t count)
{
    for (const int8_t *end = x0 + count; x0 != end; x0++, x1++) {
        *pairs++ = *x0 + *x1 * 65536;
    }
}

/* One multiplication serves two pixels: w * (x0 + 65536 x1) = w x0 + 65536 (w x1). The sum over a few taps is
 * low + 65536 high with both parts in int16, and is taken apart before either can leave it:
 * |w x| <= 8 * 128 for 4-bit weights allows 31 taps, 2 * 128 for 2-bit weights 127; multiples of four are used. */
MCUQ_TEMPLATE void dot_pairs(int32_t acc0[2], int32_t acc1[2], const uint8_t *w0, const uint8_t *w1,
                             const int32_t *pairs, uint32_t count, uint32_t bits)
{
    const uint32_t limit = bits == 4u ? 28u : 124u;
    while (count != 0u) {
        const uint32_t taps = mcuq_min(count, limit);
        int32_t p0 = 0, p1 = 0;
        for (uint32_t fours = taps >> 2; fours != 0u; fours--) {
            MCUQ_UNROLL_4 for (uint32_t tap = 0; tap < 4u; tap++) {
                const uint32_t at = tap * bits >> 3, lane = tap & (8u / bits - 1u);
                p0 += mcuq_weight(w0[at], lane, bits) * pairs[tap];
                p1 += mcuq_weight(w1[at], lane, bits) * pairs[tap];
            }
            w0 += bits >> 1;
            w1 += bits >> 1;
            pairs += 4;
        }
        for (uint32_t tap = 0; tap < (taps & 3u); tap++) { /* in the last round only */
            p0 += mcuq_get_weight(w0, tap, bits) * pairs[tap];
            p1 += mcuq_get_weight(w1, tap, bits) * pairs[tap];
        }
        acc0[0] += (int16_t)p0;
        acc0[1] += (int16_t)p1;
        acc1[0] += (p0 - (int16_t)p0) >> 16;
        acc1[1] += (p1 - (int16_t)p1) >> 16;
        count -= taps;
    }
}

void mcuq_dot_pairs_w4(int32_t acc0[2], int32_t acc1[2], const uint8_t *w0, const uint8_t *w1, const int32_t *pairs,
                       uint32_t count)
{
    dot_pairs(acc0, acc1, w0, w1, pairs, count, 4u);
}

void mcuq_dot_pairs_w2(int32_t acc0[2], int32_t acc1[2], const uint8_t *w0, const uint8_t *w1, const int32_t *pairs,
                       uint32_t count)
{
    dot_pairs(acc0, acc1, w0, w1, pairs, count, 2u);
}

MCUQ_TEMPLATE void dot_2x1(int32_t acc[2], const uint8_t *w0, const uint8_t *w1, const int8_t *x, uint32_t count,
                           uint32_t bits)
{
    int32_t s0 = acc[0], s1 = acc[1];
    if ((MCUQ_SMALL || THUMB1) && bits == 8u) {
        for (uint32_t i = 0; i != count; i++) {
            s0 += (int8_t)w0[i] * x[i];
            s1 += (int8_t)w1[i] * x[i];
        }
    } else if (MCUQ_SMALL) {
        for (uint32_t i = 0; i != count; i++) {
            s0 += mcuq_get_weight(w0, i, bits) * x[i];
            s1 += mcuq_get_weight(w1, i, bits) * x[i];
        }
    } else {
        for (uint32_t fours = count >> 2; fours != 0u; fours--) {
            MCUQ_UNROLL_4 for (uint32_t tap = 0; tap < 4u; tap++) {
                const uint32_t at = tap * bits >> 3, lane = tap & (8u / bits - 1u);
                const int32_t v = x[tap];
                s0 += mcuq_weight(w0[at], lane, bits) * v;
                s1 += mcuq_weight(w1[at], lane, bits) * v;
            }
            w0 += bits >> 1;
            w1 += bits >> 1;
            x += 4;
        }
        for (uint32_t tap = 0; tap < (count & 3u); tap++) {
            s0 += mcuq_get_weight(w0, tap, bits) * x[tap];
            s1 += mcuq_get_weight(w1, tap, bits) * x[tap];
        }
    }
    acc[0] = s0;
    acc[1] = s1;
}

#define DOT_2X1(bits)                                                                                               \
    void mcuq_dot_2x1_w##bits(int32_t acc[2], const uint8_t *w0, const uint8_t *w1, const int8_t *x, uint32_t count) \
    {                                                                                                               \
        dot_2x1(acc, w0, w1, x, count, bits##u);                                                                    \
    }

DOT_2X1(8)
DOT_2X1(4)
DOT_2X1(2)

int32_t mcuq_sum(const int8_t *x, uint32_t count)
{
    int32_t sum = 0;
    for (const int8_t *end = x + count; x != end; x++) {
        sum += *x;
    }
    return sum;
}
