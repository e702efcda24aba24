/* Elementwise rescaling of part of a row, shared by rescale and pad. */
#ifndef MCUQ_SRC_RESCALE_ROW_H
#define MCUQ_SRC_RESCALE_ROW_H

#include "pack.h"

/* How codes change: y = clamp((x * multiplier + constant) >> shift). */
typedef struct {
    mcuq_affine affine;
    int32_t lo, hi;
    uint32_t input_bits, output_bits;
} mcuq_rescale_rule;

/* Rescale a whole input row of `count` codes and append it to the output row from code `first` on.
 * Output and input may be the same memory when first is 0 and the output row is no longer: a chunk is read
 * before it is written, and no output byte lies behind the input byte it comes from. */
static inline void mcuq_rescale_row(const mcuq_rescale_rule *rule, const uint8_t *input, uint32_t count,
                                    uint8_t *output, uint32_t first)
{
    int8_t codes[MCUQ_CHUNK];
    for (uint32_t done = 0; done < count; done += MCUQ_CHUNK) {
        const uint32_t chunk = mcuq_min(MCUQ_CHUNK, count - done);
        const int8_t *x = mcuq_view(input, done, chunk, rule->input_bits, codes);
        int8_t *y = rule->output_bits == 8u ? (int8_t *)output + first + done : codes;
        for (uint32_t i = 0; i < chunk; i++) {
            y[i] = (int8_t)mcuq_rescale(x[i], &rule->affine, rule->lo, rule->hi);
        }
        if (rule->output_bits != 8u) {
            mcuq_pack(output, first + done, codes, chunk, rule->output_bits);
        }
    }
}

#endif
