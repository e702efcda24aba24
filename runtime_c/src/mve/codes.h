/* Rows of packed codes to bytes and back, 16 codes a turn; rows start on a byte. */
#ifndef MCUQ_MVE_CODES_H
#define MCUQ_MVE_CODES_H

#include <stdint.h>

/* `count` codes of `bits` bits, a byte each; returns the byte behind them. */
int8_t *mcuq_mve_expand(int8_t *to, const uint8_t *codes, uint32_t count, uint32_t bits);

/* `count` bytes clamped to lo .. hi and packed to `bits` bits each; unused bits of the last byte are 0. 8 bits: in place
 * if row == out. */
void mcuq_mve_finish_row(const int8_t *row, uint8_t *out, uint32_t count, uint32_t bits, int32_t lo, int32_t hi);

#endif
