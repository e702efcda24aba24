/* Uniform quantization of float tensors, shared by the training kernels.
 *
 * y = step * clamp(floor(x / step + rounding), low, high), codes relative to the zero point. Gradients pass strictly
 * between bottom and top. Comparisons are written so that NaN stays NaN. */
#ifndef MCUQ_GRID_H
#define MCUQ_GRID_H

#include <math.h>
#include <stddef.h>

/* Slices of a tensor that are summed one by one and added in order: results do not depend on the thread count. */
#define SLICES 64
/* Values summed in float before the sum goes into a double. */
#define BLOCK 4096
/* Tensors below this many values stay on one thread. */
#define PARALLEL 32768

typedef ptrdiff_t Index;

typedef struct {
    float step, low, high, bottom, top, rounding; /* rounding: 1/2 rounds to nearest, 0 down */
} Grid;

/* Sums of the incoming gradient g: of g * (y - x) inside, of g at or below bottom, of g at or above top. */
typedef struct {
    double inside, below, above;
} Sums;

static inline float quantized(float x, const Grid *grid)
{
    float code = floorf(x / grid->step + grid->rounding);
    code = code < grid->low ? grid->low : code;
    code = code > grid->high ? grid->high : code;
    return code * grid->step;
}

/* a where x lies strictly between bottom and top, else 0. */
static inline float inside_only(float x, float a, const Grid *grid)
{
    return ((x > grid->bottom) & (x < grid->top)) ? a : 0.0F;
}

static inline Index smaller(Index a, Index b)
{
    return a < b ? a : b;
}

/* Start of slice k when `count` things are shared out. */
static inline Index slice_start(Index count, Index k)
{
    return count / SLICES * k + smaller(k, count % SLICES);
}

static inline void add_slices(const Sums *parts, Index count, Sums *total)
{
    Sums sum = {0.0, 0.0, 0.0};
    for (Index k = 0; k < count; k++) {
        sum.inside += parts[k].inside;
        sum.below += parts[k].below;
        sum.above += parts[k].above;
    }
    *total = sum;
}

#endif
