/* Runs tiny on its test vectors. main returns the number of vectors whose output differs in any byte, one more
 * than there are when the weights are not the emitted ones.
 * SPDX-License-Identifier: MIT */
#include <string.h>

#include "tiny.h"
#include "tiny_vectors.h"

static TINY_ARENA_ATTR _Alignas(TINY_ARENA_ALIGN) uint8_t arena[TINY_ARENA_SIZE];

int main(void)
{
    tiny_context net;
    int wrong = 0;
    if (tiny_check() != TINY_OK || tiny_init(&net, arena, sizeof arena) != TINY_OK) {
        return TINY_VECTORS + 1;
    }
    for (int i = 0; i < TINY_VECTORS; i++) {
        memcpy(tiny_input(&net), tiny_vector_inputs[i], TINY_INPUT_SIZE);
        int same = tiny_invoke(&net) == TINY_OK;
        same &= memcmp(tiny_output(&net), tiny_vector_outputs[i], TINY_OUTPUT_SIZE) == 0;
        wrong += !same;
    }
    return wrong;
}
