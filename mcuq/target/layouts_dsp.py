"""Panels: weights of the matrix kernels for cores with the DSP extension.

A panel holds 2 to 8 output channels: header words, weight words, then the multiplier of every channel, all
little-endian 32-bit words. docs/kernels.md draws them; ``runtime_c/src/armv7em/gemm_w*.S`` reads them. A layer's
channels share one shift, which stands in its parameters.

Every channel's products are summed at a position P (a power of two) of its accumulator, offset U is added to its
codes, and S = sum x is known per pixel:  P * acc = P * bias + P * sum x * (w + U) - P * (U + z) * S. P is taken out
again with the requantization's last shift. Where the shift is below 33, all inputs of the layer are taken times 2^k,
k = 33 - shift, and biases are stored times 2^k.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mcuq.numerics import SHIFT_MAX, IntArray, pack

HIGH_WORD_SHIFT = 33
"""Smallest shift for which a requantization needs only the product's high word."""


@dataclass(frozen=True, slots=True)
class PanelFormat:
    """Channels of a panel: weight bits, and per channel position P and offset U.

    Attributes:
        sharing: channels that share half words; each is read together with those before it.
        signed: the channels are unpacked apart, so none is recovered from another.
        zero_points: the header holds a factor of the input sum beside every bias.
    """

    bits: int
    positions: tuple[int, ...]
    offsets: tuple[int, ...]
    sharing: int
    zero_points: bool
    signed: bool = False
    lanes: bool = False
    """Words of four pairs of inputs, and the header after them (gemm_lanes.S)."""
    shifts: bool = False
    """Two roundings: a byte of each channel's shift behind the multipliers."""
    direct: bool = False
    """Inputs are read where they lie; multipliers follow all panels, of one panel if a layer has but one."""

    @property
    def channels(self) -> int:
        return len(self.positions)

    @property
    def header_words(self) -> int:
        return self.channels * (2 if self.zero_points else 1)


def _formats() -> dict[str, PanelFormat]:
    kinds = {
        8: ("pairs8", (1, 256), (128, 0)),
        4: ("quads4", (1, 16, 256, 4096), (8, 8, 8, 0)),
        2: ("quads2", (1, 4, 16, 64), (2, 2, 2, 2)),
    }
    formats = {"pairs8c": PanelFormat(8, (1, 1), (0, 0), 2, True, signed=True)}
    formats["pairs8ct"] = replace(formats["pairs8c"], shifts=True)
    formats["pairs8t"] = PanelFormat(8, (1, 256), (128, 0), 2, False, shifts=True)
    formats["lanes"] = PanelFormat(2, (1, 1), (2, 2), 2, False, signed=True, lanes=True)
    for bits, (name, positions, offsets) in kinds.items():
        for suffix, zero_points in (("", False), ("z", True)):
            sharing = len(positions)
            formats[name + suffix] = PanelFormat(bits, positions, offsets, sharing, zero_points)
            repeat = 8 // sharing
            octets = PanelFormat(bits, positions * repeat, offsets * repeat, sharing, zero_points)
            formats[f"octets{bits}{suffix}"] = octets
            formats[f"direct{bits}{suffix}"] = replace(octets, direct=True)
    return formats


PANELS: dict[str, PanelFormat] = _formats()
"""pairs and quads: 2 and 4 channels, for several pixels at a time; octets and direct: 8 channels, for one pixel."""


def padded_depth(depth: int) -> int:
    """Inputs of a column: whole groups of four."""
    return (depth + 3) & ~3


def paired(codes: IntArray, input_bits: int) -> IntArray:
    """Codes [O, K] of padded depth in the order of the columns' half words: of every word of inputs the first half is
    paired with the second; what is left behind whole words goes by 8 and 4."""
    rows, depth = codes.shape
    parts: list[IntArray] = []
    start, group = 0, 32 // input_bits
    while start < depth:
        while group > depth - start:
            group //= 2
        size = (depth - start) // group * group
        part = codes[:, start : start + size].reshape(rows, size // group, 2, group // 2)
        parts.append(part.swapaxes(2, 3).reshape(rows, size))
        start += size
    return np.concatenate(parts, axis=1)


def raised_bits(shift: int) -> int:
    """Smallest k for which ``shift + k`` is 33 or more."""
    return max(0, HIGH_WORD_SHIFT - shift)


def largest_shift(layout: str, shift: int) -> int:
    """The shift, raised if it must be, at the layout's last position."""
    return shift + raised_bits(shift) + PANELS[layout].positions[-1].bit_length() - 1


TWICE_SHIFT = 32
"""Smallest shift of kernels with two roundings: at 31 one is left."""


def normalized_scales(
    bound: IntArray, multiplier: IntArray, shift: IntArray, roundings: int = 1
) -> tuple[IntArray, IntArray]:
    """Multipliers and shifts with channels whose product can never reach one half made (0, 33): same outputs.

    ``floor((acc*m + 2^(s-1)) / 2^s)`` is 0 for every |acc| <= bound when bound * |m| < 2^(s-1). Of two roundings the
    first may add up to 2^30 to the product.
    """
    first = 0 if roundings == 1 else 1 << 30
    largest = bound.astype(object) * np.abs(multiplier).astype(object) + first
    idle = (largest < (np.int64(1) << (shift - 1)).astype(object)).astype(bool)
    return np.where(idle, 0, multiplier), np.where(idle, HIGH_WORD_SHIFT, shift)


def panel_words(layout: str, depth: int) -> int:
    """32-bit words of one panel, of direct layouts without its record."""
    form = PANELS[layout]
    multipliers = 0 if form.direct else form.channels + form.shifts
    return form.header_words + form.channels * form.bits * padded_depth(depth) // 32 + multipliers


RECORD_BYTES = 32
"""Multipliers of a panel of a direct layout."""


def pack_panels(
    layout: str,
    codes: IntArray,
    zero_points: IntArray,
    bias: IntArray,
    multiplier: IntArray,
    shift: int,
    input_bits: int,
    *,
    shared: bool = False,
    shifts: IntArray | None = None,
) -> NDArray[np.uint8]:
    """Panels of all output channels.

    Args:
        codes: [O, K]; zero_points, bias, multiplier: [O]; shift: of all channels.
        shared: of direct layouts, one multiplier for all channels, stored for one panel.
        shifts: [O], of layouts with two roundings, instead of ``shift``.

    Raises:
        ValueError: the shift exceeds 55 at a position, or a bias does not fit 32 bits there; ``shifts`` below 32.
    """
    form = PANELS[layout]
    count, depth = codes.shape
    panels = -(-count // form.channels)
    total = panels * form.channels
    raised = raised_bits(shift)
    if largest_shift(layout, shift) > SHIFT_MAX:
        raise ValueError(f"layout {layout}: shift {largest_shift(layout, shift)} exceeds {SHIFT_MAX}")
    if form.direct and raised:
        raise ValueError(f"layout {layout}: shift {shift} is below {HIGH_WORD_SHIFT}")
    full = np.zeros((total, padded_depth(depth)), np.int64)
    full[:count, :depth] = codes
    vectors = np.zeros((3, total), np.int64)
    vectors[:, :count] = zero_points, np.where(multiplier == 0, 0, bias << raised), multiplier
    zero, start, factor = vectors
    by_panel = (panels, form.channels)
    header = _headers(form, zero.reshape(by_panel), start.reshape(by_panel))
    words = _weight_words(form, paired(full, input_bits).reshape(*by_panel, -1))
    multipliers = factor.reshape(by_panel)
    if form.shifts:
        multipliers = np.concatenate([multipliers, _shift_words(shifts, by_panel)], axis=1)
    if form.direct:
        stream = _bytes(np.concatenate([header, words], axis=1))
        return np.concatenate([stream, _bytes(multipliers[:1] if shared else multipliers)])
    return _bytes(np.concatenate([words, header, multipliers] if form.lanes else [header, words, multipliers], axis=1))


def _shift_words(shifts: IntArray | None, by_panel: tuple[int, int]) -> IntArray:
    """Shifts less 32 of a panel's channels, a byte each from the lowest on."""
    if shifts is None or shifts.min() < TWICE_SHIFT:
        raise ValueError(f"two roundings: every channel needs a shift of {TWICE_SHIFT} or more")
    stored = np.zeros(by_panel, np.int64)
    stored.reshape(-1)[: len(shifts)] = shifts - TWICE_SHIFT
    return (stored << 8 * np.arange(by_panel[1])).sum(axis=1, keepdims=True)


def _bytes(words: IntArray) -> NDArray[np.uint8]:
    return np.ascontiguousarray(words.astype("<u4", casting="unsafe")).view(np.uint8).reshape(-1)


def _headers(form: PanelFormat, zero: IntArray, bias: IntArray) -> IntArray:
    """Start values [panels, header_words], right modulo 2^32; arrays [panels, channels], biases times 2^k."""
    position, offset = np.array(form.positions), np.array(form.offsets)
    start, factor = position * bias, -position * (offset + zero)
    if start.min() < -(2**31) or start.max() >= 2**31:
        raise ValueError("a bias does not fit its position in 32 bits")
    if not form.signed:  # a channel's half word adds those before it
        sets = (len(start), -1, form.sharing)
        if form.zero_points or form.sharing > 2:  # the symmetric pair adds its first channel's start itself
            start = start.reshape(sets).cumsum(axis=2).reshape(start.shape)
        factor = factor.reshape(sets).cumsum(axis=2).reshape(factor.shape)
    if not form.zero_points:
        return start
    return np.stack([start, factor], axis=2).reshape(len(start), -1)


def _weight_words(form: PanelFormat, codes: IntArray) -> IntArray:
    """[panels, channels, K] codes in pair order to words [panels, words] (as signed 32-bit values).

    Words run pair by pair and, within a pair, set by set of channels that share half words; 2-bit sets are half
    a word.
    """
    panels, channels, depth = codes.shape
    mask = (1 << form.bits) - 1
    stored = (codes + np.array(form.offsets)[:, None]) & mask
    sets = stored.reshape(panels, channels // form.sharing, form.sharing, depth)
    halves = np.zeros((panels, channels // form.sharing, depth), np.int64)
    for place in range(form.sharing):
        halves |= sets[:, :, place] << (form.bits * place)
    halves = halves.reshape(panels, -1, depth // 2, 2).swapaxes(1, 2).reshape(panels, -1, 2)  # pair, set, half
    if form.lanes:
        quads = halves.reshape(panels, -1, 4, 2)
        halves = quads[:, :, 0] | quads[:, :, 1] << 4 | quads[:, :, 2] << 8 | quads[:, :, 3] << 12
    elif form.sharing * form.bits == 8:
        halves = halves[:, 0::2] | halves[:, 1::2] << 8
    words = halves[:, :, 0] | halves[:, :, 1] << 16
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
