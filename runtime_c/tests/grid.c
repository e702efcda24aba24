/* Driver: argv[1] is the case file, argv[2] the file of results, one record per case: a status word, the counter
 * ticks of the call, then the output's bytes. See grid.h. */
#include "grid.h"

#include <string.h>

#include "port.h"

enum { OK = 0, UNKNOWN_KERNEL = 1, NO_ROOM = 2, CANARY_OVERWRITTEN = 3, CONSTANT_OVERWRITTEN = 4 };

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

static mcuq_affine affine_at(const int32_t *s)
{
    const mcuq_affine affine = {s[0], s[1], (uint8_t)s[2]};
    return affine;
}

void grid_run_convolution(const grid_case *c, grid_convolution convolution)
{
    const int32_t *s = c->scalars;
    const mcuq_conv2d_params p = {
        .weights = c->buffers[1],
        .bias = c->buffers[2],
        .multipliers = c->buffers[3],
        .shifts = c->buffers[4],
        .weight_zero_points = c->buffers[5],
        .input = shape_at(s),
        .output = shape_at(s + 4),
        .window = window_at(s + 8),
        .groups = (uint16_t)s[16],
        .per_channel_scale = s[17] != 0,
        .per_channel_zero_point = s[18] != 0,
        .shift = (uint8_t)s[23],
        .input_zero_point = (int16_t)s[19],
        .output_zero_point = (int16_t)s[20],
        .clamp_lo = s[21],
        .clamp_hi = s[22],
    };
    convolution(&p, c->buffers[0], c->output, c->scratch);
}

static void run_add(const grid_case *c, grid_convolution unused)
{
    (void)unused;
    const int32_t *s = c->scalars;
    const mcuq_add_params p = {
        .shape = shape_at(s),
        .bits_a = (uint8_t)s[4],
        .bits_b = (uint8_t)s[5],
        .shift = (uint8_t)s[6],
        .multiplier_a = s[7],
        .multiplier_b = s[8],
        .constant = s[9],
        .clamp_lo = s[10],
        .clamp_hi = s[11],
    };
    mcuq_add(&p, c->buffers[0], c->buffers[1], c->output);
}

static void run_rescale(const grid_case *c, grid_convolution unused)
{
    (void)unused;
    const int32_t *s = c->scalars;
    const mcuq_rescale_params p = {shape_at(s), shape_at(s + 4), affine_at(s + 8), s[11], s[12]};
    mcuq_rescale_copy(&p, c->buffers[0], c->output);
}

static void run_reshape(const grid_case *c, grid_convolution unused)
{
    (void)unused;
    mcuq_reshape(shape_at(c->scalars), shape_at(c->scalars + 4), c->buffers[0], c->output);
}

static void run_pad(const grid_case *c, grid_convolution unused)
{
    (void)unused;
    const int32_t *s = c->scalars;
    const mcuq_pad_params p = {.input = shape_at(s),
                               .output = shape_at(s + 4),
                               .pad_top = (uint8_t)s[8],
                               .pad_left = (uint8_t)s[9],
                               .border = (int16_t)s[10],
                               .affine = affine_at(s + 11),
                               .clamp_lo = s[14],
                               .clamp_hi = s[15]};
    mcuq_pad(&p, c->buffers[0], c->output);
}

/* scalars: output shape, clamps, count, then per input channels, bits, affine and first channel. */
static void run_concat(const grid_case *c, grid_convolution unused)
{
    (void)unused;
    const int32_t *s = c->scalars;
    for (int32_t i = 0; i < s[6]; i++) {
        const int32_t *own = s + 7 + 6 * i;
        mcuq_shape shape = shape_at(s);
        shape.channels = (uint16_t)own[0];
        shape.bits = (uint8_t)own[1];
        const mcuq_concat_params p = {shape, shape_at(s), affine_at(own + 2), s[4], s[5], (uint16_t)own[5]};
        mcuq_concat(&p, c->buffers[i], c->output);
    }
}

static void run_max_pool(const grid_case *c, grid_convolution unused)
{
    (void)unused;
    const int32_t *s = c->scalars;
    const mcuq_max_pool_params p = {shape_at(s), shape_at(s + 4), window_at(s + 8), affine_at(s + 16), s[19], s[20]};
    mcuq_max_pool(&p, c->buffers[0], c->output);
}

static void run_avg_pool(const grid_case *c, grid_convolution unused)
{
    (void)unused;
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
    mcuq_avg_pool(&p, c->buffers[0], c->output);
}

static void run_table(const grid_case *c, grid_convolution unused)
{
    (void)unused;
    const mcuq_table_params p = {c->buffers[1], shape_at(c->scalars), shape_at(c->scalars + 4)};
    mcuq_table(&p, c->buffers[0], c->output);
}

static void run_prelu(const grid_case *c, grid_convolution unused)
{
    (void)unused;
    const int32_t *s = c->scalars;
    const mcuq_prelu_params p = {c->buffers[1], shape_at(s), shape_at(s + 4), affine_at(s + 8), s[11], s[12],
                                 (int16_t)s[13]};
    mcuq_prelu(&p, c->buffers[0], c->output);
}

static void run_mul(const grid_case *c, grid_convolution unused)
{
    (void)unused;
    const int32_t *s = c->scalars;
    const mcuq_mul_params p = {.a = shape_at(s),
                               .b = shape_at(s + 4),
                               .multiplier = s[8],
                               .clamp_lo = s[9],
                               .clamp_hi = s[10],
                               .zero_point_a = (int16_t)s[11],
                               .zero_point_b = (int16_t)s[12],
                               .output_zero_point = (int16_t)s[13],
                               .shift = (uint8_t)s[14],
                               .output_bits = (uint8_t)s[15]};
    mcuq_mul(&p, c->buffers[0], c->buffers[1], c->output);
}

static void run_extremum(const grid_case *c, grid_convolution unused)
{
    (void)unused;
    const int32_t *s = c->scalars;
    const mcuq_extremum_params p = {.shape = shape_at(s),
                                    .bits_a = (uint8_t)s[4],
                                    .bits_b = (uint8_t)s[5],
                                    .smallest = (uint8_t)s[6],
                                    .a = affine_at(s + 7),
                                    .b = affine_at(s + 10),
                                    .clamp_lo = s[13],
                                    .clamp_hi = s[14]};
    mcuq_extremum(&p, c->buffers[0], c->buffers[1], c->output);
}

static void run_copy(const grid_case *c, grid_convolution unused)
{
    (void)unused;
    const int32_t *s = c->scalars;
    mcuq_copy_params p = {.input = shape_at(s), .output = shape_at(s + 4), .offset = (uint32_t)s[20]};
    for (uint32_t i = 0; i < MCUQ_COPY_RANK; i++) {
        p.sizes[i] = (uint32_t)s[8 + i];
        p.strides[i] = s[14 + i];
    }
    mcuq_copy(&p, c->buffers[0], c->output);
}

static void run_choose(const grid_case *c, grid_convolution unused)
{
    (void)unused;
    const mcuq_choose_params p = {c->buffers[1], c->buffers[2], shape_at(c->scalars), shape_at(c->scalars + 4)};
    mcuq_choose(&p, c->buffers[0], c->output);
}

static void run_blend(const grid_case *c, grid_convolution unused)
{
    (void)unused;
    const int32_t *s = c->scalars;
    const mcuq_blend_params p = {.rows = c->buffers[1],
                                 .columns = c->buffers[2],
                                 .row_weights = c->buffers[3],
                                 .column_weights = c->buffers[4],
                                 .input = shape_at(s),
                                 .output = shape_at(s + 4),
                                 .multiplier = s[8],
                                 .input_zero_point = (int16_t)s[9],
                                 .output_zero_point = (int16_t)s[10],
                                 .shift = (uint8_t)s[11],
                                 .clamp_lo = s[12],
                                 .clamp_hi = s[13]};
    mcuq_blend(&p, c->buffers[0], c->output);
}

static void run_l2_normalize(const grid_case *c, grid_convolution unused)
{
    (void)unused;
    mcuq_l2_normalize(shape_at(c->scalars), c->scalars[4], c->buffers[0], c->output);
}

static void run_softmax(const grid_case *c, grid_convolution unused)
{
    (void)unused;
    mcuq_softmax(c->buffers[1], shape_at(c->scalars), c->buffers[0], c->output);
}

static void run_argmax(const grid_case *c, grid_convolution unused)
{
    (void)unused;
    mcuq_argmax(shape_at(c->scalars), c->buffers[0], c->output);
}

static void run_pixels(const grid_case *c, grid_convolution unused)
{
    (void)unused;
    mcuq_pixels_to_int8(c->output, (size_t)c->scalars[0]);
}

#define CONVOLUTION(name) {#name, grid_run_convolution, name}

static const grid_entry entries[] = {
    CONVOLUTION(mcuq_conv2d_w8),
    CONVOLUTION(mcuq_conv2d_w4),
    CONVOLUTION(mcuq_conv2d_w2),
    CONVOLUTION(mcuq_depthwise_w8),
    CONVOLUTION(mcuq_depthwise_w4),
    CONVOLUTION(mcuq_depthwise_w2),
    CONVOLUTION(mcuq_fully_connected_w8),
    CONVOLUTION(mcuq_fully_connected_w4),
    CONVOLUTION(mcuq_fully_connected_w2),
    CONVOLUTION(mcuq_conv2d_transpose_w8),
    CONVOLUTION(mcuq_conv2d_transpose_w4),
    CONVOLUTION(mcuq_conv2d_transpose_w2),
    CONVOLUTION(mcuq_conv2d_w8_twice),
    CONVOLUTION(mcuq_conv2d_w4_twice),
    CONVOLUTION(mcuq_conv2d_w2_twice),
    CONVOLUTION(mcuq_depthwise_w8_twice),
    CONVOLUTION(mcuq_depthwise_w4_twice),
    CONVOLUTION(mcuq_depthwise_w2_twice),
    {"mcuq_add", run_add, NULL},
    {"mcuq_rescale_copy", run_rescale, NULL},
    {"mcuq_reshape", run_reshape, NULL},
    {"mcuq_pad", run_pad, NULL},
    {"mcuq_concat", run_concat, NULL},
    {"mcuq_max_pool", run_max_pool, NULL},
    {"mcuq_avg_pool", run_avg_pool, NULL},
    {"mcuq_table", run_table, NULL},
    {"mcuq_prelu", run_prelu, NULL},
    {"mcuq_mul", run_mul, NULL},
    {"mcuq_extremum", run_extremum, NULL},
    {"mcuq_copy", run_copy, NULL},
    {"mcuq_choose", run_choose, NULL},
    {"mcuq_blend", run_blend, NULL},
    {"mcuq_l2_normalize", run_l2_normalize, NULL},
    {"mcuq_softmax", run_softmax, NULL},
    {"mcuq_argmax", run_argmax, NULL},
    {"mcuq_pixels_to_int8", run_pixels, NULL},
    {NULL, NULL, NULL},
};

static const grid_entry *find(const char *name)
{
    const grid_entry *const tables[2] = {entries, grid_extra};
    for (int t = 0; t < 2; t++) {
        for (const grid_entry *entry = tables[t]; entry->name != NULL; entry++) {
            if (strncmp(entry->name, name, GRID_NAME) == 0) {
                return entry;
            }
        }
    }
    return NULL;
}

/* Allocates and reads the buffers; a missing one stays NULL. What outputs may fill is poisoned before. */
static int load(grid_case *c, const grid_record *r, int file, uint8_t poison)
{
    c->scalars = r->scalars;
    c->output = NULL;
    for (uint32_t i = 0; i < GRID_BUFFERS; i++) {
        const uint32_t bytes = r->buffers[i].bytes, shared = i == 0u && r->shared != 0u;
        c->buffers[i] = NULL;
        if (bytes != 0u) {
            const uint32_t front = shared ? r->shared - 1u : 0u;
            const uint32_t room = shared && r->output_bytes > front + bytes ? r->output_bytes : front + bytes;
            uint8_t *data = grid_allocate(room, r->buffers[i].align);
            if (data == NULL) {
                return 0;
            }
            memset(data, poison, room);
            c->buffers[i] = data + front;
            c->output = shared ? data : c->output;
            if (mcuq_port_read(file, c->buffers[i], bytes) != bytes) {
                return 0;
            }
        }
    }
    c->scratch = grid_allocate(r->scratch_bytes, 4u);
    if (c->output == NULL) {
        c->output = grid_allocate(r->output_bytes, r->output_align);
        if (c->output != NULL) {
            memset(c->output, poison, r->output_bytes);
        }
    }
    return c->scratch != NULL && c->output != NULL;
}

/* A hash of all that a kernel may not write. */
static uint32_t fingerprint(const grid_case *c, const grid_record *r)
{
    uint32_t hash = 2166136261u;
    for (uint32_t i = r->shared != 0u ? 1u : 0u; i < GRID_BUFFERS; i++) {
        const uint8_t *byte = c->buffers[i];
        for (uint32_t left = r->buffers[i].bytes; left != 0u; left--) {
            hash = (hash ^ *byte++) * 16777619u;
        }
    }
    return hash;
}

static uint32_t run_case(grid_case *c, const grid_record *r, int file, uint8_t poison, uint32_t *ticks)
{
    const grid_entry *entry = find(r->name);
    if (entry == NULL) {
        return UNKNOWN_KERNEL;
    }
    if (!load(c, r, file, poison)) {
        return NO_ROOM;
    }
    memset(c->scratch, poison, r->scratch_bytes);
    const uint32_t before = fingerprint(c, r);
    const uint32_t start = mcuq_port_counter();
    entry->run(c, entry->convolution);
    *ticks = mcuq_port_counter() - start;
    if (!grid_intact()) {
        return CANARY_OVERWRITTEN;
    }
    return fingerprint(c, r) == before ? OK : CONSTANT_OVERWRITTEN;
}

int main(int argc, char **argv)
{
    static grid_record record;
    const int cases = argc == 3 ? mcuq_port_open(argv[1], MCUQ_PORT_READ) : -1;
    const int results = argc == 3 ? mcuq_port_open(argv[2], MCUQ_PORT_WRITE) : -1;
    if (cases == -1 || results == -1) {
        mcuq_port_print("usage: grid CASES RESULTS\n");
        return 2;
    }
    mcuq_port_counter_start();
    uint32_t number = 0;
    while (mcuq_port_read(cases, &record, sizeof record) == sizeof record) {
        grid_case c;
        uint32_t head[2] = {0, 0}; /* status, ticks */
        head[0] = run_case(&c, &record, cases, number % 2u == 0u ? 0xA5u : 0x5Au, &head[1]);
        const uint32_t status = head[0];
        size_t written = mcuq_port_write(results, head, sizeof head);
        if (status == UNKNOWN_KERNEL || status == NO_ROOM) {
            mcuq_port_print(record.name);
            mcuq_port_print(status == NO_ROOM ? ": case does not fit\n" : ": unknown kernel\n");
            return 1;
        }
        written += mcuq_port_write(results, c.output, record.output_bytes);
        grid_release();
        if (written != sizeof head + record.output_bytes) {
            mcuq_port_print("results cannot be written\n");
            return 1;
        }
        number++;
    }
    mcuq_port_close(cases);
    mcuq_port_close(results);
    mcuq_port_print_number(number);
    mcuq_port_print(" cases\n");
    return 0;
}
