/* depthwise3x3.S in C, for computers that lack its instructions. */
#include "depthwise3x3.h"
#include "simd.h"

#if !defined(__ARM_FEATURE_DSP)

static void rows(const mcuq_depthwise_rows *r, int32_t stride, int32_t pitch, int twice)
{
    const int32_t outputs = r->blocks == 0u ? 1 : (int32_t)r->blocks * (stride == 1 ? 2 : 1);
    int8_t *out = r->output;
    for (const int16_t *plane = r->plane; plane != r->end; plane += stride * pitch / 2) {
        for (int32_t i = 0; i < outputs; i++) {
            int32_t sum = r->bias;
            for (int32_t k = 0; k < 3; k++) {
                const int16_t *x = plane + k * pitch / 2 + i * stride;
                const int16_t w0 = (int16_t)r->weights[2 * k], w1 = (int16_t)(r->weights[2 * k] >> 16);
                sum += x[0] * w0 + x[1] * w1 + x[2] * (int16_t)(r->weights[2 * k + 1] >> 16);
            }
            out[(uint32_t)i * r->channels] =
                (int8_t)(twice ? mcuq_twice_rounded(sum, r->multiplier, r->rounding, r->v)
                               : mcuq_half_sat8(mcuq_smmla(sum, r->multiplier, r->rounding) >> r->v));
        }
        out += r->output_step + (r->blocks == 0u ? 0 : outputs * (int32_t)r->channels);
    }
}

void mcuq_depthwise_gather8(const mcuq_depthwise_gather *g)
{
    const uint8_t *codes = g->codes;
    int16_t *left = g->left, *right = g->right;
    for (uint32_t y = 0; y < g->rows; y++, codes += g->row_bytes) {
        for (uint32_t x = 0; x < g->width; x++) {
            *left++ = (int8_t)codes[x * g->channels];
            *right++ = (int8_t)codes[x * g->channels + 1u];
        }
        left += g->plane_step / 2u;
        right += g->plane_step / 2u;
    }
}

static void gather_packed(const mcuq_depthwise_gather *g, uint32_t bits, uint32_t shift)
{
    const uint32_t mask = (1u << bits) - 1u;
    const uint8_t *codes = g->codes;
    int16_t *left = g->left, *right = g->right;
    for (uint32_t y = 0; y < g->rows; y++, codes += g->row_bytes) {
        for (uint32_t x = 0; x < g->width; x++) {
            const uint32_t pair = (uint32_t)codes[x * g->channels] >> shift;
            *left++ = (int16_t)(pair & mask);
            *right++ = (int16_t)(pair >> bits & mask);
        }
        left += g->plane_step / 2u;
        right += g->plane_step / 2u;
    }
}

void mcuq_depthwise_gather4(const mcuq_depthwise_gather *g, uint32_t shift)
{
    gather_packed(g, 4, shift);
}

void mcuq_depthwise_gather2(const mcuq_depthwise_gather *g, uint32_t shift)
{
    gather_packed(g, 2, shift);
}

#define KERNEL(stride, pitch, suffix, twice) \
    void mcuq_depthwise_rows_s##stride##_p##pitch##suffix(const mcuq_depthwise_rows *r) \
    { \
        rows(r, stride, pitch, twice); \
    }

#define KERNELS(pitch) KERNEL(1, pitch, , 0) KERNEL(2, pitch, , 0) KERNEL(1, pitch, _twice, 1) KERNEL(2, pitch, _twice, 1)

KERNELS(16)
KERNELS(32)
KERNELS(64)
KERNELS(128)
KERNELS(256)

#endif
