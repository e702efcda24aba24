/* The matrix kernels in C, for computers that lack their instructions: the same panels, columns and wrapping 32-bit
 * sums, so that layouts and range conditions are tested there too. */
#include "gemm.h"
#include "simd.h"

#if !defined(__ARM_FEATURE_DSP)

enum { MAX_CHANNELS = 8 };

typedef struct {
    uint8_t channels, pixels, bits;
    uint8_t zero_points; /* header: (bias, factor) of each channel */
    uint8_t clean;       /* 8 bits: both channels are stored signed */
    uint8_t twice;       /* two roundings; a word of shifts - 32 behind two multipliers */
} panel_kind;

/* Channels that share a word's half words, and the place of channel `c` among them. */
static uint32_t sharing(const panel_kind *k)
{
    return k->bits == 8 ? 2u : 4u;
}

/* log2 of the position of the channel at `place`. */
static uint32_t position(const panel_kind *k, uint32_t place)
{
    return k->clean ? 0u : place * k->bits;
}

/* The half words that pair `j` multiplies into channel `c`. */
static uint32_t operand(const panel_kind *k, const uint32_t *words, uint32_t j, uint32_t c)
{
    const uint32_t place = c % sharing(k), set = c / sharing(k), sets = k->channels / sharing(k);
    const int last = place + 1u == sharing(k);
    const uint32_t bits = k->bits == 8 ? 8u : (place + 1u) * k->bits; /* of four, each with those before it */
    uint32_t word;
    if (k->bits == 2) /* half a word for each set of four: two pairs, or two sets */
        word = words[(j * sets + set) / 2u] >> (8u * ((j * sets + set) & 1u)) & 0x00FF00FFu;
    else
        word = words[j * sets + set];
    if (k->clean)
        return last ? mcuq_sxtb16_high(word) : mcuq_sxtb16(word);
    return last ? word : word & ((1u << bits) - 1u) * 0x00010001u;
}

/* Start value of channel `c` for a pixel whose (scaled) input sum is `sum`. */
static uint32_t start(const panel_kind *k, const uint32_t *header, uint32_t c, uint32_t sum)
{
    if (k->zero_points)
        return header[2u * c] + header[2u * c + 1u] * sum;
    const uint32_t place = c % sharing(k);
    if (k->bits == 8)
        return header[c] + (place == 0u ? 0u : header[c - 1u]) + sum;
    static const uint32_t factors[2][4] = {{1, 17, 273, 273}, {1, 5, 21, 85}};
    return header[c] + sum * factors[k->bits == 2][place];
}

/* The sums of a panel at `panel` (its header): of the pairs `step` words apart, or of int8 inputs four by four. */
static void panel_sums(uint32_t *sums, const panel_kind *k, const uint32_t *panel, int32_t input_sum, uint32_t pairs,
                       const uint32_t *columns, uint32_t step, const int8_t *inputs)
{
    const uint32_t *words = panel + k->channels * (k->zero_points ? 2u : 1u);
    for (uint32_t c = 0; c < k->channels; c++) {
        int32_t sum = (int32_t)start(k, panel, c, (uint32_t)input_sum);
        for (uint32_t j = 0; j < pairs; j++) {
            const uint32_t codes = columns != NULL ? 0 : mcuq_load(inputs + j / 2u * 4u);
            const uint32_t direct = j & 1u ? mcuq_sxtb16_high(codes) : mcuq_sxtb16(codes);
            const uint32_t pair = columns != NULL ? columns[j * step] : direct;
            sum = mcuq_smlad(pair, operand(k, words, j, c), sum);
        }
        sums[c] = (uint32_t)sum;
        const uint32_t place = c % sharing(k);
        for (uint32_t i = 1; !k->clean && i <= place; i++)
            sums[c] -= sums[c - i];
    }
}

/* A sum at 2^position times its channel's value; `rounding` and `v` are the frame's. */
static int8_t requantized(uint32_t sum, uint32_t multiplier, uint32_t v, int32_t rounding, uint32_t position)
{
    const int32_t high = mcuq_smmla((int32_t)sum, (int32_t)multiplier, (int32_t)((uint32_t)rounding << position));
    return (int8_t)mcuq_half_sat8(high >> v >> position);
}

/* A panel's outputs of a pixel; `parameters`: its multipliers and what follows. */
static void store(int8_t *out, const uint32_t *sums, const uint32_t *parameters, const mcuq_gemm_frame *f,
                  const panel_kind *k)
{
    for (uint32_t c = 0; c < k->channels; c++) {
        const uint32_t at = position(k, c % sharing(k));
        if (k->twice) {
            const uint32_t v = parameters[k->channels] >> (8u * c) & 0xFFu;
            const int32_t doubled = (int32_t)(at == 0u ? 2u * sums[c] : (uint32_t)((int32_t)sums[c] >> (at - 1u)));
            const int32_t base = (int32_t)((uint32_t)f->rounding << v);
            out[c] = (int8_t)mcuq_twice_rounded(doubled, (int32_t)parameters[c], base, v);
        } else {
            out[c] = requantized(sums[c], parameters[c], f->v, f->rounding, at);
        }
    }
}

static void run(const mcuq_gemm_frame *f, const panel_kind *k)
{
    const uint32_t pairs = (uint32_t)(f->columns_end - f->columns) / k->pixels;
    const uint32_t *next = f->weights;
    for (int8_t *out = f->output; next != f->weights_end; out += k->channels) {
        const uint32_t header = k->channels * (k->zero_points ? 2u : 1u);
        const uint32_t *multipliers = next + header + pairs * k->channels * k->bits / 16u;
        for (uint32_t p = 0; p < k->pixels; p++) {
            uint32_t sums[MAX_CHANNELS];
            panel_sums(sums, k, next, f->sums[p], pairs, f->columns + p, k->pixels, NULL);
            store(out + p * f->stride, sums, multipliers, f, k);
        }
        next = multipliers + k->channels + k->twice;
    }
}

static void run_direct(const mcuq_direct_frame *f, const panel_kind *k)
{
    const uint32_t pairs = (uint32_t)(f->inputs_end - f->inputs) / 2u;
    const uint32_t panel = k->channels * (k->zero_points ? 2u : 1u) + pairs * k->channels * k->bits / 16u;
    const uint32_t *records = f->records;
    int8_t *out = f->output;
    for (const uint32_t *next = f->weights; next != f->weights_end; next += panel, records += f->record_step / 4u) {
        uint32_t sums[MAX_CHANNELS];
        panel_sums(sums, k, next, f->sum, pairs, NULL, 0, f->inputs);
        for (uint32_t c = 0; c < k->channels; c++)
            *out++ = requantized(sums[c], records[c], f->v, f->rounding, position(k, c % sharing(k)));
    }
}

#define ANY_KERNEL(name, ...) \
    void name(const mcuq_gemm_frame *frame) \
    { \
        static const panel_kind kind = {__VA_ARGS__}; \
        run(frame, &kind); \
    }
#define KERNEL(name, ...) ANY_KERNEL(name, __VA_ARGS__, 0)
#define TWICE_KERNEL(name, ...) ANY_KERNEL(name, __VA_ARGS__, 1)

KERNEL(mcuq_gemm_w8, 2, 4, 8, 0, 0)
KERNEL(mcuq_gemm_w8z, 2, 4, 8, 1, 0)
KERNEL(mcuq_gemm_w8c, 2, 4, 8, 1, 1)
TWICE_KERNEL(mcuq_gemm_w8_twice, 2, 4, 8, 0, 0)
TWICE_KERNEL(mcuq_gemm_w8c_twice, 2, 4, 8, 1, 1)
KERNEL(mcuq_gemm_w4, 4, 2, 4, 0, 0)
KERNEL(mcuq_gemm_w4z, 4, 2, 4, 1, 0)
KERNEL(mcuq_gemm_w2, 4, 2, 2, 0, 0)
KERNEL(mcuq_gemm_w2z, 4, 2, 2, 1, 0)
KERNEL(mcuq_gemm_octets8, 8, 1, 8, 0, 0)
KERNEL(mcuq_gemm_octets8z, 8, 1, 8, 1, 0)
KERNEL(mcuq_gemm_octets4, 8, 1, 4, 0, 0)
KERNEL(mcuq_gemm_octets4z, 8, 1, 4, 1, 0)
KERNEL(mcuq_gemm_octets2, 8, 1, 2, 0, 0)
KERNEL(mcuq_gemm_octets2z, 8, 1, 2, 1, 0)

#define DIRECT_KERNEL(name, ...) \
    void name(const mcuq_direct_frame *frame) \
    { \
        static const panel_kind kind = {__VA_ARGS__, 0}; \
        run_direct(frame, &kind); \
    }

DIRECT_KERNEL(mcuq_gemm_direct8, 8, 1, 8, 0, 0)
DIRECT_KERNEL(mcuq_gemm_direct8z, 8, 1, 8, 1, 0)
DIRECT_KERNEL(mcuq_gemm_direct4, 8, 1, 4, 0, 0)
DIRECT_KERNEL(mcuq_gemm_direct4z, 8, 1, 4, 1, 0)
DIRECT_KERNEL(mcuq_gemm_direct2, 8, 1, 2, 0, 0)
DIRECT_KERNEL(mcuq_gemm_direct2z, 8, 1, 2, 1, 0)

/* gemm_lanes.S: two pixels in a half word; `chunk` pairs are summed before the lanes are read. */
static void run_lanes(const mcuq_gemm_frame *f, uint32_t lane, uint32_t chunk)
{
    const uint32_t pairs = (uint32_t)(f->columns_end - f->columns) / 2u;
    const uint32_t first = f->skipped_steps * 4u; /* pairs that the first chunk is short of */
    const uint32_t *next = f->weights;
    for (int8_t *out = f->output; next != f->weights_end; out += 2) {
        const uint32_t *header = next + pairs / 4u, *multipliers = header + 2;
        for (uint32_t p = 0; p < 4u; p++) {
            for (uint32_t c = 0; c < 2u; c++) {
                uint32_t total = 0;
                int32_t sum = 0;
                for (uint32_t j = 0; j < pairs; j++) {
                    const uint32_t crumbs = next[j / 4u] >> (4u * (j % 4u) + 2u * c) & 0x00030003u;
                    sum = mcuq_smlad(f->columns[2u * j + p / 2u], crumbs, sum);
                    if ((j + first + 1u) % chunk == 0u || j + 1u == pairs) {
                        total += p & 1u ? (uint32_t)sum >> lane : (uint32_t)sum & ((1u << lane) - 1u);
                        sum = 0;
                    }
                }
                total = total * f->scale + header[c] + (uint32_t)f->sums[p];
                out[p * f->stride + c] = requantized(total, multipliers[c], f->v, f->rounding, 0);
            }
        }
        next = multipliers + 2;
    }
}

void mcuq_gemm_lanes2(const mcuq_gemm_frame *frame)
{
    run_lanes(frame, 13, 1u << 31);
}

void mcuq_gemm_lanes4(const mcuq_gemm_frame *frame)
{
    run_lanes(frame, 11, 20);
}

#endif
