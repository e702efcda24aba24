/* For kernels compiled once more with the two roundings of TFLite's reference kernels (mcuq_requantize_twice). */
#ifndef MCUQ_SRC_TWICE_H
#define MCUQ_SRC_TWICE_H

#include "epilogue.h"

/* mcuq_store_run for outputs of 8 bits. */
void mcuq_store_run_twice(const mcuq_conv2d_params *p, void *row, uint32_t c, uint32_t count, const int32_t *acc);

#define mcuq_store_run mcuq_store_run_twice

#endif
