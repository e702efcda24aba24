/* conv2d.c with two roundings. */
#include "twice.h"

#define mcuq_conv2d_w8 mcuq_conv2d_w8_twice
#define mcuq_conv2d_w4 mcuq_conv2d_w4_twice
#define mcuq_conv2d_w2 mcuq_conv2d_w2_twice

#include "conv2d.c"
