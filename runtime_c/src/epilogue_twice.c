/* y = clamp(Zy + acc * multiplier / 2^shift), rounded to 31 bits and again, half away from zero, at the shift. */
#include "twice.h"

void mcuq_store_run_twice(const mcuq_conv2d_params *p, void *row, uint32_t c, uint32_t count, const int32_t *acc)
{
    const uint32_t step = p->per_channel_scale ? 1u : 0u;
    const int32_t *multiplier = p->multipliers + step * c;
    int8_t *codes = (int8_t *)row + c;
    for (uint32_t i = 0; i < count; i++, multiplier += step) {
        const uint32_t shift = p->shifts != NULL ? p->shifts[c + i] : p->shift;
        codes[i] = (int8_t)mcuq_requantize_twice(acc[i], *multiplier, shift, p->output_zero_point, p->clamp_lo,
                                                 p->clamp_hi);
    }
}
