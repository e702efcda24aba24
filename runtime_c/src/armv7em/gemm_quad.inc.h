/* Start and end of panels of 4 channels x 2 pixels: A in r0, r1; B in r2, r3; C in r4, r5; D in r6, r7. */

/* An input counts once for the offset of every channel in a sum: 1, 17, 273 and again 273 times (D has none). */
.macro QUAD_START_4
    ldmia   r8!, {r0, r2, r4, r6}
    ldrd    r10, r11, [sp, #SUMS]
    add     r1, r0, r11
    add     r0, r0, r10
    add     lr, r11, r11, lsl #4
    add     r12, r10, r10, lsl #4
    add     r3, r2, lr
    add     r2, r2, r12
    add     lr, lr, r11, lsl #8
    add     r12, r12, r10, lsl #8
    add     r5, r4, lr
    add     r4, r4, r12
    add     r7, r6, lr
    add     r6, r6, r12
.endm

/* 1, 5, 21 and 85 times. */
.macro QUAD_START_2
    ldmia   r8!, {r0, r2, r4, r6}
    ldrd    r10, r11, [sp, #SUMS]
    add     r1, r0, r11
    add     r0, r0, r10
    add     lr, r11, r11, lsl #2
    add     r12, r10, r10, lsl #2
    add     r3, r2, lr
    add     r2, r2, r12
    add     lr, r11, lr, lsl #2
    add     r12, r10, r12, lsl #2
    add     r5, r4, lr
    add     r4, r4, r12
    add     lr, r11, lr, lsl #2
    add     r12, r10, r12, lsl #2
    add     r7, r6, lr
    add     r6, r6, r12
.endm

.macro QUAD_START_ZERO_POINTS
    ldrd    r10, r11, [sp, #SUMS]
    ldrd    r0, lr, [r8], #8
    mla     r1, lr, r11, r0
    mla     r0, lr, r10, r0
    ldrd    r2, lr, [r8], #8
    mla     r3, lr, r11, r2
    mla     r2, lr, r10, r2
    ldrd    r4, lr, [r8], #8
    mla     r5, lr, r11, r4
    mla     r4, lr, r10, r4
    ldrd    r6, lr, [r8], #8
    mla     r7, lr, r11, r6
    mla     r6, lr, r10, r6
.endm

/* \bits: of a weight; each channel's position is 2^\bits times the one before it. */
.macro QUAD_STORE bits
    sub     r6, r6, r4
    sub     r7, r7, r5
    sub     r4, r4, r2
    sub     r5, r5, r3
    sub     r2, r2, r0
    sub     r3, r3, r1
    LOAD_ROUNDING
    ldrd    r9, r11, [r8], #8
    REQUANTIZE r9, 0, r0, r1
    lsl     r12, r12, #\bits
    REQUANTIZE r11, \bits, r2, r3
    ldrd    r9, r11, [r8], #8
    lsl     r12, r12, #\bits
    REQUANTIZE r9, 2 * \bits, r4, r5
    lsl     r12, r12, #\bits
    REQUANTIZE r11, 3 * \bits, r6, r7
    ldrd    r9, r10, [sp, #OUTPUT]
    bfi     r0, r2, #8, #8
    bfi     r4, r6, #8, #8
    pkhbt   r0, r0, r4, lsl #16
    bfi     r1, r3, #8, #8
    bfi     r5, r7, #8, #8
    pkhbt   r1, r1, r5, lsl #16
    str     r1, [r9, r10]
    str     r0, [r9], #4
    str     r9, [sp, #OUTPUT]
    NEXT_PANEL
.endm
