/* Four output channels over three columns, or over one (Helium). docs/kernels.md draws weights and parameters.
 *
 * VMLADAVA adds 16 products to an even register. Three columns: two channels at a time, r0, r2, r4 are channel A's three
 * pixels, r6, r8, r10 channel B's; r1, r3, r5 walk the columns, r7 and r9 the weights of A and B. One column: r0, r2, r4, r6
 * are four channels; r1 walks the column, r3, r5, r7, r9 the weights, r8 the parameters, r10 the output. r11 is the next
 * channel's weights, r12 the frame, lr the loop. Loads of a tail are predicated: no byte outside a column or a channel's
 * weights is touched, and lanes that are not loaded are zero.
 *
 * 4- and 2-bit weights are multiplied where they lie in the top bits of a byte, at 16 and 64 times their value; start
 * values and shifts are scaled alike. Or a byte holds two channels, see PAIR_SHARED. Requantization: four channels of a pixel in the lanes of a vector, as in
 * depthwise3x3_patches.S.
 */
#if defined(__ARM_FEATURE_MVE)
    .syntax unified
    .thumb

    /* mcuq_mve_frame */
    .equ COLUMNS, 0
    .equ CHANNEL_BYTES, 12
    .equ OUTPUT, 16 /* and the stride */
    .equ PARAMETERS, 24
    .equ WEIGHTS, 28
    .equ WEIGHTS_END, 32
    .equ PAIR_BYTES, 36
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

.macro MASK bits
    vpush   {d8-d15}
    .if \bits == 4
    vmov.i8 q7, #0xF0
    .else
    vmov.i8 q7, #0xC0
    .endif
.endm

/* \field: what of \raw lies \shift below the top, other bits masked off by q7. */
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

/* Codes of q3's accumulators. */
.macro REQUANTIZE
    vqdmulh.s32 q3, q3, q0
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
    ldrd    r5, r9, [r12, #(COLUMNS + 8)]
    mov     r7, r11
.endm

.macro KEEP second
    strd    r0, r6, [r12, #(ACCUMULATORS + 8 * \second)]
    strd    r2, r8, [r12, #(ACCUMULATORS + 16 + 8 * \second)]
    strd    r4, r10, [r12, #(ACCUMULATORS + 32 + 8 * \second)]
    ldr     r1, [r12, #PAIR_BYTES]
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

.macro GEMM_W8 name, zero_points
    PROLOGUE \name
    .if \zero_points
    vpush   {d8-d9}
    .endif
1:
    PAIR_W8 0
    PAIR_W8 1
    FINISH  \zero_points, 1b
    .if \zero_points
    vpop    {d8-d9}
    .endif
    EPILOGUE \name
.endm

/* 4-bit weights, 16 B + A in a byte: its low half alone, at the top, is 16 A, and A's sum / 16 off the other leaves
 * 16 B's. 12 instructions for 96 products. */
.macro PAIR_SHARED second
    START   \second
    ldr     r9, [r12, #DEPTH]
    dlstp.8 lr, r9
2:
    vldrb.u8 q1, [r7], #16
    vldrb.u8 q2, [r1], #16
    vshl.i8 q0, q1, #4
    MACS    r0, r6, q0, q1, q2
    vldrb.u8 q3, [r3], #16
    MACS    r2, r8, q0, q1, q3
    vldrb.u8 q2, [r5], #16
    MACS    r4, r10, q0, q1, q2
    letp    lr, 2b
    sub     r6, r6, r0, asr #4
    sub     r8, r8, r2, asr #4
    sub     r10, r10, r4, asr #4
    KEEP    \second
.endm

.macro GEMM_SHARED name
    PROLOGUE \name
1:
    PAIR_SHARED 0
    PAIR_SHARED 1
    FINISH  0, 1b
    EPILOGUE \name
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
.macro SPREAD bits, to, from
    .if \bits == 4
    vshl.i16 \to, \from, #4
    vsli.16 \to, \from, #8
    .else
    vshl.i32 \to, \from, #6
    vsli.32 \to, \from, #12
    vsli.32 \to, \from, #18
    vsli.32 \to, \from, #24
    .endif
    vand    \to, \to, q7
.endm

/* Lanes for the bytes of at most 16 inputs, and their load. */
.macro FEW_LANES bits
    ldr     lr, [r12, #FEW_BYTES]
    .if \bits == 4
    vctp.16 lr
    .else
    vctp.32 lr
    .endif
.endm

.macro LOAD_FEW bits, to, from
    vpst
    .if \bits == 4
    vldrbt.u16 \to, [\from]
    .else
    vldrbt.u32 \to, [\from]
    .endif
.endm

/* At most 16 inputs behind the last block. */
.macro FEW_INPUTS bits
    FEW_LANES \bits
    LOAD_FEW \bits, q0, r7
    mov     r7, r9 /* loads that widen want a low register */
    LOAD_FEW \bits, q1, r7
    SPREAD  \bits, q2, q0
    SPREAD  \bits, q3, q1
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

/* 25 instructions for 192 products of 4-bit weights, 51 for 384 of 2-bit weights. */
.macro PAIR_FIELDS bits, second
    START   \second
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
    ldr     lr, [r12, #REMAINDER]
    wls     lr, lr, 4f /* a branch when zero */
    cmp     lr, #1
    bne     5f
    FEW_INPUTS \bits
    b       4f
5:
    ldr     lr, [r12, #REST]
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
    KEEP    \second
.endm

.macro GEMM_FIELDS name, bits, zero_points
    PROLOGUE \name
    MASK    \bits
1:
    PAIR_FIELDS \bits, 0
    PAIR_FIELDS \bits, 1
    FINISH  \zero_points, 1b
    vpop    {d8-d15}
    EPILOGUE \name
.endm

/* ---- one column ---- */

.macro START_ONE
    ldrd    r0, r2, [r8]
    ldrd    r4, r6, [r8, #8]
    ldr     r1, [r12, #COLUMNS]
    ldr     r9, [r12, #CHANNEL_BYTES]
    mov     r3, r11
    add     r5, r11, r9
    add     r7, r5, r9
    add     r11, r11, r9, lsl #2
.endm

.macro FINISH_ONE zero_points, next
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
    cmp     r11, r0
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
    .if \zero_points
    vpush   {d8-d9}
    .endif
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
    FINISH_ONE \zero_points, 1b
    .if \zero_points
    vpop    {d8-d9}
    .endif
    EPILOGUE \name
.endm

.macro ONE_MAC acc, weights
    vldrb.u8 q1, [\weights], #16
    vmladava.s8 \acc, q0, q1
.endm

.macro SHARED_MACS a, b, weights
    vldrb.u8 q1, [\weights], #16
    vmladava.s8 \b, q0, q1
    vshl.i8 q1, q1, #4
    vmladava.s8 \a, q0, q1
.endm

/* 10 instructions for 64 products. */
.macro ONE_SHARED name
    PROLOGUE_ONE \name
1:
    START_ONE
    ldr     r9, [r12, #DEPTH]
    dlstp.8 lr, r9
2:
    vldrb.u8 q0, [r1], #16
    SHARED_MACS r0, r2, r3
    SHARED_MACS r4, r6, r7
    letp    lr, 2b
    sub     r2, r2, r0, asr #4
    sub     r6, r6, r4, asr #4
    FINISH_ONE 0, 1b
    EPILOGUE \name
.endm

/* All fields of q2's weights times the inputs in q0, q1 (4 bits) or q0, q1, q4, q5 (2 bits). */
.macro ONE_FIELDS bits, acc
    .if \bits == 4
    vshl.i8 q3, q2, #4
    vmladava.s8 \acc, q3, q0
    vand    q3, q2, q7
    vmladava.s8 \acc, q3, q1
    .else
    vshl.i8 q3, q2, #6
    vmladava.s8 \acc, q3, q0
    FIELD   q3, q2, 4, 0
    vmladava.s8 \acc, q3, q1
    FIELD   q3, q2, 2, 0
    vmladava.s8 \acc, q3, q4
    vand    q3, q2, q7
    vmladava.s8 \acc, q3, q5
    .endif
.endm

.macro BLOCK_ONE bits, acc, weights
    vldrb.u8 q2, [\weights], #16
    ONE_FIELDS \bits, \acc
.endm

.macro REST_ONE bits, acc, weights
    vpst
    vldrbt.u8 q2, [\weights]
    ONE_FIELDS \bits, \acc
.endm

.macro FEW_ONE bits, acc, weights
    LOAD_FEW \bits, q2, \weights
    SPREAD  \bits, q3, q2
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

/* 23 instructions for 128 products of 4-bit weights, 49 for 256 of 2-bit weights. */
.macro ONE_W42 name, bits, zero_points
    PROLOGUE_ONE \name
    MASK    \bits
1:
    START_ONE
    ldr     lr, [r12, #BLOCKS]
    add     r9, r7, r9
    wls     lr, lr, 3f
2:
    vldrb.u8 q0, [r1], #16
    vldrb.u8 q1, [r1], #16
    .if \bits == 2
    vldrb.u8 q4, [r1], #16
    vldrb.u8 q5, [r1], #16
    .endif
    BLOCK_ONE \bits, r0, r3
    BLOCK_ONE \bits, r2, r5
    BLOCK_ONE \bits, r4, r7
    BLOCK_ONE \bits, r6, r9
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
    FEW_LANES \bits
    mov     r1, r9
    FEW_ONE \bits, r0, r3
    FEW_ONE \bits, r2, r5
    FEW_ONE \bits, r4, r7
    FEW_ONE \bits, r6, r1
    b       4f
5:
    REST_INPUTS q0, 0
    REST_INPUTS q1, 1
    .if \bits == 2
    REST_INPUTS q4, 2
    REST_INPUTS q5, 3
    .endif
    ldr     lr, [r12, #REST]
    vctp.8  lr
    REST_ONE \bits, r0, r3
    REST_ONE \bits, r2, r5
    REST_ONE \bits, r4, r7
    REST_ONE \bits, r6, r9
4:
    FINISH_ONE \zero_points, 1b
    vpop    {d8-d15}
    EPILOGUE \name
.endm

    GEMM_W8 mcuq_mve_gemm_w8, 0
    GEMM_W8 mcuq_mve_gemm_w8z, 1
    GEMM_SHARED mcuq_mve_gemm_w4s
    GEMM_FIELDS mcuq_mve_gemm_w4, 4, 0
    GEMM_FIELDS mcuq_mve_gemm_w4z, 4, 1
    GEMM_FIELDS mcuq_mve_gemm_w2, 2, 0
    GEMM_FIELDS mcuq_mve_gemm_w2z, 2, 1
    ONE_W8  mcuq_mve_gemm1_w8, 0
    ONE_W8  mcuq_mve_gemm1_w8z, 1
    ONE_SHARED mcuq_mve_gemm1_w4s
    ONE_W42 mcuq_mve_gemm1_w4, 4, 0
    ONE_W42 mcuq_mve_gemm1_w4z, 4, 1
    ONE_W42 mcuq_mve_gemm1_w2, 2, 0
    ONE_W42 mcuq_mve_gemm1_w2z, 2, 1
#endif
