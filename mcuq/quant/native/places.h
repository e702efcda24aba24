/* Two bytes a value that the backward pass of a quantization needs. */
#ifndef MCUQ_PLACES_H
#define MCUQ_PLACES_H

#include "grid.h"
#include <stdint.h>

/* What the backward pass needs of a value: the rounding error y - x in 1/UNITS of a step, or where x lies. */
#define UNITS 32760.0F
#define BELOW (-32768)
#define ABOVE 32767

static inline int16_t place(float x, float y, float units, const Grid *grid)
{
    float error = (y - x) * units;
    error = error > 32766.0F ? 32766.0F : error;
    error = error > -32766.0F ? error : -32766.0F; /* NaN too */
    const int32_t whole = (int32_t)(error + copysignf(0.5F, error));
    const int32_t below = -(x <= grid->bottom), above = -(x >= grid->top) & ~below; /* all bits or none */
    return (int16_t)((whole & ~(below | above)) | (below & BELOW) | (above & ABOVE));
}

#endif
