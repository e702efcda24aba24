/* Small helpers of the DSP kernels: unaligned words, lane arithmetic, clamping and packing of finished rows. */
#ifndef MCUQ_ARMV7EM_SIMD_H
#define MCUQ_ARMV7EM_SIMD_H

#include <stdint.h>
#include <string.h>

#include "mcuq/mcuq.h"

/* One LDR or STR: these cores access words at any address. */
static inline uint32_t mcuq_load(const void *source)
{
    uint32_t word;
    memcpy(&word, source, sizeof word);
    return word;
}

static inline void mcuq_store(void *target, uint32_t word)
{
    memcpy(target, &word, sizeof word);
}

#if defined(__ARM_FEATURE_DSP)

#include <arm_acle.h>

/* Bytes 0 and 2, sign-extended to half words; bytes 1 and 3. */
static inline uint32_t mcuq_sxtb16(uint32_t word)
{
    return (uint32_t)__sxtb16((int8x4_t)word);
}

static inline uint32_t mcuq_sxtb16_high(uint32_t word)
{
    uint32_t lanes; /* gcc does not fuse the rotation into the intrinsic */
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(lanes) : "r"(word));
    return lanes;
}

/* accumulator + low(a) * low(b) + high(a) * high(b), half words signed. */
static inline int32_t mcuq_smlad(uint32_t a, uint32_t b, int32_t accumulator)
{
    return __smlad((int16x2_t)a, (int16x2_t)b, accumulator);
}

/* Half words a - b. */
static inline uint32_t mcuq_sub16(uint32_t a, uint32_t b)
{
    return (uint32_t)__ssub16((int16x2_t)a, (int16x2_t)b);
}

/* addend + high word of a * b. */
static inline int32_t mcuq_smmla(int32_t a, int32_t b, int32_t addend)
{
    int32_t sum;
    __asm__("smmla %0, %1, %2, %3" : "=r"(sum) : "r"(a), "r"(b), "r"(addend));
    return sum;
}

static inline int32_t mcuq_sat8(int32_t value)
{
    int32_t code;
    __asm__("ssat %0, #8, %1" : "=r"(code) : "r"(value));
    return code;
}

/* Half words: sum + bytes 0 and 2 of word, sign-extended; bytes 1 and 3. */
static inline uint32_t mcuq_sxtab16(uint32_t sum, uint32_t word)
{
    return (uint32_t)__sxtab16((int16x2_t)sum, (int8x4_t)word);
}

static inline uint32_t mcuq_sxtab16_high(uint32_t sum, uint32_t word)
{
    uint32_t lanes;
    __asm__("sxtab16 %0, %1, %2, ror #8" : "=r"(lanes) : "r"(sum), "r"(word));
    return lanes;
}

/* value / 2, rounded down, saturated to int8. */
static inline int32_t mcuq_half_sat8(int32_t value)
{
    int32_t code;
    __asm__("ssat %0, #8, %1, asr #1" : "=r"(code) : "r"(value));
    return code;
}

/* Signed bytes. */
static inline uint32_t mcuq_max8(uint32_t a, uint32_t b)
{
    (void)__ssub8((int8x4_t)a, (int8x4_t)b);
    return (uint32_t)__sel((uint8x4_t)a, (uint8x4_t)b);
}

static inline uint32_t mcuq_min8(uint32_t a, uint32_t b)
{
    (void)__ssub8((int8x4_t)a, (int8x4_t)b);
    return (uint32_t)__sel((uint8x4_t)b, (uint8x4_t)a);
}

#else /* The same in C, so that a network for these cores also runs on the computer that compiled it. */

static inline uint32_t mcuq_sxtb16(uint32_t word)
{
    return (uint32_t)(uint16_t)(int8_t)word | (uint32_t)(int8_t)(word >> 16) << 16;
}

static inline uint32_t mcuq_sxtb16_high(uint32_t word)
{
    return mcuq_sxtb16(word >> 8);
}

static inline int32_t mcuq_smlad(uint32_t a, uint32_t b, int32_t accumulator)
{
    const uint32_t low = (uint32_t)((int16_t)a * (int16_t)b);
    const uint32_t high = (uint32_t)((int16_t)(a >> 16) * (int16_t)(b >> 16));
    return (int32_t)((uint32_t)accumulator + low + high);
}

static inline uint32_t mcuq_sub16(uint32_t a, uint32_t b)
{
    return ((a - b) & 0xFFFFu) | ((a >> 16) - (b >> 16)) << 16;
}

static inline int32_t mcuq_smmla(int32_t a, int32_t b, int32_t addend)
{
    return (int32_t)(((int64_t)a * b) >> 32) + addend;
}

static inline int32_t mcuq_smmlar(int32_t a, int32_t b, int32_t addend)
{
    return (int32_t)(((int64_t)a * b + ((int64_t)1 << 31)) >> 32) + addend;
}

static inline int32_t mcuq_half_sat8(int32_t value)
{
    return mcuq_clamp(value >> 1, -128, 127);
}

/* Two roundings of twice a sum (REQUANTIZE_TWICE of gemm.inc.h); base: (2 * zero_point + 1) << v. */
static inline int32_t mcuq_twice_rounded(int32_t doubled, int32_t multiplier, int32_t base, uint32_t v)
{
    return mcuq_half_sat8(mcuq_smmlar(doubled, multiplier, base + (doubled >> 31)) >> v);
}

static inline int32_t mcuq_sat8(int32_t value)
{
    return mcuq_clamp(value, -128, 127);
}

static inline uint32_t mcuq_sxtab16(uint32_t sum, uint32_t word)
{
    const uint32_t low = (uint32_t)(int8_t)word, high = (uint32_t)(int8_t)(word >> 16);
    return ((sum + low) & 0xFFFFu) | ((sum >> 16) + high) << 16;
}

static inline uint32_t mcuq_sxtab16_high(uint32_t sum, uint32_t word)
{
    return mcuq_sxtab16(sum, word >> 8);
}

static inline uint32_t mcuq_select8(uint32_t a, uint32_t b, int largest)
{
    uint32_t bytes = 0;
    for (int i = 0; i < 32; i += 8) {
        const int8_t left = (int8_t)(a >> i), right = (int8_t)(b >> i);
        bytes |= (uint32_t)(uint8_t)((left >= right) == (largest != 0) ? left : right) << i;
    }
    return bytes;
}

static inline uint32_t mcuq_max8(uint32_t a, uint32_t b)
{
    return mcuq_select8(a, b, 1);
}

static inline uint32_t mcuq_min8(uint32_t a, uint32_t b)
{
    return mcuq_select8(a, b, 0);
}

#endif

static inline uint32_t mcuq_bytes(int32_t value)
{
    return ((uint32_t)value & 0xFFu) * 0x01010101u;
}

/* out = clamp(row) for int8 codes; in place when both are the same. */
void mcuq_clamp_row8(const int8_t *row, int8_t *out, uint32_t count, int32_t lo, int32_t hi);

/* Clamps int8 codes to lo..hi (inside the code range of `bits`) and packs them; bits 8, 4 or 2. */
void mcuq_finish_row(const int8_t *row, uint8_t *out, uint32_t count, uint32_t bits, int32_t lo, int32_t hi);

#endif
