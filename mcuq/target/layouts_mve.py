"""Weights for the Helium kernels (``runtime_c/src/mve``); docs/kernels.md draws them.

Matrix kernels: parameters of four channels at a time (start values, multipliers, shifts, zero points if the layout has
any), then the weights: of channel after channel, ``ceil(K * bits / 8)`` bytes each, or, with 4 bits, of two channels
after two channels, ``K`` bytes with a code of each. Channels are summed at ``POSITIONS[bits]`` times their value, which
the shifts take out again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcuq.numerics import SHIFT_MAX, IntArray, pack
from mcuq.target.layouts_dsp import HIGH_WORD_SHIFT

POSITIONS = {8: 1, 4: 16, 2: 64}
"""Weights are multiplied where they lie: in the top bits of a byte."""

VECTOR_SHIFT = 32
"""Smallest shift where VQDMULH, the doubled product's high word, requantizes."""

LANES = 16

CHANNELS = 4
"""Channels whose parameters stand together."""


@dataclass(frozen=True, slots=True)
class HeliumFormat:
    """Weight bits, whether the header holds zero points, and whether the kernels for one column read it, which want
    4-bit weights in another form."""

    bits: int
    zero_points: bool
    one: bool = False


HELIUM = {
    f"helium{kind}{suffix}": HeliumFormat(int(kind[0]), suffix == "z", kind.endswith("one"))
    for kind in ("8", "4", "4one", "2")
    for suffix in ("", "z")
}


def helium_bytes(layout: str, channels: int, depth: int) -> int:
    """Bytes of all ``channels`` output channels with ``depth`` inputs each."""
    form = HELIUM[layout]
    computed = max(channels, CHANNELS)
    pairs = len(_stored_channels(form, computed)) // 2
    weights = pairs * depth if form.bits == 4 else computed * _channel_bytes(depth, form.bits)
    return 4 + -(-channels // CHANNELS) * (36 + 4 * form.zero_points) + weights


def raised_inputs(bits: int, shifts: IntArray) -> int:
    """log2 of what inputs are multiplied by, so that every shift at the position of ``bits`` is at least 32."""
    return max(0, VECTOR_SHIFT - (POSITIONS[bits].bit_length() - 1) - int(min(shifts)))


def pack_helium(
    layout: str, codes: IntArray, zero: IntArray, bias: IntArray, multiplier: IntArray, shift: IntArray
) -> NDArray[np.uint8]:
    """A word (``raised_inputs``), the parameters of four channels at a time, the weights.

    Args:
        codes: [O, K]; zero, bias, multiplier, shift: [O].

    Raises:
        ValueError: a shift leaves 32..55 at its position, or a start value does not fit 32 bits.
    """
    form = HELIUM[layout]
    pad = max(CHANNELS - len(codes), 0)
    codes = np.pad(codes, ((0, pad), (0, 0)))
    zero, bias, multiplier = (np.pad(a, (0, pad)) for a in (zero, bias, multiplier))
    shift = np.pad(shift, (0, pad), constant_values=HIGH_WORD_SHIFT)
    raised = raised_inputs(form.bits, shift)
    start, shift = _positioned(form, bias, shift, raised)
    lanes = _lanes(len(codes))
    start = start[lanes]
    if form.one:
        start[0::2] >>= 4
        start[1::2] += start[0::2]  # modulo 2^32
    panels: list[NDArray[np.uint8]] = [np.array([raised, 0, 0, 0], np.uint8)]
    for first in range(0, len(lanes), CHANNELS):
        part = lanes[first : first + CHANNELS]
        words = np.concatenate([start[first : first + CHANNELS], multiplier[part]]).astype("<i4").view(np.uint8)
        panels += [words, (shift[part] - VECTOR_SHIFT).astype(np.uint8)]
        if form.zero_points:
            panels.append(zero[part].astype(np.int8).view(np.uint8))
    stored = codes[_stored_channels(form, len(codes))]
    weights = _pairs(stored, 8 * form.one) if form.bits == 4 else _fields(stored, form.bits)
    return np.concatenate([*panels, weights.reshape(-1)])


def _lanes(channels: int) -> IntArray:
    """The channels of four lanes after four lanes; the last four may overlap the ones before."""
    firsts = [*range(0, channels - CHANNELS, CHANNELS), channels - CHANNELS]
    return (np.array(firsts)[:, None] + np.arange(CHANNELS)).reshape(-1)


def _stored_channels(form: HeliumFormat, channels: int) -> IntArray:
    """Channels in the order of their weights. Two share a byte with 4 bits: the last four of an odd number, whose pairs
    are others than those before, are stored again."""
    return _lanes(channels) if form.bits == 4 and channels % 2 else np.arange(channels)


def _pairs(codes: IntArray, offset: int) -> NDArray[np.uint8]:
    """Codes [O, K] as bytes [O / 2, K]: of two channels A, B 16 B + (A + ``offset``), A in the low four bits."""
    return (16 * codes[1::2] + (codes[0::2] + offset & 15) & 255).astype(np.uint8)


NINES = {f"helium_nines{bits}{suffix}": HeliumFormat(bits, suffix == "z") for bits in POSITIONS for suffix in ("", "z")}


def nines_bytes(layout: str, channels: int) -> int:
    """Bytes of all channels of a 3 x 3 depthwise layer."""
    form = NINES[layout]
    return channels * (8 + 1 + form.zero_points + _channel_bytes(9, form.bits))


def pack_helium_nines(
    layout: str, codes: IntArray, zero: IntArray, bias: IntArray, multiplier: IntArray, shift: IntArray
) -> NDArray[np.uint8]:
    """3 x 3 depthwise weights: (bias, multiplier) of all channels as little-endian words, then their records.

    A record: the shift less ``VECTOR_SHIFT`` at the position, the zero point if the layout has any, nine packed codes.

    Args:
        codes: [C, 9]; zero, bias, multiplier, shift: [C].

    Raises:
        ValueError: a shift leaves 32..55 at its position, or a start value does not fit 32 bits.
    """
    form = NINES[layout]
    start, shift = _positioned(form, bias, shift)
    scales = np.stack([start, multiplier], axis=1).astype("<i4").view(np.uint8)
    columns = [(shift - VECTOR_SHIFT)[:, None], pack(codes, form.bits)]
    if form.zero_points:
        columns.insert(1, zero[:, None])
    records = np.concatenate([column.astype(np.uint8) for column in columns], axis=1)
    return np.concatenate([scales.reshape(-1), records.reshape(-1)])


def _positioned(form: HeliumFormat, bias: IntArray, shift: IntArray, raised: int = 0) -> tuple[IntArray, IntArray]:
    """Bias and shift at the format's position, inputs times 2^raised."""
    position = POSITIONS[form.bits] << raised
    start, shift = position * bias, shift + position.bit_length() - 1
    if shift.min() < VECTOR_SHIFT or shift.max() > SHIFT_MAX:
        raise ValueError(f"shifts {shift.min()}..{shift.max()} leave {VECTOR_SHIFT}..{SHIFT_MAX}")
    if start.min() < -(2**31) or start.max() >= 2**31:
        raise ValueError("a bias does not fit its position in 32 bits")
    return start, shift


def _fields(codes: IntArray, bits: int) -> NDArray[np.uint8]:
    """Codes [O, K] as bytes [O, ceil(K * bits / 8)]: of every 16 bytes, field f of byte i is input 16 f + i.

    Of the h bytes behind the last sixteen, field f of byte i is input h f + i; at most 16 inputs stand in order.
    """
    fields = 8 // bits
    stored = codes & ((1 << bits) - 1)
    whole = codes.shape[1] // (LANES * fields) * LANES * fields
    parts: list[IntArray] = []
    for start in range(0, whole, LANES * fields):
        parts.append(_merged(stored[:, start : start + LANES * fields], bits))
    if whole < codes.shape[1]:
        rest = stored[:, whole:]
        rest = np.pad(rest, ((0, 0), (0, -rest.shape[1] % fields)))
        if codes.shape[1] - whole <= LANES:
            rest = rest.reshape(len(rest), -1, fields).swapaxes(1, 2).reshape(len(rest), -1)
        parts.append(_merged(rest, bits))
    return np.concatenate(parts, axis=1).astype(np.uint8)


def _merged(stored: IntArray, bits: int) -> IntArray:
    """Codes [O, fields * n] as [O, n] bytes."""
    fields = 8 // bits
    places = (1 << (bits * np.arange(fields)))[:, None]
    return (stored.reshape(len(stored), fields, -1) * places).sum(axis=1)


def _channel_bytes(depth: int, bits: int) -> int:
    return (depth * bits + 7) // 8
