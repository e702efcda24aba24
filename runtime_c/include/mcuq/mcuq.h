/* mcuq runtime: parameter structs and kernel prototypes.
 *
 * No malloc, no float, no state: every kernel reads its constant parameters, its inputs and its scratch, and
 * writes its output. Activations are (height, width, channels), batch 1, packed as docs/FORMAT.md draws them.
 * Pointers need no alignment beyond 1 for 8-, 4- and 2-bit tensors, 4 for 32-bit tensors and for scratch.
 */
#ifndef MCUQ_MCUQ_H
#define MCUQ_MCUQ_H

#include <stddef.h>
#include <stdint.h>

#include "mcuq/numerics.h"

#define MCUQ_ABI 1

#ifdef __cplusplus
extern "C" {
#endif

/* A stored activation. bits: 8 (int8), 4 or 2 (unsigned, packed), 32 (int32). */
typedef struct {
    uint16_t height, width, channels;
    uint8_t bits;
} mcuq_shape;

typedef struct {
    uint8_t kernel_height, kernel_width;
    uint8_t stride_height, stride_width;
    uint8_t dilation_height, dilation_width;
    uint8_t pad_top, pad_left;
} mcuq_window;

/* Convolution: out = clamp(requantize(bias + sum x * (w - zw))). Padding taps read input_zero_point.
 * weights: packed as the kernel's layout in docs/FORMAT.md says.
 * weight_zero_points: NULL when all zero; else one entry, or one per output channel.
 * multipliers: one entry, or one per output channel. shifts: NULL where all channels share `shift`; else one per output
 * channel. bias holds the folded input zero point. */
typedef struct {
    const void *weights;
    const int32_t *bias;
    const int32_t *multipliers;
    const uint8_t *shifts;
    const int8_t *weight_zero_points;
    mcuq_shape input, output;
    mcuq_window window;
    uint16_t groups;
    uint8_t per_channel_scale : 1;      /* multipliers has output.channels entries */
    uint8_t per_channel_zero_point : 1; /* weight_zero_points has output.channels entries */
    uint8_t shift;
    int16_t input_zero_point;
    int16_t output_zero_point;
    int32_t clamp_lo, clamp_hi;
} mcuq_conv2d_params;

/* One function per weight width; input and output bits are read from the shapes.
 * Weight layout "rows": one packed row of kernel_height * kernel_width * (C / groups) codes per output channel.
 * scratch: mcuq/target/kernels.py states the bytes. */
void mcuq_conv2d_w8(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_conv2d_w4(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_conv2d_w2(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);

/* Depthwise, one filter per channel (groups == input channels == output channels).
 * Weight layout "taps": kernel_height * kernel_width packed rows of C codes. */
void mcuq_depthwise_w8(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise_w4(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise_w2(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);

/* Both with the two roundings of TFLite's reference kernels (mcuq_requantize_twice); 8-bit outputs. */
void mcuq_conv2d_w8_twice(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_conv2d_w4_twice(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_conv2d_w2_twice(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise_w8_twice(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise_w4_twice(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_depthwise_w2_twice(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);

/* Transposed: a convolution of stride 1 over the input with stride_height - 1 rows and stride_width - 1 columns of zeros
 * between its pixels. Weight layout "segments": per output channel and kernel tap one packed row of C / groups codes. */
void mcuq_conv2d_transpose_w8(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_conv2d_transpose_w4(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_conv2d_transpose_w2(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);

/* Fully connected: kernel covers the whole input, no padding, output 1 x 1. Layout "rows". */
void mcuq_fully_connected_w8(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_fully_connected_w4(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);
void mcuq_fully_connected_w2(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch);

/* Elementwise sum: out = clamp((a * multiplier_a + b * multiplier_b + constant) >> shift).
 * The output may be either input's buffer when its rows are no longer than that input's. */
typedef struct {
    mcuq_shape shape; /* bits: of the output */
    uint8_t bits_a, bits_b;
    uint8_t shift;
    int32_t multiplier_a, multiplier_b, constant;
    int32_t clamp_lo, clamp_hi;
} mcuq_add_params;
void mcuq_add(const mcuq_add_params *p, const void *a, const void *b, void *output);

/* A convolution band by band, `rows` output rows at a time (they divide the height):
 *     for (mcuq_rows_start(&r, &params, rows, input); r.bands != 0u; mcuq_rows_next(&r)) {
 *         the convolution's kernel (&r.convolution, r.input, band, scratch);
 *     } */
typedef struct {
    mcuq_conv2d_params convolution;
    uint32_t bands; /* left */
    int32_t top, step, height; /* input row of the band's first tap, rows to the next band's, rows of the input */
    const uint8_t *start, *input;
    uint32_t input_row; /* bytes */
} mcuq_rows;
void mcuq_rows_start(mcuq_rows *r, const mcuq_conv2d_params *p, uint32_t rows, const void *input);
void mcuq_rows_next(mcuq_rows *r);

/* A convolution inside the addition that reads it:
 *     for (mcuq_band_start(&b, &params, input, residual, output); b.rows.bands != 0u; mcuq_band_next(&b)) {
 *         the convolution's kernel (&b.rows.convolution, b.rows.input, band, scratch);
 *         mcuq_add(&b.addition, band, b.residual, b.output);   in the addition's own order of inputs
 *     }
 * The output may be the residual's buffer as in mcuq_add. */
typedef struct {
    const mcuq_conv2d_params *convolution;
    const mcuq_add_params *addition;
    uint16_t rows;
    uint8_t convolution_is_b; /* the addition's second input; else its first */
} mcuq_band_params;
typedef struct {
    mcuq_rows rows;
    mcuq_add_params addition;
    const uint8_t *residual;
    uint8_t *output;
    uint32_t residual_band, output_band; /* bytes */
} mcuq_band;
void mcuq_band_start(mcuq_band *b, const mcuq_band_params *p, const void *input, const void *residual, void *output);
void mcuq_band_next(mcuq_band *b);

/* A convolution inside the pool that reads it. pool: the pool's parameters with the output height of one band.
 *     for (mcuq_pool_band_start(&b, &params, input, rows, output); b.bands != 0u; mcuq_pool_band_next(&b)) {
 *         for (; b.done < b.last; mcuq_pool_band_call(&b))
 *             the convolution's kernel (&b.part.convolution, b.part.input, b.row, scratch);
 *         pool.input.height = b.height;
 *         pool.window.pad_top = b.pad_top;
 *         the pool (&pool, rows, b.output);
 *     }
 * mcuq/target/pool_bands.py computes the numbers, and when the output may be written from the input's first byte on. */
typedef struct {
    const mcuq_conv2d_params *convolution;
    uint32_t output_band; /* bytes */
    uint16_t rows;        /* of the convolution in a call */
    uint16_t bands;
    uint16_t step, span; /* rows from the first of a band to that of the next, rows of a band */
    uint16_t top;        /* rows of padding above */
} mcuq_pool_band_params;
typedef struct {
    mcuq_rows part;
    const mcuq_pool_band_params *params;
    uint32_t bands;  /* left */
    uint16_t height; /* of the rows that the band pools */
    uint8_t pad_top;
    int32_t top;                /* row of the band's first tap */
    uint32_t first, done, last; /* row at the front of `rows`, row that the next call computes, row behind the band */
    uint8_t *rows, *row, *output;
    uint32_t row_bytes; /* bytes */
} mcuq_pool_band;
void mcuq_pool_band_start(mcuq_pool_band *b, const mcuq_pool_band_params *p, const void *input, void *rows, void *output);
void mcuq_pool_band_call(mcuq_pool_band *b);
void mcuq_pool_band_next(mcuq_pool_band *b);

/* Elementwise rescaling, also a change of bits. In place when the output's rows are no longer. */
typedef struct {
    mcuq_shape input, output; /* same height, width, channels */
    mcuq_affine affine;
    int32_t clamp_lo, clamp_hi;
} mcuq_rescale_params;
void mcuq_rescale_copy(const mcuq_rescale_params *p, const void *input, void *output);

/* A function of every code: out = entries[x - lowest code], 256, 16 or 4 entries. In place as rescaling. */
typedef struct {
    const int8_t *entries;
    mcuq_shape input, output; /* same height, width, channels */
} mcuq_table_params;
void mcuq_table(const mcuq_table_params *p, const void *input, void *output);

/* With d = x - input_zero_point: out = clamp((d * (d >= 0 ? affine.multiplier : slopes[c]) + constant) >> shift).
 * In place as rescaling. */
typedef struct {
    const int32_t *slopes;
    mcuq_shape input, output; /* same height, width, channels */
    mcuq_affine affine;
    int32_t clamp_lo, clamp_hi;
    int16_t input_zero_point;
} mcuq_prelu_params;
void mcuq_prelu(const mcuq_prelu_params *p, const void *input, void *output);

/* Elementwise product: out = requantize((a - zero_point_a) * (b - zero_point_b)), of a's height, width and channels;
 * sizes of b that are 1 are repeated. In place of a when the output's rows are no longer; of b also, when no size of
 * b is repeated. */
typedef struct {
    mcuq_shape a, b;
    int32_t multiplier;
    int32_t clamp_lo, clamp_hi;
    int16_t zero_point_a, zero_point_b, output_zero_point;
    uint8_t shift, output_bits;
} mcuq_mul_params;
void mcuq_mul(const mcuq_mul_params *p, const void *a, const void *b, void *output);

/* Elementwise maximum, or minimum when smallest is set, of both inputs rescaled. In place as mcuq_add. */
typedef struct {
    mcuq_shape shape; /* bits: of the output */
    uint8_t bits_a, bits_b, smallest;
    mcuq_affine a, b;
    int32_t clamp_lo, clamp_hi;
} mcuq_extremum_params;
void mcuq_extremum(const mcuq_extremum_params *p, const void *a, const void *b, void *output);

/* Moved codes: output element with counters i over sizes (the last fastest; leading sizes may be 1) is input element
 * offset + sum i * stride, both numbered in (height, width, channels) order. Same bits. */
#define MCUQ_COPY_RANK 6u
typedef struct {
    mcuq_shape input, output;
    uint32_t sizes[MCUQ_COPY_RANK];
    int32_t strides[MCUQ_COPY_RANK];
    uint32_t offset;
} mcuq_copy_params;
void mcuq_copy(const mcuq_copy_params *p, const void *input, void *output);

/* Chosen rows and columns: output pixel (y, x) is input pixel (rows[y], columns[x]). Same channels and bits. */
typedef struct {
    const uint16_t *rows, *columns;
    mcuq_shape input, output;
} mcuq_choose_params;
void mcuq_choose(const mcuq_choose_params *p, const void *input, void *output);

/* Blended rows and columns (bilinear): weights are the shares of row rows[y] + 1 and column columns[x] + 1 in units of
 * 2^-11; out = requantize(sum weight * (x - input_zero_point)) over the four neighbours. */
typedef struct {
    const uint16_t *rows, *columns, *row_weights, *column_weights;
    mcuq_shape input, output;
    int32_t multiplier;
    int32_t clamp_lo, clamp_hi;
    int16_t input_zero_point, output_zero_point;
    uint8_t shift;
} mcuq_blend_params;
void mcuq_blend(const mcuq_blend_params *p, const void *input, void *output);

/* Every pixel's channels divided by their Euclidean length; output int8, scale 1/128, zero point 0. */
void mcuq_l2_normalize(mcuq_shape input, int32_t zero_point, const void *source, int8_t *destination);

/* Same codes in (height, width, channels) order under another shape, bits unchanged (rows repacked). */
void mcuq_reshape(mcuq_shape input, mcuq_shape output, const void *source, void *destination);

/* Border of one code around the rescaled input. */
typedef struct {
    mcuq_shape input, output;
    uint8_t pad_top, pad_left;
    int16_t border;
    mcuq_affine affine;
    int32_t clamp_lo, clamp_hi;
} mcuq_pad_params;
void mcuq_pad(const mcuq_pad_params *p, const void *input, void *output);

/* One input of a concatenation along the channels, rescaled into channels first .. of every output pixel; once per
 * input, in any order. Returns the end of what it wrote: bands of an input are written one after the other.
 * The first input written may lie where the output begins if its bits are no more than the output's. */
typedef struct {
    mcuq_shape input, output; /* same height and width */
    mcuq_affine affine;
    int32_t clamp_lo, clamp_hi;
    uint16_t first;
} mcuq_concat_params;
uint8_t *mcuq_concat(const mcuq_concat_params *p, const void *input, void *output);

/* Max pool: rescaled maximum of the valid taps. */
typedef struct {
    mcuq_shape input, output;
    mcuq_window window;
    mcuq_affine affine;
    int32_t clamp_lo, clamp_hi;
} mcuq_max_pool_params;
void mcuq_max_pool(const mcuq_max_pool_params *p, const void *input, void *output);

/* Average pool: requantize(sum over the n valid taps of (x - input_zero_point)), table entry n - 1, or entry 0
 * when table_length is 1. */
typedef struct {
    const int32_t *multipliers;
    const uint8_t *shifts;
    uint16_t table_length;
    mcuq_shape input, output;
    mcuq_window window;
    int16_t input_zero_point, output_zero_point;
    int32_t clamp_lo, clamp_hi;
} mcuq_avg_pool_params;
void mcuq_avg_pool(const mcuq_avg_pool_params *p, const void *input, void *output);

/* Softmax over each row of channels; table: round(2^15 exp(-d * scale)), d = 0..255; output int8. */
void mcuq_softmax(const uint16_t *table, mcuq_shape input, const void *source, int8_t *destination);

/* Lowest index of the largest of the channels (8, 4, 2 or 32 bits). */
void mcuq_argmax(mcuq_shape input, const void *source, int32_t *destination);

/* Raw pixels to int8 codes, in place: p - 128. */
void mcuq_pixels_to_int8(void *data, size_t count);

#ifdef __cplusplus
}
#endif

#include "mcuq/dsp.h"
#if defined(__ARM_FEATURE_MVE)
#include "mcuq/mve.h"
#endif

#endif
