/* 2-bit weights with 2- or 4-bit inputs: 2 channels x 4 pixels, two pixels in every half word of a column.
 *
 * Column half word: x(pixel 0) + x(pixel 1) * 2^S, so that one SMLAD makes four products. A sum's low S bits are
 * pixel 0's as long as it stays below 2^S: products are at most 9 (2-bit inputs, S = 13: 910 of them, the whole
 * column) or 45 (4-bit inputs, S = 11: 40 of 45, then sums are moved to words of the frame).
 * Weight half word: | B3 | A3 | .. | B0 | A0 | crumbs of four pairs of inputs, stored + 2.
 * Symmetric weights; SUMS = -2 * SCALE * sum x. Panel: words, then bias A, bias B, multipliers of A and B.
 * r0, r1: A of pixels 0, 1 and 2, 3; r2, r3: B; r7 mask.
 */
#if defined(__ARM_FEATURE_DSP) /* elsewhere gemm_model.c stands in */

#include "gemm.inc.h"

.macro CRUMB shift, first, second
    .if \shift == 0
    and.w   lr, r7, r12
    .else
    and     lr, r7, r12, lsr #\shift
    .endif
    smlad   \first, r10, lr, \first
    smlad   \second, r11, lr, \second
.endm

.macro STEP
    ldr     r12, [r8], #4
    .irp shift, 0, 4, 8, 12
    ldrd    r10, r11, [r9], #8
    CRUMB   \shift, r0, r1
    CRUMB   \shift + 2, r2, r3
    .endr
.endm

.macro CLEAR
    mov     r0, #0
    mov     r1, #0
    mov     r2, #0
    mov     r3, #0
.endm

.macro PROLOGUE_LANES
    PROLOGUE 116
    ldr     r1, [r0, #16]
    str     r1, [sp, #SCALE]
.endm

/* Pixel sums in r4-r7 (A) and r0-r3 (B), times SCALE, to outputs. */
.macro STORE_LANES
    ldr     r9, [sp, #SCALE]
    ldrd    r12, lr, [sp, #SUMS]
    ldrd    r10, r11, [r8], #8
    mla     r4, r4, r9, r12
    mla     r5, r5, r9, lr
    mla     r0, r0, r9, r12
    mla     r1, r1, r9, lr
    ldrd    r12, lr, [sp, #SUMS + 8]
    mla     r6, r6, r9, r12
    mla     r7, r7, r9, lr
    mla     r2, r2, r9, r12
    mla     r3, r3, r9, lr
    .irp r, r4, r5, r6, r7
    add     \r, \r, r10
    .endr
    .irp r, r0, r1, r2, r3
    add     \r, \r, r11
    .endr
    LOAD_ROUNDING
    ldrd    r9, r11, [r8], #8
    REQUANTIZE r9, 0, r4, r5, r6, r7
    REQUANTIZE r11, 0, r0, r1, r2, r3
    ldrd    r9, r10, [sp, #OUTPUT]
    bfi     r4, r0, #8, #8
    bfi     r5, r1, #8, #8
    bfi     r6, r2, #8, #8
    bfi     r7, r3, #8, #8
    strh    r5, [r9, r10]
    strh    r6, [r9, r10, lsl #1]
    add     r10, r10, r10, lsl #1
    strh    r7, [r9, r10]
    strh    r4, [r9], #2
    str     r9, [sp, #OUTPUT]
    NEXT_PANEL
.endm

FUNCTION mcuq_gemm_lanes2
    PROLOGUE_LANES
0:  CLEAR
    mov     r7, #0x00030003
    ENTER_LOOP
    .rept 8
    STEP
    .endr
    LOOP_END
    ubfx    r4, r0, #0, #13
    lsr     r5, r0, #13
    ubfx    r6, r1, #0, #13
    lsr     r7, r1, #13
    ubfx    r0, r2, #0, #13
    lsr     r1, r2, #13
    ubfx    r2, r3, #0, #13
    lsr     r3, r3, #13
    STORE_LANES

.macro FLUSH sum, at
    ldrd    r4, r5, [sp, #WIDE + \at]
    ubfx    r6, \sum, #0, #11
    add     r4, r4, r6
    add     r5, r5, \sum, lsr #11
    strd    r4, r5, [sp, #WIDE + \at]
    mov     \sum, #0
.endm

FUNCTION mcuq_gemm_lanes4
    PROLOGUE_LANES
0:  CLEAR
    strd    r0, r1, [sp, #WIDE]
    strd    r0, r1, [sp, #WIDE + 8]
    strd    r0, r1, [sp, #WIDE + 16]
    strd    r0, r1, [sp, #WIDE + 24]
    mov     r7, #0x00030003
    ENTER_LOOP
    .rept 5
    STEP
    .endr
    FLUSH   r0, 0
    FLUSH   r1, 8
    FLUSH   r2, 16
    FLUSH   r3, 24
    LOOP_END
    ldrd    r4, r5, [sp, #WIDE]
    ldrd    r6, r7, [sp, #WIDE + 8]
    ldrd    r0, r1, [sp, #WIDE + 16]
    ldrd    r2, r3, [sp, #WIDE + 24]
    STORE_LANES

#elif defined(__linux__)
    .section .note.GNU-stack, "", %progbits
#endif
