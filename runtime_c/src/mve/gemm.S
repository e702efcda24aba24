/* Panels of 2 channels x 3 pixels (Helium). docs/kernels.md draws the panels.
 *
 * VMLADAVA adds 16 products to an even register: r0, r2, r4 are channel A's three pixels, r6, r8, r10 channel B's.
 * r1, r3, r5 walk the columns, r7 and r9 the weights of A and B; r11 is the panel, r12 the frame, lr the loop.
 * Loads of a tail are predicated: no byte outside a column or a channel's weights is touched, and lanes that are not
 * loaded are zero.
 *
 * 4- and 2-bit weights are multiplied where they lie in the top bits of a byte, at 16 and 64 times their value; the
 * panel's start values and shifts are scaled alike. Requantization: armv7em/gemm.inc.h.
 */
#if defined(__ARM_FEATURE_MVE)
    .syntax unified
    .thumb

    .equ COLUMNS, 0
    .equ CHANNEL_BYTES, 12
    .equ OUTPUT, 16      /* and the stride */
    .equ ROUNDING, 24
    .equ WEIGHTS, 28
    .equ PANEL_BYTES, 32 /* and the end of the weights */
    .equ SUMS, 40
    .equ BLOCKS, 52
    .equ REST, 56

/* Start values: bias, less zero point times the column's sum. */
.macro START zero_points
    ldrd    r0, r6, [r11]
    .if \zero_points
    ldrd    r7, r9, [r11, #8]
    ldrd    r1, r3, [r12, #SUMS]
    ldr     r5, [r12, #SUMS + 8]
    mla     r2, r7, r3, r0
    mla     r4, r7, r5, r0
    mla     r0, r7, r1, r0
    mla     r8, r9, r3, r6
    mla     r10, r9, r5, r6
    mla     r6, r9, r1, r6
    .else
    mov     r2, r0
    mov     r4, r0
    mov     r8, r6
    mov     r10, r6
    .endif
    add     r7, r11, #(24 + 8 * \zero_points)
    ldrd    r1, r3, [r12, #COLUMNS]
    ldrd    r5, r9, [r12, #COLUMNS + 8]
.endm

.macro MACS a, b, wa, wb, x
    vmladava.s8 \a, \wa, \x
    vmladava.s8 \b, \wb, \x
.endm

.macro REQUANTIZE record, a, b, c
    ldrd    r3, r5, [r11, #\record]
    lsl     lr, r1, r5
    smmla   \a, \a, r3, lr
    smmla   \b, \b, r3, lr
    smmla   \c, \c, r3, lr
    asr     \a, \a, r5
    asr     \b, \b, r5
    asr     \c, \c, r5
    ssat    \a, #8, \a, asr #1
    ssat    \b, #8, \b, asr #1
    ssat    \c, #8, \c, asr #1
    strb    \b, [r7, r9]
    strb    \c, [r7, r9, lsl #1]
    strb    \a, [r7], #1
.endm

.macro FINISH zero_points, next
    ldrd    r7, r9, [r12, #OUTPUT]
    ldr     r1, [r12, #ROUNDING]
    REQUANTIZE 8 + 8 * \zero_points, r0, r2, r4
    REQUANTIZE 16 + 8 * \zero_points, r6, r8, r10
    str     r7, [r12, #OUTPUT]
    ldrd    r3, r5, [r12, #PANEL_BYTES]
    add     r11, r11, r3
    cmp     r11, r5
    bne     \next
.endm

.macro PROLOGUE name
    .section .text.\name, "ax", %progbits
    .balign 4
    .global \name
    .type \name, %function
    .thumb_func
\name:
    push    {r3-r11, lr}
    mov     r12, r0
    ldr     r11, [r12, #WEIGHTS]
.endm

.macro EPILOGUE name
    pop     {r3-r11, pc}
    .size \name, . - \name
.endm

/* 12 instructions for 96 products. */
.macro GEMM_W8 name, zero_points
    PROLOGUE \name
1:
    START \zero_points
    dlstp.8 lr, r9
    add     r9, r7, r9
2:
    vldrb.u8 q0, [r7], #16
    vldrb.u8 q1, [r9], #16
    vldrb.u8 q2, [r1], #16
    MACS    r0, r6, q0, q1, q2
    vldrb.u8 q3, [r3], #16
    MACS    r2, r8, q0, q1, q3
    vldrb.u8 q2, [r5], #16
    MACS    r4, r10, q0, q1, q2
    letp    lr, 2b
    FINISH  \zero_points, 1b
    EPILOGUE \name
.endm

/* q2, q3: the field of q0, q1 that lies \shift below the top, others masked off by q7. */
.macro FIELD shift, lowest
    .if \shift == 0
    vand    q2, q0, q7
    vand    q3, q1, q7
    .else
    vshl.i8 q2, q0, #\shift
    vshl.i8 q3, q1, #\shift
    .if \lowest == 0
    vand    q2, q2, q7
    vand    q3, q3, q7
    .endif
    .endif
.endm

.macro BLOCK_FIELD shift, lowest
    FIELD   \shift, \lowest
    vldrb.u8 q4, [r1], #16
    MACS    r0, r6, q2, q3, q4
    vldrb.u8 q5, [r3], #16
    MACS    r2, r8, q2, q3, q5
    vldrb.u8 q6, [r5], #16
    MACS    r4, r10, q2, q3, q6
.endm

/* The same of the bytes behind the last block, whose fields hold fewer inputs. */
.macro REST_FIELD shift, index
    .if \index
    ldr     lr, [r12, #REST]
    add     r1, r1, lr
    add     r3, r3, lr
    add     r5, r5, lr
    ldr     lr, [r12, #(REST + 4 * \index)]
    vctp.8  lr
    .endif
    vpsttt
    vldrbt.u8 q4, [r1]
    vldrbt.u8 q5, [r3]
    vldrbt.u8 q6, [r5]
    FIELD   \shift, 0
    MACS    r0, r6, q2, q3, q4
    MACS    r2, r8, q2, q3, q5
    MACS    r4, r10, q2, q3, q6
.endm

/* 25 instructions for 192 products of 4-bit weights, 51 for 384 of 2-bit weights. */
.macro GEMM_FIELDS name, bits, zero_points
    PROLOGUE \name
    vpush   {d8-d15}
    .if \bits == 4
    vmov.i8 q7, #0xF0
    .else
    vmov.i8 q7, #0xC0
    .endif
1:
    START \zero_points
    ldr     lr, [r12, #BLOCKS]
    add     r9, r7, r9
    wls     lr, lr, 3f
2:
    vldrb.u8 q0, [r7], #16
    vldrb.u8 q1, [r9], #16
    .if \bits == 4
    BLOCK_FIELD 4, 1
    .else
    BLOCK_FIELD 6, 1
    BLOCK_FIELD 4, 0
    BLOCK_FIELD 2, 0
    .endif
    BLOCK_FIELD 0, 0
    le      lr, 2b
3:
    ldr     lr, [r12, #REST]
    wls     lr, lr, 4f /* a branch when zero */
    vctp.8  lr
    vpstt
    vldrbt.u8 q0, [r7]
    vldrbt.u8 q1, [r9]
    .if \bits == 4
    REST_FIELD 4, 0
    REST_FIELD 0, 1
    .else
    REST_FIELD 6, 0
    REST_FIELD 4, 1
    REST_FIELD 2, 2
    REST_FIELD 0, 3
    .endif
4:
    FINISH  \zero_points, 1b
    vpop    {d8-d15}
    EPILOGUE \name
.endm

    GEMM_W8 mcuq_mve_gemm_w8, 0
    GEMM_W8 mcuq_mve_gemm_w8z, 1
    GEMM_FIELDS mcuq_mve_gemm_w4, 4, 0
    GEMM_FIELDS mcuq_mve_gemm_w4z, 4, 1
    GEMM_FIELDS mcuq_mve_gemm_w2, 2, 0
    GEMM_FIELDS mcuq_mve_gemm_w2z, 2, 1
#endif
