/* depthwise3x3_dsp.c with two roundings, 8-bit weights. */
#define TWICE
#include "depthwise3x3_dsp.c"
