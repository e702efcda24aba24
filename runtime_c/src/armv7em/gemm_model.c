/* The matrix kernels in C, for computers that lack their instructions: the same panels, columns and wrapping 32-bit
 * sums, so that layouts and range conditions are tested there too. */
#include "gemm.h"
#include "simd.h"

#if !defined(__ARM_FEATURE_DSP)

enum { MAX_CHANNELS = 4 };

typedef struct {
    uint8_t channels, pixels, pairs_per_word;
    uint8_t zero_points;         /* header: (bias, factor) of each channel */
    uint8_t shared;              /* the last channel is recovered from the raw word */
    uint16_t total;              /* symmetric: what the raw word adds for one unit of the sum */
    uint8_t shift[MAX_CHANNELS]; /* log2 of the positions */
} panel_kind;

/* The half words that pair `j` multiplies into channel `c`. */
static uint32_t operand(const panel_kind *k, const uint32_t *words, uint32_t j, uint32_t c)
{
    const uint32_t word = words[j / k->pairs_per_word];
    const int last = c + 1u == k->channels;
    if (k->channels == 2) {
        if (!k->shared)
            return c == 0 ? mcuq_sxtb16(word) : mcuq_sxtb16_high(word);
        return last ? word : word & 0x00FF00FFu;
    }
    if (k->pairs_per_word == 1)
        return last ? word : word & 0x000F000Fu << k->shift[c];
    const uint32_t bytes = word >> (8u * (j & 1u)) & 0x00FF00FFu;
    return last ? bytes : bytes & 0x00030003u << k->shift[c];
}

/* Start value of channel `c` for a pixel whose (scaled) input sum is `sum`. */
static uint32_t start(const panel_kind *k, const uint32_t *header, uint32_t c, uint32_t sum)
{
    if (k->zero_points)
        return header[2u * c] + header[2u * c + 1u] * sum;
    if (c + 1u < k->channels)
        return header[c] + (sum << k->shift[c]);
    if (k->channels == 2)
        return header[1] + header[0] + sum;
    return header[c] + sum * k->total;
}

static void run(const mcuq_gemm_frame *f, const panel_kind *k)
{
    const uint32_t pairs = (uint32_t)(f->columns_end - f->columns) / k->pixels;
    const uint32_t *next = f->weights;
    for (int8_t *out = f->output; next != f->weights_end; out += k->channels) {
        const uint32_t *words = next + k->channels * (k->zero_points ? 2u : 1u);
        const uint32_t *records = words + pairs / k->pairs_per_word;
        for (uint32_t p = 0; p < k->pixels; p++) {
            uint32_t sums[MAX_CHANNELS];
            for (uint32_t c = 0; c < k->channels; c++) {
                int32_t sum = (int32_t)start(k, next, c, (uint32_t)f->sums[p]);
                for (uint32_t j = 0; j < pairs; j++)
                    sum = mcuq_smlad(f->columns[j * k->pixels + p], operand(k, words, j, c), sum);
                sums[c] = (uint32_t)sum;
                for (uint32_t i = 0; k->shared && c + 1u == k->channels && i < c; i++)
                    sums[c] -= sums[i];
                const uint32_t v = records[2u * c + 1u];
                const int32_t rounding = (int32_t)((uint32_t)f->rounding << v);
                const int32_t high = mcuq_smmla((int32_t)sums[c], (int32_t)records[2u * c], rounding);
                out[p * f->stride + c] = (int8_t)mcuq_half_sat8(high >> v);
            }
        }
        next = records + 2u * k->channels;
    }
}

#define KERNEL(name, ...) \
    void name(const mcuq_gemm_frame *frame) \
    { \
        static const panel_kind kind = {__VA_ARGS__}; \
        run(frame, &kind); \
    }

KERNEL(mcuq_gemm_w8, 2, 4, 1, 0, 1, 1, {0, 8, 0, 0})
KERNEL(mcuq_gemm_w8z, 2, 4, 1, 1, 1, 0, {0, 8, 0, 0})
KERNEL(mcuq_gemm_w8c, 2, 4, 1, 1, 0, 0, {0, 0, 0, 0})
KERNEL(mcuq_gemm_w4, 4, 2, 1, 0, 1, 273, {0, 4, 8, 12})
KERNEL(mcuq_gemm_w4z, 4, 2, 1, 1, 1, 0, {0, 4, 8, 12})
KERNEL(mcuq_gemm_w2, 4, 2, 2, 0, 1, 85, {0, 2, 4, 6})
KERNEL(mcuq_gemm_w2z, 4, 2, 2, 1, 1, 0, {0, 2, 4, 6})

#endif
