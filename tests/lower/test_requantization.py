"""Requantization against exact rational arithmetic, and thresholds against requantization."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from sample_networks import integer

from mcuq.errors import ModelError
from mcuq.ir.graph import Window
from mcuq.ir.integer import QConv2d, QTensor
from mcuq.ir.quantized import QuantParams
from mcuq.ir.scaling import restricted
from mcuq.lower.requantization import Channels, requantization
from mcuq.lower.thresholds import thresholds
from mcuq.numerics import code_range, quantize_multiplier, requantize


def exact(acc: int, multiplier: int, shift: int, zero: int, lo: int, hi: int) -> int:
    """The defining formula with unbounded integers: floor division, no shift, no overflow."""
    value = (2 * acc * multiplier + 2**shift) // 2 ** (shift + 1) + zero
    return min(max(value, lo), hi)


def test_r19_a_million_random_requantizations() -> None:
    """Any accumulator, multiplier (negative and zero, too) and shift, near and far from the clamp."""
    rng = np.random.default_rng(1)
    count = 1_000_000
    magnitude = rng.integers(0, 32, count)
    acc = rng.integers(-(2**31), 2**31, count) >> magnitude
    multiplier = rng.integers(-(2**31) + 1, 2**31, count)
    multiplier[rng.random(count) < 0.01] = 0
    shift = rng.integers(1, 56, count)
    zero = rng.integers(-128, 128, count)
    found = requantize(acc, multiplier, shift, 0, -(2**62), 2**62)
    quotient = [
        (2 * a * m + (1 << s)) >> (s + 1)
        for a, m, s in zip(acc.tolist(), multiplier.tolist(), shift.tolist(), strict=True)
    ]
    np.testing.assert_array_equal(found, np.array(quotient, dtype=np.int64))
    for i in range(0, count, 97):
        arguments = (int(acc[i]), int(multiplier[i]), int(shift[i]), int(zero[i]))
        code = requantize(acc[i], multiplier[i], shift[i], arguments[3], -128, 127)
        assert int(code) == exact(*arguments, -128, 127), arguments


@pytest.mark.parametrize("acc", [-(2**31), -(2**31) + 1, -1, 0, 1, 2**31 - 1])
@pytest.mark.parametrize("multiplier", [-(2**31) + 1, -(2**30), -1, 0, 1, 2**30, 2**31 - 1])
@pytest.mark.parametrize("shift", [1, 2, 31, 32, 33, 34, 54, 55])
def test_extreme_requantizations(acc: int, multiplier: int, shift: int) -> None:
    for lo, hi in (code_range(bits) for bits in (8, 4, 2, 32)):
        found = int(requantize(np.int64(acc), multiplier, shift, 0, lo, hi))
        assert found == exact(acc, multiplier, shift, 0, lo, hi)
        high_word = (acc * multiplier) >> 32
        if shift >= 33:  # what a core with a high-word multiply computes
            assert found == min(max((high_word + (1 << (shift - 33))) >> (shift - 32), lo), hi)


def test_r24_multipliers_are_the_nearest_to_the_factor() -> None:
    rng = np.random.default_rng(2)
    for factor in np.concatenate([2.0 ** rng.uniform(-60, 29.9, 3000), [2.0**-25, 1.0, 0.5, 2.0**29]]):
        for real in (float(factor), -float(factor)):
            multiplier, shift = quantize_multiplier(real)
            wanted = math.floor(abs(Fraction(real)) * 2**shift + Fraction(1, 2))
            assert abs(multiplier) == wanted and (multiplier == 0 or (multiplier > 0) == (real > 0))
            assert (2**30 <= abs(multiplier) < 2**31) or shift == 55
    assert quantize_multiplier(0.0) == (0, 55)
    assert quantize_multiplier(math.nextafter(1.0, 0.0)) == (2**30, 30)


def layer(bits: int, clamp: tuple[int, int], zero: int, pairs: list[tuple[int, int]]) -> QConv2d:
    table: Any = np.array(pairs, dtype=np.int64)
    channels = len(pairs)
    return QConv2d(
        name="conv",
        inputs=("x",),
        output=QTensor((1, 1, channels), bits, 1.0, zero),
        weight=np.zeros((channels, 1, 1, 1), np.int8),
        weight_bits=8,
        weight_zero_point=np.zeros(1, np.int8),
        bias=np.zeros(channels, np.int32),
        multiplier=table[:, 0].astype(np.int32),
        shift=table[:, 1].astype(np.uint8),
        window=Window(),
        groups=1,
        clamp=clamp,
    )


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("seed", range(4))
def test_r20_thresholds_equal_requantization_for_every_accumulator(bits: int, seed: int) -> None:
    """Exhaustive over a range that holds every step of every channel, and the ends of int32."""
    rng = np.random.default_rng(seed)
    lo, hi = code_range(bits)
    zero = int(rng.integers(lo, hi + 1))
    low = int(rng.integers(lo, hi))
    clamp = (lo, hi) if seed == 0 else (low, int(rng.integers(low, hi + 1)))
    factors = rng.choice([-1, 1], 12) * 10.0 ** rng.uniform(-3.2, 1, 12)
    pairs = [quantize_multiplier(float(f)) for f in factors] + [(0, 55), (2**31 - 1, 1), (-(2**31) + 1, 1)]
    op = layer(bits, clamp, zero, pairs)
    reach = 40_000  # 16 codes of the smallest factor, 6e-4, are 27,000 accumulators
    acc = np.concatenate([np.arange(-reach, reach), [-(2**31), -(2**31) + 1, 2**31 - 2, 2**31 - 1]])
    table = np.broadcast_to(acc[:, None], (len(acc), len(pairs)))
    wanted = requantize(table, op.multiplier, op.shift, zero, *clamp)
    found = thresholds(op)
    assert found.values.shape == (len(pairs), clamp[1] - clamp[0])
    np.testing.assert_array_equal(found.apply(table), wanted)
    steps = np.diff(found.values, axis=1)
    assert np.all(np.where(found.rising[:, None], steps, -steps) >= 0)


@pytest.mark.parametrize("bits", [2, 4])
def test_thresholds_of_whole_layers(bits: int) -> None:
    """Layers of a lowered network, with negative gains, over their whole provable range."""
    graph = integer(activation_bits=bits, icn=True, asymmetric=True)
    checked = 0
    for op in graph:
        if not isinstance(op, QConv2d):
            continue
        checked += int(np.any(op.multiplier < 0))
        rng = np.random.default_rng(0)
        acc = rng.integers(-(2**31), 2**31, (20_000, len(op.weight))) >> rng.integers(0, 31, (20_000, 1))
        wanted = requantize(acc, op.multiplier, op.shift, op.output.zero_point, *op.clamp)
        np.testing.assert_array_equal(thresholds(op).apply(acc), wanted)
    assert checked > 0


def test_thresholds_are_for_few_bits() -> None:
    op = integer().op("conv")
    assert isinstance(op, QConv2d)
    with pytest.raises(ModelError, match="conv: thresholds are for outputs of 2 and 4 bits, this one has 8"):
        thresholds(op)


def channels(unit: Any, weight: Any, bias: Any = 0.0, scaling: str = "exact") -> Channels:
    """One row of input codes with scale 1 and zero point 0; ``unit`` is then the factor."""
    unit = np.asarray(unit, float)
    weights = np.broadcast_to(np.asarray(weight, np.int64), (len(unit), np.shape(weight)[-1]))[:, None, None]
    zeros, biases = np.zeros(len(unit), np.int64), np.broadcast_to(np.asarray(bias, float), unit.shape)
    source, target = QuantParams(8, 1.0, 0), QuantParams(8, 1.0, -3)
    return Channels("conv", weights, zeros, unit, biases, source, target, (-128, 127), scaling)


def test_channels_share_the_shift_of_the_largest_factor() -> None:
    """Every code is that of the exact factor but where its product lies within 2^-10 of a boundary."""
    rng = np.random.default_rng(8)
    unit = rng.choice([-1, 1], 200) * 2.0 ** rng.uniform(-16, -5, 200)
    weight, bias = rng.integers(-128, 128, (200, 90)), rng.normal(0, 30, 200)
    found = requantization(channels(unit, weight, bias))
    assert len(np.unique(found.shift)) == 1 and 2**30 <= np.abs(found.multiplier).max() < 2**31
    np.testing.assert_array_equal(np.abs(found.multiplier), np.floor(np.ldexp(np.abs(unit), found.shift) + 0.5))
    sums = weight @ rng.integers(-128, 128, (90, 400))
    codes = requantize((sums + found.bias[:, None]).T, found.multiplier, found.shift, -3, -128, 127).T
    real = sums * unit[:, None] + bias[:, None]
    half_a_step = np.abs(unit[:, None]) / 2  # biases are whole steps
    low, high = (np.floor(real + s * (half_a_step + 2.0**-10) + 0.5) - 3 for s in (-1, 1))
    assert np.all(np.clip(low, -128, 127) <= codes) and np.all(codes <= np.clip(high, -128, 127))


@pytest.mark.parametrize(
    ("depth", "scaling", "shared"),
    [(64, "exact", True), (4096, "exact", False), (64, "fixed32", False), (64, "single-shift", True)],
)
def test_shifts_are_shared_only_where_no_output_moves(depth: int, scaling: str, shared: bool) -> None:
    """128 * 127 * 4096 products of a factor that is off by up to 2^-32; restricted factors must stay exact."""
    unit = np.array([0.7, 0.0011, -0.3 / 1024])
    found = requantization(channels(unit, np.full(depth, 127), 0.0, scaling))
    assert (len(set(found.shift.tolist())) == 1) == shared
    if not shared:
        wanted = [quantize_multiplier(f) for f in restricted(unit, scaling).tolist()]
        assert list(zip(found.multiplier.tolist(), found.shift.tolist(), strict=True)) == wanted


@pytest.mark.parametrize("bias", [0.0, 41.0, -300.0, 77.5])
def test_constant_channels_keep_the_layers_shift(bias: float) -> None:
    weight = np.array([[3, -5], [0, 0], [7, 1]])
    found = requantization(channels([0.004, 0.002, 0.0001], weight, [1.0, bias, 2.0]))
    assert len(set(found.shift.tolist())) == 1
    code = requantize(found.bias[1], found.multiplier[1], found.shift[1], -3, -128, 127)
    assert code == np.clip(np.floor(bias + 0.5) - 3, -128, 127)
