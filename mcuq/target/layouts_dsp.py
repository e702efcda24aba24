"""Panels: weights of the matrix kernels for cores with the DSP extension.

A panel holds 2 or 4 output channels: header words, weight words, then (multiplier, v) of every channel, all
little-endian 32-bit words. docs/kernels.md draws them; ``runtime_c/src/armv7em/gemm_w*.S`` reads them.

Every channel's products are summed at a position P (a power of two) of its accumulator, offset U is added to its
codes, and S = sum x is known per pixel:  P * acc = P * bias + P * sum x * (w + U) - P * (U + z) * S. P is taken out
again by the requantization shift, so that the shift in the record is ``shift + log2 P``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcuq.numerics import SHIFT_MAX, IntArray, pack

HIGH_WORD_SHIFT = 33
"""Smallest shift for which a requantization needs only the product's high word."""


@dataclass(frozen=True, slots=True)
class PanelFormat:
    """Channels of a panel: positions P, offsets U; ``shared``: the last channel is read from the raw word.

    Attributes:
        zero_points: the header holds a factor of the input sum beside every bias.
    """

    positions: tuple[int, ...]
    offsets: tuple[int, ...]
    shared: bool
    zero_points: bool

    @property
    def channels(self) -> int:
        return len(self.positions)

    @property
    def header_words(self) -> int:
        return self.channels * (2 if self.zero_points else 1)


PANELS: dict[str, PanelFormat] = {
    "pairs8": PanelFormat((1, 256), (128, 0), True, False),
    "pairs8z": PanelFormat((1, 256), (128, 0), True, True),
    "pairs8c": PanelFormat((1, 1), (0, 0), False, True),
    "quads4": PanelFormat((1, 16, 256, 4096), (8, 8, 8, 0), True, False),
    "quads4z": PanelFormat((1, 16, 256, 4096), (8, 8, 8, 0), True, True),
    "quads2": PanelFormat((1, 4, 16, 64), (2, 2, 2, 2), True, False),
    "quads2z": PanelFormat((1, 4, 16, 64), (2, 2, 2, 2), True, True),
}


def pair_group(channels: int, input_bits: int) -> int:
    """Inputs unpacked together: pairs are (i, i + group/2). 4 where a pixel's codes do not fill whole words."""
    return 4 if channels * input_bits % 32 else 32 // input_bits


def padded_depth(depth: int) -> int:
    """Inputs of a column: whole groups of four."""
    return (depth + 3) & ~3


def paired(codes: IntArray, group: int) -> IntArray:
    """Codes [O, K] of padded depth in the order of the columns' half words: pairs of each group."""
    rows, depth = codes.shape
    return codes.reshape(rows, depth // group, 2, group // 2).swapaxes(2, 3).reshape(rows, depth)


def positional_shifts(layout: str, channels: int) -> IntArray:
    """log2 of the position each of ``channels`` output channels is summed at."""
    positions = PANELS[layout].positions
    return np.array([positions[c % len(positions)].bit_length() - 1 for c in range(channels)])


def normalized_scales(
    bound: IntArray, multiplier: IntArray, shift: IntArray
) -> tuple[IntArray, IntArray]:
    """Multipliers and shifts with channels whose product can never reach one half made (0, 33): same outputs.

    ``floor((acc*m + 2^(s-1)) / 2^s)`` is 0 for every |acc| <= bound when bound * |m| < 2^(s-1).
    """
    idle = bound.astype(object) * np.abs(multiplier).astype(object) < (np.int64(1) << (shift - 1)).astype(object)
    idle = idle.astype(bool)
    return np.where(idle, 0, multiplier), np.where(idle, HIGH_WORD_SHIFT, shift)


def panel_words(layout: str, depth: int) -> int:
    """32-bit words of one panel."""
    form = PANELS[layout]
    padded = padded_depth(depth)
    words = padded // 4 if layout.startswith("quads2") else padded // 2
    return form.header_words + words + 2 * form.channels


def pack_panels(
    layout: str,
    codes: IntArray,
    zero_points: IntArray,
    bias: IntArray,
    multiplier: IntArray,
    shift: IntArray,
    group: int,
) -> NDArray[np.uint8]:
    """Panels of all output channels.

    Args:
        codes: [O, K]; zero_points, bias, multiplier, shift: [O].

    Raises:
        ValueError: a shift leaves 33..55 at its position, or a header word does not fit 32 bits.
    """
    form = PANELS[layout]
    count, depth = codes.shape
    panels = -(-count // form.channels)
    total = panels * form.channels
    shift = np.concatenate([shift, np.full(total - count, HIGH_WORD_SHIFT)])
    shift = shift + positional_shifts(layout, total)
    if shift.min() < HIGH_WORD_SHIFT or shift.max() > SHIFT_MAX:
        raise ValueError(f"layout {layout}: shifts {shift.min()}..{shift.max()} leave {HIGH_WORD_SHIFT}..{SHIFT_MAX}")
    full = np.zeros((total, padded_depth(depth)), np.int64)
    full[:count, :depth] = codes
    vectors = np.zeros((3, total), np.int64)
    vectors[:, :count] = zero_points, bias, multiplier
    zero, start, factor = vectors
    by_panel = (panels, form.channels)
    header = _headers(form, zero.reshape(by_panel), start.reshape(by_panel))
    words = _weight_words(layout, form, paired(full, group).reshape(*by_panel, -1))
    records = np.stack([factor, shift - HIGH_WORD_SHIFT], axis=1).reshape(panels, -1)
    stream = np.concatenate([header, words, records], axis=1)
    return np.ascontiguousarray(stream.astype("<i4")).view(np.uint8).reshape(-1)


def _headers(form: PanelFormat, zero: IntArray, bias: IntArray) -> IntArray:
    """Start values [panels, header_words]; arrays [panels, channels]."""
    position, offset = np.array(form.positions), np.array(form.offsets)
    start, factor = position * bias, -position * (offset + zero)
    if form.shared:  # the raw word adds all the others to the last channel
        if form.zero_points or form.channels > 2:
            start[:, -1] += start[:, :-1].sum(axis=1)
        factor[:, -1] += factor[:, :-1].sum(axis=1)
    if start.min() < -(2**31) or start.max() >= 2**31:
        raise ValueError("a bias does not fit its position in 32 bits")
    if not form.zero_points:
        return start
    return np.stack([start, factor], axis=2).reshape(len(start), -1)


def _weight_words(layout: str, form: PanelFormat, codes: IntArray) -> IntArray:
    """[panels, channels, K] codes in pair order to words [panels, words] (as signed 32-bit values)."""
    panels = codes.shape[0]
    stored = codes + np.array(form.offsets)[:, None]
    if layout.startswith("pairs8"):
        stored &= 0xFF
        halves = stored[:, 0] | stored[:, 1] << 8
    elif layout.startswith("quads4"):
        stored &= 0xF
        halves = stored[:, 0] | stored[:, 1] << 4 | stored[:, 2] << 8 | stored[:, 3] << 12
    else:
        byte = stored[:, 0] | stored[:, 1] << 2 | stored[:, 2] << 4 | stored[:, 3] << 6
        quads = byte.reshape(panels, -1, 2, 2)  # two pairs: bytes 0, 2 and 1, 3
        halves = (quads[:, :, 0] | quads[:, :, 1] << 8).reshape(panels, -1)
    words = halves[:, 0::2] | halves[:, 1::2] << 16
    return np.where(words >= 2**31, words - 2**32, words)


_NINES = (0, 1, 3, 4, 6, 7, 2, 5)
"""Taps in the half words (low, high), (low, high) ... of a channel's first word."""


def pack_nines(codes: IntArray, bits: int) -> NDArray[np.uint8]:
    """3 x 3 depthwise weights [C, 9] channel by channel: 9, 5 or 3 bytes (runtime_c/src/armv7em/depthwise3x3_dsp.c).

    Below 8 bits, codes are stored + half their range; tap pairs lie 16 bits apart, so that one AND takes a pair.
    """
    if bits == 8:
        return pack(codes, 8).reshape(-1)
    stored = codes + (1 << (bits - 1))
    words = np.zeros(len(codes), np.int64)
    for i, tap in enumerate(_NINES):
        words |= stored[:, tap] << (16 * (i % 2) + bits * (i // 2))
    if bits == 2:
        words |= stored[:, 8] << 8
    columns = [words >> (8 * i) & 0xFF for i in range(4 if bits == 4 else 3)]
    if bits == 4:
        columns.append(stored[:, 8])
    return np.stack(columns, axis=1).astype(np.uint8).reshape(-1)
