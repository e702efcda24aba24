#include "columns.h"

#include <arm_mve.h>

static int8_t *copy(int8_t *to, const uint8_t *from, uint32_t count)
{
    int8_t *end = to + count;
    __asm__ volatile("wlstp.8 lr, %2, 2f\n"
                     "1: vldrb.u8 q0, [%1], #16\n"
                     "vstrb.8 q0, [%0], #16\n"
                     "letp lr, 1b\n"
                     "2:"
                     : "+r"(to), "+r"(from)
                     : "r"(count)
                     : "q0", "lr", "memory");
    return end;
}

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
static void copy_rows(int8_t *to, const uint8_t *from, uint32_t bytes, uint32_t rows, uint32_t to_pitch,
                      uint32_t from_pitch)
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

/* Codes that start on a byte; 4- and 2-bit ones become bytes, 16 packed bytes at a time. */
static int8_t *expand(int8_t *to, const uint8_t *codes, uint32_t count, uint32_t bits)
{
    if (bits == 8)
        return copy(to, codes, count);
    uint32_t done = 0;
    if (bits == 4) {
        for (; done + 32 <= count; done += 32) {
            const uint8x16_t packed = vldrbq_u8(codes + done / 2);
            const uint8x16x2_t pair = {{vandq_u8(packed, vdupq_n_u8(15)), vshrq_n_u8(packed, 4)}};
            vst2q_u8((uint8_t *)to + done, pair);
        }
    } else {
        const uint8x16_t mask = vdupq_n_u8(3);
        for (; done + 64 <= count; done += 64) {
            const uint8x16_t packed = vldrbq_u8(codes + done / 4);
            const uint8x16x4_t quad = {{vandq_u8(packed, mask), vandq_u8(vshrq_n_u8(packed, 2), mask),
                                        vandq_u8(vshrq_n_u8(packed, 4), mask), vshrq_n_u8(packed, 6)}};
            vst4q_u8((uint8_t *)to + done, quad);
        }
    }
    const uint32_t mask = (1u << bits) - 1u;
    for (; done < count; done++)
        to[done] = (int8_t)((uint32_t)codes[done * bits >> 3] >> (done * bits & 7u) & mask);
    return to + count;
}

/* One tap row, from input column x. */
static int8_t *tap_row(const mcuq_conv2d_params *p, const uint8_t *row, int32_t x, int8_t *to)
{
    const int32_t width = p->input.width, taps = p->window.kernel_width, step = p->window.dilation_width;
    const uint32_t channels = p->input.channels, bits = p->input.bits, pixel = mcuq_row_bytes(channels, bits);
    if (step == 1 && channels * bits % 8u == 0) {
        int32_t before = x < 0 ? -x : 0, end = width - x < taps ? width - x : taps;
        before = before < taps ? before : taps;
        end = end > before ? end : before;
        if (before > 0)
            to = fill(to, p->input_zero_point, (uint32_t)before * channels);
        if (end > before)
            to = expand(to, row + (uint32_t)(x + before) * pixel, (uint32_t)(end - before) * channels, bits);
        if (taps > end)
            to = fill(to, p->input_zero_point, (uint32_t)(taps - end) * channels);
        return to;
    }
    for (int32_t tap = 0; tap < taps; tap++, x += step)
        to = x < 0 || x >= width ? fill(to, p->input_zero_point, channels)
                                 : expand(to, row + (uint32_t)x * pixel, channels, bits);
    return to;
}

/* A column of bytes without dilation: the part of the window that lies inside the input, a rectangle, over zero points. */
static int8_t *byte_column(const mcuq_conv2d_params *p, const uint8_t *input, int32_t y, int32_t x, int8_t *column)
{
    const int32_t kernel_height = p->window.kernel_height, kernel_width = p->window.kernel_width;
    const int32_t channels = p->input.channels, width = p->input.width;
    if (y >= 0 && x >= 0 && y + kernel_height <= p->input.height && x + kernel_width <= width) {
        const uint32_t bytes = (uint32_t)(kernel_width * channels);
        copy_rows(column, input + (y * width + x) * channels, bytes, (uint32_t)kernel_height, bytes,
                  (uint32_t)(width * channels));
        return column;
    }
    const int32_t top = y < 0 ? -y : 0, left = x < 0 ? -x : 0;
    const int32_t bottom = p->input.height - y < kernel_height ? p->input.height - y : kernel_height;
    const int32_t right = width - x < kernel_width ? width - x : kernel_width;
    const int32_t rows = bottom - top, columns = right - left;
    if (rows != kernel_height || columns != kernel_width)
        fill(column, p->input_zero_point, (uint32_t)(kernel_height * kernel_width * channels));
    if (rows > 0 && columns > 0)
        copy_rows(column + (top * kernel_width + left) * channels,
                  input + ((y + top) * width + x + left) * channels, (uint32_t)(columns * channels), (uint32_t)rows,
                  (uint32_t)(kernel_width * channels), (uint32_t)(width * channels));
    return column;
}

const int8_t *mcuq_mve_column(const mcuq_conv2d_params *p, const uint8_t *input, int32_t y, int32_t x, int8_t *column)
{
    const mcuq_window *w = &p->window;
    const int32_t height = p->input.height, width = p->input.width;
    if (p->input.bits == 8 && w->dilation_height == 1 && w->dilation_width == 1)
        return byte_column(p, input, y, x, column);
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
