/* Depthwise 3 x 3, stride 1: four outputs of a row in the lanes of a vector, all rows of a strip from top to bottom.
 *
 * Every input row is loaded once for each kernel column and multiplied into the three output rows that it touches: 3
 * loads and 9 multiplications a row. r0-r6, r9, r8 are the weights, r7 the plane, r10 the output, r11 the bias, r12 bytes of
 * an output row, lr the rows; q1-q3 three output rows, q4 places of four outputs, q5 multiplier, q6 rounding, q7 shift.
 */
#if defined(__ARM_FEATURE_MVE)
    .syntax unified
    .thumb

    .equ PLANE, 36
    .equ OUTPUT, 40
    .equ THREES, 52
    .equ REST, 56
    .equ MULTIPLIER, 60
    .equ CHANNELS, 72
    .equ LAST, 76

.macro FUNCTION name
    .section .text.\name, "ax", %progbits
    .balign 4
    .global \name
    .type \name, %function
    .thumb_func
\name:
.endm

/* One input row: \done gets its last products, \next its first. */
.macro ROW pitch, done, middle, next
    vldrb.s32 q0, [r7, #2]
    vmla.s32 \done, q0, r8
    vmla.s32 \middle, q0, r5
    vmul.i32 \next, q0, r2
    vldrb.s32 q0, [r7, #1]
    vmla.s32 \done, q0, r9
    vmla.s32 \middle, q0, r4
    vmla.s32 \next, q0, r1
    vldrb.s32 q0, [r7], #\pitch
    vmla.s32 \done, q0, r6
    vmla.s32 \middle, q0, r3
    vmla.s32 \next, q0, r0
    vadd.i32 \done, \done, r11
    vmulh.s32 \done, \done, q5
    vadd.i32 \done, \done, q6
    vshl.s32 \done, \done, q7
    vqmovnb.s32 \done, \done
    vqmovnb.s16 \done, \done
    vstrb.32 \done, [r10, q4]
    add     r10, r10, r12
.endm

.macro DEPTHWISE name, pitch
    FUNCTION \name
    push    {r0, r4-r11, lr}
    vpush   {d8-d15}
    movs    r2, #0
    ldr     r1, [r0, #CHANNELS]
    vidup.u32 q4, r2, #1
    vmul.i32 q4, q4, r1
    ldr     r1, [r0, #MULTIPLIER]
    ldrd    r2, r3, [r0, #(MULTIPLIER + 4)]
    vdup.32 q5, r1
    vdup.32 q6, r2
    vdup.32 q7, r3
    ldm     r0, {r0-r12}
    mov     lr, r7
    mov     r7, r9 /* loads want a low register */
    mov     r9, lr
    ldr     lr, [sp, #64]
    ldr     lr, [lr, #THREES]
1:
    vldrb.s32 q0, [r7, #2]
    vmul.i32 q1, q0, r2
    vldrb.s32 q0, [r7, #1]
    vmla.s32 q1, q0, r1
    vldrb.s32 q0, [r7], #\pitch
    vmla.s32 q1, q0, r0
    vldrb.s32 q0, [r7, #2]
    vmla.s32 q1, q0, r5
    vmul.i32 q2, q0, r2
    vldrb.s32 q0, [r7, #1]
    vmla.s32 q1, q0, r4
    vmla.s32 q2, q0, r1
    vldrb.s32 q0, [r7], #\pitch
    vmla.s32 q1, q0, r3
    vmla.s32 q2, q0, r0
    wls     lr, lr, 3f
2:
    ROW     \pitch, q1, q2, q3
    ROW     \pitch, q2, q3, q1
    ROW     \pitch, q3, q1, q2
    le      lr, 2b
3:
    ldr     lr, [sp, #64]
    ldr     lr, [lr, #REST]
    wls     lr, lr, 4f /* a branch when zero */
    ROW     \pitch, q1, q2, q3
    subs    lr, lr, #1
    beq     4f
    ROW     \pitch, q2, q3, q1
4:
    ldr     r11, [sp, #64]
    ldrd    r7, r10, [r11, #PLANE]
    ldr     lr, [r11, #LAST]
    subs    lr, lr, r7
    beq     5f
    cmp     lr, #4
    it      hi
    movhi   lr, #4
    ldr     r12, [r11, #CHANNELS]
    add     r7, r7, lr
    mla     r10, r12, lr, r10
    strd    r7, r10, [r11, #PLANE]
    ldr     lr, [r11, #THREES]
    ldrd    r11, r12, [r11, #(OUTPUT + 4)]
    b       1b
5:
    vpop    {d8-d15}
    pop     {r0, r4-r11, pc}
    .size \name, . - \name
.endm

    DEPTHWISE mcuq_mve_depthwise_p16, 16
    DEPTHWISE mcuq_mve_depthwise_p32, 32
    DEPTHWISE mcuq_mve_depthwise_p64, 64
    DEPTHWISE mcuq_mve_depthwise_p112, 112

    FUNCTION mcuq_mve_gather
    push    {r4-r11, lr}
    ldm     r0, {r0-r6} /* codes, plane, rows, columns, bytes of a row, pitch, channels */
    mov     r8, #0
    vidup.u16 q1, r8, #1
    vmul.i16 q1, q1, r6
    sub     r7, r3, #8
    cmp     r7, #8
    bhi     4f
    mul     r8, r7, r6 /* 8 .. 16 columns: the second eight overlap the first */
    vadd.i16 q2, q1, r8
    add     r7, r7, r1
    dls     lr, r2
3:
    vldrb.u16 q0, [r0, q1]
    vldrb.u16 q3, [r0, q2]
    add     r0, r0, r4
    vstrb.16 q0, [r1]
    vstrb.16 q3, [r7]
    add     r1, r1, r5
    add     r7, r7, r5
    le      lr, 3b
    pop     {r4-r11, pc}
4:
    lsl     r6, r6, #3
1:
    mov     r8, r0
    mov     r7, r1
    dlstp.16 lr, r3
2:
    vldrb.u16 q0, [r8, q1]
    add     r8, r8, r6
    vstrb.16 q0, [r7], #8
    letp    lr, 2b
    add     r0, r0, r4
    add     r1, r1, r5
    subs    r2, r2, #1
    bne     1b
    pop     {r4-r11, pc}
    .size mcuq_mve_gather, . - mcuq_mve_gather
#endif
