/* y = clamp(Zy + floor(acc * multiplier / 2^shift + 1/2)), stored at 8, 4, 2 or 32 bits.
 *
 * |acc| < 2^31 is proved by the compiler for every order of summation, also for sum x*w and zw * sum x apart.
 */
#include "epilogue.h"

void mcuq_start_run(const mcuq_conv2d_params *p, uint32_t c, uint32_t count, int32_t sum_x, int32_t *acc)
{
    mcuq_copy_words(acc, p->bias + c, count);
    if (p->weight_zero_points != NULL) {
        const uint32_t step = p->per_channel_zero_point ? 1u : 0u;
        const int8_t *zero = p->weight_zero_points + step * c;
        for (uint32_t i = 0; i < count; i++) {
            acc[i] -= *zero * sum_x;
            zero += step;
        }
    }
}

/* Real factors above 1/4 need the low word of the product too. Out of line: they are rare, and their 64-bit
 * shifts would take the loop's registers. */
static __attribute__((noinline)) int32_t requantize_wide(const mcuq_conv2d_params *p, int32_t acc,
                                                         int32_t multiplier, uint32_t shift)
{
    return mcuq_requantize(acc, multiplier, shift, p->output_zero_point, p->clamp_lo, p->clamp_hi);
}

/* mcuq_requantize for shift >= 33 with rounding and zero point in one constant:
 * (high + (Zy << (s-32)) + (1 << (s-33))) >> (s-32). |high| < 2^30, |2 Zy + 1| < 2^8 and s <= 55 keep the sum in
 * int32. bits: 8, 32, or another value for 4 and 2 alike. */
MCUQ_TEMPLATE void store_run(const mcuq_conv2d_params *p, void *row, uint32_t c, uint32_t count, const int32_t *acc,
                             uint32_t bits)
{
    const int32_t twice_zero_plus_1 = 2 * p->output_zero_point + 1, lo = p->clamp_lo, hi = p->clamp_hi;
    const uint32_t step = p->per_channel_scale ? 1u : 0u;
    const int32_t *multiplier = p->multipliers + step * c;
    const uint32_t shift_step = p->shifts != NULL ? 1u : 0u;
    const uint8_t *shift = p->shifts != NULL ? p->shifts + c : &p->shift;
    for (const int32_t *end = acc + count; acc != end; acc++, c++) {
        const uint32_t s = *shift;
        int32_t code;
        if (s >= 33u && !MCUQ_SMALL) {
            const int32_t high = (int32_t)(((int64_t)*acc * *multiplier) >> 32);
            code = mcuq_clamp((high + twice_zero_plus_1 * (int32_t)(1u << (s - 33u))) >> (s - 32u), lo, hi);
        } else {
            code = requantize_wide(p, *acc, *multiplier, s);
        }
        multiplier += step;
        shift += shift_step;
        if (bits == 8u) {
            ((int8_t *)row)[c] = (int8_t)code;
        } else if (bits == 32u) {
            ((int32_t *)row)[c] = code;
        } else {
            mcuq_put(row, c, p->output.bits, code);
        }
    }
}

void mcuq_store_run(const mcuq_conv2d_params *p, void *row, uint32_t c, uint32_t count, const int32_t *acc)
{
    if (MCUQ_SMALL) {
        store_run(p, row, c, count, acc, p->output.bits);
    } else if (p->output.bits == 8u) {
        store_run(p, row, c, count, acc, 8u);
    } else if (p->output.bits == 32u) {
        store_run(p, row, c, count, acc, 32u);
    } else {
        store_run(p, row, c, count, acc, 0u);
    }
}
