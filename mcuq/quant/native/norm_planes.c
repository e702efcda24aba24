/* Batch norm and fake quantization of [N, C, HW], one channel after the other. */
#include "norm.h"
#include <stdlib.h>

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

/* saved: [4][C] for the backward pass. The running statistics [C] move. */
int mcuq_norm_planes(const float *restrict x, float *restrict y, const float *gamma, const float *beta,
                      float *restrict saved, float *restrict running_mean, float *restrict running_variance, const Shape *shape, const Grid *shared)
{
    const Index C = shape->channels, P = shape->plane, N = shape->images;
    const Grid grid = *shared;
#pragma omp parallel for num_threads(shape->threads) schedule(static) if (N * C * P > PARALLEL && shape->threads > 1)
    for (Index c = 0; c < C; c++) {
        double sum = 0.0, squares = 0.0, mean, variance;
        const float shift = x[c * P];
        for (Index n = 0; n < N; n++) {
            plane_sums(x + (n * C + c) * P, P, shift, &sum, &squares);
        }
        moments(sum, squares, (double)(N * P), shift, &mean, &variance);
        const Channel ch = keep(c, shape, mean, variance, gamma[c], beta[c], saved, running_mean, running_variance);
        for (Index n = 0; n < N; n++) {
            const float *restrict a = x + (n * C + c) * P;
            float *restrict b = y + (n * C + c) * P;
#pragma omp simd
            for (Index i = 0; i < P; i++) {
                b[i] = quantized(a[i] * ch.gain + ch.offset, &grid);
            }
        }
    }
    return 0;
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

int mcuq_norm_planes_gradient(const float *restrict x, const float *restrict g, float *restrict dx,
                               const float *saved, float *restrict dnorm, Sums *total,
                               const Shape *shape, const Grid *shared)
{
    const Index C = shape->channels, P = shape->plane, N = shape->images;
    const Grid grid = *shared;
    const double count = (double)(N * P);
    Sums *const parts = malloc((size_t)C * sizeof *parts);
    if (parts == NULL) {
        return 1;
    }
#pragma omp parallel for num_threads(shape->threads) schedule(static) if (N * C * P > PARALLEL && shape->threads > 1)
    for (Index c = 0; c < C; c++) {
        const Channel ch = {saved[c], saved[C + c], saved[2 * C + c], saved[3 * C + c]};
        double sums[2] = {0.0, 0.0};
        Sums part = {0.0, 0.0, 0.0};
        for (Index n = 0; n < N; n++) {
            const Index start = (n * C + c) * P;
            plane_gradient_sums(x + start, g + start, P, ch, grid, &part, sums);
        }
        parts[c] = part;
        dnorm[C + c] = (float)sums[0];
        dnorm[c] = (float)(sums[1] * (double)ch.inverse);
        const float mean = (float)(sums[0] / count);
        const float slope = (float)(sums[1] / count * (double)ch.inverse * (double)ch.inverse);
        for (Index n = 0; n < N; n++) {
            const Index start = (n * C + c) * P;
            const float *restrict a = x + start, *restrict h = g + start;
            float *restrict o = dx + start;
#pragma omp simd
            for (Index i = 0; i < P; i++) {
                const float d = inside_only(a[i] * ch.gain + ch.offset, h[i], &grid);
                o[i] = ch.gain * (d - mean - (a[i] - ch.mean) * slope);
            }
        }
    }
    add_slices(parts, C, total);
    free(parts);
    return 0;
}
