/* Convolution over a matrix kernel: columns of three output pixels at a time (one, where the layer has fewer than three),
 * then all channels. Scratch: columns unless they lie in the input, then finished rows unless the kernel stores in the output
 * itself; mcuq/target/kernels_mve.py adds up the same. */
#ifndef MCUQ_MVE_CONV2D_DRIVER_H
#define MCUQ_MVE_CONV2D_DRIVER_H

#include "gemm.h"

typedef struct {
    mcuq_mve_matrix_kernel *three, *one;
    uint8_t weight_bits;
    uint8_t zero_points;
} mcuq_mve_gemm;

void mcuq_mve_conv2d(const mcuq_mve_gemm *gemm, const mcuq_conv2d_params *p, const void *input, void *output,
                     void *scratch);

#endif
