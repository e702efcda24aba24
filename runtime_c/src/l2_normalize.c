/* Every pixel's channels divided by their Euclidean length: the exact half-up rounding of 128 d / sqrt(S), d = x - Zx,
 * S = sum d^2, at most 127. v = isqrt(65536 d^2 div S) is the floor of 256 |d| / sqrt(S).
 *
 * 65536 * 255^2 < 2^32, and so is S for the most channels there can be, 65535. */
#include "mcuq/mcuq.h"
#include "pack.h"

/* Largest v <= 256 with v * v <= q. */
static uint32_t root(uint32_t q)
{
    uint32_t v = 0;
    for (uint32_t bit = 256u; bit != 0u; bit >>= 1) {
        const uint32_t trial = v + bit;
        v = trial <= 256u && trial * trial <= q ? trial : v;
    }
    return v;
}

static int32_t share(int32_t d, uint32_t total)
{
    const uint32_t scaled = (uint32_t)(d * d) << 16;
    const uint32_t quotient = scaled / total;
    const uint32_t v = root(quotient);
    if (d >= 0) {
        return (int32_t)mcuq_min((v + 1u) >> 1, 127u);
    }
    const uint32_t exact = v * v == quotient && quotient * total == scaled;
    return -(int32_t)((exact ? v : v + 1u) >> 1);
}

void mcuq_l2_normalize(mcuq_shape input, int32_t zero_point, const void *source, int8_t *destination)
{
    const uint32_t row_bytes = mcuq_row_bytes(input.channels, input.bits);
    const uint8_t *row = source;
    for (uint32_t pixels = (uint32_t)input.height * input.width; pixels != 0u; pixels--) {
        uint32_t total = 0;
        for (uint32_t c = 0; c < input.channels; c++) {
            const int32_t d = mcuq_get(row, c, input.bits) - zero_point;
            total += (uint32_t)(d * d);
        }
        for (uint32_t c = 0; c < input.channels; c++) {
            const int32_t d = mcuq_get(row, c, input.bits) - zero_point;
            *destination++ = (int8_t)(total != 0u ? share(d, total) : 0);
        }
        row += row_bytes;
    }
}
