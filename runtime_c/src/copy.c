/* Moved codes: output element number (counters over sizes, the last fastest) is input element
 * offset + sum counter * stride, in (height, width, channels) order. Transposes, slices, interleaving. */
#include "mcuq/mcuq.h"
#include "pack.h"

#define LAST (MCUQ_COPY_RANK - 1u)

/* Advance all counters but the last; the change of the first element's index is added to *at. Zero at the end. */
static int advance(const mcuq_copy_params *p, uint32_t counters[LAST], uint32_t *at)
{
    for (uint32_t d = LAST; d-- != 0u;) {
        *at += (uint32_t)p->strides[d];
        if (++counters[d] < p->sizes[d]) {
            return 1;
        }
        *at -= (uint32_t)p->strides[d] * p->sizes[d];
        counters[d] = 0;
    }
    return 0;
}

static void copy_bytes(const mcuq_copy_params *p, const uint8_t *in, uint8_t *out)
{
    uint32_t counters[LAST] = {0};
    uint32_t at = p->offset;
    const uint32_t step = (uint32_t)p->strides[LAST];
    do {
        uint32_t from = at;
        for (uint32_t left = p->sizes[LAST]; left != 0u; left--) {
            *out++ = in[from];
            from += step;
        }
    } while (advance(p, counters, &at));
}

/* Rows of packed codes end on a byte; where they fill it, elements are numbered through and nothing is divided. */
static void copy_packed(const mcuq_copy_params *p, const uint8_t *in, uint8_t *out)
{
    uint32_t counters[LAST] = {0};
    uint32_t at = p->offset, to = 0;
    const uint32_t bits = p->input.bits, channels = p->input.channels;
    const uint32_t input_bytes = mcuq_row_bytes(channels, bits);
    const uint32_t output_bytes = mcuq_row_bytes(p->output.channels, bits);
    const int filled = input_bytes * 8u == channels * bits;
    do {
        uint32_t from = at;
        for (uint32_t left = p->sizes[LAST]; left != 0u; left--) {
            const uint32_t pixel = filled ? 0u : from / channels;
            mcuq_put(out, to++, bits, mcuq_get(in + pixel * input_bytes, from - pixel * channels, bits));
            from += (uint32_t)p->strides[LAST];
            if (to == p->output.channels) {
                to = 0;
                out += output_bytes;
            }
        }
    } while (advance(p, counters, &at));
}

void mcuq_copy(const mcuq_copy_params *p, const void *input, void *output)
{
    if (p->input.bits == 8u) {
        copy_bytes(p, input, output);
    } else {
        copy_packed(p, input, output);
    }
}
