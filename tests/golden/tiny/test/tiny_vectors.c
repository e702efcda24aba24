/* Inputs and expected outputs of tiny as the bytes in the arena, computed by mcuq's integer reference.
 * SPDX-License-Identifier: MIT */
#include "tiny_vectors.h"

const uint8_t tiny_vector_inputs[TINY_VECTORS][32] = {
    {
        171, 206, 5, 206, 120, 131, 161, 73, 250, 13, 71, 98, 146, 104, 33, 11, 0, 12, 38, 255, 48, 167, 192, 60,
        72, 111, 67, 249, 45, 229, 204, 216,
    },
};

const uint8_t tiny_vector_outputs[TINY_VECTORS][8] = {
    {
        40, 0, 0, 0, 184, 255, 255, 255,
    },
};
