/* Depthwise 3 x 3, stride 1, by planes: one channel of a strip of rows is gathered into a plane of bytes whose border is
 * the input's zero point, then convolved. Weight layout "nines".
 *
 * Scratch: the plane, at most 2 KB; mcuq/target/kernels_mve.py adds up the same. */
#include "depthwise3x3.h"

#include <arm_mve.h>
#include <string.h>

#include "armv7em/simd.h"

enum { PLANE_BYTES = 2048, HIGH_WORD_SHIFT = 33 };

/* Weights of a channel as int32, times 2^scale. */
static void unpack_nines(const uint8_t *codes, uint32_t bits, int32_t zero, uint32_t scale, int32_t *weights)
{
    static const uint8_t even[4] = {0, 3, 6, 2}, odd[4] = {1, 4, 7, 5};
    if (bits == 8) {
        const int8_t *taps = (const int8_t *)codes;
        for (uint32_t tap = 0; tap < 8; tap += 4)
            vstrwq_s32(weights + tap, vshlq_r_s32(vsubq_n_s32(vldrbq_s32(taps + tap), zero), (int32_t)scale));
        weights[8] = (taps[8] - zero) * (int32_t)(1u << scale);
        return;
    }
    const uint32_t word = codes[0] | (uint32_t)codes[1] << 8 | (uint32_t)codes[2] << 16 |
                          (bits == 4 ? (uint32_t)codes[3] << 24 : 0u);
    const uint32_t mask = (1u << bits) - 1u;
    const int32_t offset = (int32_t)(1u << (bits - 1u)) + zero, factor = (int32_t)(1u << scale);
    for (uint32_t i = 0; i < 4; i++) {
        weights[even[i]] = ((int32_t)(word >> (bits * i) & mask) - offset) * factor;
        weights[odd[i]] = ((int32_t)(word >> (16u + bits * i) & mask) - offset) * factor;
    }
    weights[8] = ((int32_t)(bits == 4 ? codes[4] : word >> 8 & mask) - offset) * factor;
}

/* What of the strip's plane lies inside the input, as a gather of channel 0; the border is written. */
static mcuq_mve_gather_frame start_plane(const mcuq_conv2d_params *p, const uint8_t *input, int8_t *plane,
                                         int32_t first_row, int32_t rows, uint32_t pitch)
{
    const int32_t top = p->window.pad_top, left = p->window.pad_left, channels = p->input.channels;
    const int32_t start = first_row - top, end = start + rows + 2, width = p->output.width + 2 - left;
    const int32_t from = start < 0 ? 0 : start, to = end < p->input.height ? end : p->input.height;
    const int32_t columns = width < p->input.width ? width : p->input.width;
    memset(plane, p->input_zero_point & 0xFF, (uint32_t)(rows + 2) * pitch);
    const mcuq_mve_gather_frame frame = {
        .codes = input + from * p->input.width * channels,
        .plane = plane + (uint32_t)(from - start) * pitch + left,
        .rows = to > from ? (uint32_t)(to - from) : 0u,
        .columns = (uint32_t)columns,
        .row_bytes = (uint32_t)(p->input.width * channels),
        .pitch = pitch,
        .channels = (uint32_t)channels,
    };
    return frame;
}

static void set_channel(const mcuq_conv2d_params *p, uint32_t channel, uint32_t bits, mcuq_mve_channel *c)
{
    const uint32_t scale_index = p->per_channel_scale ? channel : 0u;
    const uint32_t zero_index = p->per_channel_zero_point ? channel : 0u;
    const int32_t zero = p->weight_zero_points != NULL ? p->weight_zero_points[zero_index] : 0;
    const uint32_t shift = p->shifts[scale_index], raised = shift < HIGH_WORD_SHIFT ? HIGH_WORD_SHIFT - shift : 0u;
    const uint32_t last = shift + raised - HIGH_WORD_SHIFT, bytes = bits == 8 ? 9u : bits == 4 ? 5u : 3u;
    unpack_nines((const uint8_t *)p->weights + channel * bytes, bits, zero, raised, c->weights);
    c->bias = (int32_t)((uint32_t)p->bias[channel] << raised);
    c->multiplier = p->multipliers[scale_index];
    c->rounding = (2 * p->output_zero_point + 1) * (int32_t)(1u << last);
    c->shift = -(int32_t)last - 1;
}

void mcuq_mve_depthwise3x3(mcuq_mve_depthwise_kernel *kernel, const mcuq_conv2d_params *p, const void *input,
                           void *output, void *scratch, uint32_t weight_bits, uint32_t pitch)
{
    const uint32_t height = p->output.height, width = p->output.width, channels = p->output.channels;
    const uint32_t most = PLANE_BYTES / pitch - 2u;
    int8_t *const plane = scratch;
    for (uint32_t first = 0; first < height; first += most) {
        const uint32_t rows = height - first < most ? height - first : most;
        mcuq_mve_gather_frame gather = start_plane(p, input, plane, (int32_t)first, (int32_t)rows, pitch);
        int8_t *out = (int8_t *)output + first * width * channels;
        mcuq_mve_channel c = {.row_bytes = width * channels, .channels = channels, .threes = rows / 3u,
                              .rest = rows % 3u, .last = plane + width - 4u};
        for (uint32_t channel = 0; channel < channels; channel++, gather.codes++) {
            if (gather.rows > 0)
                mcuq_mve_gather(&gather);
            set_channel(p, channel, weight_bits, &c);
            c.plane = plane;
            c.output = out + channel;
            kernel(&c);
        }
    }
    if (p->clamp_lo > -128 || p->clamp_hi < 127)
        mcuq_clamp_row8(output, output, height * width * channels, p->clamp_lo, p->clamp_hi);
}
