/* 8-bit weights: panels of 2 channels x 4 pixels.
 *
 * Weight word of one pair of inputs (k, k'), channels A and B:  | B(k') | A(k') | B(k) | A(k) |  (bits 31..0)
 * mcuq_gemm_w8:  A stored + 128. Accumulator a sums x * (A + 128); b is fed the raw word, whose half words are
 *   256 * B + (A + 128), so 256 * B = b - a: B needs no unpacking. Holds while 256 * |acc B| < 2^31.
 * mcuq_gemm_w8c: A and B signed and both unpacked; no range condition.
 * Panel: header (bias A, bias B), words, multipliers of A and B.
 * _twice: with two roundings. Behind the multipliers a word: shifts of A and B less 32, in its first two bytes.
 */
#if defined(__ARM_FEATURE_DSP) /* elsewhere gemm_model.c stands in */

#include "gemm.inc.h"

.macro MACS
    smlad   r0, r10, lr, r0
    smlad   r4, r10, r12, r4
    smlad   r1, r11, lr, r1
    smlad   r5, r11, r12, r5
    ldrd    r10, r11, [r9], #8
    smlad   r2, r10, lr, r2
    smlad   r6, r10, r12, r6
    smlad   r3, r11, lr, r3
    smlad   r7, r11, r12, r7
.endm

.macro STEPS_SHARED
    .rept 16
    ldr     r12, [r8], #4
    ldrd    r10, r11, [r9], #8
    uxtb16  lr, r12
    MACS
    .endr
.endm

.macro STEPS_CLEAN
    .rept 16
    ldr     r12, [r8], #4
    ldrd    r10, r11, [r9], #8
    sxtb16  lr, r12
    sxtb16  r12, r12, ror #8
    MACS
    .endr
.endm

/* Codes of r0-r3 (channel A) and r4-r7 (B) to their places. */
.macro STORE_CODES
    ldrd    r9, r10, [sp, #OUTPUT]
    bfi     r0, r4, #8, #8
    bfi     r1, r5, #8, #8
    bfi     r2, r6, #8, #8
    bfi     r3, r7, #8, #8
    strh    r1, [r9, r10]
    strh    r2, [r9, r10, lsl #1]
    add     r10, r10, r10, lsl #1
    strh    r3, [r9, r10]
    strh    r0, [r9], #2
    str     r9, [sp, #OUTPUT]
    NEXT_PANEL
.endm

/* \position: log2 of B's. */
.macro STORE_PANEL position
    LOAD_ROUNDING
    ldrd    r9, r11, [r8], #8
    REQUANTIZE r9, 0, r0, r1, r2, r3
    .if \position
    lsl     r12, r12, #\position
    .endif
    REQUANTIZE r11, \position, r4, r5, r6, r7
    STORE_CODES
.endm

.macro DOUBLE regs:vararg
    .irp r, \regs
    add     \r, \r, \r
    .endr
.endm

/* All sums twice their value. */
.macro STORE_PANEL_TWICE
    ldrd    r9, r11, [r8], #8
    ldr     r10, [r8], #4
    ldr     r12, [sp, #ROUNDING] /* 2 * zero_point + 1 */
    lsl     r12, r12, r10
    REQUANTIZE_TWICE r9, r0, r1, r2, r3
    lsr     r10, r10, #8
    ldr     r12, [sp, #ROUNDING]
    lsl     r12, r12, r10
    REQUANTIZE_TWICE r11, r4, r5, r6, r7
    STORE_CODES
.endm

.macro RECOVER_B
    sub     r4, r4, r0
    sub     r5, r5, r1
    sub     r6, r6, r2
    sub     r7, r7, r3
.endm

/* Symmetric weights; SUMS = -128 * sum x. Header: bias A, 256 * bias B. */
.macro SUMS_SHARED
    PROLOGUE 48
0:  ldrd    r10, r11, [r8], #8
    ldrd    r12, lr, [sp, #SUMS]
    add     r0, r10, r12
    add     r1, r10, lr
    ldrd    r12, lr, [sp, #SUMS + 8]
    add     r2, r10, r12
    add     r3, r10, lr
    add     r4, r11, r0
    add     r5, r11, r1
    add     r6, r11, r2
    add     r7, r11, r3
    ENTER_LOOP
    STEPS_SHARED
    LOOP_END
    RECOVER_B
.endm

FUNCTION mcuq_gemm_w8
    SUMS_SHARED
    STORE_PANEL 8

FUNCTION mcuq_gemm_w8_twice
    SUMS_SHARED
    DOUBLE  r0, r1, r2, r3
    .irp    r, r4, r5, r6, r7
    asr     \r, \r, #7
    .endr
    STORE_PANEL_TWICE

/* Weight zero points; SUMS = sum x. Header: (bias A, -(128 + zero A)), (256 * bias B + bias A, factor B). */
FUNCTION mcuq_gemm_w8z
    PROLOGUE 48
0:  ldrd    r10, r11, [r8], #8
    ldrd    r12, lr, [sp, #SUMS]
    ldrd    r2, r3, [sp, #SUMS + 8]
    mov     r6, r2
    mov     r7, r3
    mla     r0, r11, r12, r10
    mla     r1, r11, lr, r10
    mla     r2, r11, r2, r10
    mla     r3, r11, r3, r10
    ldrd    r10, r11, [r8], #8
    mla     r4, r11, r12, r10
    mla     r5, r11, lr, r10
    mla     r6, r11, r6, r10
    mla     r7, r11, r7, r10
    ENTER_LOOP
    STEPS_SHARED
    LOOP_END
    RECOVER_B
    STORE_PANEL 8

/* No range condition, with weight zero points; SUMS = sum x. Header: (bias, -zero) of A and of B. */
.macro SUMS_CLEAN
    PROLOGUE 52
0:  ldrd    r10, r11, [r8], #8
    ldrd    r12, lr, [sp, #SUMS]
    ldrd    r2, r3, [sp, #SUMS + 8]
    mov     r6, r2
    mov     r7, r3
    mla     r0, r11, r12, r10
    mla     r1, r11, lr, r10
    mla     r2, r11, r2, r10
    mla     r3, r11, r3, r10
    ldrd    r10, r11, [r8], #8
    mla     r4, r11, r12, r10
    mla     r5, r11, lr, r10
    mla     r6, r11, r6, r10
    mla     r7, r11, r7, r10
    ENTER_LOOP
    STEPS_CLEAN
    LOOP_END
.endm

FUNCTION mcuq_gemm_w8c
    SUMS_CLEAN
    STORE_PANEL 0

FUNCTION mcuq_gemm_w8c_twice
    SUMS_CLEAN
    DOUBLE  r0, r1, r2, r3, r4, r5, r6, r7
    STORE_PANEL_TWICE

#elif defined(__linux__)
    .section .note.GNU-stack, "", %progbits
#endif
