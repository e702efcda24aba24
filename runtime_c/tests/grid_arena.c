/* Allocation from a static arena, canaries on both sides of every buffer. */
#include <string.h>

#include "grid.h"

#ifndef GRID_ARENA_BYTES
#define GRID_ARENA_BYTES (256u << 10)
#endif
#define CANARY 0xC3
#define CANARY_BYTES 16u
#define ALLOCATIONS (GRID_BUFFERS + 2u)

static union {
    uint32_t words;
    uint8_t bytes[GRID_ARENA_BYTES];
} arena;
static uint32_t used;
static uint8_t *fronts[ALLOCATIONS], *backs[ALLOCATIONS];
static uint32_t count;

void *grid_allocate(uint32_t bytes, uint32_t align)
{
    const uint32_t front = ((used + 3u) & ~3u) + (align == 1u ? 1u : 0u);
    const uint32_t start = front + CANARY_BYTES;
    if (count == ALLOCATIONS || bytes > GRID_ARENA_BYTES || start + bytes + CANARY_BYTES > GRID_ARENA_BYTES) {
        return NULL;
    }
    uint8_t *data = arena.bytes + start;
    fronts[count] = arena.bytes + front;
    backs[count] = data + bytes;
    memset(fronts[count], CANARY, CANARY_BYTES);
    memset(backs[count], CANARY, CANARY_BYTES);
    count++;
    used = start + bytes + CANARY_BYTES;
    return data;
}

int grid_intact(void)
{
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t j = 0; j < CANARY_BYTES; j++) {
            wrong |= (uint32_t)(fronts[i][j] ^ CANARY) | (uint32_t)(backs[i][j] ^ CANARY);
        }
    }
    return wrong == 0u;
}

void grid_release(void)
{
    used = 0;
    count = 0;
}
