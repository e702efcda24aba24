/* 4-bit weights: panels of 4 channels x 2 pixels.
 *
 * Half word of one input: | D | C | B | A | nibbles (bits 15..0); A, B, C stored + 8, D signed.
 * Each channel accumulates at its own bit position: A * 1, B * 16, C * 256, D * 4096. The raw word is multiplied into D,
 * then D's nibbles are cleared and the rest is multiplied into C, and so on: sums of 4096 D + 256 C + 16 B + A, 256 C +
 * 16 B + A, 16 B + A and A, which are taken apart at the end. The positions are absorbed by the requantization shift
 * (shift + 0, 4, 8, 12). Holds while 4096 * |acc| < 2^31.
 * Panel: header, words, multipliers of A, B, C, D.
 */
#if defined(__ARM_FEATURE_DSP) /* elsewhere gemm_model.c stands in */

#include "gemm.inc.h"

.macro PAIR w
    ldrd    r10, r11, [r9], #8
    smlad   r6, r10, \w, r6
    smlad   r7, r11, \w, r7
    bic     \w, \w, #0xF000F000
    smlad   r4, r10, \w, r4
    smlad   r5, r11, \w, r5
    bic     \w, \w, #0x0F000F00
    smlad   r2, r10, \w, r2
    smlad   r3, r11, \w, r3
    bic     \w, \w, #0x00F000F0
    smlad   r0, r10, \w, r0
    smlad   r1, r11, \w, r1
.endm

.macro STEPS
    .rept 16
    ldrd    r12, lr, [r8], #8
    PAIR    r12
    PAIR    lr
    .endr
.endm

#include "gemm_quad.inc.h"

/* Symmetric weights; SUMS = -8 * sum x. Header: bias A, 16 bias B, 256 bias C, 4096 bias D, each with those before it. */
FUNCTION mcuq_gemm_w4
    PROLOGUE 100
0:  QUAD_START_4
    ENTER_LOOP
    STEPS
    LOOP_END
    QUAD_STORE 4

/* Weight zero points; SUMS = sum x. Header: (bias, factor) of A, B, C and D likewise. */
FUNCTION mcuq_gemm_w4z
    PROLOGUE 100
0:  QUAD_START_ZERO_POINTS
    ENTER_LOOP
    STEPS
    LOOP_END
    QUAD_STORE 4

#elif defined(__linux__)
    .section .note.GNU-stack, "", %progbits
#endif
