"""Thresholds: outputs of 2 and 4 bits as the number of integer thresholds an accumulator passes.

For every accumulator the code of ``requantize`` is ``clamp[0] + #{t : acc > t}`` (``acc < t`` in channels of negative
multiplier), bit for bit, because thresholds are found by asking ``requantize``. Rusci et al. (arXiv 1905.13082)
fold batch norms that way; here it is an alternative form of the same layer, for cores without a fast 64-bit
product and for checks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcuq.errors import ModelError
from mcuq.ir.integer import QConv2d
from mcuq.numerics import INT32_MAX, INT32_MIN, IntArray, requantize


@dataclass(frozen=True, slots=True, eq=False)
class Thresholds:
    """Thresholds of one convolution.

    Attributes:
        values: int64 [O, levels], ascending in channels with ``rising``, else descending; a threshold no int32
            accumulator passes is 2^31 - 1 (-2^31 when falling);
        rising: bool [O]; low: the code below all thresholds.
    """

    values: IntArray
    rising: NDArray[np.bool_]
    low: int

    def apply(self, acc: IntArray) -> IntArray:
        """Codes of accumulators [..., O]."""
        passed = np.where(self.rising[:, None], acc[..., None] > self.values, acc[..., None] < self.values)
        return self.low + passed.sum(axis=-1)


def thresholds(op: QConv2d) -> Thresholds:
    """Thresholds of ``op``, one for each code above the lowest of its clamp.

    Raises:
        ModelError: the output has more than 4 bits.
    """
    if op.output.bits not in (2, 4):
        raise ModelError(f"{op.name}: thresholds are for outputs of 2 and 4 bits, this one has {op.output.bits}")
    channels = len(op.weight)
    multiplier = np.broadcast_to(op.multiplier.astype(np.int64), (channels,))
    shift = np.broadcast_to(op.shift.astype(np.int64), (channels,))
    low, high = op.clamp
    rising = multiplier >= 0
    levels = np.arange(low + 1, high + 1)

    def reaches(acc: IntArray) -> NDArray[np.bool_]:
        """True where accumulators [O, levels] (mirrored in falling channels) give at least the level's code."""
        mirrored = np.where(rising[:, None], acc, -1 - acc)  # -1 - x maps int32 onto itself
        codes = requantize(mirrored, multiplier[:, None], shift[:, None], op.output.zero_point, low, high)
        return codes >= levels

    last = _last_below(reaches, (channels, len(levels)))
    return Thresholds(np.where(rising[:, None], last, -1 - last), rising, low)


def _last_below(reaches: Callable[[IntArray], NDArray[np.bool_]], shape: tuple[int, int]) -> IntArray:
    """Per entry, the largest int32 for which the monotone ``reaches`` is false; -2^31 - 1 if it never is."""
    low = np.full(shape, INT32_MIN - 1, dtype=np.int64)
    high = np.full(shape, INT32_MAX + 1, dtype=np.int64)
    for _ in range(33):  # halves an interval of 2^32 + 1 down to 1
        middle = (low + high) >> 1
        above = reaches(middle) & (middle >= INT32_MIN)
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return low


def table_bytes(op: QConv2d) -> int:
    """Bytes of the thresholds of ``op`` as int16, 2^bits to a channel (a stride that keeps rows aligned)."""
    return len(op.weight) * 2 * (1 << op.output.bits)
