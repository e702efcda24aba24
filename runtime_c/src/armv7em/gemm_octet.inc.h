/* Panels of 8 channels x 1 pixel (gemm_octets.S, gemm_direct.S): starts, the products of a pair r10, recovery, storing. */

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

.macro START_QUAD a, b, c, d, shift_b, shift_c
    add     \a, \a, r10
    add     \b, \b, r10, lsl #\shift_b
    add     \c, \c, r10, lsl #\shift_c
    mla     \d, r10, r11, \d
.endm

.macro START4
    ldm     r8!, {r0-r7}
    ldr     r10, [sp, #SUMS]
    movw    r11, #273
    START_QUAD r0, r1, r2, r3, 4, 8
    START_QUAD r4, r5, r6, r7, 4, 8
.endm

.macro START2
    ldm     r8!, {r0-r7}
    ldr     r10, [sp, #SUMS]
    mov     r11, #85
    START_QUAD r0, r1, r2, r3, 2, 4
    START_QUAD r4, r5, r6, r7, 2, 4
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

.macro QUAD4 w, a, b, c, d
    and     lr, \w, #0x000F000F
    smlad   \a, r10, lr, \a
    and     lr, \w, #0x00F000F0
    smlad   \b, r10, lr, \b
    and     lr, \w, #0x0F000F00
    smlad   \c, r10, lr, \c
    smlad   \d, r10, \w, \d
.endm

.macro QUAD2 w, a, b, c, d
    and     lr, \w, #0x00030003
    smlad   \a, r10, lr, \a
    and     lr, \w, #0x000C000C
    smlad   \b, r10, lr, \b
    and     lr, \w, #0x00300030
    smlad   \c, r10, lr, \c
    smlad   \d, r10, \w, \d
.endm

.macro RECOVER8
    sub     r1, r1, r0
    sub     r3, r3, r2
    sub     r5, r5, r4
    sub     r7, r7, r6
.endm

.macro RECOVER_QUADS
    sub     r3, r3, r0
    sub     r3, r3, r1
    sub     r3, r3, r2
    sub     r7, r7, r4
    sub     r7, r7, r5
    sub     r7, r7, r6
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
