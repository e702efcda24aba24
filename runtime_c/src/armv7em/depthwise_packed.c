/* Outputs of 4 and 2 bits of depthwise kernels. */
#include "depthwise3x3.h"
#include "simd.h"

/* Two codes each of pixels 0 and 1, clamped; every two joined in the low byte of half a word, which has more above. */
static inline uint32_t joined(uint32_t codes, uint32_t low, uint32_t high, uint32_t distance)
{
    const uint32_t clamped = mcuq_min8(mcuq_max8(codes, low), high);
    return clamped | clamped >> distance;
}

void mcuq_depthwise_merge(const mcuq_conv2d_params *p, const int8_t *bytes, uint8_t *out, uint32_t pixels,
                          uint32_t channel)
{
    const uint32_t bits = p->output.bits, channels = p->output.channels, row = mcuq_row_bytes(channels, bits);
    const uint32_t low = mcuq_bytes(p->clamp_lo), high = mcuq_bytes(p->clamp_hi), distance = 8u - bits;
    const uint32_t shift = channel * bits & 7u;
    const int both = channels - channel >= 2u; /* else the second codes are not there */
    const int8_t *end = bytes + 2u * pixels, *pairs_end = both ? end - 2u * (pixels & 1u) : bytes;
    out += channel * bits >> 3;
    if (shift == 0) {
        for (; bytes != pairs_end; bytes += 4, out += 2u * row) {
            const uint32_t pairs = joined(mcuq_load(bytes), low, high, distance);
            out[0] = (uint8_t)pairs;
            out[row] = (uint8_t)(pairs >> 16);
        }
    } else {
        for (; bytes != pairs_end; bytes += 4, out += 2u * row) { /* the upper half of what the channels before stored */
            const uint32_t pairs = joined(mcuq_load(bytes), low, high, distance);
            out[0] = (uint8_t)(out[0] | pairs << 4);
            out[row] = (uint8_t)(out[row] | pairs >> 16 << 4);
        }
    }
    for (; bytes != end; bytes += 2, out += row) {
        uint32_t pair = (uint32_t)mcuq_clamp(bytes[0], p->clamp_lo, p->clamp_hi);
        if (both)
            pair |= (uint32_t)mcuq_clamp(bytes[1], p->clamp_lo, p->clamp_hi) << bits;
        *out = (uint8_t)(shift == 0 ? pair : *out | pair << 4);
    }
}
