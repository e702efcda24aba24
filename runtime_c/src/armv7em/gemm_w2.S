/* 2-bit weights: panels of 4 channels x 2 pixels; one word holds two pairs of inputs.
 *
 * Byte of one input: | D | C | B | A | crumbs (bits 7..0), all stored + 2. Bytes 0 and 2 are the first pair, bytes
 * 1 and 3 the second. Positions 1, 4, 16, 64 as for 4-bit weights; the zero-extended bytes give D.
 * Holds while 64 * |acc| < 2^31. Panel: header, words, multipliers of A, B, C, D.
 */
#if defined(__ARM_FEATURE_DSP) /* elsewhere gemm_model.c stands in */

#include "gemm.inc.h"
#include "gemm_quad.inc.h"

.macro PAIR w
    smlad   r0, r10, lr, r0
    smlad   r1, r11, lr, r1
    and     lr, \w, #0x000C000C
    smlad   r2, r10, lr, r2
    smlad   r3, r11, lr, r3
    and     lr, \w, #0x00300030
    smlad   r4, r10, lr, r4
    smlad   r5, r11, lr, r5
.endm

.macro STEPS
    .rept 8
    ldr     r12, [r8], #4
    ldrd    r10, r11, [r9], #8
    and     lr, r12, #0x00030003
    PAIR    r12
    uxtb16  lr, r12
    smlad   r6, r10, lr, r6
    smlad   r7, r11, lr, r7
    uxtb16  r12, r12, ror #8
    ldrd    r10, r11, [r9], #8
    and     lr, r12, #0x00030003
    PAIR    r12
    smlad   r6, r10, r12, r6
    smlad   r7, r11, r12, r7
    .endr
.endm

/* Symmetric weights; SUMS = -2 * sum x. Header: bias A, 4 bias B, 16 bias C, and 64 bias D + those three. */
FUNCTION mcuq_gemm_w2
    PROLOGUE 108
0:  QUAD_START 85, 2, 4
    ENTER_LOOP
    STEPS
    LOOP_END
    QUAD_STORE 2

/* Weight zero points; SUMS = sum x. Header: (bias, factor) of A, B, C and D at their positions. */
FUNCTION mcuq_gemm_w2z
    PROLOGUE 108
0:  QUAD_START_ZERO_POINTS
    ENTER_LOOP
    STEPS
    LOOP_END
    QUAD_STORE 2

#elif defined(__linux__)
    .section .note.GNU-stack, "", %progbits
#endif
