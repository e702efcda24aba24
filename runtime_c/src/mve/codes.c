#include "codes.h"

/* A widening load puts each packed byte into a lane as wide as its codes take as bytes; VSLI copies the lane to where its
 * second, third, fourth code belongs, and VAND leaves one code in each byte. */
int8_t *mcuq_mve_expand(int8_t *to, const uint8_t *codes, uint32_t count, uint32_t bits)
{
    int8_t *const end = to + count;
    if (bits == 8)
        __asm__ volatile("wlstp.8 lr, %2, 2f\n"
                         "1: vldrb.u8 q0, [%1], #16\n"
                         "vstrb.8 q0, [%0], #16\n"
                         "letp lr, 1b\n"
                         "2:"
                         : "+r"(to), "+r"(codes)
                         : "r"(count)
                         : "q0", "lr", "memory");
    else if (bits == 4)
        __asm__ volatile("vmov.i8 q1, #15\n"
                         "wlstp.8 lr, %2, 2f\n"
                         "1: vldrb.u16 q0, [%1], #8\n"
                         "vsli.16 q0, q0, #4\n"
                         "vand q0, q0, q1\n"
                         "vstrb.8 q0, [%0], #16\n"
                         "letp lr, 1b\n"
                         "2:"
                         : "+r"(to), "+l"(codes)
                         : "r"(count)
                         : "q0", "q1", "lr", "memory");
    else
        __asm__ volatile("vmov.i8 q1, #3\n"
                         "wlstp.8 lr, %2, 2f\n"
                         "1: vldrb.u32 q0, [%1], #4\n"
                         "vsli.32 q0, q0, #6\n"
                         "vsli.32 q0, q0, #12\n"
                         "vand q0, q0, q1\n"
                         "vstrb.8 q0, [%0], #16\n"
                         "letp lr, 1b\n"
                         "2:"
                         : "+r"(to), "+l"(codes)
                         : "r"(count)
                         : "q0", "q1", "lr", "memory");
    return end;
}

/* Codes of a 16- or 32-bit lane are brought together in its lowest byte, which a narrowing store takes. */
void mcuq_mve_finish_row(const int8_t *row, uint8_t *out, uint32_t count, uint32_t bits, int32_t lo, int32_t hi)
{
#define CLAMPED \
    "vdup.8 q1, %3\n" \
    "vdup.8 q2, %4\n" \
    "wlstp.8 lr, %2, 2f\n" \
    "1: vldrb.u8 q0, [%0], #16\n" \
    "vmax.s8 q0, q0, q1\n" \
    "vmin.s8 q0, q0, q2\n"
    if (bits == 8)
        __asm__ volatile(CLAMPED "vstrb.8 q0, [%1], #16\n"
                                 "letp lr, 1b\n"
                                 "2:"
                         : "+r"(row), "+r"(out)
                         : "r"(count), "r"(lo), "r"(hi)
                         : "q0", "q1", "q2", "lr", "memory");
    else if (bits == 4)
        __asm__ volatile(CLAMPED "vshr.u16 q3, q0, #4\n"
                                 "vorr q0, q0, q3\n"
                                 "vstrb.16 q0, [%1], #8\n"
                                 "letp lr, 1b\n"
                                 "2:"
                         : "+r"(row), "+l"(out)
                         : "r"(count), "r"(lo), "r"(hi)
                         : "q0", "q1", "q2", "q3", "lr", "memory");
    else
        __asm__ volatile(CLAMPED "vshr.u32 q3, q0, #12\n"
                                 "vorr q0, q0, q3\n"
                                 "vshr.u32 q3, q0, #6\n"
                                 "vorr q0, q0, q3\n"
                                 "vstrb.32 q0, [%1], #4\n"
                                 "letp lr, 1b\n"
                                 "2:"
                         : "+r"(row), "+l"(out)
                         : "r"(count), "r"(lo), "r"(hi)
                         : "q0", "q1", "q2", "q3", "lr", "memory");
#undef CLAMPED
}
