/* 2-bit weights: panels of 4 channels x 2 pixels; one word holds two pairs of inputs.
 *
 * Byte of one input: | D | C | B | A | crumbs (bits 7..0), all stored + 2. Bytes 0 and 2 are the first pair, bytes
 * 1 and 3 the second. Positions 1, 4, 16, 64, sums and recovery as for 4-bit weights.
 * Holds while 64 * |acc| < 2^31. Panel: header, words, multipliers of A, B, C, D.
 */
#if defined(__ARM_FEATURE_DSP) /* elsewhere gemm_model.c stands in */

#include "gemm.inc.h"
#include "gemm_quad.inc.h"

.macro PAIR
    ldrd    r10, r11, [r9], #8
    smlad   r6, r10, lr, r6
    smlad   r7, r11, lr, r7
    bic     lr, lr, #0x00C000C0
    smlad   r4, r10, lr, r4
    smlad   r5, r11, lr, r5
    bic     lr, lr, #0x00300030
    smlad   r2, r10, lr, r2
    smlad   r3, r11, lr, r3
    bic     lr, lr, #0x000C000C
    smlad   r0, r10, lr, r0
    smlad   r1, r11, lr, r1
.endm

.macro STEPS
    .rept 8
    ldr     r12, [r8], #4
    uxtb16  lr, r12
    PAIR
    uxtb16  lr, r12, ror #8
    PAIR
    .endr
.endm

/* Symmetric weights; SUMS = -2 * sum x. Header: bias A, 4 bias B, 16 bias C, 64 bias D, each with those before it. */
FUNCTION mcuq_gemm_w2
    PROLOGUE 108
0:  QUAD_START_2
    ENTER_LOOP
    STEPS
    LOOP_END
    QUAD_STORE 2

/* Weight zero points; SUMS = sum x. Header: (bias, factor) of A, B, C and D likewise. */
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
