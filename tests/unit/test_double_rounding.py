"""TFLite's two roundings, in exact integers, against the one rounding of an imported network."""

from __future__ import annotations

import numpy as np
import pytest

from mcuq.frontend.tflite.double_rounding import boundary_shift
from mcuq.numerics import quantize_multiplier, requantize


def twice_rounded(acc: int, multiplier: int, shift: int) -> int:
    """A doubling high multiply rounded to an integer, then a division by a power of two, half away from zero."""
    high = (acc * multiplier + (1 << 30)) >> 31
    exponent = shift - 31
    magnitude = (abs(high) + ((1 << exponent) >> 1)) >> exponent
    return magnitude if high >= 0 else -magnitude


def differing(factor: float, lowest: int, fitted: bool) -> float:
    """Share of accumulators, near codes counting most, whose code is not the reference's; never by more than 1."""
    multiplier, shift = quantize_multiplier(factor)
    step, rate = 0, 0.0
    if fitted:
        steps, rates = boundary_shift(np.array([factor]), np.arange(lowest + 1, 128.0))
        step, rate = int(steps[0]), float(rates[0])
    ours = quantize_multiplier(factor * (1 + rate))
    acc = np.arange(int((lowest - 1) / factor), int(60 / factor), 3)
    wanted = np.array([max(lowest, twice_rounded(int(a), multiplier, shift)) for a in acc])
    found = requantize(acc + step, *ours, 0, lowest, 10**6)
    assert np.abs(found - wanted).max() <= 1
    weight = np.exp(-np.abs(wanted) / 20)
    return float((found != wanted) @ weight / weight.sum())


@pytest.mark.parametrize(("lowest", "gain"), [(0, 3.0), (-60, 1.25)])
def test_fitted_biases_and_multipliers_differ_less_often(lowest: int, gain: float) -> None:
    """Behind a ReLU a third of the steps are left; tensors of both signs need opposite nudges and keep more."""
    factors = np.exp(np.random.default_rng(3).uniform(np.log(1 / 400), np.log(1 / 60), 20)).tolist()
    plain, fitted = (np.mean([differing(f, lowest, on) for f in factors]) for on in (False, True))
    assert fitted * gain < plain


def test_large_and_unusable_factors_stay() -> None:
    for factors in ([0.7, 0.01], [np.inf], [np.nan, 0.01], [0.0], [1e-12]):
        step, rate = boundary_shift(np.array(factors), np.arange(1.0, 256.0))
        assert not step.any() and not rate.any()
