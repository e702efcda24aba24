"""Weights for the Helium kernels (``runtime_c/src/mve``); docs/kernels.md draws them.

Matrix kernels: parameters of four channels at a time (start values, multipliers, shifts, zero points if the layout has
any), then the weights of channel after channel, ``ceil(K * bits / 8)`` bytes each. Channels are summed at
``POSITIONS[bits]`` times their value, which the shifts take out again.
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
    """Weight bits, whether the header holds zero points, and whether a byte holds codes of two channels."""

    bits: int
    zero_points: bool
    shared: bool = False


HELIUM = {f"helium{bits}{suffix}": HeliumFormat(bits, suffix == "z") for bits in POSITIONS for suffix in ("", "z")}
HELIUM["helium4s"] = HeliumFormat(4, zero_points=False, shared=True)


def helium_bytes(layout: str, channels: int, depth: int) -> int:
    """Bytes of all ``channels`` output channels with ``depth`` inputs each."""
    form = HELIUM[layout]
    weights = max(channels, CHANNELS) * _channel_bytes(depth, form.bits)
    return 4 + -(-channels // CHANNELS) * (36 + 4 * form.zero_points) + weights


def raised_inputs(bits: int, shifts: IntArray) -> int:
    """log2 of what inputs are multiplied by, so that every shift at the position of ``bits`` is at least 32."""
    return max(0, VECTOR_SHIFT - (POSITIONS[bits].bit_length() - 1) - int(min(shifts)))


def pack_helium(
    layout: str, codes: IntArray, zero: IntArray, bias: IntArray, multiplier: IntArray, shift: IntArray
) -> NDArray[np.uint8]:
    """A word (``raised_inputs``, whether channels share bytes), the parameters of four channels at a time, the weights
    of channel after channel.

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
    if form.shared:
        start[1::2] += start[0::2] >> 4  # modulo 2^32
    count = len(codes)
    panels: list[NDArray[np.uint8]] = [np.array([raised, form.shared, 0, 0], np.uint8)]
    for first in (*range(0, count - CHANNELS, CHANNELS), count - CHANNELS):  # the last four may overlap
        part = slice(first, first + CHANNELS)
        words = np.concatenate([start[part], multiplier[part]]).astype("<i4").view(np.uint8)
        panels += [words, (shift[part] - VECTOR_SHIFT).astype(np.uint8)]
        if form.zero_points:
            panels.append(zero[part].astype(np.int8).view(np.uint8))
    weights = _shared(codes) if form.shared else _fields(codes, form.bits)
    return np.concatenate([*panels, weights.reshape(-1)])


def shared_bytes(codes: IntArray) -> IntArray:
    """16 B + A of every two of an even number of channels A, B: [O, K] codes to [O / 2, K]."""
    return codes[0::2] + 16 * codes[1::2]


def _shared(codes: IntArray) -> NDArray[np.uint8]:
    """Bytes [O / 2, K rounded to 2], an input's codes of two channels in each."""
    both = shared_bytes(codes)
    if both.min() < -128:
        raise ValueError(f"two channels' codes give {both.min()}; -128 is the least that a byte holds")
    return np.pad(both, ((0, 0), (0, both.shape[1] % 2))).astype(np.int8).view(np.uint8)


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
