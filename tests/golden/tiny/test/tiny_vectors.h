/* Inputs and expected outputs of tiny, computed by mcuq's integer reference.
 * SPDX-License-Identifier: MIT */
#ifndef TINY_VECTORS_H
#define TINY_VECTORS_H

#include <stdint.h>

#define TINY_VECTORS 1

extern const uint8_t tiny_vector_inputs[TINY_VECTORS][32];
extern const uint8_t tiny_vector_outputs[TINY_VECTORS][8];

#endif
