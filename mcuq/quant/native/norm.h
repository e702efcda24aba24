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
    float epsilon;
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

/* Keeps a channel in saved [4][C] (mean, inverse, gain, offset) and its batch statistics in [2][C]. */
static inline void keep(const Channel ch, Index c, Index channels, float *saved, float *statistics, double mean,
                        double variance)
{
    saved[c] = ch.mean;
    saved[channels + c] = ch.inverse;
    saved[2 * channels + c] = ch.gain;
    saved[3 * channels + c] = ch.offset;
    statistics[c] = (float)mean;
    statistics[channels + c] = (float)variance;
}

#endif
