#include "columns.h"

#include "codes.h"

static int8_t *fill(int8_t *to, int32_t code, uint32_t count)
{
    int8_t *end = to + count;
    __asm__ volatile("vdup.8 q0, %1\n"
                     "wlstp.8 lr, %2, 2f\n"
                     "1: vstrb.8 q0, [%0], #16\n"
                     "letp lr, 1b\n"
                     "2:"
                     : "+r"(to)
                     : "r"(code), "r"(count)
                     : "q0", "lr", "memory");
    return end;
}

/* `rows` runs of `bytes` bytes, both at least 1, each `to_pitch` and `from_pitch` behind the one before it. */
static inline __attribute__((always_inline)) void copy_rows(int8_t *to, const uint8_t *from, uint32_t bytes,
                                                            uint32_t rows, uint32_t to_pitch, uint32_t from_pitch)
{
    if (bytes <= 16u) {
        __asm__ volatile("vctp.8 %2\n"
                         "dls lr, %3\n"
                         "1: vpstt\n"
                         "vldrbt.u8 q0, [%1]\n"
                         "vstrbt.8 q0, [%0]\n"
                         "add %1, %1, %5\n"
                         "add %0, %0, %4\n"
                         "le lr, 1b"
                         : "+r"(to), "+r"(from)
                         : "r"(bytes), "r"(rows), "r"(to_pitch), "r"(from_pitch)
                         : "q0", "lr", "memory");
        return;
    }
    int8_t *out;
    const uint8_t *in;
    __asm__ volatile("1: mov %[out], %[to]\n"
                     "mov %[in], %[from]\n"
                     "dlstp.8 lr, %[bytes]\n"
                     "2: vldrb.u8 q0, [%[in]], #16\n"
                     "vstrb.8 q0, [%[out]], #16\n"
                     "letp lr, 2b\n"
                     "add %[to], %[to], %[to_pitch]\n"
                     "add %[from], %[from], %[from_pitch]\n"
                     "subs %[rows], %[rows], #1\n"
                     "bne 1b"
                     : [to] "+r"(to), [from] "+r"(from), [rows] "+r"(rows), [out] "=&r"(out), [in] "=&r"(in)
                     : [bytes] "r"(bytes), [to_pitch] "r"(to_pitch), [from_pitch] "r"(from_pitch)
                     : "q0", "lr", "cc", "memory");
}

/* One tap row, from input column x. */
static int8_t *tap_row(const mcuq_conv2d_params *p, const uint8_t *row, int32_t x, int8_t *to)
{
    const uint32_t channels = p->input.channels, pixel = mcuq_row_bytes(channels, p->input.bits);
    for (uint32_t taps = p->window.kernel_width; taps > 0; taps--, x += p->window.dilation_width)
        to = x < 0 || x >= p->input.width ? fill(to, p->input_zero_point, channels)
                                          : mcuq_mve_expand(to, row + (uint32_t)x * pixel, channels, p->input.bits);
    return to;
}

/* The same of `codes` codes a run, as bytes. */
static inline __attribute__((always_inline)) void expand_rows(int8_t *to, const uint8_t *from, uint32_t codes, uint32_t rows, uint32_t to_pitch,
                        uint32_t from_pitch, uint32_t bits)
{
    if (bits == 8)
        copy_rows(to, from, codes, rows, to_pitch, from_pitch);
    else
        for (; rows > 0; rows--, to += to_pitch, from += from_pitch)
            mcuq_mve_expand(to, from, codes, bits);
}

/* A column without dilation of pixels that fill their bytes: the part of the window that lies inside the input, a
 * rectangle, over zero points. */
static inline __attribute__((always_inline)) int8_t *rectangle(const mcuq_conv2d_params *p, const uint8_t *input, int32_t y,
                                                               int32_t x, int8_t *column, int32_t bits)
{
    const int32_t kernel_height = p->window.kernel_height, kernel_width = p->window.kernel_width;
    const int32_t channels = p->input.channels, width = p->input.width;
    const int32_t pixel = channels * bits >> 3;
    const uint32_t row_bytes = (uint32_t)(width * pixel), column_row = (uint32_t)(kernel_width * channels);
    if (y >= 0 && x >= 0 && y + kernel_height <= p->input.height && x + kernel_width <= width) {
        expand_rows(column, input + (y * width + x) * pixel, column_row, (uint32_t)kernel_height, column_row, row_bytes,
                    (uint32_t)bits);
        return column;
    }
    const int32_t top = y < 0 ? -y : 0, left = x < 0 ? -x : 0;
    const int32_t bottom = p->input.height - y < kernel_height ? p->input.height - y : kernel_height;
    const int32_t right = width - x < kernel_width ? width - x : kernel_width;
    const int32_t rows = bottom - top, columns = right - left;
    if (rows != kernel_height || columns != kernel_width)
        fill(column, p->input_zero_point, (uint32_t)kernel_height * column_row);
    if (rows > 0 && columns > 0)
        expand_rows(column + (top * kernel_width + left) * channels,
                    input + ((y + top) * width + x + left) * pixel, (uint32_t)(columns * channels), (uint32_t)rows,
                    column_row, row_bytes, (uint32_t)bits);
    return column;
}

const int8_t *mcuq_mve_column(const mcuq_conv2d_params *p, const uint8_t *input, int32_t y, int32_t x, int8_t *column)
{
    const mcuq_window *w = &p->window;
    const int32_t height = p->input.height, width = p->input.width;
    const uint32_t bits = p->input.bits;
    if (p->input.channels * bits % 8u == 0 && w->dilation_height == 1 && w->dilation_width == 1)
        return bits == 8 ? rectangle(p, input, y, x, column, 8) : rectangle(p, input, y, x, column, (int32_t)bits);
    const uint32_t row_bytes = (uint32_t)width * mcuq_row_bytes(p->input.channels, p->input.bits);
    int8_t *to = column;
    for (uint32_t ky = w->kernel_height; ky > 0; ky--, y += w->dilation_height)
        to = y < 0 || y >= height ? fill(to, p->input_zero_point, (uint32_t)w->kernel_width * p->input.channels)
                                  : tap_row(p, input + (uint32_t)y * row_bytes, x, to);
    return column;
}

void mcuq_mve_raise(int8_t *column, uint32_t depth, uint32_t bits)
{
    __asm__ volatile("wlstp.8 lr, %1, 2f\n"
                     "1: vldrb.u8 q0, [%0]\n"
                     "vshl.u8 q0, %2\n"
                     "vstrb.8 q0, [%0], #16\n"
                     "letp lr, 1b\n"
                     "2:"
                     : "+r"(column)
                     : "r"(depth), "r"(bits)
                     : "q0", "lr", "memory");
}

int32_t mcuq_mve_sum(const int8_t *column, uint32_t depth)
{
    register int32_t sum __asm__("r0") = 0; /* VADDVA wants an even register */
    __asm__ volatile("wlstp.8 lr, %2, 2f\n"
                     "1: vldrb.u8 q0, [%1], #16\n"
                     "vaddva.s8 %0, q0\n"
                     "letp lr, 1b\n"
                     "2:"
                     : "+r"(sum), "+r"(column)
                     : "r"(depth)
                     : "q0", "lr", "memory");
    return sum;
}
