/* Panels of 8 channels x 1 pixel, for fully connected layers: per pair of inputs the words of four pairs of channels
 * (8-bit weights, as in gemm_w8.S), of two quads (4-bit, gemm_w4.S), or one word whose bytes 0, 2 and 1, 3 are two
 * quads (2-bit, gemm_w2.S). Range conditions are those files'. Panel: 8 header entries, words, 8 (multiplier, v).
 */
#if defined(__ARM_FEATURE_DSP) /* elsewhere gemm_model.c stands in */

#include "gemm.inc.h"

.macro START_ZERO_POINTS
    ldr     r10, [sp, #SUMS]
    .irp r, r0, r1, r2, r3, r4, r5, r6, r7
    ldrd    r11, r12, [r8], #8
    mla     \r, r12, r10, r11
    .endr
.endm

.macro STORE_OCTET
    ldr     r12, [sp, #ROUNDING]
    .irp r, r0, r1, r2, r3, r4, r5, r6, r7
    REQUANTIZE r12, \r
    .endr
    bfi     r0, r1, #8, #8
    bfi     r2, r3, #8, #8
    pkhbt   r0, r0, r2, lsl #16
    bfi     r4, r5, #8, #8
    bfi     r6, r7, #8, #8
    pkhbt   r4, r4, r6, lsl #16
    ldr     r9, [sp, #OUTPUT]
    str     r4, [r9, #4]
    str     r0, [r9], #8
    str     r9, [sp, #OUTPUT]
    NEXT_PANEL
.endm

/* ---- 8 bits ---- */

.macro PAIR8 w, a, b
    uxtb16  lr, \w
    smlad   \a, r10, lr, \a
    smlad   \b, r10, \w, \b
.endm

.macro STEPS8
    .rept 16
    ldr     r10, [r9], #4
    ldrd    r11, r12, [r8], #8
    PAIR8   r11, r0, r1
    PAIR8   r12, r2, r3
    ldrd    r11, r12, [r8], #8
    PAIR8   r11, r4, r5
    PAIR8   r12, r6, r7
    .endr
.endm

.macro RECOVER8
    sub     r1, r1, r0
    sub     r3, r3, r2
    sub     r5, r5, r4
    sub     r7, r7, r6
.endm

FUNCTION mcuq_gemm_octets8
    PROLOGUE 60
0:  ldm     r8!, {r0-r7}
    ldr     r10, [sp, #SUMS]
    add     r0, r0, r10
    add     r1, r1, r0
    add     r2, r2, r10
    add     r3, r3, r2
    add     r4, r4, r10
    add     r5, r5, r4
    add     r6, r6, r10
    add     r7, r7, r6
    ENTER_LOOP
    STEPS8
    LOOP_END
    RECOVER8
    STORE_OCTET

FUNCTION mcuq_gemm_octets8z
    PROLOGUE 60
0:  START_ZERO_POINTS
    ENTER_LOOP
    STEPS8
    LOOP_END
    RECOVER8
    STORE_OCTET

/* ---- 4 bits ---- */

.macro START_QUAD a, b, c, d, shift_b, shift_c
    add     \a, \a, r10
    add     \b, \b, r10, lsl #\shift_b
    add     \c, \c, r10, lsl #\shift_c
    mla     \d, r10, r11, \d
.endm

.macro QUAD4 w, a, b, c, d
    and     lr, \w, #0x000F000F
    smlad   \a, r10, lr, \a
    and     lr, \w, #0x00F000F0
    smlad   \b, r10, lr, \b
    and     lr, \w, #0x0F000F00
    smlad   \c, r10, lr, \c
    smlad   \d, r10, \w, \d
.endm

.macro STEPS4
    .rept 16
    ldr     r10, [r9], #4
    ldrd    r11, r12, [r8], #8
    QUAD4   r11, r0, r1, r2, r3
    QUAD4   r12, r4, r5, r6, r7
    .endr
.endm

.macro RECOVER_QUADS
    sub     r3, r3, r0
    sub     r3, r3, r1
    sub     r3, r3, r2
    sub     r7, r7, r4
    sub     r7, r7, r5
    sub     r7, r7, r6
.endm

FUNCTION mcuq_gemm_octets4
    PROLOGUE 64
0:  ldm     r8!, {r0-r7}
    ldr     r10, [sp, #SUMS]
    movw    r11, #273
    START_QUAD r0, r1, r2, r3, 4, 8
    START_QUAD r4, r5, r6, r7, 4, 8
    ENTER_LOOP
    STEPS4
    LOOP_END
    RECOVER_QUADS
    STORE_OCTET

FUNCTION mcuq_gemm_octets4z
    PROLOGUE 64
0:  START_ZERO_POINTS
    ENTER_LOOP
    STEPS4
    LOOP_END
    RECOVER_QUADS
    STORE_OCTET

/* ---- 2 bits ---- */

.macro QUAD2 w, a, b, c, d
    and     lr, \w, #0x00030003
    smlad   \a, r10, lr, \a
    and     lr, \w, #0x000C000C
    smlad   \b, r10, lr, \b
    and     lr, \w, #0x00300030
    smlad   \c, r10, lr, \c
    smlad   \d, r10, \w, \d
.endm

.macro STEPS2
    .rept 16
    ldr     r10, [r9], #4
    ldr     r11, [r8], #4
    uxtb16  r12, r11
    QUAD2   r12, r0, r1, r2, r3
    uxtb16  r12, r11, ror #8
    QUAD2   r12, r4, r5, r6, r7
    .endr
.endm

FUNCTION mcuq_gemm_octets2
    PROLOGUE 72
0:  ldm     r8!, {r0-r7}
    ldr     r10, [sp, #SUMS]
    mov     r11, #85
    START_QUAD r0, r1, r2, r3, 2, 4
    START_QUAD r4, r5, r6, r7, 2, 4
    ENTER_LOOP
    STEPS2
    LOOP_END
    RECOVER_QUADS
    STORE_OCTET

FUNCTION mcuq_gemm_octets2z
    PROLOGUE 72
0:  START_ZERO_POINTS
    ENTER_LOOP
    STEPS2
    LOOP_END
    RECOVER_QUADS
    STORE_OCTET

#elif defined(__linux__)
    .section .note.GNU-stack, "", %progbits
#endif
