/* Frame and macros of the matrix kernels (assembler only). docs/kernels.md draws layouts and blocking.
 *
 * A kernel computes all output channels of one group of pixels whose inputs stand in `columns` as int16 pairs,
 * pixel-interleaved. r0-r7 hold eight accumulators, r8 walks the weights, r9 the columns; r10, r11, r12, lr are
 * temporaries. Nothing else fits, so the frame below lies at sp.
 *
 * Requantization in 4 instructions an output, exact for shifts of 33 and more (docs/NUMERICS.md), one shift a layer; a
 * channel summed at 2^p times its value has p more:
 *   smmla  t = high32(acc * m) + c,  c = (2 * zero_point + 1) << (v + p),  v = shift - 33
 *   asr    t >>= v
 *   ssat   y = saturate8(t >> (1 + p))
 */
    .syntax unified
    .thumb

    .equ COLUMNS, 0      /* first pair of the columns */
    .equ ENTRY, 4        /* where the unrolled loop is entered */
    .equ COLUMNS_END, 8
    .equ OUTPUT, 12      /* next outputs of pixel 0 */
    .equ STRIDE, 16      /* bytes between the outputs of two pixels */
    .equ ROUNDING, 20    /* (2 * zero_point + 1) << v, and v behind it */
    .equ WEIGHTS_END, 28
    .equ SUMS, 32        /* four words: factor * sum of the inputs of each pixel */
    .equ WIDE, 48        /* eight words of gemm_lanes.S */
    .equ SCALE, 80       /* 2^k, of gemm_lanes.S */
    .equ FRAME, 84

.macro FUNCTION name
    .section .text.\name, "ax", %progbits
    .balign 4
    .global \name
    .type \name, %function
    .thumb_func
\name:
.endm

/* Copies the C frame to sp; \bytes: code bytes of one unrolled step. */
.macro PROLOGUE bytes
    push    {r4-r11, lr}
    sub     sp, sp, #FRAME
    ldmia   r0!, {r1-r7, r12}
    adr.w   lr, 1f
    mov     r8, #\bytes
    mla     r2, r2, r8, lr
    orr     r2, r2, #1
    stm     sp, {r1-r7, r12}
    ldr     r8, [r0], #4
    ldm     r0, {r1-r4}
    add     r5, sp, #SUMS
    stm     r5, {r1-r4}
.endm

.macro ENTER_LOOP
    ldr     r9, [sp, #COLUMNS]
    ldr.w   pc, [sp, #ENTRY]
    .balign 4
1:
.endm

.macro LOOP_END
    ldr     r12, [sp, #COLUMNS_END]
    cmp     r9, r12
    bne.w   1b
.endm

.macro NEXT_PANEL
    ldr     r12, [sp, #WEIGHTS_END]
    cmp     r8, r12
    bne.w   0b
    add     sp, sp, #FRAME
    pop     {r4-r11, pc}
.endm

/* r12 = rounding, r10 = v, for REQUANTIZE. */
.macro LOAD_ROUNDING
    ldrd    r12, r10, [sp, #ROUNDING]
.endm

/* Requantizes \regs, summed at 2^\position times their value, with \multiplier; r12 holds the rounding at that position. */
.macro REQUANTIZE multiplier, position, regs:vararg
    .irp r, \regs
    smmla   \r, \r, \multiplier, r12
    .endr
    .irp r, \regs
    asr     \r, \r, r10
    .endr
    .irp r, \regs
    ssat    \r, #8, \r, asr #(1 + \position)
    .endr
.endm

/* The two roundings of docs/NUMERICS.md, exact for multipliers from 0 on and shifts of 32 and more. \regs hold twice their
 * sums, so that what the sign of a sum adds to the product, half a unit of its high word, is that word's rounding or
 * one less; r12 = c = (2 * zero_point + 1) << v, v = shift - 32 in the last byte of r10; lr is overwritten:
 *   add    n = c + (acc >> 31)
 *   smmlar t = high32(acc * m + 2^31) + n
 */
.macro REQUANTIZE_TWICE multiplier, regs:vararg
    .irp r, \regs
    add     lr, r12, \r, asr #31
    smmlar  \r, \r, \multiplier, lr
    .endr
    .irp r, \regs
    asr     \r, \r, r10
    .endr
    .irp r, \regs
    ssat    \r, #8, \r, asr #1
    .endr
.endm
