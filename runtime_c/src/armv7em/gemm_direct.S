/* Panels of 8 channels x 1 pixel as in gemm_octets.S, the inputs int8 where they lie: a step takes four of them, in two
 * pairs. Multipliers and shifts lie behind all panels, so that one record may serve a whole layer:
 * 8 multipliers, 8 bytes v.
 */
#if defined(__ARM_FEATURE_DSP) /* elsewhere gemm_model.c stands in */

#include "gemm.inc.h"
#include "gemm_octet.inc.h"

    .equ RECORD, 16 /* mcuq_direct_frame */
    .equ RECORD_STEP, 36

.macro STORE_DIRECT
    ldr     r12, [sp, #ROUNDING]
    ldr     lr, [sp, #RECORD]
    .set v_at, 28
    .irp r, r0, r1, r2, r3, r4, r5, r6, r7
    ldr     r9, [lr], #4
    ldrb    r10, [lr, #v_at]
    lsl     r11, r12, r10
    smmla   \r, \r, r9, r11
    asr     \r, \r, r10
    ssat    \r, #8, \r, asr #1
    .set v_at, v_at - 3
    .endr
    ldr     r9, [sp, #RECORD]
    ldr     r10, [sp, #RECORD_STEP]
    add     r9, r9, r10
    str     r9, [sp, #RECORD]
    STORE_EIGHT
    NEXT_PANEL
.endm

/* \products takes the pair in r10 from the stream. */
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
    QUAD4   r11, r0, r1, r2, r3
    QUAD4   r12, r4, r5, r6, r7
.endm

.macro PRODUCTS2
    ldr     r11, [r8], #4
    uxtb16  r12, r11
    QUAD2   r12, r0, r1, r2, r3
    uxtb16  r12, r11, ror #8
    QUAD2   r12, r4, r5, r6, r7
.endm

.macro DIRECT name, step_bytes, start, products, recover
FUNCTION \name
    PROLOGUE \step_bytes
0:  \start
    ENTER_LOOP
    STEPS   \products
    LOOP_END
    \recover
    STORE_DIRECT
.endm

    DIRECT  mcuq_gemm_direct8, 128, START8, PRODUCTS8, RECOVER8
    DIRECT  mcuq_gemm_direct8z, 128, START_ZERO_POINTS, PRODUCTS8, RECOVER8
    DIRECT  mcuq_gemm_direct4, 136, START4, PRODUCTS4, RECOVER_QUADS
    DIRECT  mcuq_gemm_direct4z, 136, START_ZERO_POINTS, PRODUCTS4, RECOVER_QUADS
    DIRECT  mcuq_gemm_direct2, 152, START2, PRODUCTS2, RECOVER_QUADS
    DIRECT  mcuq_gemm_direct2z, 152, START_ZERO_POINTS, PRODUCTS2, RECOVER_QUADS

#elif defined(__linux__)
    .section .note.GNU-stack, "", %progbits
#endif
