/* Depthwise 3 x 3 by planes: one channel of a tile is gathered into a plane of bytes whose border is the input's zero
 * point, then convolved. Weight layouts "helium_nines*" (docs/kernels.md).
 *
 * Scratch: the plane, at most 2 KB; mcuq/target/kernels_mve.py adds up the same. */
#include "depthwise3x3.h"

#include <stddef.h>
#include <string.h>

#include "codes.h"

_Static_assert(sizeof(void *) != 4u || offsetof(mcuq_mve_depthwise_frame, output_place) == 352u,
               "depthwise3x3_patches.S has other offsets");

enum { PLANE_BYTES = 2048 };

typedef struct {
    uint32_t stride, rows, columns, pitch; /* of a tile: outputs, and bytes of a plane row */
} tiling;

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Inputs of a patch are at most 255 bytes apart: 3 rows and 3 columns, 4 rows and 4 columns with stride 2. */
static tiling tiles_of(const mcuq_conv2d_params *p)
{
    tiling t = {.stride = p->window.stride_width};
    t.columns = smaller(p->output.width, t.stride == 1u ? 82u : 30u);
    t.pitch = (t.columns > 1u ? t.columns - 1u : 1u) * t.stride + 3u;
    t.rows = smaller(p->output.height, ((PLANE_BYTES / t.pitch - 3u) / t.stride + 1u) & ~1u);
    return t;
}

/* Places of weights, inputs and outputs, the same for all tiles. */
static void set_patterns(mcuq_mve_depthwise_frame *f, const mcuq_conv2d_params *p, uint32_t bits, uint32_t pitch)
{
    const uint32_t stride = p->window.stride_width, wide = stride == 1u ? 4u : 5u, count = p->output.width > 1u;
    const uint32_t pixel = mcuq_row_bytes(p->output.channels, p->output.bits);
    const uint32_t below = stride == 1u && p->output.height > 1u;
    for (uint32_t lane = 0; lane < 16; lane++) {
        const uint32_t row = lane / wide, column = lane % wide, tap = 3u * row + column;
        const uint32_t inside = row < 3u && column < 3u;
        f->taps[lane] = (uint8_t)(inside ? tap * bits >> 3 : 0u);
        f->tap_mask_shift[lane] = (uint8_t)(inside ? 8u - bits - (tap * bits & 7u) : 0u);
        f->tap_mask[lane] = (uint8_t)(inside ? 0x100u - (1u << (8u - bits)) : 0u);
        f->patch[lane] = (uint8_t)(lane < 15u || stride == 1u ? row * pitch + column : 0u);
        f->second_patch[lane] = (uint8_t)(lane < 15u && p->output.height > 1u ? f->patch[lane] + 2u * pitch : f->patch[lane]);
        for (uint32_t window = 0; window < 4; window++) {
            const uint32_t y = row - (window >> 1) * below, x = column - (window & 1u) * count * stride;
            f->ones[window][lane] = lane < 15u + (stride == 1u) && y < 3u && x < 3u;
        }
    }
    f->right_shift = 8u * count;
    f->moved_weights = f->weights + (stride == 1u ? (below ? 0u : 4u) : (count ? 0u : 2u));
    for (uint32_t i = 0; i < 4; i++)
        f->places[i] = ((i & 1u) * count + (i >> 1) * (p->output.height > 1u) * p->output.width) * pixel;
    f->output_step[0] = 2u * pixel;
    f->output_step[1] = pixel;
}

static void set_packed(mcuq_mve_depthwise_frame *f, const mcuq_conv2d_params *p)
{
    f->input_bits = p->input.bits;
    f->output_bits = p->output.bits;
    f->input_mask = 0xFFu >> (8u - p->input.bits);
    for (uint32_t i = 0; i < 4; i++) {
        f->lowest[i] = p->clamp_lo;
        f->highest[i] = p->clamp_hi;
    }
}

/* The outputs from (y, x): what of the plane lies inside the input; the border is written. */
static void start_tile(mcuq_mve_depthwise_frame *f, const mcuq_conv2d_params *p, const tiling *t, const uint8_t *input,
                       int8_t *output, uint32_t y, uint32_t x)
{
    const int32_t pixel = (int32_t)f->pixel_bytes, written = (int32_t)f->output_step[1], stride = (int32_t)t->stride, pitch = (int32_t)t->pitch;
    const uint32_t rows = smaller(t->rows, p->output.height - y), columns = smaller(t->columns, p->output.width - x);
    const int32_t top = (int32_t)y * stride - p->window.pad_top, left = (int32_t)x * stride - p->window.pad_left;
    const int32_t bottom = top + ((int32_t)rows - 1) * stride + 3, right = left + ((int32_t)columns - 1) * stride + 3;
    const int32_t y0 = top < 0 ? 0 : top, x0 = left < 0 ? 0 : left;
    const int32_t y1 = bottom < p->input.height ? bottom : p->input.height;
    const int32_t x1 = right < p->input.width ? right : p->input.width;
    if (y0 > top || x0 > left || y1 < bottom || x1 < right)
        memset(f->plane, p->input_zero_point & 0xFF, (uint32_t)(bottom - top) * t->pitch);
    f->codes = input + (y0 * p->input.width + x0) * pixel;
    f->inside = f->plane + (y0 - top) * pitch + (x0 - left);
    f->rows = y1 > y0 && x1 > x0 ? (uint32_t)(y1 - y0) : 0u;
    f->columns = (uint32_t)(x1 - x0);
    f->output = output + (y * p->output.width + x) * f->output_step[1];
    f->groups = columns > 1u ? columns / 2u : 1u;
    f->odd_column = columns > 1u ? columns & 1u : 0u;
    f->pairs = (rows + 1u) / 2u;
    const int32_t passed = 2 * (int32_t)f->groups + (int32_t)f->odd_column, line = p->output.width * written;
    f->wrap[0] = 2 * stride * pitch - passed * stride;
    f->wrap[1] = 2 * line - passed * written;
    f->last_pair[0] = rows & 1u ? -stride * pitch : 0;
    f->last_pair[1] = rows & 1u ? -line : 0;
}

void mcuq_mve_depthwise3x3(mcuq_mve_depthwise_kernel *kernel, const mcuq_conv2d_params *p, const void *input,
                           void *output, void *scratch, uint32_t weight_bits, uint32_t zero_points)
{
    const uint32_t channels = p->output.channels;
    const tiling t = tiles_of(p);
    mcuq_mve_depthwise_frame frame;
    memset(&frame, 0, sizeof frame);
    frame.row_bytes = (uint32_t)p->input.width * mcuq_row_bytes(channels, p->input.bits);
    frame.pitch = t.pitch;
    frame.pixel_bytes = mcuq_row_bytes(channels, p->input.bits);
    frame.plane = scratch;
    frame.record_bytes = 1u + zero_points + ((9u * weight_bits + 7u) >> 3);
    frame.rounding = 2 * p->output_zero_point + 1;
    frame.position = 8u - weight_bits;
    const uint32_t out_bytes = p->output.height * p->output.width * mcuq_row_bytes(channels, p->output.bits);
    const int packed = p->input.bits != 8 || p->output.bits != 8;
    if (packed) {
        set_packed(&frame, p);
        memset(output, 0, out_bytes); /* codes join what their bytes hold */
    }
    set_patterns(&frame, p, weight_bits, t.pitch);
    const uint32_t height = p->output.height, width = p->output.width;
    for (uint32_t y = 0; y < height; y += t.rows) {
        for (uint32_t x = 0; x < width; x += t.columns) {
            y -= y > 0 && y + 1u == height; /* a tile has two rows and columns when the output has: compute one again */
            x -= x > 0 && x + 1u == width;
            start_tile(&frame, p, &t, input, output, y, x);
            frame.scales = p->weights;
            frame.records = (const uint8_t *)p->weights + 8u * channels;
            frame.channels_left = channels;
            frame.input_bit = frame.output_bit = 0;
            memset(frame.output_place, 0, sizeof frame.output_place);
            kernel(&frame);
        }
    }
    if (!packed && (p->clamp_lo > -128 || p->clamp_hi < 127))
        mcuq_mve_finish_row(output, output, out_bytes, 8, p->clamp_lo, p->clamp_hi);
}
