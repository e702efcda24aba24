"""The arithmetic contract against goldens worked by hand and exact rational arithmetic."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from mcuq.numerics import (
    INT32_MAX,
    Affine,
    accumulator_bound,
    affine,
    apply_affine,
    code_range,
    pack,
    quantize,
    row_bytes,
    softmax,
    softmax_table,
    tensor_bytes,
    unpack,
)


@pytest.mark.parametrize(
    ("codes", "bits", "stored"),
    [
        ([1, 2, 3, 4, 5], 4, "214305"),
        ([1, 2, 3, 0, 1], 2, "3901"),
        ([-1, 7, -8], 4, "7f08"),
        ([-2, 1, -1, 0, -1], 2, "3603"),
        ([-128, 127, -1], 8, "807fff"),
        ([15, 0, 15], 4, "0f0f"),
        ([3, 3, 3, 3], 2, "ff"),
        ([-2, 2**31 - 1], 32, "feffffffffffff7f"),
    ],
)
def test_packing_goldens(codes: list[int], bits: int, stored: str) -> None:
    assert pack(np.array(codes), bits).tobytes().hex() == stored


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("channels", range(1, 10))
def test_one_code_at_a_time(bits: int, signed: bool, channels: int) -> None:
    """One-hot rows: a swapped nibble or crumb cannot hide."""
    extreme = -(1 << (bits - 1)) if signed else (1 << bits) - 1
    for place in range(channels):
        codes = np.zeros((2, 3, channels), dtype=np.int64)
        codes[1, 2, place] = extreme
        stored = pack(codes, bits)
        assert stored.shape == (2, 3, row_bytes(channels, bits))
        assert stored.size == tensor_bytes((2, 3, channels), bits)
        byte, low = divmod(place * bits, 8)
        assert stored[1, 2, byte] == (extreme & ((1 << bits) - 1)) << low
        assert np.count_nonzero(stored) == 1
        np.testing.assert_array_equal(unpack(stored, channels, bits, signed=signed), codes)


def test_codes_that_do_not_fit_are_refused() -> None:
    for codes, bits in (([16], 4), ([-9], 4), ([4], 2), ([-3], 2), ([256], 8), ([-129], 8)):
        with pytest.raises(ValueError, match=f"do not fit {bits} bits"):
            pack(np.array(codes), bits)
    with pytest.raises(ValueError, match="activation bits must be 8, 4, 2 or 32, got 3"):
        code_range(3)


def test_quantization_rounds_half_up() -> None:
    real = np.array([-1.5, -0.75, -0.5, -0.25, -0.2500001, 0.0, 0.25, 0.2499999, 0.75, 1e9, -1e9])
    assert quantize(real, 0.5, 0, 8).tolist() == [-3, -1, -1, 0, -1, 0, 1, 0, 2, 127, -128]
    assert quantize(real, 0.5, 3, 4).tolist() == [0, 2, 2, 3, 2, 3, 4, 3, 5, 15, 0]


@pytest.mark.parametrize("seed", range(3))
def test_rescaling_is_the_rounded_real_sum(seed: int) -> None:
    """Against fractions over random codes: within one code everywhere, and only next to ties."""
    rng = np.random.default_rng(seed)
    for _ in range(40):
        bits = tuple(int(b) for b in rng.choice([8, 4, 2], rng.integers(1, 3)))
        scales = tuple(float(s) for s in 10.0 ** rng.uniform(-3, 1, len(bits)))
        zeros = tuple(int(rng.integers(code_range(b)[0], code_range(b)[1] + 1)) for b in bits)
        out_bits = int(rng.choice([8, 4, 2]))
        lo, hi = code_range(out_bits)
        out_scale, out_zero = float(max(scales) * 10.0 ** rng.uniform(-1, 1)), int(rng.integers(lo, hi + 1))
        found = affine(scales, zeros, bits, out_scale, out_zero)
        codes = tuple(rng.integers(code_range(b)[0], code_range(b)[1] + 1, 50) for b in bits)
        result = apply_affine(codes, found, lo, hi)
        for index in range(50):
            real = sum(Fraction(s) * (int(c[index]) - z) for s, c, z in zip(scales, codes, zeros, strict=True))
            exact = real / Fraction(out_scale) + out_zero
            wanted = min(max(math.floor(exact + Fraction(1, 2)), lo), hi)
            if result[index] != wanted:
                slack = Fraction(2 ** len(bits) * 255, 2 ** (found.shift + 1))
                assert abs(exact + Fraction(1, 2) - round(exact + Fraction(1, 2))) <= slack


def test_rescaling_never_leaves_int32() -> None:
    """Every partial sum, at every corner of the codes, with the largest shift that allows it."""
    for ratio in (1e-6, 0.01, 1.0, 100.0, 1e5, 4e6):
        found = affine((ratio, 1e-7), (-128, 127), (8, 8), 1.0, -128)
        for corner in itertools.product((-128, 127), repeat=2):
            terms = [c * m for c, m in zip(corner, found.multipliers, strict=True)]
            for part in itertools.chain.from_iterable(
                itertools.permutations([*terms, found.constant], n) for n in (1, 2, 3)
            ):
                assert abs(sum(part)) <= INT32_MAX
        assert found.shift == 24 or 2 * ratio * 2**found.shift * 256 > INT32_MAX / 2
    with pytest.raises(ValueError, match="too large to rescale in int32"):
        affine((1e9,), (0,), (8,), 1.0, 0)


def test_the_same_grid_is_the_identity() -> None:
    assert affine((0.1,), (3,), (8,), 0.1, 3) == Affine.identity()
    codes = np.arange(-128, 128)
    np.testing.assert_array_equal(apply_affine((codes,), Affine.identity(), -128, 127), codes)
    assert not affine((0.1,), (3,), (8,), 0.1, 4).is_identity


def test_accumulator_bound_is_the_worst_case() -> None:
    weights = np.array([[[[3, -4]]], [[[-8, 7]]]])
    found = accumulator_bound(weights, np.array([0, -2]), np.array([100, -5]), 8)
    assert found.tolist() == [100 + 128 * 7, 5 + 128 * (15 + 2 * 2)]
    assert accumulator_bound(weights, np.array([1]), np.array([0, 0]), 2).tolist() == [3 * (7 + 2), 3 * (15 + 2)]


def test_softmax_goldens() -> None:
    table = softmax_table(math.log(2))
    assert table[:4].tolist() == [32768, 16384, 8192, 4096]
    assert table[255] == 0
    assert softmax(np.array([[5, 5, 5, 5]]), table).tolist() == [[-64, -64, -64, -64]]
    assert softmax(np.array([[7, 6, 5, 5]]), table).tolist() == [[0, -64, -96, -96]]
    assert softmax(np.array([[127, -128]]), table).tolist() == [[127, -128]]
    assert softmax(np.array([[0]]), table).tolist() == [[127]]
