/* Panels of 8 channels x 1 pixel (gemm_octets.S, gemm_direct.S): starts, the products of a pair of inputs, recovery, storing. */

.macro START8
    ldm     r8!, {r0-r7}
    ldr     r10, [sp, #SUMS]
    add     r0, r0, r10
    add     r1, r1, r0
    add     r2, r2, r10
    add     r3, r3, r2
    add     r4, r4, r10
    add     r5, r5, r4
    add     r6, r6, r10
    add     r7, r7, r6
.endm

/* The factors of gemm_quad.inc.h times the input sum. */
.macro START4
    ldm     r8!, {r0-r7}
    ldr     r10, [sp, #SUMS]
    add     r11, r10, r10, lsl #4
    add     r12, r11, r10, lsl #8
    add     r0, r0, r10
    add     r1, r1, r11
    add     r2, r2, r12
    add     r3, r3, r12
    add     r4, r4, r10
    add     r5, r5, r11
    add     r6, r6, r12
    add     r7, r7, r12
.endm

.macro START2
    ldm     r8!, {r0-r7}
    ldr     r10, [sp, #SUMS]
    add     r11, r10, r10, lsl #2
    add     r12, r10, r11, lsl #2
    add     lr, r10, r12, lsl #2
    add     r0, r0, r10
    add     r1, r1, r11
    add     r2, r2, r12
    add     r3, r3, lr
    add     r4, r4, r10
    add     r5, r5, r11
    add     r6, r6, r12
    add     r7, r7, lr
.endm

.macro START_ZERO_POINTS
    ldr     r10, [sp, #SUMS]
    .irp r, r0, r1, r2, r3, r4, r5, r6, r7
    ldrd    r11, r12, [r8], #8
    mla     \r, r12, r10, r11
    .endr
.endm

.macro PAIR8 w, a, b
    uxtb16  lr, \w
    smlad   \a, r10, lr, \a
    smlad   \b, r10, \w, \b
.endm

/* Products of the pair \x; clears \w but for the first channel's codes. */
.macro QUAD4 x, w, a, b, c, d
    smlad   \d, \x, \w, \d
    bic     \w, \w, #0xF000F000
    smlad   \c, \x, \w, \c
    bic     \w, \w, #0x0F000F00
    smlad   \b, \x, \w, \b
    bic     \w, \w, #0x00F000F0
    smlad   \a, \x, \w, \a
.endm

.macro QUAD2 x, w, a, b, c, d
    smlad   \d, \x, \w, \d
    bic     \w, \w, #0x00C000C0
    smlad   \c, \x, \w, \c
    bic     \w, \w, #0x00300030
    smlad   \b, \x, \w, \b
    bic     \w, \w, #0x000C000C
    smlad   \a, \x, \w, \a
.endm

.macro RECOVER8
    sub     r1, r1, r0
    sub     r3, r3, r2
    sub     r5, r5, r4
    sub     r7, r7, r6
.endm

.macro RECOVER_QUADS
    sub     r3, r3, r2
    sub     r2, r2, r1
    sub     r1, r1, r0
    sub     r7, r7, r6
    sub     r6, r6, r5
    sub     r5, r5, r4
.endm

/* Requantizes \regs, all summed at 2^\position, with the multipliers at \from + \at, \step bytes apart. */
.macro AT_POSITION from, at, step, position, regs:vararg
    .set multiplier_at, \at
    .irp r, \regs
    ldr     r9, [\from, #multiplier_at]
    REQUANTIZE r9, \position, \r
    .set multiplier_at, multiplier_at + \step
    .endr
.endm

/* Requantizes all eight with the multipliers at \from; \bits: of a weight, as in gemm_w8.S and gemm_quad.inc.h. */
.macro REQUANTIZE_EIGHT from, bits
    LOAD_ROUNDING
    .if \bits == 8
    AT_POSITION \from, 0, 8, 0, r0, r2, r4, r6
    lsl     r12, r12, #8
    AT_POSITION \from, 4, 8, 8, r1, r3, r5, r7
    .else
    AT_POSITION \from, 0, 16, 0, r0, r4
    lsl     r12, r12, #\bits
    AT_POSITION \from, 4, 16, \bits, r1, r5
    lsl     r12, r12, #\bits
    AT_POSITION \from, 8, 16, 2 * \bits, r2, r6
    lsl     r12, r12, #\bits
    AT_POSITION \from, 12, 16, 3 * \bits, r3, r7
    .endif
.endm

.macro STORE_EIGHT
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
.endm
