/* Kernels for cores with the DSP extension (mcuq/dsp.h) and with Helium (mcuq/mve.h). With GRID_COUNT every call's counter ticks are printed, for
 * these and, named with a leading #, for the portable convolutions. */
#include "grid.h"

#include "mcuq/dsp.h"
#include "mcuq/mve.h"

#ifdef GRID_COUNT
#include "port.h"

static void start(void)
{
    static int started;
    if (!started) {
        mcuq_port_counter_start();
        started = 1;
    }
}

static void report(uint32_t ticks)
{
    mcuq_port_print("ticks ");
    mcuq_port_print_number(ticks);
    mcuq_port_print("\n");
}

#define MEASURE(call) \
    do { \
        start(); \
        const uint32_t measured_from = mcuq_port_counter(); \
        call; \
        report(mcuq_port_counter() - measured_from); \
    } while (0)

static grid_convolution measured;

static void measure(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    MEASURE(measured(p, input, output, scratch));
}

static void run_convolution(const grid_case *c, grid_convolution convolution)
{
    measured = convolution;
    grid_run_convolution(c, measure);
}

static void nothing(const mcuq_conv2d_params *p, const void *input, void *output, void *scratch)
{
    (void)p;
    (void)input;
    (void)output;
    (void)scratch;
}
#else
#define MEASURE(call) call
#define run_convolution grid_run_convolution
#endif

static mcuq_shape shape_at(const int32_t *s)
{
    const mcuq_shape shape = {(uint16_t)s[0], (uint16_t)s[1], (uint16_t)s[2], (uint8_t)s[3]};
    return shape;
}

static mcuq_window window_at(const int32_t *s)
{
    const mcuq_window window = {(uint8_t)s[0], (uint8_t)s[1], (uint8_t)s[2], (uint8_t)s[3],
                                (uint8_t)s[4], (uint8_t)s[5], (uint8_t)s[6], (uint8_t)s[7]};
    return window;
}

typedef void (*add_kernel)(const mcuq_add_params *, const void *, const void *, void *);
typedef void (*max_pool_kernel)(const mcuq_max_pool_params *, const void *, void *);
typedef void (*avg_pool_kernel)(const mcuq_avg_pool_params *, const void *, void *);

static void add(const grid_case *c, add_kernel kernel)
{
    const int32_t *s = c->scalars;
    const mcuq_add_params p = {.shape = shape_at(s),
                               .bits_a = (uint8_t)s[4],
                               .bits_b = (uint8_t)s[5],
                               .shift = (uint8_t)s[6],
                               .multiplier_a = s[7],
                               .multiplier_b = s[8],
                               .constant = s[9],
                               .clamp_lo = s[10],
                               .clamp_hi = s[11]};
    MEASURE(kernel(&p, c->buffers[0], c->buffers[1], c->output));
}

static void max_pool(const grid_case *c, max_pool_kernel kernel)
{
    const int32_t *s = c->scalars;
    const mcuq_max_pool_params p = {shape_at(s), shape_at(s + 4), window_at(s + 8),
                                    {s[16], s[17], (uint8_t)s[18]}, s[19], s[20]};
    MEASURE(kernel(&p, c->buffers[0], c->output));
}

static void avg_pool(const grid_case *c, avg_pool_kernel kernel)
{
    const int32_t *s = c->scalars;
    const mcuq_avg_pool_params p = {.multipliers = c->buffers[1],
                                    .shifts = c->buffers[2],
                                    .table_length = (uint16_t)s[16],
                                    .input = shape_at(s),
                                    .output = shape_at(s + 4),
                                    .window = window_at(s + 8),
                                    .input_zero_point = (int16_t)s[17],
                                    .output_zero_point = (int16_t)s[18],
                                    .clamp_lo = s[19],
                                    .clamp_hi = s[20]};
    MEASURE(kernel(&p, c->buffers[0], c->output));
}

#define RUNNERS(family) \
    static void run_add_##family(const grid_case *c, grid_convolution unused) \
    { \
        (void)unused; \
        add(c, mcuq_add_##family); \
    } \
    static void run_max_pool_##family(const grid_case *c, grid_convolution unused) \
    { \
        (void)unused; \
        max_pool(c, mcuq_max_pool_##family); \
    } \
    static void run_avg_pool_##family(const grid_case *c, grid_convolution unused) \
    { \
        (void)unused; \
        avg_pool(c, mcuq_avg_pool_##family); \
    }
RUNNERS(dsp)
static void run_max_pool_packed_dsp(const grid_case *c, grid_convolution unused)
{
    (void)unused;
    max_pool(c, mcuq_max_pool_packed_dsp);
}
#if defined(__ARM_FEATURE_MVE)
RUNNERS(mve)
static void run_add_packed_mve(const grid_case *c, grid_convolution unused)
{
    (void)unused;
    add(c, mcuq_add_packed_mve);
}
#endif

#define CONVOLUTION(name) {#name, run_convolution, name}
#define PORTABLE(name) {"#" #name, run_convolution, name}
#define DEPTHWISE_STRIDE(kind, s, suffix) \
    CONVOLUTION(mcuq_depthwise3x3_##kind##_##s##_p16##suffix), \
        CONVOLUTION(mcuq_depthwise3x3_##kind##_##s##_p32##suffix), \
        CONVOLUTION(mcuq_depthwise3x3_##kind##_##s##_p64##suffix), \
        CONVOLUTION(mcuq_depthwise3x3_##kind##_##s##_p128##suffix), \
        CONVOLUTION(mcuq_depthwise3x3_##kind##_##s##_p256##suffix)
#define DEPTHWISE(bits) \
    DEPTHWISE_STRIDE(w##bits, s1, _dsp), DEPTHWISE_STRIDE(w##bits, s2, _dsp), \
        DEPTHWISE_STRIDE(packed_w##bits, s1, _dsp), DEPTHWISE_STRIDE(packed_w##bits, s2, _dsp)
#define HELIUM_DEPTHWISE(bits) \
    CONVOLUTION(mcuq_depthwise3x3_w##bits##_s1_mve), CONVOLUTION(mcuq_depthwise3x3_w##bits##z_s1_mve), \
        CONVOLUTION(mcuq_depthwise3x3_w##bits##_s2_mve), CONVOLUTION(mcuq_depthwise3x3_w##bits##z_s2_mve), \
        CONVOLUTION(mcuq_depthwise3x3_w##bits##_s1p_mve), CONVOLUTION(mcuq_depthwise3x3_w##bits##z_s1p_mve), \
        CONVOLUTION(mcuq_depthwise3x3_w##bits##_s2p_mve), CONVOLUTION(mcuq_depthwise3x3_w##bits##z_s2p_mve)

const grid_entry grid_extra[] = {
    CONVOLUTION(mcuq_conv2d_w8_dsp),
    CONVOLUTION(mcuq_conv2d_w8z_dsp),
    CONVOLUTION(mcuq_conv2d_w8c_dsp),
    CONVOLUTION(mcuq_conv2d_w4_dsp),
    CONVOLUTION(mcuq_conv2d_w4z_dsp),
    CONVOLUTION(mcuq_conv2d_w2_dsp),
    CONVOLUTION(mcuq_conv2d_w2z_dsp),
    CONVOLUTION(mcuq_conv2d_w2_lanes2_dsp),
    CONVOLUTION(mcuq_conv2d_w2_lanes4_dsp),
    CONVOLUTION(mcuq_fully_connected_w8_dsp),
    CONVOLUTION(mcuq_fully_connected_w8z_dsp),
    CONVOLUTION(mcuq_fully_connected_w4_dsp),
    CONVOLUTION(mcuq_fully_connected_w4z_dsp),
    CONVOLUTION(mcuq_fully_connected_w2_dsp),
    CONVOLUTION(mcuq_fully_connected_w2z_dsp),
    CONVOLUTION(mcuq_fully_connected_w8_direct_dsp),
    CONVOLUTION(mcuq_fully_connected_w8z_direct_dsp),
    CONVOLUTION(mcuq_fully_connected_w4_direct_dsp),
    CONVOLUTION(mcuq_fully_connected_w4z_direct_dsp),
    CONVOLUTION(mcuq_fully_connected_w2_direct_dsp),
    CONVOLUTION(mcuq_fully_connected_w2z_direct_dsp),
    DEPTHWISE(8),
    DEPTHWISE(4),
    DEPTHWISE(2),
    CONVOLUTION(mcuq_depthwise_w8_s1_dsp),
    CONVOLUTION(mcuq_depthwise_w8_s2_dsp),
    CONVOLUTION(mcuq_depthwise_w4_s1_dsp),
    CONVOLUTION(mcuq_depthwise_w4_s2_dsp),
    CONVOLUTION(mcuq_depthwise_w2_s1_dsp),
    CONVOLUTION(mcuq_depthwise_w2_s2_dsp),
    CONVOLUTION(mcuq_conv2d_w8_twice_dsp),
    CONVOLUTION(mcuq_conv2d_w8c_twice_dsp),
    DEPTHWISE_STRIDE(w8, s1, _twice_dsp),
    DEPTHWISE_STRIDE(w8, s2, _twice_dsp),
#if defined(__ARM_FEATURE_MVE)
    CONVOLUTION(mcuq_conv2d_w8_mve),
    CONVOLUTION(mcuq_conv2d_w8z_mve),
    CONVOLUTION(mcuq_conv2d_w4_mve),
    CONVOLUTION(mcuq_conv2d_w4z_mve),
    CONVOLUTION(mcuq_conv2d_w2_mve),
    CONVOLUTION(mcuq_conv2d_w2z_mve),
    {"mcuq_add_mve", run_add_mve, NULL},
    {"mcuq_add_packed_mve", run_add_packed_mve, NULL},
    {"mcuq_max_pool_mve", run_max_pool_mve, NULL},
    {"mcuq_avg_pool_mve", run_avg_pool_mve, NULL},
    HELIUM_DEPTHWISE(8),
    HELIUM_DEPTHWISE(4),
    HELIUM_DEPTHWISE(2),
    CONVOLUTION(mcuq_conv2d_w8_twice_mve),
    CONVOLUTION(mcuq_conv2d_w8z_twice_mve),
    CONVOLUTION(mcuq_depthwise3x3_w8_s1_twice_mve),
    CONVOLUTION(mcuq_depthwise3x3_w8z_s1_twice_mve),
    CONVOLUTION(mcuq_depthwise3x3_w8_s2_twice_mve),
    CONVOLUTION(mcuq_depthwise3x3_w8z_s2_twice_mve),
#endif
#ifdef GRID_COUNT
    PORTABLE(mcuq_conv2d_w8),
    PORTABLE(mcuq_conv2d_w4),
    PORTABLE(mcuq_conv2d_w2),
    PORTABLE(mcuq_depthwise_w8),
    PORTABLE(mcuq_depthwise_w4),
    PORTABLE(mcuq_depthwise_w2),
    PORTABLE(mcuq_conv2d_w8_twice),
    PORTABLE(mcuq_conv2d_w4_twice),
    PORTABLE(mcuq_conv2d_w2_twice),
    PORTABLE(mcuq_depthwise_w8_twice),
    PORTABLE(mcuq_depthwise_w4_twice),
    PORTABLE(mcuq_depthwise_w2_twice),
    PORTABLE(mcuq_fully_connected_w8),
    PORTABLE(mcuq_fully_connected_w4),
    PORTABLE(mcuq_fully_connected_w2),
    PORTABLE(mcuq_conv2d_transpose_w8),
    PORTABLE(mcuq_conv2d_transpose_w4),
    PORTABLE(mcuq_conv2d_transpose_w2),
    {"#nothing", run_convolution, nothing},
#endif
    {"mcuq_add_dsp", run_add_dsp, NULL},
    {"mcuq_max_pool_dsp", run_max_pool_dsp, NULL},
    {"mcuq_max_pool_packed_dsp", run_max_pool_packed_dsp, NULL},
    {"mcuq_avg_pool_dsp", run_avg_pool_dsp, NULL},
    {NULL, NULL, NULL},
};
