/* Batch norm in training, ReLU or clip, and fake quantization as one operator: two passes forward, two backward.
 *
 * Only the input x and a few numbers per channel are kept. Functions return 0, or 1 when scratch memory is lacking. */
#ifndef MCUQ_NORM_H
#define MCUQ_NORM_H

#include "grid.h"

/* Batch norm of one channel: xhat = (x - mean) * inverse, v = x * gain + offset. */
typedef struct {
    float mean, inverse, gain, offset;
} Channel;

typedef struct {
    Index images, channels, plane; /* plane: values per image and channel; images * plane per channel */
    float epsilon, momentum; /* momentum: weight of this batch in the running statistics */
    int threads;
} Shape;

static inline Channel channel(double mean, double variance, float gamma, float beta, float epsilon)
{
    Channel c;
    c.mean = (float)mean;
    c.inverse = (float)(1.0 / sqrt(variance + (double)epsilon));
    c.gain = gamma * c.inverse;
    c.offset = beta - c.mean * c.gain;
    return c;
}

/* Mean and (biased) variance from sums of x - shift and their squares. */
static inline void moments(double sum, double squares, double count, float shift, double *mean, double *variance)
{
    const double m = sum / count, v = squares / count - m * m;
    *mean = m + (double)shift;
    *variance = v < 0.0 ? 0.0 : v;
}

/* Keeps a channel in saved [4][C] (mean, inverse, gain, offset) and moves its running mean and (unbiased) variance. */
static inline Channel keep(Index c, const Shape *shape, double mean, double variance, float gamma, float beta,
                           float *saved, float *running_mean, float *running_variance)
{
    const Channel ch = channel(mean, variance, gamma, beta, shape->epsilon);
    const Index C = shape->channels;
    const double count = (double)(shape->images * shape->plane), unbiased = variance * (count / (count - 1.0));
    saved[c] = ch.mean;
    saved[C + c] = ch.inverse;
    saved[2 * C + c] = ch.gain;
    saved[3 * C + c] = ch.offset;
    running_mean[c] += shape->momentum * ((float)mean - running_mean[c]);
    running_variance[c] += shape->momentum * ((float)unbiased - running_variance[c]);
    return ch;
}

#endif
