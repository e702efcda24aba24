#include "conv2d_driver.h"

#include "armv7em/simd.h"
#include "columns.h"

enum { PIXELS = MCUQ_MVE_PIXELS };

/* Every column is a run of bytes of the input. */
static int in_place(const mcuq_conv2d_params *p)
{
    const mcuq_window *w = &p->window;
    return p->input.bits == 8 && w->dilation_height == 1 && w->dilation_width == 1 &&
           (w->kernel_height == 1 || w->kernel_width == p->input.width) && w->pad_top == 0 && w->pad_left == 0 &&
           (p->output.height - 1) * w->stride_height + w->kernel_height <= p->input.height &&
           (p->output.width - 1) * w->stride_width + w->kernel_width <= p->input.width;
}

static mcuq_mve_frame frame_of(const mcuq_conv2d_params *p, uint32_t depth, const mcuq_mve_gemm *gemm)
{
    const uint32_t bits = gemm->weight_bits, fields = 8u / bits, rest = depth % (16u * fields);
    const uint32_t channel_bytes = (depth * bits + 7u) >> 3, rest_bytes = (rest + fields - 1u) / fields;
    const uint32_t panel = (gemm->zero_points ? 32u : 24u) + ((2u * channel_bytes + 3u) & ~3u);
    mcuq_mve_frame frame = {
        .channel_bytes = channel_bytes,
        .rounding = 2 * p->output_zero_point + 1,
        .weights = p->weights,
        .panel_bytes = panel,
        .weights_end = (const uint8_t *)p->weights + (p->output.channels + 1u) / 2u * panel,
        .blocks = depth / (16u * fields),
    };
    uint32_t left = rest;
    for (uint32_t i = 0; i < 4u; i++) {
        frame.rest[i] = left < rest_bytes ? left : rest_bytes;
        left -= frame.rest[i];
    }
    return frame;
}

void mcuq_mve_conv2d(const mcuq_mve_gemm *gemm, const mcuq_conv2d_params *p, const void *input, void *output,
                     void *scratch)
{
    const uint32_t out_bits = p->output.bits, channels = p->output.channels, width = p->output.width;
    const uint32_t depth = (uint32_t)p->window.kernel_height * p->window.kernel_width * p->input.channels;
    const uint32_t pixels = p->output.height * width, out_row = mcuq_row_bytes(channels, out_bits);
    const int direct = out_bits == 8u && channels % 2u == 0 && pixels >= PIXELS;
    const int narrow = p->clamp_lo > -128 || p->clamp_hi < 127, inside = in_place(p);
    const uint32_t pitch = (depth + 3u) & ~3u, row_stride = (channels + 1u) & ~1u;
    const int32_t stride_y = p->window.stride_height, stride_x = p->window.stride_width;
    int8_t *const columns = scratch;
    int8_t *const rows = columns + (inside ? 0u : pitch * (pixels < PIXELS ? pixels : PIXELS));
    mcuq_mve_frame frame = frame_of(p, depth, gemm);
    frame.stride = direct ? channels : row_stride;
    for (uint32_t first = 0; first < pixels; first += PIXELS) {
        if (first + PIXELS > pixels && pixels >= PIXELS)
            first = pixels - PIXELS; /* the last group computes some pixels again */
        const uint32_t oy = first / width;
        uint32_t ox = first - oy * width;
        int32_t y = (int32_t)oy * stride_y - p->window.pad_top, x = (int32_t)ox * stride_x - p->window.pad_left;
        for (uint32_t i = 0; i < PIXELS; i++) {
            if (i > 0 && first + i >= pixels) { /* the last pixel again */
                frame.columns[i] = frame.columns[i - 1u];
                frame.sums[i] = frame.sums[i - 1u];
                continue;
            }
            frame.columns[i] = inside ? (const int8_t *)input + (uint32_t)(y * p->input.width + x) * p->input.channels
                                      : mcuq_mve_column(p, input, y, x, columns + i * pitch);
            if (gemm->zero_points)
                frame.sums[i] = mcuq_mve_sum(frame.columns[i], depth);
            x += stride_x;
            if (++ox == width) {
                ox = 0;
                x = -(int32_t)p->window.pad_left;
                y += stride_y;
            }
        }
        uint8_t *out = (uint8_t *)output + first * out_row;
        int8_t *const finished = direct ? (int8_t *)out : rows;
        frame.output = finished;
        gemm->run(&frame);
        if (direct && !narrow)
            continue;
        for (uint32_t i = 0; i < PIXELS && first + i < pixels; i++, out += out_row)
            mcuq_finish_row(finished + i * frame.stride, out, channels, out_bits, p->clamp_lo, p->clamp_hi);
    }
}
