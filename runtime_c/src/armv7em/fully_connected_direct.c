/* Fully connected layers of int8 inputs, read where they lie, four by four: layouts "direct8", "direct4", "direct2" and
 * the same with z (docs/kernels.md). Scratch: a row of outputs, unless whole panels of 8-bit outputs are stored at once. */
#include "gemm.h"
#include "mcuq/dsp.h"
#include "simd.h"

enum { CHANNELS = 8, UNROLLED = 2, RECORD_BYTES = 32 };

typedef struct {
    void (*run)(const mcuq_direct_frame *frame);
    uint8_t header_words, weight_bits;
    int16_t sum_factor;
} direct_kernel;

static int32_t sum_of(const int8_t *codes, uint32_t count)
{
    int32_t sum = 0;
    for (; count > 0; count -= 4, codes += 4) {
        const uint32_t word = mcuq_load(codes);
        sum = mcuq_smlad(mcuq_sxtb16(word), 0x00010001u, sum);
        sum = mcuq_smlad(mcuq_sxtb16_high(word), 0x00010001u, sum);
    }
    return sum;
}

static void fully_connected(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch,
                            const direct_kernel *kernel)
{
    const uint32_t channels = p->output.channels, panels = (channels + CHANNELS - 1u) / CHANNELS;
    const uint32_t depth = (uint32_t)p->input.height * p->input.width * p->input.channels;
    const uint32_t panel_words = kernel->header_words + CHANNELS * kernel->weight_bits * depth / 32u;
    const uint32_t *end = (const uint32_t *)p->weights + panels * panel_words;
    const int direct = p->output.bits == 8u && channels % CHANNELS == 0u;
    const mcuq_direct_frame frame = {
        .inputs = input,
        .skipped_steps = (0u - depth / 4u) % UNROLLED,
        .inputs_end = (const int8_t *)input + depth,
        .output = direct ? output : scratch,
        .records = end,
        .rounding = (int32_t)((2u * (uint32_t)p->output_zero_point + 1u) << (p->shift - 33u)),
        .v = p->shift - 33u,
        .weights_end = end,
        .weights = p->weights,
        .sum = kernel->sum_factor * sum_of(input, depth),
        .record_step = p->per_channel_scale ? RECORD_BYTES : 0u,
    };
    kernel->run(&frame);
    if (!direct || p->clamp_lo > -128 || p->clamp_hi < 127)
        mcuq_finish_row(frame.output, output, channels, p->output.bits, p->clamp_lo, p->clamp_hi);
}

#define KERNEL(name, kernel, header_words, weight_bits, sum_factor) \
    void mcuq_fully_connected_##name##_direct_dsp(const mcuq_conv2d_params *p, const void *input, void *output, \
                                                  void *scratch) \
    { \
        static const direct_kernel described = {mcuq_gemm_direct##kernel, header_words, weight_bits, sum_factor}; \
        fully_connected(p, input, output, scratch, &described); \
    }

KERNEL(w8, 8, 8, 8, -128)
KERNEL(w8z, 8z, 16, 8, 1)
KERNEL(w4, 4, 8, 4, -8)
KERNEL(w4z, 4z, 16, 4, 1)
KERNEL(w2, 2, 8, 2, -2)
KERNEL(w2z, 2z, 16, 2, 1)
