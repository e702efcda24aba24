"""From a real affine map per output channel to int32 bias, multiplier and shift (docs/NUMERICS.md).

A convolution's real output is ``gain * Sx * Sw * sum (x - Zx) * (w - Zw) + b``. Its code is
``Zy + round((sum x * (w - Zw) + bias) * factor)`` with ``factor = gain * Sx * Sw / Sy`` and
``bias = round(b / (gain * Sx * Sw)) - Zx * sum (w - Zw)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcuq.errors import ModelError, OverflowProofError
from mcuq.ir.graph import FloatArray
from mcuq.ir.quantized import QuantParams
from mcuq.ir.scaling import restricted
from mcuq.numerics import (
    INT32_MAX,
    SHIFT_MIN,
    IntArray,
    accumulator_bound,
    code_range,
    common_shift,
    quantize_multiplier,
    quantize_multipliers,
    requantize,
)

SHARED_ERROR = 2.0**-10
"""Codes. Channels share the shift of the largest factor if no sum of products moves its output by more than this."""
NEGLIGIBLE = 0.25
"""Codes. A bias too large for int32 goes with a tiny gain; a channel whose whole sum of products moves its
output by no more than this is then the constant that its bias rounds to."""


@dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """One convolution on its way to integers; arrays are per output channel.

    Attributes:
        layer: name for error texts; weight: int64 codes [O, kh, kw, I/groups]; zero_point: int64 [O];
        unit: real value of one accumulator step, ``gain * Sx * Sw`` (signed); bias: real [O];
        source: parameters of the input; target: of the output; clamp: output codes;
        scaling: form of the factors, see ``mcuq.ir.scaling``; roundings: with 2, every factor keeps 31 bits.
    """

    layer: str
    weight: IntArray
    zero_point: IntArray
    unit: FloatArray
    bias: FloatArray
    source: QuantParams
    target: QuantParams
    clamp: tuple[int, int]
    scaling: str = "exact"
    roundings: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Requantization:
    """Integer parameters of a convolution: int64 arrays; ``multiplier`` and ``shift`` have 1 or O entries.

    ``weight`` is the layer's, with the rows of constant channels set to their zero point.
    """

    weight: IntArray
    bias: IntArray
    multiplier: IntArray
    shift: IntArray


def requantization(channels: Channels) -> Requantization:
    """Bias, multiplier and shift of every channel, with the proof that no accumulator leaves int32.

    Channels of zero gain or without any weight are constant: exactly ``clamp(round(bias / Sy) + Zy)``.

    Raises:
        ModelError: a scale or bias that is not finite, or a factor of 2^30 or more.
        OverflowProofError: an accumulator could leave int32.
    """
    _check_finite(channels)
    factors = channels.unit / channels.target.scale
    if channels.scaling != "exact":
        factors = restricted(factors, channels.scaling)
        channels = replace(channels, unit=factors * channels.target.scale)
    reach = _reach(channels)
    constant = (factors == 0.0) | (reach == 0)
    shared = _with_shared_shift(channels, factors, reach, constant)
    if shared is not None:
        factors = shared
        channels = replace(channels, unit=factors * channels.target.scale)
        constant |= factors == 0.0
    bias, saturated = _integer_bias(channels, factors, reach, constant)
    constant |= saturated
    weight = np.where(constant[:, None, None, None], channels.zero_point[:, None, None, None], channels.weight)
    factors = np.where(constant, _common(factors, constant), factors)
    multiplier, shift = _multipliers(channels, factors, one_shift=shared is not None)
    result = Requantization(weight, bias, multiplier, shift)
    if constant.any():
        result = _set_constants(channels, result, constant)
    _prove(channels, result)
    return result


def _check_finite(channels: Channels) -> None:
    scale = channels.target.scale
    if not (math.isfinite(scale) and scale > 0):
        raise ModelError(f"{channels.layer}: the output's scale is {scale}; it must be finite and above 0")
    for what, values in (("gain * input scale * weight scale", channels.unit), ("bias", channels.bias)):
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise ModelError(f"{channels.layer}: {what} of channel {bad[0]} is {values[bad[0]]}; it must be finite")


def _reach(channels: Channels) -> IntArray:
    """Per channel, the largest ``|sum (x - Zx) * (w - Zw)|`` over all codes x."""
    distance = max(abs(code - channels.source.zero_point) for code in code_range(channels.source.bits))
    weights = np.abs(channels.weight - channels.zero_point[:, None, None, None])
    return distance * weights.reshape(len(weights), -1).sum(axis=1)


def _with_shared_shift(
    channels: Channels, factors: FloatArray, reach: IntArray, constant: NDArray[np.bool_]
) -> FloatArray | None:
    """The factors as multiples of 2^-s, s the shift of the largest; None where that is not close enough.

    Biases are chosen for the rounded factor, so that only the sum of products carries its error. Restricted factors
    keep their value.
    """
    live = factors[~constant]
    if channels.roundings == 2 or live.size < 2 or np.abs(live).max() >= 2.0 ** (30 - SHIFT_MIN):
        return None
    multiplier, shift = quantize_multipliers(live)
    rounded = np.ldexp(multiplier.astype(np.float64), -shift)
    allowed = SHARED_ERROR if channels.scaling == "exact" else 0.0
    if np.any(np.abs(rounded - live) * reach[~constant] > allowed):
        return None
    result = factors.copy()
    result[~constant] = rounded
    return result


def _common(factors: FloatArray, constant: NDArray[np.bool_]) -> float:
    """A factor for constant channels: the other channels' if they share one, so that it can stay per layer."""
    others = factors[~constant]
    return float(others[0]) if others.size else 1.0


def _integer_bias(
    channels: Channels, factors: FloatArray, reach: IntArray, constant: NDArray[np.bool_]
) -> tuple[IntArray, NDArray[np.bool_]]:
    """(bias with the input's zero point folded in, channels to be made constant because theirs does not fit)."""
    weights = (channels.weight - channels.zero_point[:, None, None, None]).reshape(len(reach), -1)
    folded = channels.source.zero_point * weights.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        exact = np.where(constant, 0.0, np.floor(channels.bias / channels.unit + 0.5))
    others = np.abs(folded) + reach
    fits = np.isfinite(exact) & (np.abs(exact) + others < INT32_MAX)
    saturated = ~fits & (others < INT32_MAX)  # else the weights alone overflow, which the proof reports
    bias = np.where(fits, exact, 0.0).astype(np.int64) - folded
    for channel in np.flatnonzero(saturated):
        center = channels.bias[channel] / channels.target.scale + channels.target.zero_point
        swing = abs(factors[channel]) * reach[channel]
        lo, hi = channels.clamp
        if not (swing <= NEGLIGIBLE or center + swing < lo or center - swing > hi):
            raise OverflowProofError(
                f"{channels.layer}: channel {channel} needs a bias of {exact[channel]:.4g} accumulator steps, int32 "
                f"holds {INT32_MAX}; its gain is too small for its weights: train longer or fold the batch norm"
            )
    return bias, saturated


def _multipliers(channels: Channels, factors: FloatArray, *, one_shift: bool) -> tuple[IntArray, IntArray]:
    """int64 multiplier and shift, [1] when all channels agree; with ``one_shift`` that of the largest."""
    unique = factors[:1] if np.all(factors == factors[0]) else factors
    if one_shift:
        multiplier, shift = quantize_multipliers(unique)
        return multiplier, np.full(len(unique), shift)
    try:
        pairs = [quantize_multiplier(float(factor)) for factor in unique]
    except ValueError as error:
        raise ModelError(
            f"{channels.layer}: gain * input scale * weight scale / output scale is too large ({error})"
        ) from error
    table = np.array(pairs, dtype=np.int64)
    return table[:, 0], table[:, 1]


def _set_constants(channels: Channels, result: Requantization, constant: NDArray[np.bool_]) -> Requantization:
    """Biases that make every constant channel's code exact; per-channel multipliers if the shared one cannot."""
    zero, (lo, hi) = channels.target.zero_point, channels.clamp
    real = np.clip(channels.bias / channels.target.scale, lo - zero - 1, hi - zero + 1)
    codes = np.clip(np.floor(real + 0.5).astype(np.int64) + zero, lo, hi)
    bias = result.bias.copy()
    multiplier, shift = result.multiplier, result.shift
    common = common_shift(shift)
    if common is not None:
        factor = int(multiplier[0]) if multiplier.size == 1 else 1 << min(common, 30)
        shared = _preimages(codes[constant] - zero, factor, common, channels.roundings)
        if shared is not None:
            bias[constant] = shared
            return replace(result, bias=bias, multiplier=_with(multiplier, constant, factor))
    if multiplier.size == 1:
        multiplier, shift = (np.repeat(table, len(bias)) for table in (multiplier, shift))
    bias[constant] = codes[constant] - zero
    one, one_shift = quantize_multiplier(1.0)
    return replace(
        result,
        bias=bias,
        multiplier=np.where(constant, one, multiplier),
        shift=np.where(constant, one_shift, shift),
    )


def _with(multiplier: IntArray, constant: NDArray[np.bool_], factor: int) -> IntArray:
    """``multiplier`` with that of constant channels replaced, where every channel has its own."""
    return multiplier if multiplier.size == 1 else np.where(constant, factor, multiplier)


def _preimages(codes: IntArray, multiplier: int, shift: int, roundings: int) -> IntArray | None:
    """int32 accumulators that requantize to exactly ``codes`` (zero point taken off), None if some have none."""
    if multiplier == 0:
        return None
    accumulators = np.floor(np.ldexp(codes.astype(np.float64), shift) / multiplier + 0.5)
    if np.any(np.abs(accumulators) > INT32_MAX):
        return None
    result = accumulators.astype(np.int64)
    reached = requantize(result, multiplier, shift, 0, -INT32_MAX, INT32_MAX, roundings)
    return result if np.array_equal(reached, codes) else None


def _prove(channels: Channels, result: Requantization) -> None:
    """``|bias| + max|x| * sum(|w| + |Zw|) < 2^31`` for every channel (see numerics.accumulator_bound)."""
    bounds = accumulator_bound(result.weight, channels.zero_point, result.bias, channels.source.bits)
    worst = int(bounds.argmax())
    if bounds[worst] > INT32_MAX:
        raise OverflowProofError(overflow_text(channels.layer, worst, int(bounds[worst])))


def overflow_text(layer: str, channel: int, bound: Any) -> str:
    """What the user reads when the accumulator proof of ``layer`` fails."""
    return (
        f"{layer}: the accumulator of channel {channel} may reach {bound}, int32 holds {INT32_MAX}; "
        "use fewer input or weight bits, fewer taps, or smaller weights in this layer"
    )
