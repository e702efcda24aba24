/* No kernels beyond the portable family. */
#include "grid.h"

const grid_entry grid_extra[] = {{NULL, NULL, NULL}};
