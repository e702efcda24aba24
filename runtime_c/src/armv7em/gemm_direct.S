/* Panels of 8 channels x 1 pixel as in gemm_octets.S, the inputs int8 where they lie: a step takes four of them, in two
 * pairs. Multipliers lie behind all panels, so that eight equal ones may serve a whole layer.
 */
#if defined(__ARM_FEATURE_DSP) /* elsewhere gemm_model.c stands in */

#include "gemm.inc.h"
#include "gemm_octet.inc.h"

    .equ RECORD, 16 /* mcuq_direct_frame */
    .equ RECORD_STEP, 36

.macro STORE_DIRECT bits
    ldr     lr, [sp, #RECORD]
    REQUANTIZE_EIGHT lr, \bits
    ldr     r10, [sp, #RECORD_STEP]
    add     lr, lr, r10
    str     lr, [sp, #RECORD]
    STORE_EIGHT
    NEXT_PANEL
.endm

/* Of four inputs the first pair, the second one; products of 4 and 2 bits leave lr alone. */
.macro STEPS products
    .rept 2
    ldr     r10, [r9]
    sxtb16  r10, r10
    \products
    ldr     r10, [r9], #4
    sxtb16  r10, r10, ror #8
    \products
    .endr
.endm

.macro STEPS_KEEPING products
    .rept 2
    ldr     lr, [r9], #4
    sxtb16  r10, lr
    \products
    sxtb16  r10, lr, ror #8
    \products
    .endr
.endm

.macro PRODUCTS8
    ldrd    r11, r12, [r8], #8
    PAIR8   r11, r0, r1
    PAIR8   r12, r2, r3
    ldrd    r11, r12, [r8], #8
    PAIR8   r11, r4, r5
    PAIR8   r12, r6, r7
.endm

.macro PRODUCTS4
    ldrd    r11, r12, [r8], #8
    QUAD4   r10, r11, r0, r1, r2, r3
    QUAD4   r10, r12, r4, r5, r6, r7
.endm

.macro PRODUCTS2
    ldr     r11, [r8], #4
    uxtb16  r12, r11
    QUAD2   r10, r12, r0, r1, r2, r3
    uxtb16  r12, r11, ror #8
    QUAD2   r10, r12, r4, r5, r6, r7
.endm

.macro DIRECT name, bits, step_bytes, start, steps, products, recover
FUNCTION \name
    PROLOGUE \step_bytes
0:  \start
    ENTER_LOOP
    \steps \products
    LOOP_END
    \recover
    STORE_DIRECT \bits
.endm

    DIRECT  mcuq_gemm_direct8, 8, 128, START8, STEPS, PRODUCTS8, RECOVER8
    DIRECT  mcuq_gemm_direct8z, 8, 128, START_ZERO_POINTS, STEPS, PRODUCTS8, RECOVER8
    DIRECT  mcuq_gemm_direct4, 4, 132, START4, STEPS_KEEPING, PRODUCTS4, RECOVER_QUADS
    DIRECT  mcuq_gemm_direct4z, 4, 132, START_ZERO_POINTS, STEPS_KEEPING, PRODUCTS4, RECOVER_QUADS
    DIRECT  mcuq_gemm_direct2, 2, 148, START2, STEPS_KEEPING, PRODUCTS2, RECOVER_QUADS
    DIRECT  mcuq_gemm_direct2z, 2, 148, START_ZERO_POINTS, STEPS_KEEPING, PRODUCTS2, RECOVER_QUADS

#elif defined(__linux__)
    .section .note.GNU-stack, "", %progbits
#endif
