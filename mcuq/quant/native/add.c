/* Sum of two branches, ReLU or clip, and fake quantization in one pass; the branches are quantized on the way. */
#include "places.h"
#include "rows.h"
#include <stdlib.h>

/* Least columns of a wide row: what is set up once per row pays off. */
#define WIDE 512

/* What is added: x as it is (grid NULL), or x * gain + offset quantized; gain NULL: x quantized. */
typedef struct {
    const float *x, *gain, *offset;
    const Grid *grid;
} Branch;

typedef struct {
    float *y;
    int16_t *places;
    Grid grid;
    float units;
} Output;

static inline void add_values(const float *restrict a, const float *restrict b, Index count, Index step,
                              const float *const *affine, const Grid *one, const Grid *other, const Output *to, Index at)
{
    const Grid first = *one, second = other == NULL ? *one : *other, grid = to->grid;
    const float units = to->units;
    const float *restrict const gain = affine[0], *restrict const offset = affine[1];
    const float *restrict const scale = affine[2], *restrict const shift = affine[3];
    float *restrict const y = to->y + at;
    int16_t *restrict const places = to->places + at;
#pragma omp simd
    for (Index i = 0; i < count; i++) {
        const Index c = i * step;
        const float left = quantized(a[i] * gain[c] + offset[c], &first);
        const float right = other == NULL ? b[i] : quantized(b[i] * scale[c] + shift[c], &second);
        const float total = left + right;
        y[i] = quantized(total, &grid);
        places[i] = place(total, y[i], units, &grid);
    }
}

/* Values at..at + count of the sum; affine: gains and offsets of both branches, `step` apart (0: one for all). */
static void add_part(const Branch *a, const Branch *b, Index at, Index count, Index step, const float *const *affine,
                     const Output *to)
{
    if (step == 0 && b->grid == NULL) {
        add_values(a->x + at, b->x + at, count, 0, affine, a->grid, NULL, to, at);
    } else if (step == 0) {
        add_values(a->x + at, b->x + at, count, 0, affine, a->grid, b->grid, to, at);
    } else if (b->grid == NULL) {
        add_values(a->x + at, b->x + at, count, 1, affine, a->grid, NULL, to, at);
    } else {
        add_values(a->x + at, b->x + at, count, 1, affine, a->grid, b->grid, to, at);
    }
}

static void fill(float *values, Index count, float value)
{
    for (Index i = 0; i < count; i++) {
        values[i] = value;
    }
}

/* [4][width] of gains and offsets; 1 and 0 where there are none. */
static void affine_of(const Branch *const branches[2], float *wide, Index width, Index channels)
{
    for (Index i = 0; i < 2; i++) {
        float *const gain = wide + 2 * i * width;
        if (branches[i]->gain == NULL) {
            fill(gain, width, 1.0F);
            fill(gain + width, width, 0.0F);
        } else {
            widen(gain, width, branches[i]->gain, channels);
            widen(gain + width, width, branches[i]->offset, channels);
        }
    }
}

/* y and places as of mcuq_quantize_places of a + b; a has a grid. rows: channels_last, else NCHW. Returns 1 without
 * scratch memory. */
int mcuq_add_quantize(const Branch *a, const Branch *b, float *y, int16_t *places, const Shape *shape,
                      const Grid *grid, int channels_last)
{
    Rows rows = rows_of(shape);
    rows.columns *= rows.columns < WIDE ? WIDE / rows.columns : 1;
    const Index C = shape->channels, W = channels_last ? rows.columns : C;
    const Branch *const branches[2] = {a, b};
    const Output to = {y, places, *grid, UNITS / grid->step};
    float *const wide = malloc((size_t)(4 * W) * sizeof *wide);
    if (wide == NULL) {
        return 1;
    }
    affine_of(branches, wide, W, C);
    const Index parts = channels_last ? rows.slices : shape->images * C;
#pragma omp parallel for num_threads(rows.threads) schedule(static) if (rows.threads > 1)
    for (Index k = 0; k < parts; k++) {
        const Index c = channels_last ? 0 : k % C;
        const float *const affine[4] = {wide + c, wide + W + c, wide + 2 * W + c, wide + 3 * W + c};
        if (!channels_last) {
            add_part(a, b, k * shape->plane, shape->plane, 0, affine, &to);
            continue;
        }
        const Index end = row_start(rows, k + 1);
        for (Index i = row_start(rows, k); i < end; i += W) {
            add_part(a, b, i, smaller(W, end - i), 1, affine, &to);
        }
    }
    free(wide);
    return 0;
}
