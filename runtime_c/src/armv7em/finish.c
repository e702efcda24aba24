#include "simd.h"

void mcuq_clamp_row8(const int8_t *row, int8_t *out, uint32_t count, int32_t lo, int32_t hi)
{
    const uint32_t low = mcuq_bytes(lo), high = mcuq_bytes(hi);
    for (; count >= 8; count -= 8, row += 8, out += 8) {
        mcuq_store(out, mcuq_min8(mcuq_max8(mcuq_load(row), low), high));
        mcuq_store(out + 4, mcuq_min8(mcuq_max8(mcuq_load(row + 4), low), high));
    }
    for (; count >= 4; count -= 4, row += 4, out += 4)
        mcuq_store(out, mcuq_min8(mcuq_max8(mcuq_load(row), low), high));
    for (; count > 0; count--)
        *out++ = (int8_t)mcuq_clamp(*row++, lo, hi);
}

static void pack4(const int8_t *row, uint8_t *out, uint32_t count, int32_t lo, int32_t hi)
{
    const uint32_t low = mcuq_bytes(lo), high = mcuq_bytes(hi);
    for (; count >= 4; count -= 4, row += 4, out += 2) {
        const uint32_t codes = mcuq_min8(mcuq_max8(mcuq_load(row), low), high);
        const uint32_t pairs = (codes | codes >> 4) & 0x00FF00FFu;
        const uint16_t packed = (uint16_t)(pairs | pairs >> 8);
        memcpy(out, &packed, sizeof packed);
    }
    for (; count >= 2; count -= 2, row += 2)
        *out++ = (uint8_t)(mcuq_clamp(row[0], lo, hi) | mcuq_clamp(row[1], lo, hi) << 4);
    if (count)
        *out = (uint8_t)mcuq_clamp(row[0], lo, hi);
}

static void pack2(const int8_t *row, uint8_t *out, uint32_t count, int32_t lo, int32_t hi)
{
    const uint32_t low = mcuq_bytes(lo), high = mcuq_bytes(hi);
    for (; count >= 4; count -= 4, row += 4) {
        const uint32_t codes = mcuq_min8(mcuq_max8(mcuq_load(row), low), high);
        const uint32_t pairs = (codes | codes >> 6) & 0x000F000Fu;
        *out++ = (uint8_t)(pairs | pairs >> 12);
    }
    uint32_t last = 0;
    for (uint32_t i = 0; i < count; i++)
        last |= (uint32_t)mcuq_clamp(row[i], lo, hi) << (2 * i);
    if (count)
        *out = (uint8_t)last;
}

void mcuq_finish_row(const int8_t *row, uint8_t *out, uint32_t count, uint32_t bits, int32_t lo, int32_t hi)
{
    if (bits == 8)
        mcuq_clamp_row8(row, (int8_t *)out, count, lo, hi);
    else if (bits == 4)
        pack4(row, out, count, lo, hi);
    else
        pack2(row, out, count, lo, hi);
}
