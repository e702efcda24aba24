/* Panels of 8 channels x 1 pixel, for fully connected layers: per pair of inputs the words of four pairs of channels
 * (8-bit weights, as in gemm_w8.S), of two quads (4-bit, gemm_w4.S), or one word whose bytes 0, 2 and 1, 3 are two
 * quads (2-bit, gemm_w2.S). Range conditions are those files'. Panel: 8 header entries, words, 8 multipliers.
 */
#if defined(__ARM_FEATURE_DSP) /* elsewhere gemm_model.c stands in */

#include "gemm.inc.h"
#include "gemm_octet.inc.h"

.macro STORE_OCTET bits
    REQUANTIZE_EIGHT r8, \bits
    add     r8, r8, #32
    STORE_EIGHT
    NEXT_PANEL
.endm

/* ---- 8 bits ---- */

.macro STEPS8
    .rept 16
    ldr     r10, [r9], #4
    ldrd    r11, r12, [r8], #8
    PAIR8   r11, r0, r1
    PAIR8   r12, r2, r3
    ldrd    r11, r12, [r8], #8
    PAIR8   r11, r4, r5
    PAIR8   r12, r6, r7
    .endr
.endm

FUNCTION mcuq_gemm_octets8
    PROLOGUE 60
0:  START8
    ENTER_LOOP
    STEPS8
    LOOP_END
    RECOVER8
    STORE_OCTET 8

FUNCTION mcuq_gemm_octets8z
    PROLOGUE 60
0:  START_ZERO_POINTS
    ENTER_LOOP
    STEPS8
    LOOP_END
    RECOVER8
    STORE_OCTET 8

/* ---- 4 bits ---- */

.macro STEPS4
    .rept 8
    ldrd    r10, lr, [r9], #8
    ldrd    r11, r12, [r8], #8
    QUAD4   r10, r11, r0, r1, r2, r3
    QUAD4   r10, r12, r4, r5, r6, r7
    ldrd    r11, r12, [r8], #8
    QUAD4   lr, r11, r0, r1, r2, r3
    QUAD4   lr, r12, r4, r5, r6, r7
    .endr
.endm

FUNCTION mcuq_gemm_octets4
    PROLOGUE 124
0:  START4
    ENTER_LOOP
    STEPS4
    LOOP_END
    RECOVER_QUADS
    STORE_OCTET 4

FUNCTION mcuq_gemm_octets4z
    PROLOGUE 124
0:  START_ZERO_POINTS
    ENTER_LOOP
    STEPS4
    LOOP_END
    RECOVER_QUADS
    STORE_OCTET 4

/* ---- 2 bits ---- */

.macro STEPS2
    .rept 16
    ldr     r10, [r9], #4
    ldr     r11, [r8], #4
    uxtb16  r12, r11
    QUAD2   r10, r12, r0, r1, r2, r3
    uxtb16  r12, r11, ror #8
    QUAD2   r10, r12, r4, r5, r6, r7
    .endr
.endm

FUNCTION mcuq_gemm_octets2
    PROLOGUE 72
0:  START2
    ENTER_LOOP
    STEPS2
    LOOP_END
    RECOVER_QUADS
    STORE_OCTET 2

FUNCTION mcuq_gemm_octets2z
    PROLOGUE 72
0:  START_ZERO_POINTS
    ENTER_LOOP
    STEPS2
    LOOP_END
    RECOVER_QUADS
    STORE_OCTET 2

#elif defined(__linux__)
    .section .note.GNU-stack, "", %progbits
#endif
