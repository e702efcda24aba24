/* Batch norm and fake quantization of rows of C channels (channels_last). */
#include "rows.h"
#include <stdlib.h>

/* Rows taken together, so that sums per column are loaded and stored once for all of them. */
#define TOGETHER 4

static inline void add_rows(const float *restrict x, Index rows, Index width, Index columns,
                            const float *restrict shift, float *restrict sum, float *restrict squares)
{
#pragma omp simd
    for (Index c = 0; c < width; c++) {
        float s = 0.0F, q = 0.0F;
        for (Index r = 0; r < rows; r++) {
            const float d = x[r * columns + c] - shift[c];
            s += d;
            q += d * d;
        }
        sum[c] += s;
        squares[c] += q;
    }
}

static void row_sums(const float *restrict x, Index count, Index columns, const float *restrict shift,
                     float *restrict sum, float *restrict squares)
{
    Index i = 0;
    for (; i + TOGETHER * columns <= count; i += TOGETHER * columns) {
        add_rows(x + i, TOGETHER, columns, columns, shift, sum, squares);
    }
    for (; i < count; i += columns) {
        add_rows(x + i, 1, smaller(columns, count - i), columns, shift, sum, squares);
    }
}

/* Values of wide rows summed in float before the sums go into doubles. */
static Index row_block(Index columns)
{
    return BLOCK / columns > 0 ? 16 * BLOCK / columns * columns : columns;
}

/* Adds up slices of [sums][columns] in order into the first, then the columns of each channel into its first one. */
static void fold(double *parts, const Rows rows, Index sums, Index channels)
{
    for (Index k = 1; k < rows.slices; k++) {
        for (Index c = 0; c < sums * rows.columns; c++) {
            parts[c] += parts[k * sums * rows.columns + c];
        }
    }
    for (Index s = 0; s < sums; s++) {
        double *const row = parts + s * rows.columns;
        for (Index c = channels; c < rows.columns; c += channels) {
            for (Index i = 0; i < channels; i++) {
                row[i] += row[c + i];
            }
        }
    }
}

/* Scratch: `sums` arrays of doubles and of floats per slice, and `wide` arrays of floats; each of one row. */
static size_t scratch_bytes(const Rows rows, Index sums, Index wide)
{
    const Index doubles = rows.slices * sums * rows.columns;
    return (size_t)doubles * (sizeof(double) + sizeof(float)) + (size_t)(wide * rows.columns) * sizeof(float);
}

static void quantize_rows(const float *restrict x, float *restrict y, const Rows rows, const float *restrict gain,
                          const float *restrict offset, const Grid grid)
{
#pragma omp parallel for num_threads(rows.threads) schedule(static) if (rows.threads > 1)
    for (Index k = 0; k < rows.slices; k++) {
        const Index end = row_start(rows, k + 1);
        for (Index i = row_start(rows, k); i < end; i += rows.columns) {
            const Index width = smaller(rows.columns, end - i);
#pragma omp simd
            for (Index c = 0; c < width; c++) {
                y[i + c] = quantized(x[i + c] * gain[c] + offset[c], &grid);
            }
        }
    }
}

/* y NULL: statistics alone. */
int mcuq_norm_rows(const float *restrict x, float *restrict y, const float *gamma, const float *beta,
                   float *restrict saved, float *restrict running_mean, float *restrict running_variance,
                   const Shape *shape, const Grid *shared)
{
    const Index C = shape->channels;
    const Rows rows = rows_of(shape);
    const Index W = rows.columns;
    const Grid grid = *shared;
    double *const scratch = malloc(scratch_bytes(rows, 2, 3));
    if (scratch == NULL) {
        return 1;
    }
    float *const narrow = (float *)(scratch + rows.slices * 2 * W);
    float *const shift = narrow + rows.slices * 2 * W, *const gain = shift + W, *const offset = gain + W;
    widen(shift, W, x, C);
#pragma omp parallel for num_threads(rows.threads) schedule(static) if (rows.threads > 1)
    for (Index k = 0; k < rows.slices; k++) {
        double *const total = scratch + k * 2 * W;
        float *const part = narrow + k * 2 * W;
        const Index end = row_start(rows, k + 1), block = row_block(W);
        memset(total, 0, (size_t)(2 * W) * sizeof *total);
        for (Index i = row_start(rows, k); i < end; i += block) {
            memset(part, 0, (size_t)(2 * W) * sizeof *part);
            row_sums(x + i, smaller(block, end - i), W, shift, part, part + W);
            for (Index c = 0; c < 2 * W; c++) {
                total[c] += (double)part[c];
            }
        }
    }
    fold(scratch, rows, 2, C);
    for (Index c = 0; c < C; c++) {
        double mean, variance;
        moments(scratch[c], scratch[W + c], (double)(rows.count / C), x[c], &mean, &variance);
        keep(c, shape, mean, variance, gamma[c], beta[c], saved, running_mean, running_variance);
    }
    if (y != NULL) {
        widen(gain, W, saved + 2 * C, C);
        widen(offset, W, saved + 3 * C, C);
        quantize_rows(x, y, rows, gain, offset, grid);
    }
    free(scratch);
    return 0;
}

/* wide: [3][columns] of mean, gain, offset; part: [5][columns] of the sums of d, d * (x - mean), and of Sums. */
static inline void add_row_gradients(const float *restrict x, const float *restrict g, Index rows, Index width,
                                     Index columns, const float *restrict wide, const Grid grid, float *restrict part)
{
#pragma omp simd
    for (Index c = 0; c < width; c++) {
        const float mean = wide[c], gain = wide[columns + c], offset = wide[2 * columns + c];
        float plain = 0.0F, product = 0.0F, inside = 0.0F, below = 0.0F, above = 0.0F;
        for (Index r = 0; r < rows; r++) {
            const float a = x[r * columns + c], h = g[r * columns + c], v = a * gain + offset;
            const float d = inside_only(v, h, &grid);
            plain += d;
            product += d * (a - mean);
            inside += inside_only(v, h * (quantized(v, &grid) - v), &grid);
            below += v <= grid.bottom ? h : 0.0F;
            above += v >= grid.top ? h : 0.0F;
        }
        part[c] += plain;
        part[columns + c] += product;
        part[2 * columns + c] += inside;
        part[3 * columns + c] += below;
        part[4 * columns + c] += above;
    }
}

static void row_gradient_sums(const float *restrict x, const float *restrict g, Index count, Index columns,
                              const float *restrict wide, const Grid grid, float *restrict part)
{
    Index i = 0;
    for (; i + TOGETHER * columns <= count; i += TOGETHER * columns) {
        add_row_gradients(x + i, g + i, TOGETHER, columns, columns, wide, grid, part);
    }
    for (; i < count; i += columns) {
        add_row_gradients(x + i, g + i, 1, smaller(columns, count - i), columns, wide, grid, part);
    }
}

int mcuq_norm_rows_gradient(const float *restrict x, const float *restrict g, float *restrict dx,
                             const float *saved, float *restrict dnorm, Sums *total,
                             const Shape *shape, const Grid *shared)
{
    const Index C = shape->channels;
    const Rows rows = rows_of(shape);
    const Index W = rows.columns;
    const Grid grid = *shared;
    const double count = (double)(rows.count / C);
    double *const scratch = malloc(scratch_bytes(rows, 5, 5));
    if (scratch == NULL) {
        return 1;
    }
    float *const narrow = (float *)(scratch + rows.slices * 5 * W);
    float *const wide = narrow + rows.slices * 5 * W; /* [5][W]: mean, gain, offset, mean of d, slope */
    widen(wide, W, saved, C);
    widen(wide + W, W, saved + 2 * C, C);
    widen(wide + 2 * W, W, saved + 3 * C, C);
#pragma omp parallel for num_threads(rows.threads) schedule(static) if (rows.threads > 1)
    for (Index k = 0; k < rows.slices; k++) {
        double *const sums = scratch + k * 5 * W;
        float *const part = narrow + k * 5 * W;
        const Index end = row_start(rows, k + 1), block = row_block(W);
        memset(sums, 0, (size_t)(5 * W) * sizeof *sums);
        for (Index i = row_start(rows, k); i < end; i += block) {
            memset(part, 0, (size_t)(5 * W) * sizeof *part);
            row_gradient_sums(x + i, g + i, smaller(block, end - i), W, wide, grid, part);
            for (Index c = 0; c < 5 * W; c++) {
                sums[c] += (double)part[c];
            }
        }
    }
    Sums sum = {0.0, 0.0, 0.0};
    fold(scratch, rows, 5, C);
    for (Index c = 0; c < C; c++) {
        const double plain = scratch[c], product = scratch[W + c], inverse = (double)saved[C + c];
        sum.inside += scratch[2 * W + c];
        sum.below += scratch[3 * W + c];
        sum.above += scratch[4 * W + c];
        dnorm[C + c] = (float)plain;
        dnorm[c] = (float)(product * inverse);
        for (Index i = c; i < W; i += C) {
            wide[3 * W + i] = (float)(plain / count);
            wide[4 * W + i] = (float)(product / count * inverse * inverse);
        }
    }
    *total = sum;
#pragma omp parallel for num_threads(rows.threads) schedule(static) if (rows.threads > 1)
    for (Index k = 0; k < rows.slices; k++) {
        const float *restrict mean = wide, *restrict gain = wide + W, *restrict offset = wide + 2 * W;
        const float *restrict level = wide + 3 * W, *restrict slope = wide + 4 * W;
        const Index end = row_start(rows, k + 1);
        for (Index i = row_start(rows, k); i < end; i += W) {
            const Index width = smaller(W, end - i);
#pragma omp simd
            for (Index c = 0; c < width; c++) {
                const float d = inside_only(x[i + c] * gain[c] + offset[c], g[i + c], &grid);
                dx[i + c] = gain[c] * (d - level[c] - (x[i + c] - mean[c]) * slope[c]);
            }
        }
    }
    free(scratch);
    return 0;
}
