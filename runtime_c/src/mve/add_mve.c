/* Elementwise sum of int8 tensors: nine instructions for four elements. In place as mcuq_add. */
#include "codes.h"
#include "mcuq/mve.h"

void mcuq_add_mve(const mcuq_add_params *p, const void *a, const void *b, void *output)
{
    const uint32_t count = (uint32_t)p->shape.height * p->shape.width * p->shape.channels;
    const void *xa = a, *xb = b;
    void *y = output;
    __asm__ volatile("vdup.32 q2, %[ma]\n"
                     "wlstp.32 lr, %[count], 2f\n"
                     "1: vldrb.s32 q0, [%[xa]], #4\n"
                     "vmlas.s32 q0, q2, %[constant]\n"
                     "vldrb.s32 q1, [%[xb]], #4\n"
                     "vmla.s32 q0, q1, %[mb]\n"
                     "vshl.s32 q0, %[shift]\n"
                     "vqmovnb.s32 q0, q0\n"
                     "vqmovnb.s16 q0, q0\n"
                     "vstrb.32 q0, [%[y]], #4\n"
                     "letp lr, 1b\n"
                     "2:"
                     : [xa] "+l"(xa), [xb] "+l"(xb), [y] "+l"(y)
                     : [count] "r"(count), [ma] "r"(p->multiplier_a), [mb] "r"(p->multiplier_b),
                       [constant] "r"(p->constant), [shift] "r"(-(int32_t)p->shift)
                     : "q0", "q1", "q2", "lr", "memory");
    if (p->clamp_lo > -128 || p->clamp_hi < 127)
        mcuq_mve_finish_row(output, output, count, 8, p->clamp_lo, p->clamp_hi);
}
