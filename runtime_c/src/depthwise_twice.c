/* depthwise.c with two roundings. */
#include "twice.h"

#define mcuq_depthwise_w8 mcuq_depthwise_w8_twice
#define mcuq_depthwise_w4 mcuq_depthwise_w4_twice
#define mcuq_depthwise_w2 mcuq_depthwise_w2_twice

#include "depthwise.c"
