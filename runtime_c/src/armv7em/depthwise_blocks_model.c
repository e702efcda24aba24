/* depthwise_blocks.S in C, for computers that lack its instructions. */
#include "depthwise_blocks.h"
#include "simd.h"

#if !defined(__ARM_FEATURE_DSP)

static int32_t output_sum(const mcuq_depthwise_blocks *b, const int16_t *plane, uint32_t output, uint32_t stride)
{
    const uint32_t words = stride == 1 ? 2 : 1;
    int32_t sum = b->bias;
    for (const uint32_t *row = b->weights; row != b->weights_end; row += words * b->steps, plane += b->pitch / 2u) {
        const int16_t *x = plane + (stride == 1 ? output & ~1u : 2u * output);
        const uint32_t odd = stride == 1 ? output & 1u : 0u;
        for (uint32_t j = 0; j < b->steps; j++, x += 2)
            sum = mcuq_smlad((uint16_t)x[0] | (uint32_t)(uint16_t)x[1] << 16, row[words * j + odd], sum);
    }
    return sum;
}

static void blocks(const mcuq_depthwise_blocks *b, uint32_t stride)
{
    const int16_t *plane = b->plane;
    int8_t *out = b->output;
    for (uint32_t y = 0; y < b->rows; y++, out += b->output_step, plane += b->plane_step / 2) {
        for (uint32_t n = 0; n < b->blocks; n++, plane += 4u * stride) {
            for (uint32_t i = 0; i < 4; i++, out += b->channels) {
                const int32_t high = mcuq_smmla(output_sum(b, plane, i, stride), b->multiplier, b->rounding);
                *out = (int8_t)mcuq_half_sat8(high >> b->v);
            }
        }
    }
}

void mcuq_depthwise_blocks_s1(const mcuq_depthwise_blocks *b)
{
    blocks(b, 1);
}

void mcuq_depthwise_blocks_s2(const mcuq_depthwise_blocks *b)
{
    blocks(b, 2);
}

#endif
