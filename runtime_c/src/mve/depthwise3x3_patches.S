/* Depthwise 3 x 3: 2 x 2 outputs of a channel at a time, each the dot product of a patch of inputs and the nine weights.
 *
 * A gather takes 16 bytes of the channel's plane: 4 x 4 inputs (stride 1), or 3 x 5 inputs for one row of outputs (stride
 * 2). The weights stand in as many vectors as outputs share a patch, each at the places of its window, zero elsewhere.
 *
 * r12 is the frame. In the loop: r0, r2, r4, r6 sums, r1 bias, r3 multiplier, r5 rounding, r8 shift, r7 plane, r9 output,
 * r10 bytes of two output pixels, r11 minus the weight zero point; q1-q4 weights (stride 2: q3 offsets of the second row of
 * outputs), q6 places of the outputs, q7 of the inputs.
 */
#if defined(__ARM_FEATURE_MVE)
    .syntax unified
    .thumb

    /* mcuq_mve_depthwise_frame */
    .equ TAPS, 0
    .equ TAP_SHIFTS, 16
    .equ TAP_MASK, 32
    .equ PATCH, 48
    .equ SECOND_PATCH, 64
    .equ PLACES, 80
    .equ ONES, 96
    .equ WEIGHTS, 160
    .equ CODES, 192
    .equ START, 220
    .equ OUTPUT, 224
    .equ SCALES, 228
    .equ RECORDS, 232
    .equ RECORD_BYTES, 236
    .equ ROUNDING, 240
    .equ CHANNELS_LEFT, 244
    .equ GROUPS, 248
    .equ ODD_COLUMN, 252
    .equ PAIRS, 256
    .equ WRAP, 260        /* plane, output */
    .equ LAST_PAIR, 268   /* plane, output */
    .equ RIGHT_SHIFT, 276
    .equ MOVED_WEIGHTS, 280
    .equ PAIRS_LEFT, 284
    .equ OUTPUT_STEP, 288 /* and half of it */
    .equ POSITION, 296
    .equ INPUT_BIT, 300  /* and the codes' bits */
    .equ OUTPUT_BIT, 308 /* and the codes' bits */
    .equ INPUT_MASK, 316
    .equ LOWEST, 320
    .equ HIGHEST, 336
    .equ OUTPUT_BITS, 352

.macro SUM_ONES x, a, b, first
    vldrw.u32 q5, [r12, #(ONES + 16 * \first)]
    vmladav.s8 \a, \x, q5
    vldrw.u32 q5, [r12, #(ONES + 16 * \first + 16)]
    vmladav.s8 \b, \x, q5
.endm

.macro LANES to
    vmov    \to[2], \to[0], r0, r4
    vmov    \to[3], \to[1], r2, r6
.endm

/* Codes of q0 to their places; packed ones are clamped, and join what their byte holds. */
.macro STORE packed
    .if \packed
    vldrw.u32 q5, [r12, #LOWEST]
    vmax.s32 q0, q0, q5
    vldrw.u32 q5, [r12, #HIGHEST]
    vmin.s32 q0, q0, q5
    vldrw.u32 q5, [r12, #OUTPUT_BITS]
    vshl.u32 q0, q0, q5
    vldrb.u32 q5, [r9, q6]
    vorr    q0, q0, q5
    .else
    vqmovnb.s32 q0, q0
    vqmovnb.s16 q0, q0
    .endif
    vstrb.32 q0, [r9, q6]
.endm

    .set twice, 0 /* 1 in kernels with two roundings, see gemm.S */

/* Four outputs. Stride 1: 17 instructions, stride 2: 18, with zero points 11 more, packed 6 more, two roundings 2 more. */
.macro GROUP stride, zero_points, packed
    vldrb.u8 q0, [r7, q7]
    .if \stride == 2
    vldrb.u8 q4, [r7, q3]
    .endif
    add     r7, r7, #(2 * \stride)
    .if \zero_points
    SUM_ONES q0, r0, r2, 0
    .if \stride == 1
    SUM_ONES q0, r4, r6, 2
    .else
    SUM_ONES q4, r4, r6, 0
    .endif
    LANES   q5
    .endif
    vmladav.s8 r0, q0, q1
    vmladav.s8 r2, q0, q2
    .if \stride == 1
    vmladav.s8 r4, q0, q3
    vmladav.s8 r6, q0, q4
    .else
    vmladav.s8 r4, q4, q1
    vmladav.s8 r6, q4, q2
    .endif
    LANES   q0
    .if \zero_points
    vmla.s32 q0, q5, r11
    .endif
    vadd.i32 q0, q0, r1
    .if twice
    vqrdmulh.s32 q0, q0, r3
    vshr.s32 q5, q0, #31
    vadd.i32 q0, q0, q5
    .else
    vqdmulh.s32 q0, q0, r3
    .endif
    vqadd.s32 q0, q0, r5
    vshl.s32 q0, r8
    STORE   \packed
    add     r9, r9, r10
.endm

/* The channel's code of the byte in every half word. */
.macro CODE packed, q
    .if \packed
    vshl.u16 \q, r9
    vand    \q, \q, q5
    .endif
.endm

/* The channel's codes of the strip, one by one, into its plane. */
.macro GATHER packed
    .if \packed
    ldr     r9, [r12, #INPUT_BIT]
    ldr     r0, [r12, #INPUT_MASK]
    rsb     r9, r9, #0
    vdup.16 q5, r0
    .endif
    add     r0, r12, #CODES
    ldm     r0, {r0-r6} /* codes, plane, rows, columns, bytes of a row, pitch, bytes of a pixel */
    mov     r8, #0
    vidup.u16 q1, r8, #1
    vmul.i16 q1, q1, r6
    cmp     r2, #0
    beq     9f
    cmp     r3, #8
    bhi     2f
    vctp.16 r3
    dls     lr, r2
1:
    .if \packed
    vpst
    vldrbt.u16 q0, [r0, q1]
    CODE    1, q0
    vpst
    .else
    vpstt
    vldrbt.u16 q0, [r0, q1]
    .endif
    vstrbt.16 q0, [r1]
    add     r0, r0, r4
    add     r1, r1, r5
    le      lr, 1b
    b       9f
2:
    cmp     r3, #16
    bhi     4f
    sub     r7, r3, #8 /* the second eight overlap the first */
    mul     r8, r7, r6
    vadd.i16 q2, q1, r8
    add     r7, r7, r1
    dls     lr, r2
3:
    vldrb.u16 q0, [r0, q1]
    vldrb.u16 q3, [r0, q2]
    CODE    \packed, q0
    CODE    \packed, q3
    add     r0, r0, r4
    vstrb.16 q0, [r1]
    vstrb.16 q3, [r7]
    add     r1, r1, r5
    add     r7, r7, r5
    le      lr, 3b
    b       9f
4:
    lsl     r6, r6, #3
5:
    mov     r8, r0
    mov     r7, r1
    dlstp.16 lr, r3
6:
    vldrb.u16 q0, [r8, q1]
    CODE    \packed, q0
    add     r8, r8, r6
    vstrb.16 q0, [r7], #8
    letp    lr, 6b
    add     r0, r0, r4
    add     r1, r1, r5
    subs    r2, r2, #1
    bne     5b
9:
.endm

/* Nine codes of r7 to their places in the top bits of bytes, and moved to the other windows of the patch. */
.macro UNPACK stride
    vldrw.u32 q0, [r12, #TAPS]
    vldrb.u8 q1, [r7, q0]
    vldrw.u32 q0, [r12, #TAP_SHIFTS]
    vshl.u8 q1, q1, q0
    vldrw.u32 q0, [r12, #TAP_MASK]
    vand    q1, q1, q0
    ldrd    r0, r2, [r12, #RIGHT_SHIFT]
    .if \stride == 1
    vmov    q2, q1
    vshl.u32 q2, r0
    add     r4, r12, #(WEIGHTS + 4)
    vstrb.8 q1, [r4]
    vldrb.u8 q3, [r2]
    vmov    q4, q3
    vshl.u32 q4, r0
    .else
    add     r4, r12, #(WEIGHTS + 2)
    vstrb.8 q1, [r4]
    vldrb.u8 q2, [r2]
    vldrw.u32 q3, [r12, #SECOND_PATCH]
    .endif
.endm

/* To the next channel: r0 the input's byte, r1 the output's. */
.macro NEXT_CHANNEL packed
    .if \packed
    ldrd    r2, r4, [r12, #INPUT_BIT]
    add     r2, r2, r4
    add     r0, r0, r2, lsr #3
    and     r2, r2, #7
    str     r2, [r12, #INPUT_BIT]
    ldrd    r2, r4, [r12, #OUTPUT_BIT]
    add     r2, r2, r4
    add     r1, r1, r2, lsr #3
    and     r2, r2, #7
    str     r2, [r12, #OUTPUT_BIT]
    vdup.32 q0, r2
    vstrw.32 q0, [r12, #OUTPUT_BITS]
    .else
    add     r0, r0, #1
    add     r1, r1, #1
    .endif
.endm

.macro DEPTHWISE name, stride, zero_points, packed=0
    .section .text.\name, "ax", %progbits
    .balign 4
    .global \name
    .type \name, %function
    .thumb_func
\name:
    push    {r3-r11, lr}
    vpush   {d8-d15}
    mov     r12, r0
    vldrw.u32 q7, [r12, #PATCH]
    vldrw.u32 q6, [r12, #PLACES]
10:
    GATHER  \packed
    ldrd    r10, r7, [r12, #SCALES]
    ldrd    r1, r3, [r10], #8
    str     r10, [r12, #SCALES]
    ldrd    r11, r9, [r12, #RECORD_BYTES] /* 2 * output zero point + 1 */
    ldrb    r4, [r7], #1
    add     r11, r11, r7
    lsl     r5, r9, r4
    mvn     r8, r4
    .if \zero_points
    ldrsb   r9, [r7], #1
    ldr     r4, [r12, #POSITION]
    .endif
    sub     r0, r11, #1
    str     r0, [r12, #RECORDS]
    .if \zero_points
    lsl     r9, r9, r4
    rsb     r11, r9, #0
    .endif
    UNPACK  \stride
    ldrd    r7, r9, [r12, #START]
    ldr     r10, [r12, #OUTPUT_STEP]
    ldr     r0, [r12, #PAIRS]
20:
    str     r0, [r12, #PAIRS_LEFT]
    ldr     lr, [r12, #GROUPS]
    dls     lr, lr
21:
    GROUP   \stride, \zero_points, \packed
    le      lr, 21b
    ldr     lr, [r12, #ODD_COLUMN]
    wls     lr, lr, 22f /* a branch when zero */
    ldr     r0, [r12, #(OUTPUT_STEP + 4)]
    sub     r7, r7, #\stride
    sub     r9, r9, r0
    GROUP   \stride, \zero_points, \packed
22:
    ldrd    r0, r2, [r12, #WRAP]
    add     r7, r7, r0
    add     r9, r9, r2
    ldr     r0, [r12, #PAIRS_LEFT]
    subs    r0, r0, #1
    beq     30f
    cmp     r0, #1
    bne     20b
    ldrd    r2, r4, [r12, #LAST_PAIR]
    add     r7, r7, r2
    add     r9, r9, r4
    b       20b
30:
    ldr     r0, [r12, #CODES]
    ldr     r1, [r12, #OUTPUT]
    ldr     r3, [r12, #CHANNELS_LEFT]
    NEXT_CHANNEL \packed
    str     r0, [r12, #CODES]
    str     r1, [r12, #OUTPUT]
    subs    r3, r3, #1
    str     r3, [r12, #CHANNELS_LEFT]
    bne     10b
    vpop    {d8-d15}
    pop     {r3-r11, pc}
    .size \name, . - \name
.endm

    DEPTHWISE mcuq_mve_depthwise_s1, 1, 0
    DEPTHWISE mcuq_mve_depthwise_s1z, 1, 1
    DEPTHWISE mcuq_mve_depthwise_s2, 2, 0
    DEPTHWISE mcuq_mve_depthwise_s2z, 2, 1
    DEPTHWISE mcuq_mve_depthwise_s1p, 1, 0, 1
    DEPTHWISE mcuq_mve_depthwise_s1zp, 1, 1, 1
    DEPTHWISE mcuq_mve_depthwise_s2p, 2, 0, 1
    DEPTHWISE mcuq_mve_depthwise_s2zp, 2, 1, 1

    .set twice, 1
    DEPTHWISE mcuq_mve_depthwise_s1_twice, 1, 0
    DEPTHWISE mcuq_mve_depthwise_s1z_twice, 1, 1
    DEPTHWISE mcuq_mve_depthwise_s2_twice, 2, 0
    DEPTHWISE mcuq_mve_depthwise_s2z_twice, 2, 1
#endif
