/* Elementwise sum of int8 tensors: seven instructions an element. In place as mcuq_add. */
#include "mcuq/dsp.h"
#include "simd.h"

static inline int8_t sum(const mcuq_add_params *p, int32_t a, int32_t b)
{
    return (int8_t)mcuq_sat8((a * p->multiplier_a + p->constant + b * p->multiplier_b) >> p->shift);
}

void mcuq_add_dsp(const mcuq_add_params *p, const void *a, const void *b, void *output)
{
    const mcuq_add_params local = *p; /* the output cannot alias it: parameters stay in registers */
    const uint32_t count = (uint32_t)p->shape.height * p->shape.width * p->shape.channels;
    const int8_t *xa = a, *xb = b;
    int8_t *y = output;
    uint32_t left = count;
    for (; left >= 4; left -= 4, xa += 4, xb += 4, y += 4) {
        y[0] = sum(&local, xa[0], xb[0]);
        y[1] = sum(&local, xa[1], xb[1]);
        y[2] = sum(&local, xa[2], xb[2]);
        y[3] = sum(&local, xa[3], xb[3]);
    }
    for (; left > 0; left--)
        *y++ = sum(&local, *xa++, *xb++);
    if (p->clamp_lo > -128 || p->clamp_hi < 127)
        mcuq_clamp_row8(output, output, count, p->clamp_lo, p->clamp_hi);
}
