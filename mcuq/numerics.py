"""The arithmetic contract: every integer operation of a deployed network, defined once.

``docs/NUMERICS.md`` states the same in prose and ``runtime_c/include/mcuq/numerics.h`` is the C twin of
this file, line for line. Nothing else in mcuq rounds, saturates or packs.

Codes
    activations  8 bits: int8 with a zero point; 4 and 2 bits: unsigned, packed, with a zero point
    weights      b bits: two's complement in [-2^(b-1), 2^(b-1)-1], zero point in the same range (0: symmetric)
    real value   scale * (code - zero_point)

Packing
    A tensor [..., C] is stored row by row; each row of C codes starts on a byte; within a byte the first
    code takes the lowest bits (little-endian). Unused high bits of the last byte of a row are zero.

Rounding
    There is one rounding: half up, floor(x + 1/2), done once per output value. Convolutions of imported TFLite models
    can follow that format's two roundings instead (``requantize``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
SHIFT_MIN, SHIFT_MAX = 1, 55
"""Range of a requantization shift. 55 keeps ``acc * multiplier + 2^(shift-1)`` inside int64 and lets a
32-bit kernel add rounding and zero point after taking the high word (see ``requantize``)."""


def code_range(bits: int) -> tuple[int, int]:
    """Smallest and largest activation code: int8 for 8 bits, unsigned for 4 and 2, int32 for 32."""
    ranges = {8: (-128, 127), 4: (0, 15), 2: (0, 3), 32: (INT32_MIN, INT32_MAX)}
    if bits not in ranges:
        raise ValueError(f"activation bits must be 8, 4, 2 or 32, got {bits}")
    return ranges[bits]


def weight_range(bits: int) -> tuple[int, int]:
    """Smallest and largest weight code, two's complement of ``bits`` in {8, 4, 2}."""
    if bits not in (8, 4, 2):
        raise ValueError(f"weight bits must be 8, 4 or 2, got {bits}")
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


def row_bytes(channels: int, bits: int) -> int:
    """Bytes of one packed row of ``channels`` codes; rows start on a byte."""
    return (channels * bits + 7) // 8


def tensor_bytes(shape: tuple[int, ...], bits: int) -> int:
    """Bytes of a packed tensor of shape [..., C]."""
    return math.prod(shape[:-1]) * row_bytes(shape[-1], bits)


def pack(codes: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Pack integer codes [..., C] into bytes [..., row_bytes(C, bits)].

    Signed codes (weights, int8 activations) are stored as two's complement of ``bits`` bits; 32-bit codes
    as little-endian words.

    Raises:
        ValueError: a code does not fit ``bits`` bits, signed or unsigned.
    """
    values = np.asarray(codes, dtype=np.int64)
    if bits == 32:
        words = np.ascontiguousarray(values.astype("<i4"))
        return words.view(np.uint8).reshape(*values.shape[:-1], 4 * values.shape[-1])
    lo, hi = -(1 << (bits - 1)), (1 << bits) - 1
    if values.size and (values.min() < lo or values.max() > hi):
        raise ValueError(f"codes {values.min()}..{values.max()} do not fit {bits} bits")
    per_byte = 8 // bits
    channels = values.shape[-1]
    padded = np.zeros((*values.shape[:-1], row_bytes(channels, bits) * per_byte), dtype=np.uint8)
    padded[..., :channels] = values & ((1 << bits) - 1)
    lanes = padded.reshape(*values.shape[:-1], -1, per_byte)
    packed = np.zeros(lanes.shape[:-1], dtype=np.uint8)
    for lane in range(per_byte):
        packed |= lanes[..., lane] << np.uint8(lane * bits)
    return packed


def unpack(packed: NDArray[np.uint8], channels: int, bits: int, *, signed: bool) -> IntArray:
    """Inverse of :func:`pack`: bytes [..., row_bytes(C, bits)] to int64 codes [..., C]."""
    data = np.ascontiguousarray(packed, dtype=np.uint8)
    if bits == 32:
        return data.view("<i4").astype(np.int64).reshape(*data.shape[:-1], channels)
    lanes = [(data >> np.uint8(lane * bits)) & np.uint8((1 << bits) - 1) for lane in range(8 // bits)]
    codes = np.stack(lanes, axis=-1).reshape(*data.shape[:-1], -1)[..., :channels].astype(np.int64)
    if signed:
        codes -= (codes >> (bits - 1)) << bits
    return codes


def quantize(real: NDArray[Any], scale: float, zero_point: int, bits: int) -> IntArray:
    """Real values to activation codes: ``clamp(floor(real / scale + 1/2) + zero_point)``."""
    lo, hi = code_range(bits)
    codes = np.floor(np.asarray(real, dtype=np.float64) / scale + 0.5) + zero_point
    return np.clip(codes, lo, hi).astype(np.int64)


def dequantize(codes: NDArray[Any], scale: float, zero_point: int) -> NDArray[np.float64]:
    """Codes to real values: ``scale * (code - zero_point)``."""
    return scale * (np.asarray(codes, dtype=np.float64) - zero_point)


def quantize_multiplier(scale: float) -> tuple[int, int]:
    """Decompose ``scale`` as ``multiplier / 2**shift``.

    Returns:
        (multiplier, shift): ``2^30 <= |multiplier| < 2^31`` and 1 <= shift <= 55, except that scales below
        2^-25 keep shift 55 and lose low bits of the multiplier, down to (0, 55). ``scale`` 0 gives (0, 55).

    Raises:
        ValueError: ``scale`` is not finite or is 2^30 or more.
    """
    if not math.isfinite(scale):
        raise ValueError(f"scale must be finite, got {scale}")
    if scale == 0.0:
        return 0, SHIFT_MAX
    shift = 31 - math.frexp(abs(scale))[1]
    if shift < SHIFT_MIN:
        raise ValueError(f"scale must be below 2^30, got {scale}")
    shift = min(shift, SHIFT_MAX)
    multiplier = math.floor(math.ldexp(abs(scale), shift) + 0.5)
    if multiplier == 1 << 31:
        if shift == SHIFT_MIN:
            raise ValueError(f"scale must be below 2^30, got {scale}")
        multiplier, shift = multiplier >> 1, shift - 1
    return (multiplier if scale > 0 else -multiplier), shift


def quantize_multipliers(scales: NDArray[Any]) -> tuple[IntArray, int]:
    """``scales`` [C] as ``multipliers / 2**shift`` with the shift of the largest (see :func:`quantize_multiplier`)."""
    sizes = np.abs(np.asarray(scales, dtype=np.float64))
    _, shift = quantize_multiplier(float(sizes.max()))
    return (np.sign(scales) * np.floor(np.ldexp(sizes, shift) + 0.5)).astype(np.int64), shift


def common_shift(shift: Sequence[int] | NDArray[np.integer[Any]]) -> int | None:
    """The shift of all channels; None where they differ."""
    first = int(shift[0])
    return first if all(int(s) == first for s in shift) else None


def requantize(
    acc: NDArray[Any],
    multiplier: NDArray[Any] | int,
    shift: NDArray[Any] | int,
    zero_point: int,
    lo: int,
    hi: int,
    roundings: int = 1,
) -> IntArray:
    """``clamp(zero_point + floor(acc * multiplier / 2^shift + 1/2), lo, hi)``, exactly.

    A core with a 32x32 high-word multiply-accumulate gets the same for shift >= 33 as
    ``(high32(acc * multiplier) + c) >> (shift - 32)`` with ``c = (zero_point << (shift-32)) + (1 << (shift-33))``.

    Args:
        acc: int32 accumulators [..., C].
        multiplier, shift: per channel [C] or scalar, from :func:`quantize_multipliers` or :func:`quantize_multiplier`.
        roundings: 2 for TFLite's: ``h = floor(acc * multiplier / 2^31 + 1/2)``, then ``h / 2^(shift - 31)`` to the
            nearest, half away from zero; shifts up to 31 leave nothing to round again.
    """
    a = np.asarray(acc, dtype=np.int64)
    m = np.asarray(multiplier, dtype=np.int64)
    s = np.asarray(shift, dtype=np.int64)
    rounded = (a * m + (np.int64(1) << (s - 1))) >> s
    if roundings == 2:
        high, rest = (a * m + (np.int64(1) << 30)) >> 31, np.maximum(s - 31, 1)
        rounded = np.where(s > 31, (high + (np.int64(1) << (rest - 1)) - (high < 0)) >> rest, rounded)
    return np.clip(rounded + zero_point, lo, hi)


@dataclass(frozen=True, slots=True)
class Affine:
    """Rescaling of codes in int32: ``y = clamp((sum_i x_i * multipliers[i] + constant) >> shift, lo, hi)``.

    Zero points and the rounding half are inside ``constant``. Used by addition, concatenation, max pooling,
    padding and requantizing copies. ``Affine.identity()`` leaves codes as they are.
    """

    multipliers: tuple[int, ...]
    constant: int
    shift: int

    @staticmethod
    def identity() -> Affine:
        return Affine((1,), 0, 0)

    @property
    def is_identity(self) -> bool:
        return self.multipliers == (1 << self.shift,) and self.constant in (0, (1 << self.shift) >> 1)


def affine(
    scales: tuple[float, ...],
    zero_points: tuple[int, ...],
    bits: tuple[int, ...],
    out_scale: float,
    out_zero_point: int,
) -> Affine:
    """Integer parameters of ``y = out_zero_point + round(sum_i scales[i]/out_scale * (x_i - zero_points[i]))``.

    The shift is the largest (at most 24) for which no partial sum can leave int32, for any codes of the given
    bits.

    Raises:
        ValueError: a scale ratio is too large for any shift.
    """
    if scales == (out_scale,) and zero_points == (out_zero_point,):
        return Affine.identity()
    ratios = [scale / out_scale for scale in scales]
    for shift in range(24, 0, -1):
        multipliers = tuple(math.floor(math.ldexp(r, shift) + 0.5) for r in ratios)
        constant = (out_zero_point << shift) + (1 << (shift - 1))
        constant -= sum(m * z for m, z in zip(multipliers, zero_points, strict=True))
        bound = abs(constant)
        bound += sum(abs(m) * max(abs(v) for v in code_range(b)) for m, b in zip(multipliers, bits, strict=True))
        if bound <= INT32_MAX:
            return Affine(multipliers, constant, shift)
    raise ValueError(f"scale ratios {ratios} are too large to rescale in int32")


def apply_affine(codes: tuple[NDArray[Any], ...], parameters: Affine, lo: int, hi: int) -> IntArray:
    """Evaluate :class:`Affine` on integer codes (arrays of one shape)."""
    total = np.int64(parameters.constant) + sum(
        np.asarray(x, dtype=np.int64) * m for x, m in zip(codes, parameters.multipliers, strict=True)
    )
    return np.clip(total >> parameters.shift, lo, hi)


def accumulator_bound(
    weights: NDArray[Any], zero_points: NDArray[Any], bias: NDArray[Any], input_bits: int
) -> IntArray:
    """Largest magnitude any partial sum of ``bias + sum x*(w - z)`` can reach, per output channel.

    Holds for every summation order and for kernels that sum ``x*w`` and ``z*x`` apart:
    ``|bias| + max|x| * sum(|w| + |z|)``.

    Args:
        weights: codes [O, ...]; zero_points: [O] or [1]; bias: int32 [O].
    """
    largest = max(abs(v) for v in code_range(input_bits))
    flat = np.abs(np.asarray(weights, dtype=np.int64).reshape(len(weights), -1))
    z = np.abs(np.broadcast_to(np.asarray(zero_points, dtype=np.int64), (len(weights),)))
    return np.abs(np.asarray(bias, dtype=np.int64)) + largest * (flat.sum(axis=1) + z * flat.shape[1])


SOFTMAX_ONE = 1 << 15
"""Fixed-point one of the softmax exponential table (uint16 entries)."""


def softmax_table(scale: float) -> IntArray:
    """``round(2^15 * exp(-d * scale))`` for code distances d = 0..255 (shape [256])."""
    return np.floor(SOFTMAX_ONE * np.exp(-np.arange(256) * scale) + 0.5).astype(np.int64)


def softmax(codes: NDArray[Any], table: NDArray[Any]) -> IntArray:
    """Integer softmax over the last axis; output int8 codes, scale 1/256, zero point -128.

    ``e_i = table[max(x) - x_i]``, ``y_i = min(127, floor((256 e_i + floor(S/2)) / S) - 128)``, S = sum e_i.
    """
    x = np.asarray(codes, dtype=np.int64)
    e = np.asarray(table, dtype=np.int64)[x.max(axis=-1, keepdims=True) - x]
    total = e.sum(axis=-1, keepdims=True)
    return np.minimum(127, (256 * e + total // 2) // total - 128)


BLEND_BITS = 11
"""Weights of a blend of two neighbours are multiples of 2^-11: four taps of 8 bits with both weights fit int32."""


def blend(first: NDArray[Any], second: NDArray[Any], weight: NDArray[Any]) -> IntArray:
    """``(2^11 - w) * first + w * second`` of codes less their zero point; weights 0 .. 2^11 - 1."""
    w = np.asarray(weight, dtype=np.int64)
    return ((1 << BLEND_BITS) - w) * np.asarray(first, dtype=np.int64) + w * np.asarray(second, dtype=np.int64)


def l2_normalize(codes: NDArray[Any], zero_point: int) -> IntArray:
    """Rows over the last axis divided by their length; int8 codes, scale 1/128, zero point 0.

    With d = x - zero_point and S = sum d^2 the exact half-up rounding of 128 d / sqrt(S), at most 127. In integers: v =
    floor(sqrt(65536 d^2 div S)) is the floor of 256 |d| / sqrt(S); then (v + 1) div 2 for d >= 0 and -(u div 2) for
    d < 0, u = v when the root is exact, else v + 1. S = 0 gives zeros.
    """
    d = np.asarray(codes, dtype=np.int64) - zero_point
    total = np.maximum((d * d).sum(axis=-1, keepdims=True), 1)
    scaled = 65536 * d * d
    v = np.sqrt((scaled // total).astype(np.float64)).astype(np.int64)  # exact: below 2^53
    u = v + (v * v * total != scaled)
    return np.minimum(np.where(d >= 0, (v + 1) >> 1, -(u >> 1)), 127)
