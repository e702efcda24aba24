"""Requantization as CHaiDNN's accelerators compute it: what a network imported from there computed before.

Threshold mode: ``v = acc * word + (bias << 22)``, ``word = round(Sw * Sx / Sy * 2^22)`` in 24 bits above zero, the bias
in codes of the output; half away from zero; then saturation. Fixed-point mode: a shift by
``fl_in + fl_params - fl_out``, rounded alike. No device code rounds so: mcuq takes the same words as
multipliers (``scaling="fixed<25,3>"``) and rounds half up (docs/NUMERICS.md), which differs in one case, a negative
``v`` exactly between two codes, and keeps biases on the accumulator's grid.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcuq.errors import UsageError
from mcuq.numerics import IntArray

FRACTION = 22
WORD_BITS = 24
SCALING = "fixed<25,3>"
"""The form of ``mcuq.ir.scaling`` whose positive factors are exactly these words."""


def requantization_word(weight_scale: float, input_scale: float, output_scale: float) -> int:
    """``round(Sw * Sx / Sy * 2^22)``.

    Raises:
        UsageError: the word needs more than 24 bits.
    """
    word = int(np.floor(np.ldexp(weight_scale * input_scale / output_scale, FRACTION) + 0.5))
    if not 0 <= word < 1 << WORD_BITS:
        raise UsageError(
            f"scale {weight_scale:g} * {input_scale:g} / {output_scale:g} as a word of {WORD_BITS} bits, {FRACTION} of "
            f"them fractional, is {word}; it has to be below 4: raise the output's threshold"
        )
    return word


def requantize_word(acc: NDArray[Any], word: int, bias: int, low: int, high: int) -> IntArray:
    """Codes of accumulators, int64; ``bias`` in output codes; saturated to ``low .. high``."""
    value = np.asarray(acc, np.int64) * word + (bias << FRACTION)
    return np.clip(_half_away(value, FRACTION), low, high)


def requantize_shift(acc: NDArray[Any], shift: int, low: int, high: int) -> IntArray:
    """Fixed-point mode: ``acc / 2^shift``, rounded half away from zero, saturated; a negative shift multiplies."""
    value = np.asarray(acc, np.int64)
    return np.clip(_half_away(value, shift) if shift > 0 else value << -shift, low, high)


def _half_away(value: IntArray, shift: int) -> IntArray:
    return np.sign(value) * ((np.abs(value) + (1 << (shift - 1))) >> shift)


def average_word(taps: int) -> int:
    """Multiplier of an average pool in threshold mode: ``round(2^16 / taps)``."""
    return (2**17 + taps) // (2 * taps)
