/* Skeleton of an application around tiny: fill the input, run, use the output.
 * SPDX-License-Identifier: MIT */
#include "tiny.h"

static TINY_ARENA_ATTR _Alignas(TINY_ARENA_ALIGN) uint8_t arena[TINY_ARENA_SIZE];

int main(void)
{
    tiny_context net;
    if (tiny_init(&net, arena, sizeof arena) != TINY_OK) {
        return 1;
    }
    volatile uint8_t *input = tiny_input(&net);
    for (uint32_t i = 0; i < TINY_INPUT_SIZE / sizeof *input; i++) {
        input[i] = 0; /* your sensor's data */
    }
    if (tiny_invoke(&net) != TINY_OK) {
        return 2;
    }
    return (int)tiny_output(&net)[0]; /* your decision */
}
