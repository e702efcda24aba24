/* Dot products of packed weight rows with int8 columns, the inner loop of conv2d and fully connected. */
#ifndef MCUQ_SRC_DOT_H
#define MCUQ_SRC_DOT_H

#include "pack.h"

/* acc[0..3] += w0.x0, w1.x0, w0.x1, w1.x1 over `count` codes. bits is constant, so that the loops over the
 * fields of a byte unroll and the sign extension of a field is one or two shifts. Per tap and four products:
 * two weight fields, two loads, four multiply-accumulates. */
MCUQ_TEMPLATE void mcuq_dot_2x2(int32_t acc[4], const uint8_t *w0, const uint8_t *w1, const int8_t *x0,
                                const int8_t *x1, uint32_t count, uint32_t bits)
{
    const uint32_t per_byte = 8u / bits;
    int32_t s00 = acc[0], s10 = acc[1], s01 = acc[2], s11 = acc[3];
    for (uint32_t bytes = count / per_byte; bytes != 0u; bytes--) {
        const uint32_t b0 = *w0++;
        const uint32_t b1 = *w1++;
        for (uint32_t lane = 0; lane < per_byte; lane++) {
            const int32_t a0 = mcuq_weight(b0, lane, bits);
            const int32_t a1 = mcuq_weight(b1, lane, bits);
            const int32_t v0 = *x0++;
            const int32_t v1 = *x1++;
            s00 += a0 * v0;
            s10 += a1 * v0;
            s01 += a0 * v1;
            s11 += a1 * v1;
        }
    }
    for (uint32_t lane = 0; lane < count % per_byte; lane++) { /* fields of a partly used last byte */
        const int32_t a0 = mcuq_get_weight(w0, lane, bits);
        const int32_t a1 = mcuq_get_weight(w1, lane, bits);
        s00 += a0 * x0[lane];
        s10 += a1 * x0[lane];
        s01 += a0 * x1[lane];
        s11 += a1 * x1[lane];
    }
    acc[0] = s00;
    acc[1] = s10;
    acc[2] = s01;
    acc[3] = s11;
}

/* acc[0..1] += w0.x, w1.x over `count` codes. */
MCUQ_TEMPLATE void mcuq_dot_2x1(int32_t acc[2], const uint8_t *w0, const uint8_t *w1, const int8_t *x,
                                uint32_t count, uint32_t bits)
{
    const uint32_t per_byte = 8u / bits;
    int32_t s0 = acc[0], s1 = acc[1];
    for (uint32_t bytes = count / per_byte; bytes != 0u; bytes--) {
        const uint32_t b0 = *w0++;
        const uint32_t b1 = *w1++;
        for (uint32_t lane = 0; lane < per_byte; lane++) {
            const int32_t v = *x++;
            s0 += mcuq_weight(b0, lane, bits) * v;
            s1 += mcuq_weight(b1, lane, bits) * v;
        }
    }
    for (uint32_t lane = 0; lane < count % per_byte; lane++) {
        s0 += mcuq_get_weight(w0, lane, bits) * x[lane];
        s1 += mcuq_get_weight(w1, lane, bits) * x[lane];
    }
    acc[0] = s0;
    acc[1] = s1;
}

/* Sum of a column, for weights with a zero point: sum x*(w - z) = sum x*w - z * sum x. */
static inline int32_t mcuq_sum(const int8_t *x, uint32_t count)
{
    int32_t sum = 0;
    for (const int8_t *end = x + count; x != end; x++) {
        sum += *x;
    }
    return sum;
}

#endif
