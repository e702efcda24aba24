"""Ranges of activations from samples, without training: minimum and maximum, percentile, squared error, divergence.

Three grids: ``affine`` (any scale, free zero point), ``threshold`` (symmetric, one threshold per tensor, its
largest code stands for the threshold) and ``fixed`` (dynamic fixed point: symmetric, scale a power of two).
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcuq.ir.quantized import QuantParams
from mcuq.numerics import code_range
from mcuq.quant.ranges import mse_activation_range
from mcuq.quant.rounding import round_half_up
from mcuq.quant.widths import activation_codes, symmetric_params, used_codes

RangeMethod = Literal["absmax", "percentile", "mse", "kl"]
Grid = Literal["affine", "threshold", "fixed"]
RANGE_METHODS: tuple[RangeMethod, ...] = get_args(RangeMethod)
GRIDS: tuple[Grid, ...] = get_args(Grid)
BINS = 2048
SMALLEST = 1e-12


def activation_params(
    values: Tensor, bits: int, *, signed: bool, method: RangeMethod, grid: Grid = "affine", percentile: float = 0.9999
) -> QuantParams:
    """Scale and zero point for a tensor with samples ``values`` (a vector).

    Args:
        bits: 8, 4, 2; on the grids ``threshold`` and ``fixed`` also 6. signed: the tensor can be negative.
        percentile: central share that is kept, of the ``percentile`` method.
    """
    x = values.double()
    if grid == "affine":
        if method == "mse":
            scale, zero = mse_activation_range(x, bits, signed=signed)
            return QuantParams(bits, scale, zero)
        low, high = limits(x, bits, method, percentile)
        return affine_params(low if signed else max(low, 0.0), high, bits)
    top, zero = symmetric_codes(bits, signed=signed)
    if method == "mse":
        scale = symmetric_scale(x, top, zero, bits)
    else:
        low, high = limits(x, bits, method, percentile)
        scale = max(high, -low, SMALLEST) / top
    if grid == "fixed":
        scale = power_of_two(x, scale, zero, bits, exact=method == "mse")
    return symmetric_params(bits, scale, zero)


def limits(x: Tensor, bits: int, method: RangeMethod, percentile: float) -> tuple[float, float]:
    """(low, high) with low <= 0 <= high by one of the methods but ``mse``."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    if method == "percentile":
        sample = x[:: max(1, x.numel() // 1_000_000)].numpy()
        share = (1.0 - percentile) / 2 if low < 0 else 1.0 - percentile
        return max(low, min(float(np.quantile(sample, share)), 0.0)), min(
            high, max(float(np.quantile(sample, 1 - share)), 0.0)
        )
    if method == "kl":
        threshold = kl_threshold(x.abs().numpy(), (1 << bits) - 1 if low == 0.0 else (1 << (bits - 1)) - 1)
        return max(low, -threshold), min(high, threshold)
    return low, high


def affine_params(low: float, high: float, bits: int) -> QuantParams:
    """Parameters whose grid spans ``low <= 0 <= high`` and holds zero; an empty range counts as 1."""
    first, last = code_range(bits)
    span = high - low
    scale = (span if span > SMALLEST else 1.0) / (last - first)
    return QuantParams(bits, scale, min(max(first + math.floor(-low / scale + 0.5), first), last))


def symmetric_codes(bits: int, *, signed: bool) -> tuple[int, int]:
    """(codes from zero to the threshold, zero point) of a symmetric grid in the codes that the device stores.

    8 and 6 bits: +-127 and +-31 around code 0. Below, codes are unsigned: signed tensors have zero in the middle.
    """
    if bits in (8, 6):
        return (1 << (bits - 1)) - 1, 0
    return ((1 << (bits - 1)) - 1, 1 << (bits - 1)) if signed else ((1 << bits) - 1, 0)


def symmetric_scale(x: Tensor, top: int, zero: int, bits: int) -> float:
    """Scale of a symmetric grid with the least squared error."""
    largest = max(float(x.abs().max()), SMALLEST)
    trials = [largest * factor / top for factor in np.linspace(0.2 if bits < 8 else 0.4, 1.0, 61)]
    return min(trials, key=lambda scale: grid_error(x, scale, zero, bits))


def grid_error(x: Tensor, scale: float, zero: int, bits: int) -> float:
    """Squared error of ``x`` on a grid."""
    first, last = activation_codes(bits)
    q = round_half_up(x / scale).clamp_(first - zero, last - zero)
    return float((q.mul_(scale) - x).square_().sum())


def power_of_two(x: Tensor, scale: float, zero: int, bits: int, *, exact: bool) -> float:
    """The power of two above ``scale``, or with ``exact`` the better of both neighbours by squared error."""
    up = 2.0 ** math.ceil(math.log2(scale) - 1e-9)
    return min((up, up / 2), key=lambda s: grid_error(x, s, zero, bits)) if exact else up


def kl_threshold(magnitudes: NDArray[np.float64], levels: int) -> float:
    """Clipping threshold whose quantized histogram diverges least from the original (Migacz, GTC 2017).

    Args:
        magnitudes: absolute values. levels: codes between zero and the threshold.
    """
    largest = float(magnitudes.max(initial=0.0))
    if largest <= SMALLEST:
        return largest
    counts, _ = np.histogram(magnitudes, bins=BINS, range=(0.0, largest))
    counts[0] = 0  # exact zeros are represented exactly
    best = (math.inf, BINS)
    for size in range(min(levels + 1, BINS), BINS + 1, 16):
        best = min(best, (_divergence(counts.astype(np.float64), size, levels), size))
    return largest * best[1] / BINS


def _divergence(counts: NDArray[np.float64], size: int, levels: int) -> float:
    reference = counts[:size].copy()
    reference[-1] += counts[size:].sum()
    group = np.arange(size) * levels // size
    present = counts[:size] > 0
    total = np.bincount(group, counts[:size], minlength=levels)
    members = np.bincount(group, present, minlength=levels)
    spread = np.where(present, (total / np.maximum(members, 1))[group], 0.0)
    if spread.sum() == 0 or reference.sum() == 0:
        return math.inf
    p, q = reference / reference.sum(), spread / spread.sum()
    inside = p > 0
    return float((p[inside] * np.log(p[inside] / np.maximum(q[inside], 1e-9))).sum())


def fake_quantize(x: Tensor, params: QuantParams) -> Tensor:
    """``x`` rounded to the grid of ``params``."""
    first, last = used_codes(params)
    q = round_half_up(x / params.scale).clamp_(first - params.zero_point, last - params.zero_point)
    return q.mul_(params.scale)


def sample(x: Tensor, count: int) -> Tensor:
    """At most ``count`` evenly spread values of ``x`` and its extremes, as a vector."""
    flat = x.flatten()
    stride = max(1, -(-flat.numel() // count)) | 1  # odd: does not lock to even rows and channels
    return torch.cat([flat[::stride], flat.min().reshape(1), flat.max().reshape(1)])
