/* Batch norm and fake quantization of [N, C, HW], one channel after the other. */
#include "norm.h"
#include <stdlib.h>
#include <string.h>

/* Planes below this many values are brought together, so that loops are long. */
#define SMALL 200

/* The planes of one channel: `count` of `length` values each. */
typedef struct {
    Index count, length, stride;
} Planes;

static Planes planes_of(const Shape *shape)
{
    const Planes planes = {shape->images, shape->plane, shape->channels * shape->plane};
    return planes;
}

/* All planes of a channel as one. */
static Planes joined(Planes planes)
{
    const Planes one = {1, planes.count * planes.length, 0};
    return one;
}

static void gather(float *restrict to, const float *restrict from, Planes planes)
{
    for (Index n = 0; n < planes.count; n++) {
        memcpy(to + n * planes.length, from + n * planes.stride, (size_t)planes.length * sizeof *to);
    }
}

static void scatter(float *restrict to, const float *restrict from, Planes planes)
{
    for (Index n = 0; n < planes.count; n++) {
        memcpy(to + n * planes.stride, from + n * planes.length, (size_t)planes.length * sizeof *to);
    }
}

static void plane_sums(const float *restrict x, Index count, float shift, double *sum, double *squares)
{
    for (Index start = 0; start < count; start += BLOCK) {
        const Index end = smaller(start + BLOCK, count);
        float s = 0.0F, q = 0.0F;
#pragma omp simd reduction(+ : s, q)
        for (Index i = start; i < end; i++) {
            const float d = x[i] - shift;
            s += d;
            q += d * d;
        }
        *sum += (double)s;
        *squares += (double)q;
    }
}

static void normalize_channel(const float *restrict x, float *restrict y, Planes planes, Index c, const float *gamma,
                              const float *beta, float *saved, float *const running[2], const Shape *shape, Grid grid)
{
    double sum = 0.0, squares = 0.0, mean, variance;
    const float shift = x[0];
    for (Index n = 0; n < planes.count; n++) {
        plane_sums(x + n * planes.stride, planes.length, shift, &sum, &squares);
    }
    moments(sum, squares, (double)(planes.count * planes.length), shift, &mean, &variance);
    const Channel ch = keep(c, shape, mean, variance, gamma[c], beta[c], saved, running[0], running[1]);
    for (Index n = 0; y != NULL && n < planes.count; n++) {
        const float *restrict a = x + n * planes.stride;
        float *restrict b = y + n * planes.stride;
#pragma omp simd
        for (Index i = 0; i < planes.length; i++) {
            b[i] = quantized(a[i] * ch.gain + ch.offset, &grid);
        }
    }
}

/* saved: [4][C] for the backward pass. y NULL: statistics alone. The running statistics [C] move. */
int mcuq_norm_planes(const float *restrict x, float *restrict y, const float *gamma, const float *beta,
                     float *restrict saved, float *running_mean, float *running_variance, const Shape *shape,
                     const Grid *shared)
{
    const Grid grid = *shared;
    const Planes planes = planes_of(shape), one = joined(planes);
    float *const running[2] = {running_mean, running_variance};
    const Index C = shape->channels, threads = C * one.length > PARALLEL ? shape->threads : 1;
    int failed = 0;
    (void)threads; /* of compilers without OpenMP */
#pragma omp parallel for num_threads((int)threads) schedule(static) reduction(| : failed) if (threads > 1)
    for (Index c = 0; c < C; c++) {
        const Index at = c * planes.length;
        if (planes.length >= SMALL) {
            normalize_channel(x + at, y == NULL ? y : y + at, planes, c, gamma, beta, saved, running, shape, grid);
            continue;
        }
        float *const scratch = malloc((size_t)(2 * one.length) * sizeof *scratch);
        if (scratch == NULL) {
            failed = 1;
            continue;
        }
        gather(scratch, x + at, planes);
        float *const result = y == NULL ? NULL : scratch + one.length;
        normalize_channel(scratch, result, one, c, gamma, beta, saved, running, shape, grid);
        if (y != NULL) {
            scatter(y + at, result, planes);
        }
        free(scratch);
    }
    return failed;
}

static void plane_gradient_sums(const float *restrict x, const float *restrict g, Index count, const Channel ch,
                                const Grid grid, Sums *total, double sums[2])
{
    for (Index start = 0; start < count; start += BLOCK) {
        const Index end = smaller(start + BLOCK, count);
        float inside = 0.0F, below = 0.0F, above = 0.0F, plain = 0.0F, product = 0.0F;
#pragma omp simd reduction(+ : inside, below, above, plain, product)
        for (Index i = start; i < end; i++) {
            const float v = x[i] * ch.gain + ch.offset, d = inside_only(v, g[i], &grid);
            plain += d;
            product += d * (x[i] - ch.mean);
            inside += inside_only(v, g[i] * (quantized(v, &grid) - v), &grid);
            below += v <= grid.bottom ? g[i] : 0.0F;
            above += v >= grid.top ? g[i] : 0.0F;
        }
        total->inside += (double)inside;
        total->below += (double)below;
        total->above += (double)above;
        sums[0] += (double)plain;
        sums[1] += (double)product;
    }
}

static Sums channel_gradient(const float *restrict x, const float *restrict g, float *restrict dx, Planes planes,
                             Index c, Index channels, const float *saved, float *dnorm, Grid grid)
{
    const Channel ch = {saved[c], saved[channels + c], saved[2 * channels + c], saved[3 * channels + c]};
    const double count = (double)(planes.count * planes.length), inverse = (double)ch.inverse;
    double sums[2] = {0.0, 0.0};
    Sums part = {0.0, 0.0, 0.0};
    for (Index n = 0; n < planes.count; n++) {
        const Index start = n * planes.stride;
        plane_gradient_sums(x + start, g + start, planes.length, ch, grid, &part, sums);
    }
    dnorm[channels + c] = (float)sums[0];
    dnorm[c] = (float)(sums[1] * inverse);
    const float mean = (float)(sums[0] / count), slope = (float)(sums[1] / count * inverse * inverse);
    for (Index n = 0; n < planes.count; n++) {
        const Index start = n * planes.stride;
        const float *restrict a = x + start, *restrict h = g + start;
        float *restrict o = dx + start;
#pragma omp simd
        for (Index i = 0; i < planes.length; i++) {
            const float d = inside_only(a[i] * ch.gain + ch.offset, h[i], &grid);
            o[i] = ch.gain * (d - mean - (a[i] - ch.mean) * slope);
        }
    }
    return part;
}

int mcuq_norm_planes_gradient(const float *restrict x, const float *restrict g, float *restrict dx,
                              const float *saved, float *restrict dnorm, Sums *total, const Shape *shape,
                              const Grid *shared)
{
    const Grid grid = *shared;
    const Planes planes = planes_of(shape), one = joined(planes);
    const Index C = shape->channels, threads = C * one.length > PARALLEL ? shape->threads : 1;
    int failed = 0;
    (void)threads;
    Sums *const parts = malloc((size_t)C * sizeof *parts);
    if (parts == NULL) {
        return 1;
    }
#pragma omp parallel for num_threads((int)threads) schedule(static) reduction(| : failed) if (threads > 1)
    for (Index c = 0; c < C; c++) {
        const Index at = c * planes.length, length = one.length;
        if (planes.length >= SMALL) {
            parts[c] = channel_gradient(x + at, g + at, dx + at, planes, c, C, saved, dnorm, grid);
            continue;
        }
        float *const scratch = malloc((size_t)(3 * length) * sizeof *scratch);
        if (scratch == NULL) {
            failed = 1;
            continue;
        }
        gather(scratch, x + at, planes);
        gather(scratch + length, g + at, planes);
        parts[c] = channel_gradient(scratch, scratch + length, scratch + 2 * length, one, c, C, saved, dnorm, grid);
        scatter(dx + at, scratch + 2 * length, planes);
        free(scratch);
    }
    if (!failed) {
        add_slices(parts, C, total);
    }
    free(parts);
    return failed;
}
