/* Fake quantization of a dense tensor, and of weights row by row: one pass forward, one pass backward. */
#include "places.h"
#include <limits.h>
#ifdef __linux__
#include <malloc.h>
#endif

/* Keeps freed memory for the next step instead of giving it back to the system, whose new pages cost more than the
 * arithmetic on them. Returns 1 where the C library can. */
int mcuq_keep_memory(void)
{
#if defined(__GLIBC__)
    return mallopt(M_MMAP_THRESHOLD, 1 << 30) && mallopt(M_TRIM_THRESHOLD, INT_MAX) && mallopt(M_TOP_PAD, 1 << 26);
#else
    return 0;
#endif
}

void mcuq_quantize(const float *restrict x, float *restrict y, Index count, const Grid *shared, int threads)
{
    const Grid grid = *shared;
    (void)threads; /* of compilers without OpenMP */
#pragma omp parallel for num_threads(threads) schedule(static) if (count > PARALLEL && threads > 1)
    for (Index k = 0; k < SLICES; k++) {
        const Index end = slice_start(count, k + 1);
#pragma omp simd
        for (Index i = slice_start(count, k); i < end; i++) {
            y[i] = quantized(x[i], &grid);
        }
    }
}

/* As mcuq_quantize; places: [count]. */
void mcuq_quantize_places(const float *restrict x, float *restrict y, int16_t *restrict places, Index count,
                          const Grid *shared, int threads)
{
    const Grid grid = *shared;
    const float units = UNITS / grid.step;
    (void)threads; /* of compilers without OpenMP */
#pragma omp parallel for num_threads(threads) schedule(static) if (count > PARALLEL && threads > 1)
    for (Index k = 0; k < SLICES; k++) {
        const Index end = slice_start(count, k + 1);
#pragma omp simd
        for (Index i = slice_start(count, k); i < end; i++) {
            y[i] = quantized(x[i], &grid);
            places[i] = place(x[i], y[i], units, &grid);
        }
    }
}

static Sums place_gradient(const int16_t *restrict places, const float *restrict g, float *restrict dx, Index count)
{
    Sums total = {0.0, 0.0, 0.0};
    for (Index start = 0; start < count; start += BLOCK) {
        const Index end = smaller(start + BLOCK, count);
        float inside = 0.0F, below = 0.0F, above = 0.0F;
#pragma omp simd reduction(+ : inside, below, above)
        for (Index i = start; i < end; i++) {
            const int32_t at = places[i];
            const float d = ((at > BELOW) & (at < ABOVE)) ? g[i] : 0.0F;
            dx[i] = d;
            inside += d * (float)at;
            below += at == BELOW ? g[i] : 0.0F;
            above += at == ABOVE ? g[i] : 0.0F;
        }
        total.inside += (double)inside;
        total.below += (double)below;
        total.above += (double)above;
    }
    return total;
}

void mcuq_places_gradient(const int16_t *restrict places, const float *restrict g, float *restrict dx, Index count,
                          float step, Sums *total, int threads)
{
    Sums parts[SLICES];
    (void)threads;
#pragma omp parallel for num_threads(threads) schedule(static) if (count > PARALLEL && threads > 1)
    for (Index k = 0; k < SLICES; k++) {
        const Index start = slice_start(count, k);
        parts[k] = place_gradient(places + start, g + start, dx + start, slice_start(count, k + 1) - start);
    }
    add_slices(parts, SLICES, total);
    total->inside *= (double)(step / UNITS);
}

static Sums gradient(const float *restrict x, const float *restrict g, float *restrict dx, Index count, Grid grid)
{
    Sums total = {0.0, 0.0, 0.0};
    for (Index start = 0; start < count; start += BLOCK) {
        const Index end = smaller(start + BLOCK, count);
        float inside = 0.0F, below = 0.0F, above = 0.0F;
#pragma omp simd reduction(+ : inside, below, above)
        for (Index i = start; i < end; i++) {
            dx[i] = inside_only(x[i], g[i], &grid);
            inside += inside_only(x[i], g[i] * (quantized(x[i], &grid) - x[i]), &grid);
            below += x[i] <= grid.bottom ? g[i] : 0.0F;
            above += x[i] >= grid.top ? g[i] : 0.0F;
        }
        total.inside += (double)inside;
        total.below += (double)below;
        total.above += (double)above;
    }
    return total;
}

/* dx: g where bottom < x < top, else 0. */
void mcuq_quantize_gradient(const float *restrict x, const float *restrict g, float *restrict dx, Index count,
                            const Grid *grid, Sums *total, int threads)
{
    Sums parts[SLICES];
    (void)threads;
#pragma omp parallel for num_threads(threads) schedule(static) if (count > PARALLEL && threads > 1)
    for (Index k = 0; k < SLICES; k++) {
        const Index start = slice_start(count, k);
        parts[k] = gradient(x + start, g + start, dx + start, slice_start(count, k + 1) - start, *grid);
    }
    add_slices(parts, SLICES, total);
}

/* Rows of `length` values, each with a step and codes low .. high of its own. */
void mcuq_quantize_rows(const float *restrict x, float *restrict y, Index rows, Index length, const float *steps,
                        const float *lows, const float *highs)
{
    for (Index r = 0; r < rows; r++) {
        const Grid grid = {steps[r], lows[r], highs[r], 0.0F, 0.0F, 0.5F};
#pragma omp simd
        for (Index i = 0; i < length; i++) {
            y[r * length + i] = quantized(x[r * length + i], &grid);
        }
    }
}

/* Gradients pass between low and high times step. sums, [3][rows]: gradients of the steps' logarithms, which are the
 * sums of g * (y - x) inside and g * y outside; sums of g at or below the low end; at or above the high end. */
void mcuq_quantize_rows_gradient(const float *restrict x, const float *restrict g, float *restrict dx,
                                 float *restrict sums, Index rows, Index length, const float *steps,
                                 const float *lows, const float *highs)
{
    for (Index r = 0; r < rows; r++) {
        const Grid grid = {steps[r], lows[r], highs[r], lows[r] * steps[r], highs[r] * steps[r], 0.5F};
        const Sums row = gradient(x + r * length, g + r * length, dx + r * length, length, grid);
        const double outside = (double)grid.bottom * row.below + (double)grid.top * row.above;
        sums[r] = (float)(row.inside + outside);
        sums[rows + r] = (float)row.below;
        sums[2 * rows + r] = (float)row.above;
    }
}
