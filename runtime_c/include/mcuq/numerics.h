/* The arithmetic contract in C: twin of mcuq/numerics.py, line for line. See docs/NUMERICS.md. */
#ifndef MCUQ_NUMERICS_H
#define MCUQ_NUMERICS_H

#include <stdint.h>

/* Arithmetic shift right of signed values is relied on: gcc and clang define it so. */
#ifndef __cplusplus
_Static_assert((-1 >> 1) == -1, "mcuq needs arithmetic right shifts of signed integers");
#endif

/* -Os (--optimize size): the shortest loop that computes the same. */
#ifdef __OPTIMIZE_SIZE__
#define MCUQ_SMALL 1
#define MCUQ_ONCE static __attribute__((noinline, unused)) /* a function of some size, called several times */
#else
#define MCUQ_SMALL 0
#define MCUQ_ONCE static inline
#endif

static inline int32_t mcuq_clamp(int32_t value, int32_t lo, int32_t hi)
{
    return value < lo ? lo : value > hi ? hi : value;
}

/* clamp(zero_point + floor(acc * multiplier / 2^shift + 1/2), lo, hi), 1 <= shift <= 55, |multiplier| < 2^31.
 * For shift >= 33 only the high word is needed: floor((P + 2^(s-1)) / 2^s) =
 * floor((floor(P / 2^32) + 2^(s-33)) / 2^(s-32)); |high word| < 2^30 and 2^(s-33) <= 2^22, so int32 suffices. */
static inline int32_t mcuq_requantize(int32_t acc, int32_t multiplier, uint32_t shift, int32_t zero_point,
                                      int32_t lo, int32_t hi)
{
    const int64_t product = (int64_t)acc * multiplier;
    if (shift >= 33u && !MCUQ_SMALL) {
        const int32_t high = (int32_t)(product >> 32);
        const int32_t rounded = (high + (int32_t)(1 << (shift - 33u))) >> (shift - 32u);
        return mcuq_clamp(rounded + zero_point, lo, hi);
    }
    /* Any shift; from 32 downwards the quotient may exceed int32: clamp in 64 bits. */
    const int64_t value = (((product >> (shift - 1u)) + 1) >> 1) + zero_point;
    return value < lo ? lo : value > hi ? hi : (int32_t)value;
}

/* The same with the two roundings of TFLite's reference kernels: h = floor(acc * multiplier / 2^31 + 1/2), then
 * h / 2^(shift - 31) to the nearest, half away from zero: half up of h, less one where it is negative. |h| < 2^31. */
static inline int32_t mcuq_requantize_twice(int32_t acc, int32_t multiplier, uint32_t shift, int32_t zero_point,
                                            int32_t lo, int32_t hi)
{
    if (shift <= 31u) {
        return mcuq_requantize(acc, multiplier, shift, zero_point, lo, hi);
    }
    const int32_t high = (int32_t)(((int64_t)acc * multiplier + ((int64_t)1 << 30)) >> 31);
    const int32_t rounded = (((high + (high >> 31)) >> (shift - 32u)) + 1) >> 1;
    return mcuq_clamp(rounded + zero_point, lo, hi);
}

/* Elementwise rescaling of codes: clamp((sum_i x_i * multiplier_i + constant) >> shift, lo, hi).
 * The compiler proves that no partial sum leaves int32. */
typedef struct {
    int32_t multiplier;
    int32_t constant;
    uint8_t shift;
} mcuq_affine;

static inline int32_t mcuq_rescale(int32_t code, const mcuq_affine *a, int32_t lo, int32_t hi)
{
    return mcuq_clamp((code * a->multiplier + a->constant) >> a->shift, lo, hi);
}

/* Bytes of one packed row of channels; rows start on a byte. */
static inline uint32_t mcuq_row_bytes(uint32_t channels, uint32_t bits)
{
    return (channels * bits + 7u) >> 3;
}

#endif
