/* Bilinear resizing: y = requantize(sum of the four neighbours' weights * (x - Zx)), weights in units of 2^-11 per
 * axis. A neighbour of weight zero is not read. |sum| <= 255 * 2^22 < 2^30. */
#include "mcuq/mcuq.h"
#include "pack.h"

#define UNIT 2048

/* Channels of one output pixel whose neighbours are pixel[0..3], with their weights. */
static void blend_pixel(const mcuq_blend_params *p, const uint8_t *const pixel[4], const int32_t weight[4],
                        uint8_t *out)
{
    const uint32_t bits = p->input.bits;
    const int32_t zero = p->input_zero_point * (UNIT * UNIT);
    int8_t codes[4][MCUQ_CHUNK], blended[MCUQ_CHUNK];
    for (uint32_t done = 0; done < p->output.channels; done += MCUQ_CHUNK) {
        const uint32_t chunk = mcuq_min(MCUQ_CHUNK, p->output.channels - done);
        const int8_t *a = mcuq_view(pixel[0], done, chunk, bits, codes[0]);
        const int8_t *b = mcuq_view(pixel[1], done, chunk, bits, codes[1]);
        const int8_t *c = mcuq_view(pixel[2], done, chunk, bits, codes[2]);
        const int8_t *d = mcuq_view(pixel[3], done, chunk, bits, codes[3]);
        for (uint32_t i = 0; i < chunk; i++) {
            const int32_t sum = a[i] * weight[0] + b[i] * weight[1] + c[i] * weight[2] + d[i] * weight[3] - zero;
            blended[i] = (int8_t)mcuq_requantize(sum, p->multiplier, p->shift, p->output_zero_point, p->clamp_lo,
                                                 p->clamp_hi);
        }
        mcuq_pack(out, done, blended, chunk, p->output.bits);
    }
}

void mcuq_blend(const mcuq_blend_params *p, const void *input, void *output)
{
    const uint32_t bytes = mcuq_row_bytes(p->input.channels, p->input.bits);
    const uint32_t output_bytes = mcuq_row_bytes(p->output.channels, p->output.bits);
    const uint32_t line = p->input.width * bytes;
    uint8_t *out = output;
    for (uint32_t y = 0; y < p->output.height; y++) {
        const int32_t down = p->row_weights[y];
        const uint8_t *upper = (const uint8_t *)input + p->rows[y] * line;
        const uint8_t *lower = down != 0 ? upper + line : upper;
        for (uint32_t x = 0; x < p->output.width; x++) {
            const int32_t right = p->column_weights[x];
            const uint32_t left_at = p->columns[x] * bytes;
            const uint32_t right_at = right != 0 ? left_at + bytes : left_at;
            const uint8_t *const pixel[4] = {upper + left_at, upper + right_at, lower + left_at, lower + right_at};
            const int32_t weight[4] = {(UNIT - down) * (UNIT - right), (UNIT - down) * right, down * (UNIT - right),
                                       down * right};
            blend_pixel(p, pixel, weight, out);
            out += output_bytes;
        }
    }
}
