/* 3 x 3 depthwise: rows of one channel from its plane of int16 inputs.
 *
 * Stride 1, two neighbouring outputs a and d: of each kernel row u = (x0, x1), v = (x2, x3), 4 instructions for
 * 6 products:  a += u . (w0, w1) + v.low * w2     d += u.high * w0 + v . (w1, w2)
 * Requantization as in gemm.inc.h. r0 u, r1 v, r2 a, r3 d, r4 output, r5 v, r6-r11 weights, r12 multiplier,
 * lr plane; the rest lies at sp. A row is a chain of 3 to 7 blocks, entered where as many remain as are wanted.
 * _twice: two roundings, as REQUANTIZE_TWICE of gemm.inc.h; weights and bias are doubled.
 */
#if defined(__ARM_FEATURE_DSP) /* elsewhere depthwise3x3_model.c stands in */

    .syntax unified
    .thumb

    .equ BIAS, 0
    .equ ROUNDING, 4
    .equ CHANNELS, 8
    .equ STEP, 12
    .equ END, 16
    .equ ENTRY, 20
    .equ FRAME, 28

.macro PAIR plane, pitch
    ldr     r2, [sp, #BIAS]
    ldrd    r0, r1, [lr, #\plane]
    smlatb  r3, r0, r6, r2
    smlad   r2, r0, r6, r2
    smlad   r3, r1, r7, r3
    smlabt  r2, r1, r7, r2
    ldrd    r0, r1, [lr, #\plane + \pitch]
    smlatb  r3, r0, r8, r3
    smlad   r2, r0, r8, r2
    smlad   r3, r1, r9, r3
    smlabt  r2, r1, r9, r2
    ldrd    r0, r1, [lr, #\plane + 2 * \pitch]
    smlatb  r3, r0, r10, r3
    smlad   r2, r0, r10, r2
    smlad   r3, r1, r11, r3
    smlabt  r2, r1, r11, r2
    .if twice
    ldr     r0, [sp, #ROUNDING]
    add     r1, r0, r2, asr #31
    add     r0, r0, r3, asr #31
    smmlar  r2, r2, r12, r1
    smmlar  r3, r3, r12, r0
    ldr     r1, [sp, #CHANNELS]
    .else
    ldrd    r0, r1, [sp, #ROUNDING]
    smmla   r2, r2, r12, r0
    smmla   r3, r3, r12, r0
    .endif
    asrs    r2, r2, r5
    asrs    r3, r3, r5
    ssat    r2, #8, r2, asr #1
    ssat    r3, #8, r3, asr #1
    strb    r2, [r4]
    strb    r3, [r4, r1]
    add     r4, r4, r1, lsl #1
.endm

.macro ONE plane, pitch
    ldr     r2, [sp, #BIAS]
    ldrd    r0, r1, [lr, #\plane]
    smlad   r2, r0, r6, r2
    smlabt  r2, r1, r7, r2
    ldrd    r0, r1, [lr, #\plane + \pitch]
    smlad   r2, r0, r8, r2
    smlabt  r2, r1, r9, r2
    ldrd    r0, r1, [lr, #\plane + 2 * \pitch]
    smlad   r2, r0, r10, r2
    smlabt  r2, r1, r11, r2
    ldrd    r0, r1, [sp, #ROUNDING]
    .if twice
    add     r0, r0, r2, asr #31
    smmlar  r2, r2, r12, r0
    .else
    smmla   r2, r2, r12, r0
    .endif
    asrs    r2, r2, r5
    ssat    r2, #8, r2, asr #1
    strb    r2, [r4]
.endm

/* \rounded: _twice, or nothing. */
.macro ROWS name, stride, pitch, chain, rounded
    .set twice, 0
    .ifnb \rounded
    .set twice, 1
    .endif
    .section .text.\name, "ax", %progbits
    .balign 4
    .global \name
    .type \name, %function
    .thumb_func
\name:
    push    {r4-r11, lr}
    sub     sp, sp, #FRAME
    ldmia   r0!, {r1-r8}
    /* Blocks left out are skipped in code and, by moving lr and the end back, in the plane. */
    rsb     r9, r6, #\chain
    .if \stride == 1
    cmp     r6, #0
    it      eq
    moveq   r9, #0
    .endif
    sub     lr, r7, r9, lsl #2
    sub     r5, r5, r9, lsl #2
    stm     sp, {r1-r5}
    mov     r4, r8
    mov     r2, #(3f - 2f) / \chain
    adr.w   r3, 2f
    mla     r3, r9, r2, r3
    .if \stride == 1
    it      eq
    adreq.w r3, 4f
    .endif
    orr     r3, r3, #1
    str     r3, [sp, #ENTRY]
    ldm     r0, {r5-r12}
1:  ldr.w   pc, [sp, #ENTRY]
    .balign 4
2:
    .set block, 0
    .rept \chain
    .if \stride == 1
    PAIR    4 * block, \pitch
    .else
    ONE     4 * block, \pitch
    add     r4, r4, r1
    .endif
    .set block, block + 1
    .endr
3:
    add     lr, lr, #\stride * \pitch
    ldr     r0, [sp, #STEP]
    add     r4, r4, r0
    ldr     r0, [sp, #END]
    cmp     lr, r0
    bne.w   1b
    add     sp, sp, #FRAME
    pop     {r4-r11, pc}
    .if \stride == 1
    .balign 4
4:
    ONE     0, \pitch
    b.w     3b
    .endif
.endm

/* Two pixels of two channels: 8 instructions for 4 inputs. r0 codes, r1 channels, r2 and r3 planes. */
.macro GATHER_TWO
    ldrh    r5, [r0]
    ldrh    r6, [r0, r1]
    add     r0, r0, r1, lsl #1
    pkhbt   r5, r5, r6, lsl #16
    sxtb16  r6, r5
    sxtb16  r5, r5, ror #8
    str     r6, [r2], #4
    str     r5, [r3], #4
.endm

    .section .text.mcuq_depthwise_gather8, "ax", %progbits
    .balign 4
    .global mcuq_depthwise_gather8
    .type mcuq_depthwise_gather8, %function
    .thumb_func
mcuq_depthwise_gather8:
    push    {r4-r11, lr}
    ldm     r0, {r0-r7}
    mov     r8, r0              /* codes of the row */
    mov     r9, r6              /* row_bytes */
    mov     r10, r7             /* plane_step */
    mov     r7, r5              /* rows */
    ands    lr, r4, #1          /* one more pixel */
    lsr     r12, r4, #1         /* pairs */
    and     r4, r12, #7
    rsb     r4, r4, #8          /* steps left out of the first pass; 8: an empty first pass */
    mov     r5, #(3f - 2f) / 8
    adr.w   r11, 2f
    mla     r11, r4, r5, r11
    orr     r11, r11, #1
    lsr     r12, r12, #3        /* whole passes */
1:  mov     r0, r8
    add     r8, r8, r9
    mov     r4, r12
    bx      r11
    .balign 4
2:
    .rept 8
    GATHER_TWO
    .endr
3:
    subs    r4, r4, #1
    bpl.w   2b
    cmp     lr, #0
    beq     4f
    ldrsb   r5, [r0]
    ldrsb   r6, [r0, #1]
    strh    r5, [r2], #2
    strh    r6, [r3], #2
4:
    add     r2, r2, r10
    add     r3, r3, r10
    subs    r7, r7, #1
    bne.w   1b
    pop     {r4-r11, pc}

/* The same of codes of \bits: r5 holds both channels of both pixels; r7 mask, r9 shift. */
.macro GATHER_TWO_PACKED bits
    ldrb    r5, [r0]
    ldrb    r6, [r0, r1]
    add     r0, r0, r1, lsl #1
    orr     r5, r5, r6, lsl #16
    .if \bits == 2
    lsr     r5, r5, r9
    .endif
    and     r6, r7, r5
    and     r5, r7, r5, lsr #\bits
    str     r6, [r2], #4
    str     r5, [r3], #4
.endm

/* gather8 with rows and row_bytes at sp. */
.macro GATHER_PACKED bits
    .section .text.mcuq_depthwise_gather\bits, "ax", %progbits
    .balign 4
    .global mcuq_depthwise_gather\bits
    .type mcuq_depthwise_gather\bits, %function
    .thumb_func
mcuq_depthwise_gather\bits:
    push    {r4-r11, lr}
    sub     sp, sp, #12
    mov     r9, r1
    ldm     r0, {r0-r7}
    strd    r5, r6, [sp]
    mov     r8, r0
    mov     r10, r7
    mov     r7, #((1 << \bits) - 1) * 0x00010001
    ands    lr, r4, #1
    lsr     r12, r4, #1
    and     r4, r12, #3
    rsb     r4, r4, #4
    mov     r5, #(3f - 2f) / 4
    adr.w   r11, 2f
    mla     r11, r4, r5, r11
    orr     r11, r11, #1
    lsr     r12, r12, #2
1:  mov     r0, r8
    ldr     r5, [sp, #4]
    add     r8, r8, r5
    mov     r4, r12
    bx      r11
    .balign 4
2:
    .rept 4
    GATHER_TWO_PACKED \bits
    .endr
3:
    subs    r4, r4, #1
    bpl.w   2b
    cmp     lr, #0
    beq     4f
    ldrb    r5, [r0]
    lsr     r5, r5, r9
    and     r6, r7, r5
    and     r5, r7, r5, lsr #\bits
    strh    r6, [r2], #2
    strh    r5, [r3], #2
4:
    add     r2, r2, r10
    add     r3, r3, r10
    ldr     r5, [sp]
    subs    r5, r5, #1
    str     r5, [sp]
    bne.w   1b
    add     sp, sp, #12
    pop     {r4-r11, pc}
.endm

    GATHER_PACKED 4
    GATHER_PACKED 2

    /* MCUQ_DEPTHWISE_CHAIN_* of depthwise3x3.h: rows of 16 and 32 bytes hold no more blocks. */
    .irp    suffix, , _twice
    ROWS    mcuq_depthwise_rows_s1_p16\suffix, 1, 16, 3, \suffix
    ROWS    mcuq_depthwise_rows_s1_p32\suffix, 1, 32, 7, \suffix
    ROWS    mcuq_depthwise_rows_s1_p64\suffix, 1, 64, 4, \suffix
    ROWS    mcuq_depthwise_rows_s1_p128\suffix, 1, 128, 4, \suffix
    ROWS    mcuq_depthwise_rows_s1_p256\suffix, 1, 256, 4, \suffix
    ROWS    mcuq_depthwise_rows_s2_p16\suffix, 2, 16, 3, \suffix
    ROWS    mcuq_depthwise_rows_s2_p32\suffix, 2, 32, 3, \suffix
    ROWS    mcuq_depthwise_rows_s2_p64\suffix, 2, 64, 3, \suffix
    ROWS    mcuq_depthwise_rows_s2_p128\suffix, 2, 128, 3, \suffix
    ROWS    mcuq_depthwise_rows_s2_p256\suffix, 2, 256, 3, \suffix
    .endr

#elif defined(__linux__)
    .section .note.GNU-stack, "", %progbits
#endif
