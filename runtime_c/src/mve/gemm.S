/* Four output channels over three columns, or over one (Helium). docs/kernels.md draws weights and parameters.
 *
 * VMLADAVA adds 16 products to an even register. Three columns: two channels at a time, r0, r2, r4 are channel A's three
 * pixels, r6, r8, r10 channel B's; r1, r3, r5 walk the columns, r7 and r9 the weights of A and B, r11 is the next channel's
 * weights. One column: r0, r2, r4, r6 are four channels; r1 walks the column, r3, r5, r7, r9 the weights, r8 the parameters,
 * r10 the output. r12 is the frame, lr the loop. Loads of a tail are predicated: no byte outside a column or the weights is
 * touched, and lanes that are not loaded are zero.
 *
 * 4- and 2-bit weights are multiplied where they lie in the top bits of a byte, at 16 and 64 times their value; start
 * values and shifts are scaled alike. A byte of 4-bit weights holds two channels. Requantization: four channels of a pixel
 * in the lanes of a vector, as in depthwise3x3_patches.S. _twice: two roundings; the first is VQRDMULH's own, and one less
 * where that is negative makes the second's half up a half away from zero.
 */
#if defined(__ARM_FEATURE_MVE)
    .syntax unified
    .thumb

    /* mcuq_mve_frame */
    .equ COLUMNS, 0
    .equ COUNT, 12 /* behind the columns */
    .equ OUTPUT, 16 /* and the stride */
    .equ PARAMETERS, 24
    .equ WEIGHTS, 28
    .equ WEIGHTS_END, 32
    .equ ADVANCE, 36
    .equ SUMS, 40
    .equ BLOCKS, 52
    .equ REST, 56
    .equ ROUNDING, 72
    .equ ACCUMULATORS, 88
    .equ REMAINDER, 136
    .equ FEW, 140
    .equ FEW_BYTES, 144
    .equ DEPTH, 148

    /* A panel's parameters */
    .equ MULTIPLIERS, 16
    .equ SHIFTS, 32
    .equ ZERO_POINTS, 36

    .set twice, 0 /* 1 in kernels with two roundings */

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

/* Scale and rounding of a panel: q0 multipliers, q1 minus shifts, q2 rounding, q4 zero points. r7: the parameters. */
.macro SCALES zero_points
    vldrb.u32 q1, [r7, #SHIFTS]
    vldrw.u32 q0, [r7, #MULTIPLIERS]
    vldrw.u32 q2, [r12, #ROUNDING]
    .if \zero_points
    vldrb.s32 q4, [r7, #ZERO_POINTS]
    .endif
    vshl.s32 q2, q2, q1
    vmvn    q1, q1
.endm

/* Codes of q3's accumulators; with two roundings q5 is overwritten. */
.macro REQUANTIZE
    .if twice
    vqrdmulh.s32 q3, q3, q0
    vshr.s32 q5, q3, #31
    vadd.i32 q3, q3, q5
    .else
    vqdmulh.s32 q3, q3, q0
    .endif
    vqadd.s32 q3, q3, q2
    vshl.s32 q3, q3, q1
    vqmovnb.s32 q3, q3
    vqmovnb.s16 q3, q3
.endm

/* ---- three columns ---- */

.macro START second
    ldr     r7, [r12, #PARAMETERS]
    ldrd    r0, r6, [r7, #(8 * \second)]
    mov     r2, r0
    mov     r4, r0
    mov     r8, r6
    mov     r10, r6
    ldrd    r1, r3, [r12, #COLUMNS]
    ldrd    r5, r9, [r12, #(COLUMNS + 8)] /* r9: COUNT */
.endm

.macro KEEP second
    strd    r0, r6, [r12, #(ACCUMULATORS + 8 * \second)]
    strd    r2, r8, [r12, #(ACCUMULATORS + 16 + 8 * \second)]
    strd    r4, r10, [r12, #(ACCUMULATORS + 32 + 8 * \second)]
    ldr     r1, [r12, #ADVANCE]
    add     r11, r11, r1
.endm

.macro PIXEL index, zero_points, to:vararg
    vldrw.u32 q3, [r12, #(ACCUMULATORS + 16 * \index)]
    .if \zero_points
    ldr     r0, [r12, #(SUMS + 4 * \index)]
    vmla.s32 q3, q4, r0
    .endif
    REQUANTIZE
    vstrb.32 q3, \to
.endm

.macro FINISH zero_points, next
    ldr     r7, [r12, #PARAMETERS]
    SCALES  \zero_points
    add     r7, r7, #(36 + 4 * \zero_points)
    str     r7, [r12, #PARAMETERS]
    ldrd    r1, r3, [r12, #OUTPUT]
    add     r5, r1, r3
    add     r7, r5, r3
    PIXEL   1, \zero_points, [r5]
    PIXEL   2, \zero_points, [r7]
    PIXEL   0, \zero_points, [r1], #4
    str     r1, [r12, #OUTPUT]
    ldr     r0, [r12, #WEIGHTS_END]
    cmp     r11, r0
    bne     \next
.endm

.macro MACS a, b, wa, wb, x
    vmladava.s8 \a, \wa, \x
    vmladava.s8 \b, \wb, \x
.endm

/* 12 instructions for 96 products. */
.macro PAIR_W8 second
    START   \second
    mov     r7, r11
    dlstp.8 lr, r9
    add     r9, r11, r9
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
    KEEP    \second
.endm

/* Vectors of zero points and of REQUANTIZE. */
.macro SAVE_W8 zero_points
    .if twice
    vpush   {d8-d11}
    .elseif \zero_points
    vpush   {d8-d9}
    .endif
.endm

.macro RESTORE_W8 zero_points
    .if twice
    vpop    {d8-d11}
    .elseif \zero_points
    vpop    {d8-d9}
    .endif
.endm

.macro GEMM_W8 name, zero_points
    PROLOGUE \name
    SAVE_W8 \zero_points
1:
    PAIR_W8 0
    PAIR_W8 1
    FINISH  \zero_points, 1b
    RESTORE_W8 \zero_points
    EPILOGUE \name
.endm

/* 16 inputs of 4-bit weights, two channels in a byte: 12 instructions for 96 products. */
.macro NIBBLES
    vldrb.u8 q0, [r11], #16
    vldrb.u8 q2, [r1], #16
    vshl.i8 q1, q0, #4
    vand    q0, q0, q5
    MACS    r0, r6, q1, q0, q2
    vldrb.u8 q3, [r3], #16
    MACS    r2, r8, q1, q0, q3
    vldrb.u8 q2, [r5], #16
    MACS    r4, r10, q1, q0, q2
.endm

/* Blocks of 64 inputs, 49 instructions each, then 16 at a time. r11 walks the weights, ADVANCE takes back what it read
 * beyond the last. */
.macro PAIR_W4 second
    START   \second
    wls     lr, r9, 3f
2:
    NIBBLES
    NIBBLES
    NIBBLES
    NIBBLES
    le      lr, 2b
3:
    ldr     r7, [r12, #REST]
    wlstp.8 lr, r7, 4f
2:
    NIBBLES
    letp    lr, 2b
4:
    KEEP    \second
.endm

.macro GEMM_W4 name, zero_points
    PROLOGUE \name
    vpush   {d8-d11}
    vmov.i8 q5, #0xF0
1:
    PAIR_W4 0
    PAIR_W4 1
    FINISH  \zero_points, 1b
    vpop    {d8-d11}
    EPILOGUE \name
.endm

/* 2-bit weights. \field: what of \raw lies \shift below the top, other bits masked off by q7. */
.macro FIELD field, raw, shift, lowest
    .if \shift == 0
    vand    \field, \raw, q7
    .else
    vshl.i8 \field, \raw, #\shift
    .if \lowest == 0
    vand    \field, \field, q7
    .endif
    .endif
.endm

.macro BLOCK_FIELD shift, lowest
    FIELD   q2, q0, \shift, \lowest
    FIELD   q3, q1, \shift, \lowest
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
    FIELD   q2, q0, \shift, 0
    FIELD   q3, q1, \shift, 0
    MACS    r0, r6, q2, q3, q4
    MACS    r2, r8, q2, q3, q5
    MACS    r4, r10, q2, q3, q6
.endm

/* \to: codes of 16 inputs in order, one a byte, of \from, which has a byte of codes in each lane. */
.macro SPREAD to, from
    vshl.i32 \to, \from, #6
    vsli.32 \to, \from, #12
    vsli.32 \to, \from, #18
    vsli.32 \to, \from, #24
    vand    \to, \to, q7
.endm

/* Lanes for the bytes of at most 16 inputs, and their load. */
.macro FEW_LANES
    ldr     lr, [r12, #FEW_BYTES]
    vctp.32 lr
.endm

.macro LOAD_FEW to, from
    vpst
    vldrbt.u32 \to, [\from]
.endm

/* At most 16 inputs behind the last block. */
.macro FEW_INPUTS
    FEW_LANES
    LOAD_FEW q0, r7
    mov     r7, r9 /* loads that widen want a low register */
    LOAD_FEW q1, r7
    SPREAD  q2, q0
    SPREAD  q3, q1
    ldr     lr, [r12, #FEW]
    vctp.8  lr
    vpsttt
    vldrbt.u8 q4, [r1]
    vldrbt.u8 q5, [r3]
    vldrbt.u8 q6, [r5]
    MACS    r0, r6, q2, q3, q4
    MACS    r2, r8, q2, q3, q5
    MACS    r4, r10, q2, q3, q6
.endm

/* 51 instructions for 384 products. */
.macro PAIR_W2 second
    START   \second
    mov     r7, r11
    ldr     lr, [r12, #BLOCKS]
    add     r9, r7, r9
    wls     lr, lr, 3f
2:
    vldrb.u8 q0, [r7], #16
    vldrb.u8 q1, [r9], #16
    BLOCK_FIELD 6, 1
    BLOCK_FIELD 4, 0
    BLOCK_FIELD 2, 0
    BLOCK_FIELD 0, 0
    le      lr, 2b
3:
    ldr     lr, [r12, #REMAINDER]
    wls     lr, lr, 4f /* a branch when zero */
    cmp     lr, #1
    bne     5f
    FEW_INPUTS
    b       4f
5:
    ldr     lr, [r12, #REST]
    vctp.8  lr
    vpstt
    vldrbt.u8 q0, [r7]
    vldrbt.u8 q1, [r9]
    REST_FIELD 6, 0
    REST_FIELD 4, 1
    REST_FIELD 2, 2
    REST_FIELD 0, 3
4:
    KEEP    \second
.endm

.macro GEMM_W2 name, zero_points
    PROLOGUE \name
    vpush   {d8-d15}
    vmov.i8 q7, #0xC0
1:
    PAIR_W2 0
    PAIR_W2 1
    FINISH  \zero_points, 1b
    vpop    {d8-d15}
    EPILOGUE \name
.endm

/* ---- one column ---- */

.macro START_ONE
    ldrd    r0, r2, [r8]
    ldrd    r4, r6, [r8, #8]
    ldr     r1, [r12, #COLUMNS]
    ldr     r9, [r12, #COUNT]
    mov     r3, r11
    add     r5, r11, r9
    add     r7, r5, r9
    add     r11, r11, r9, lsl #2
.endm

.macro FINISH_ONE weights, zero_points, next
    vmov    q3[2], q3[0], r0, r4
    vmov    q3[3], q3[1], r2, r6
    mov     r7, r8
    SCALES  \zero_points
    add     r8, r8, #(36 + 4 * \zero_points)
    .if \zero_points
    ldr     r0, [r12, #SUMS]
    vmla.s32 q3, q4, r0
    .endif
    REQUANTIZE
    mov     r1, r10
    add     r10, r10, #4
    vstrb.32 q3, [r1]
    ldr     r0, [r12, #WEIGHTS_END]
    cmp     \weights, r0
    bne     \next
    str     r8, [r12, #PARAMETERS]
.endm

.macro PROLOGUE_ONE name
    PROLOGUE \name
    ldr     r8, [r12, #PARAMETERS]
    ldr     r10, [r12, #OUTPUT]
.endm

/* 10 instructions for 64 products. */
.macro ONE_W8 name, zero_points
    PROLOGUE_ONE \name
    SAVE_W8 \zero_points
1:
    START_ONE
    dlstp.8 lr, r9
    add     r9, r7, r9
2:
    vldrb.u8 q0, [r1], #16
    ONE_MAC r0, r3
    ONE_MAC r2, r5
    ONE_MAC r4, r7
    ONE_MAC r6, r9
    letp    lr, 2b
    FINISH_ONE r11, \zero_points, 1b
    RESTORE_W8 \zero_points
    EPILOGUE \name
.endm

.macro ONE_MAC acc, weights
    vldrb.u8 q1, [\weights], #16
    vmladava.s8 \acc, q0, q1
.endm

/* \weights: 16 B + (A + 8) a byte. The byte itself adds both to \b, its low half A + 8 alone to \a. */
.macro TWO_MACS a, b, weights
    vldrb.u8 q1, [\weights], #16
    vmladava.s8 \b, q0, q1
    vand    q1, q1, q5
    vmladava.s8 \a, q0, q1
.endm

/* 10 instructions for 64 products. r3 and r7 walk the two pairs, r9 is their length, r11 the way from r3 at a panel's end
 * to the next panel, r5 what 16 times the eights add to a channel. */
.macro ONE_W4 name, zero_points
    PROLOGUE_ONE \name
    vpush   {d8-d11}
    vmov.i8 q5, #0x0F
    mov     r3, r11
    ldr     r9, [r12, #DEPTH]
    ldr     r11, [r12, #ADVANCE]
    ldr     r5, [r12, #SUMS]
    add     r11, r11, r9
    lsl     r5, r5, #3
1:
    ldrd    r0, r2, [r8]
    ldrd    r4, r6, [r8, #8]
    ldr     r1, [r12, #COLUMNS]
    add     r7, r3, r9
    dlstp.8 lr, r9
2:
    vldrb.u8 q0, [r1], #16
    TWO_MACS r0, r2, r3
    TWO_MACS r4, r6, r7
    letp    lr, 2b
    sub     r2, r2, r0
    sub     r6, r6, r4
    add     r0, r5, r0, lsl #4
    add     r4, r5, r4, lsl #4
    add     r3, r3, r11
    FINISH_ONE r3, \zero_points, 1b
    vpop    {d8-d11}
    EPILOGUE \name
.endm

/* All fields of q2's weights times the inputs in q0, q1, q4, q5. */
.macro ONE_FIELDS acc
    vshl.i8 q3, q2, #6
    vmladava.s8 \acc, q3, q0
    FIELD   q3, q2, 4, 0
    vmladava.s8 \acc, q3, q1
    FIELD   q3, q2, 2, 0
    vmladava.s8 \acc, q3, q4
    vand    q3, q2, q7
    vmladava.s8 \acc, q3, q5
.endm

.macro BLOCK_ONE acc, weights
    vldrb.u8 q2, [\weights], #16
    ONE_FIELDS \acc
.endm

.macro REST_ONE acc, weights
    vpst
    vldrbt.u8 q2, [\weights]
    ONE_FIELDS \acc
.endm

.macro FEW_ONE acc, weights
    LOAD_FEW q2, \weights
    SPREAD  q3, q2
    vmladava.s8 \acc, q3, q0
.endm

.macro REST_INPUTS to, index
    ldr     lr, [r12, #REST]
    .if \index
    add     r1, r1, lr
    ldr     lr, [r12, #(REST + 4 * \index)]
    .endif
    vctp.8  lr
    vpst
    vldrbt.u8 \to, [r1]
.endm

/* 49 instructions for 256 products. */
.macro ONE_W2 name, zero_points
    PROLOGUE_ONE \name
    vpush   {d8-d15}
    vmov.i8 q7, #0xC0
1:
    START_ONE
    ldr     lr, [r12, #BLOCKS]
    add     r9, r7, r9
    wls     lr, lr, 3f
2:
    vldrb.u8 q0, [r1], #16
    vldrb.u8 q1, [r1], #16
    vldrb.u8 q4, [r1], #16
    vldrb.u8 q5, [r1], #16
    BLOCK_ONE r0, r3
    BLOCK_ONE r2, r5
    BLOCK_ONE r4, r7
    BLOCK_ONE r6, r9
    le      lr, 2b
3:
    ldr     lr, [r12, #REMAINDER]
    wls     lr, lr, 4f /* a branch when zero */
    cmp     lr, #1
    bne     5f
    ldr     lr, [r12, #FEW]
    vctp.8  lr
    vpst
    vldrbt.u8 q0, [r1]
    FEW_LANES
    mov     r1, r9
    FEW_ONE r0, r3
    FEW_ONE r2, r5
    FEW_ONE r4, r7
    FEW_ONE r6, r1
    b       4f
5:
    REST_INPUTS q0, 0
    REST_INPUTS q1, 1
    REST_INPUTS q4, 2
    REST_INPUTS q5, 3
    ldr     lr, [r12, #REST]
    vctp.8  lr
    REST_ONE r0, r3
    REST_ONE r2, r5
    REST_ONE r4, r7
    REST_ONE r6, r9
4:
    FINISH_ONE r11, \zero_points, 1b
    vpop    {d8-d15}
    EPILOGUE \name
.endm

    GEMM_W8 mcuq_mve_gemm_w8, 0
    GEMM_W8 mcuq_mve_gemm_w8z, 1
    GEMM_W4 mcuq_mve_gemm_w4, 0
    GEMM_W4 mcuq_mve_gemm_w4z, 1
    GEMM_W2 mcuq_mve_gemm_w2, 0
    GEMM_W2 mcuq_mve_gemm_w2z, 1
    ONE_W8  mcuq_mve_gemm1_w8, 0
    ONE_W8  mcuq_mve_gemm1_w8z, 1
    ONE_W4  mcuq_mve_gemm1_w4, 0
    ONE_W4  mcuq_mve_gemm1_w4z, 1
    ONE_W2  mcuq_mve_gemm1_w2, 0
    ONE_W2  mcuq_mve_gemm1_w2z, 1

    .set twice, 1
    GEMM_W8 mcuq_mve_gemm_w8_twice, 0
    GEMM_W8 mcuq_mve_gemm_w8z_twice, 1
    ONE_W8  mcuq_mve_gemm1_w8_twice, 0
    ONE_W8  mcuq_mve_gemm1_w8z_twice, 1
#endif
