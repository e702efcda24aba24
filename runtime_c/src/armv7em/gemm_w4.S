/* 4-bit weights: panels of 4 channels x 2 pixels.
 *
 * Half word of one input: | D | C | B | A | nibbles (bits 15..0); A, B, C stored + 8, D signed.
 * Each channel accumulates at its own bit position: A * 1, B * 16, C * 256, so unpacking is one AND; the raw word
 * is 4096 * D + 256 * C + 16 * B + A, so 4096 * D = d - a - b - c. The positions are absorbed by the
 * requantization shift (shift + 0, 4, 8, 12). Holds while 4096 * |acc| < 2^31.
 * Panel: header, words, multipliers of A, B, C, D.
 */
#if defined(__ARM_FEATURE_DSP) /* elsewhere gemm_model.c stands in */

#include "gemm.inc.h"

.macro STEPS
    .rept 32
    ldr     r12, [r8], #4
    ldrd    r10, r11, [r9], #8
    and     lr, r12, #0x000F000F
    smlad   r0, r10, lr, r0
    smlad   r1, r11, lr, r1
    and     lr, r12, #0x00F000F0
    smlad   r2, r10, lr, r2
    smlad   r3, r11, lr, r3
    and     lr, r12, #0x0F000F00
    smlad   r4, r10, lr, r4
    smlad   r5, r11, lr, r5
    smlad   r6, r10, r12, r6
    smlad   r7, r11, r12, r7
    .endr
.endm

#include "gemm_quad.inc.h"

/* Symmetric weights; SUMS = -8 * sum x. Header: bias A, 16 bias B, 256 bias C, and 4096 bias D + those three. */
FUNCTION mcuq_gemm_w4
    PROLOGUE 52
0:  QUAD_START 273, 4, 8
    ENTER_LOOP
    STEPS
    LOOP_END
    QUAD_STORE 4

/* Weight zero points; SUMS = sum x. Header: (bias, factor) of A, B, C and D at their positions. */
FUNCTION mcuq_gemm_w4z
    PROLOGUE 52
0:  QUAD_START_ZERO_POINTS
    ENTER_LOOP
    STEPS
    LOOP_END
    QUAD_STORE 4

#elif defined(__linux__)
    .section .note.GNU-stack, "", %progbits
#endif
