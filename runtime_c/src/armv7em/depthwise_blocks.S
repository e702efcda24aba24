/* Depthwise of any kernel: blocks of four neighbouring outputs of one channel, from its plane of int16 inputs.
 *
 * Stride 1: outputs 0 and 1 read the same word of inputs (x0, x1) against (w0, w1) and (0, w0), outputs 2 and 3 the next
 * one, which is the first of the next step: 6 instructions for 8 products. Stride 2: four words against (w0, w1), 7 for 8.
 * A kernel row enters the unrolled steps where as many remain as it has.
 * r0-r3 sums, r4, r5 weights, r6 inputs, r7 plane, r8 weights, r9 their end, r10 from the end of a kernel row's words to the next
 * one, r11 block, r12 entry, lr output; the rest lies at sp.
 */
#if defined(__ARM_FEATURE_DSP) /* elsewhere depthwise_blocks_model.c stands in */

    .syntax unified
    .thumb

    .equ BIAS, 0 /* and the multiplier */
    .equ ROUNDING, 8 /* and v */
    .equ CHANNELS, 16
    .equ OUTPUT_STEP, 20 /* and plane_step */
    .equ BLOCKS, 28
    .equ ROWS, 32
    .equ WEIGHTS, 36
    .equ LEFT, 40 /* blocks of the row */
    .equ FRAME, 44
    .equ STEPS, 6 /* MCUQ_DEPTHWISE_STEPS */

.macro STEP stride
    .if \stride == 1
    ldrd    r4, r5, [r8], #8
    smlad   r0, r6, r4, r0
    smlad   r1, r6, r5, r1
    ldr     r6, [r7], #4
    smlad   r2, r6, r4, r2
    smlad   r3, r6, r5, r3
    .else
    ldr     r4, [r8], #4
    ldrd    r5, r6, [r7], #4
    smlad   r0, r5, r4, r0
    smlad   r1, r6, r4, r1
    ldrd    r5, r6, [r7, #4]
    smlad   r2, r5, r4, r2
    smlad   r3, r6, r4, r3
    .endif
.endm

.macro KERNEL stride
    .section .text.mcuq_depthwise_blocks_s\stride, "ax", %progbits
    .balign 4
    .global mcuq_depthwise_blocks_s\stride
    .type mcuq_depthwise_blocks_s\stride, %function
    .thumb_func
mcuq_depthwise_blocks_s\stride:
    push    {r4-r11, lr}
    sub     sp, sp, #FRAME
    ldmia   r0!, {r1-r8}
    stm     sp, {r1-r8}
    ldm     r0, {r1-r7}         /* rows, weights, weights_end, plane, output, pitch, steps */
    strd    r1, r2, [sp, #ROWS]
    mov     r9, r3
    mov     r11, r4
    mov     lr, r5
    sub     r10, r6, r7, lsl #2
    .if \stride == 1
    sub     r10, r10, #4
    .endif
    rsb     r7, r7, #STEPS
    mov     r5, #(3f - 2f) / STEPS
    adr.w   r12, 2f
    mla     r12, r7, r5, r12
    orr     r12, r12, #1
0:  ldr     r4, [sp, #BLOCKS]
    str     r4, [sp, #LEFT]
1:  ldr     r0, [sp, #BIAS]
    ldr     r8, [sp, #WEIGHTS]
    mov     r7, r11
    mov     r1, r0
    mov     r2, r0
    mov     r3, r0
4:
    .if \stride == 1
    ldr     r6, [r7], #4
    .endif
    bx      r12
    .balign 4
2:
    .rept STEPS
    STEP    \stride
    .endr
3:
    add     r7, r7, r10
    cmp     r8, r9
    bne.w   4b
    ldr     r4, [sp, #BIAS + 4]
    ldrd    r5, r6, [sp, #ROUNDING]
    .irp r, r0, r1, r2, r3
    smmla   \r, \r, r4, r5
    .endr
    ldr     r4, [sp, #CHANNELS]
    .irp r, r0, r1, r2, r3
    asr     \r, \r, r6
    .endr
    .irp r, r0, r1, r2, r3
    ssat    \r, #8, \r, asr #1
    .endr
    strb    r0, [lr]
    strb    r1, [lr, r4]
    strb    r2, [lr, r4, lsl #1]
    add     lr, lr, r4
    strb    r3, [lr, r4, lsl #1]
    add     lr, lr, r4
    add     lr, lr, r4, lsl #1
    add     r11, r11, #8 * \stride
    ldr     r4, [sp, #LEFT]
    subs    r4, r4, #1
    str     r4, [sp, #LEFT]
    bne.w   1b
    ldrd    r4, r5, [sp, #OUTPUT_STEP]
    ldr     r6, [sp, #ROWS]
    add     lr, lr, r4
    add     r11, r11, r5
    subs    r6, r6, #1
    str     r6, [sp, #ROWS]
    bne.w   0b
    add     sp, sp, #FRAME
    pop     {r4-r11, pc}
.endm

    KERNEL  1
    KERNEL  2

#elif defined(__linux__)
    .section .note.GNU-stack, "", %progbits
#endif
