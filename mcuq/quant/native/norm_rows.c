/* Batch norm and fake quantization of rows of C channels (channels_last).
 *
 * A few pixels make one wide row, so that loops over few channels still fill vectors. Arrays
 * per column repeat the channels. A last part of a wide row is a prefix of one. */
#include "norm.h"
#include <stdlib.h>
#include <string.h>

typedef struct {
    Index columns, count, slices; /* columns of a wide row, values in all, slices that are summed on their own */
    int threads;
} Rows;

static Rows rows_of(const Shape *shape)
{
    const Index C = shape->channels, count = shape->images * shape->plane * C, wanted = count / (4 * BLOCK);
    Index columns = C;
    while (columns < 64 || columns % 16 != 0) {
        columns += C;
    }
    const Rows rows = {columns, count, wanted < 1 ? 1 : smaller(wanted, SLICES),
                       count > PARALLEL ? shape->threads : 1};
    return rows;
}

/* First value of slice k: slices start on wide rows. */
static Index row_start(const Rows rows, Index k)
{
    const Index whole = (rows.count + rows.columns - 1) / rows.columns;
    const Index first = whole / rows.slices * k + smaller(k, whole % rows.slices);
    return smaller(first * rows.columns, rows.count);
}

static void row_sums(const float *restrict x, Index start, Index end, Index columns, const float *restrict shift,
                     float *restrict sum, float *restrict squares)
{
    for (Index i = start; i < end; i += columns) {
        const Index width = smaller(columns, end - i);
        const float *restrict a = x + i;
#pragma omp simd
        for (Index c = 0; c < width; c++) {
            const float d = a[c] - shift[c];
            sum[c] += d;
            squares[c] += d * d;
        }
    }
}

/* Values of wide rows summed in float before the sums go into doubles. */
static Index row_block(Index columns)
{
    return BLOCK / columns > 0 ? 16 * BLOCK / columns * columns : columns;
}

/* Column c of array k, [k][columns], becomes channel c % C; sums over wide columns in order. */
static double fold(const double *parts, Index stride, Index slices, Index columns, Index channels, Index c)
{
    double sum = 0.0;
    for (Index k = 0; k < slices; k++) {
        for (Index i = c; i < columns; i += channels) {
            sum += parts[k * stride + i];
        }
    }
    return sum;
}

/* Scratch for `sums` arrays of doubles and of floats per slice, and `wide` arrays of floats, one value per column each. */
static size_t scratch_bytes(const Rows rows, Index sums, Index wide)
{
    const Index doubles = rows.slices * sums * rows.columns;
    return (size_t)doubles * (sizeof(double) + sizeof(float)) + (size_t)(wide * rows.columns) * sizeof(float);
}

static void widen(float *wide, Index columns, const float *narrow, Index channels)
{
    for (Index c = 0; c < columns; c += channels) {
        memcpy(wide + c, narrow, (size_t)channels * sizeof *wide);
    }
}

int mcuq_norm_rows(const float *restrict x, float *restrict y, const float *gamma, const float *beta,
                    float *restrict saved, float *restrict statistics, const Shape *shape, const Grid *shared)
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
            row_sums(x, i, smaller(i + block, end), W, shift, part, part + W);
            for (Index c = 0; c < 2 * W; c++) {
                total[c] += (double)part[c];
            }
        }
    }
    for (Index c = 0; c < C; c++) {
        double mean, variance;
        const double sum = fold(scratch, 2 * W, rows.slices, W, C, c);
        const double squares = fold(scratch + W, 2 * W, rows.slices, W, C, c);
        moments(sum, squares, (double)(rows.count / C), x[c], &mean, &variance);
        const Channel ch = channel(mean, variance, gamma[c], beta[c], shape->epsilon);
        keep(ch, c, C, saved, statistics, mean, variance);
    }
    widen(gain, W, saved + 2 * C, C);
    widen(offset, W, saved + 3 * C, C);
#pragma omp parallel for num_threads(rows.threads) schedule(static) if (rows.threads > 1)
    for (Index k = 0; k < rows.slices; k++) {
        const Index end = row_start(rows, k + 1);
        for (Index i = row_start(rows, k); i < end; i += W) {
            const Index width = smaller(W, end - i);
#pragma omp simd
            for (Index c = 0; c < width; c++) {
                y[i + c] = quantized(x[i + c] * gain[c] + offset[c], &grid);
            }
        }
    }
    free(scratch);
    return 0;
}

static void row_gradient_sums(const float *restrict x, const float *restrict g, Index start, Index end,
                              Index columns, const float *restrict wide, const Grid grid, float *restrict part)
{
    const float *restrict mean = wide, *restrict gain = wide + columns, *restrict offset = wide + 2 * columns;
    float *restrict plain = part, *restrict product = part + columns, *restrict inside = part + 2 * columns;
    float *restrict below = part + 3 * columns, *restrict above = part + 4 * columns;
    for (Index i = start; i < end; i += columns) {
        const Index width = smaller(columns, end - i);
        const float *restrict a = x + i, *restrict h = g + i;
#pragma omp simd
        for (Index c = 0; c < width; c++) {
            const float v = a[c] * gain[c] + offset[c], d = inside_only(v, h[c], &grid);
            plain[c] += d;
            product[c] += d * (a[c] - mean[c]);
            inside[c] += inside_only(v, h[c] * (quantized(v, &grid) - v), &grid);
            below[c] += v <= grid.bottom ? h[c] : 0.0F;
            above[c] += v >= grid.top ? h[c] : 0.0F;
        }
    }
}

int mcuq_norm_rows_gradient(const float *restrict x, const float *restrict g, float *restrict dx,
                             const float *saved, float *restrict dgamma, float *restrict dbeta, Sums *total,
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
            row_gradient_sums(x, g, i, smaller(i + block, end), W, wide, grid, part);
            for (Index c = 0; c < 5 * W; c++) {
                sums[c] += (double)part[c];
            }
        }
    }
    Sums sum = {0.0, 0.0, 0.0};
    for (Index c = 0; c < C; c++) {
        const double plain = fold(scratch, 5 * W, rows.slices, W, C, c);
        const double product = fold(scratch + W, 5 * W, rows.slices, W, C, c), inverse = (double)saved[C + c];
        sum.inside += fold(scratch + 2 * W, 5 * W, rows.slices, W, C, c);
        sum.below += fold(scratch + 3 * W, 5 * W, rows.slices, W, C, c);
        sum.above += fold(scratch + 4 * W, 5 * W, rows.slices, W, C, c);
        dbeta[c] = (float)plain;
        dgamma[c] = (float)(product * inverse);
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
