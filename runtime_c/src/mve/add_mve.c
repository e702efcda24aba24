/* Elementwise sum: nine instructions for four elements of int8 tensors; 4- and 2-bit codes pass through bytes. In place as
 * mcuq_add. */
#include "codes.h"
#include "mcuq/mve.h"

enum { CHUNK = 64 };

static inline void sum(const mcuq_add_params *p, const void *a, const void *b, void *output, uint32_t count)
{
    __asm__ volatile("vdup.32 q2, %[ma]\n"
                     "wlstp.32 lr, %[count], 2f\n"
                     "1: vldrb.s32 q0, [%[a]], #4\n"
                     "vmlas.s32 q0, q2, %[constant]\n"
                     "vldrb.s32 q1, [%[b]], #4\n"
                     "vmla.s32 q0, q1, %[mb]\n"
                     "vshl.s32 q0, %[shift]\n"
                     "vqmovnb.s32 q0, q0\n"
                     "vqmovnb.s16 q0, q0\n"
                     "vstrb.32 q0, [%[output]], #4\n"
                     "letp lr, 1b\n"
                     "2:"
                     : [a] "+l"(a), [b] "+l"(b), [output] "+l"(output)
                     : [count] "r"(count), [ma] "r"(p->multiplier_a), [mb] "r"(p->multiplier_b),
                       [constant] "r"(p->constant), [shift] "r"(-(int32_t)p->shift)
                     : "q0", "q1", "q2", "lr", "memory");
}

void mcuq_add_mve(const mcuq_add_params *p, const void *a, const void *b, void *output)
{
    const uint32_t count = (uint32_t)p->shape.height * p->shape.width * p->shape.channels;
    sum(p, a, b, output, count);
    if (p->clamp_lo > -128 || p->clamp_hi < 127)
        mcuq_mve_finish_row(output, output, count, 8, p->clamp_lo, p->clamp_hi);
}

/* Codes that start on a byte. */
static void sum_codes(const mcuq_add_params *p, const uint8_t *a, const uint8_t *b, uint8_t *output, uint32_t count)
{
    const uint32_t bits_a = p->bits_a, bits_b = p->bits_b, bits = p->shape.bits;
    int8_t codes_a[CHUNK], codes_b[CHUNK];
    while (count > 0) {
        const uint32_t now = count < CHUNK ? count : (uint32_t)CHUNK;
        mcuq_mve_expand(codes_a, a, now, bits_a);
        mcuq_mve_expand(codes_b, b, now, bits_b);
        sum(p, codes_a, codes_b, codes_a, now);
        mcuq_mve_finish_row(codes_a, output, now, bits, p->clamp_lo, p->clamp_hi);
        a += CHUNK * bits_a / 8u;
        b += CHUNK * bits_b / 8u;
        output += CHUNK * bits / 8u;
        count -= now;
    }
}

void mcuq_add_packed_mve(const mcuq_add_params *p, const void *a, const void *b, void *output)
{
    const uint32_t channels = p->shape.channels, bits = p->shape.bits;
    uint32_t pixels = (uint32_t)p->shape.height * p->shape.width;
    uint32_t run = channels;
    if (channels * p->bits_a % 8u == 0 && channels * p->bits_b % 8u == 0 && channels * bits % 8u == 0) {
        run *= pixels; /* no bits are left over behind a pixel */
        pixels = 1;
    }
    const uint8_t *xa = a, *xb = b;
    uint8_t *y = output;
    for (; pixels > 0; pixels--) {
        sum_codes(p, xa, xb, y, run);
        xa += mcuq_row_bytes(run, p->bits_a);
        xb += mcuq_row_bytes(run, p->bits_b);
        y += mcuq_row_bytes(run, bits);
    }
}
