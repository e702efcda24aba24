"""Choosing ranges: minimum squared error, percentiles and progressive projection (PPQ)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from mcuq.errors import UsageError
from mcuq.numerics import code_range
from mcuq.quant.grid import Grid, symmetric_grid
from mcuq.quant.rounding import round_half_up

SEARCH_SAMPLES = 1 << 14
"""Values per tensor on which activation ranges are searched; the extremes are always kept."""


def symmetric_mse_steps(rows: Tensor, bits: int) -> Tensor:
    """Step per row with the least squared error of symmetric codes, by grid search and one refinement.

    Args:
        rows: [R, K]. Rows of zeros get the median step of the others (1 / top when all are zero).
    """
    return mse_steps(rows, symmetric_grid((1 << bits) - 1))


def mse_steps(rows: Tensor, grid: Grid) -> Tensor:
    """As :func:`symmetric_mse_steps`, for the codes of ``grid``."""
    return _mse_fit(rows, grid)[0]


def either_sign_steps(rows: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """As :func:`mse_steps`, for ``rows`` or their negatives, whichever fit better: (steps, sign 1 or -1), both [R]."""
    steps, error = _mse_fit(rows, grid)
    other, other_error = _mse_fit(-rows, grid)
    better = other_error < error
    return torch.where(better, other, steps), torch.where(better, -torch.ones_like(steps), torch.ones_like(steps))


def _mse_fit(rows: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """(step, squared error) per row."""
    largest = rows.abs().amax(dim=1)
    top = largest / grid.high
    best = torch.full_like(top, torch.inf)
    factors = torch.ones_like(top)
    for factor in torch.linspace(0.04, 1.04, 51).tolist():
        best, factors = _keep_better(rows, top, torch.full_like(top, factor), grid, best, factors)
    centre = factors.clone()
    for shift in torch.linspace(-0.018, 0.018, 9).tolist():
        best, factors = _keep_better(rows, top, centre + shift, grid, best, factors)
    return fill_empty(top * factors, largest > 0, 1.0 / grid.high), best


def _keep_better(
    rows: Tensor, top: Tensor, trial: Tensor, grid: Grid, best: Tensor, factors: Tensor
) -> tuple[Tensor, Tensor]:
    step = (top * trial).clamp_min(torch.finfo(rows.dtype).tiny).unsqueeze(1)
    codes = grid.nearest(rows / step, grid.low, grid.high)
    error = (codes.mul_(step) - rows).square_().sum(dim=1)
    better = error < best
    return torch.where(better, error, best), torch.where(better, trial, factors)


def fill_empty(steps: Tensor, used: Tensor, default: float) -> Tensor:
    """``steps`` where ``used``, elsewhere the median of the used ones (``default`` when there is none)."""
    fallback = steps[used].median() if bool(used.any()) else torch.tensor(default, dtype=steps.dtype)
    return torch.where(used, steps, fallback)


def progressive_projection(weights: Tensor, levels: int, rounds: int = 10) -> tuple[float, float]:
    """Thresholds (low, high) of ``levels`` + 1 codes by progressive projection quantization; never worse than min/max.

    From the widest step on, codes are fixed and the least-squares step for them is taken,
    g = sum(q w) / sum(q q). The thresholds of the round with the least squared error are returned; min/max
    is one of the candidates.
    """
    w = weights.detach().flatten().double()
    mean = float(w.mean())
    step = 2.0 / levels * float((w - mean).abs().max())
    candidates = [(min(float(w.min()), 0.0), max(float(w.max()), 0.0))]
    for _ in range(rounds):
        if step <= 0.0:
            break
        high, low = max(mean + step * levels / 2, 0.0), min(mean - step * levels / 2, 0.0)
        candidates.append((low, high))
        q = round_half_up(w.clamp(low, high) / step)
        energy = float((q * q).sum())
        step = float((q * w).sum()) / energy if energy > 0 else 0.0
    return min(candidates, key=lambda c: asymmetric_error(w, c[0], c[1], levels))


def asymmetric_error(w: Tensor, low: float, high: float, levels: int) -> float:
    """Sum of squared errors of ``levels`` + 1 asymmetric codes between thresholds low <= 0 <= high."""
    clamped = w.clamp(low, high)
    span = max(float(clamped.max()), 0.0) - min(float(clamped.min()), 0.0)
    step = (span if span > 0 else 1.0) / levels
    zero = min(max(int(-(min(float(clamped.min()), 0.0) / step + 0.5) // 1), 0), levels)
    q = round_half_up(clamped / step).clamp_(-zero, levels - zero)
    return float((q * step - w).square().sum())


def sample_values(x: Tensor, count: int = SEARCH_SAMPLES) -> Tensor:
    """At most ``count`` evenly spaced values of ``x`` and its two extremes, as a vector."""
    flat = x.detach().flatten()
    stride = max(1, -(-flat.numel() // count))
    return torch.cat([flat[::stride], flat.min().reshape(1), flat.max().reshape(1)])


def mse_activation_range(
    values: Tensor, bits: int, *, signed: bool, steps: int | None = None, fixed_zero: int | None = None
) -> tuple[float, int]:
    """(scale, zero point) with the least squared error on ``values``; zero is always representable.

    Args:
        values: vector of samples. ``signed``: the tensor can be negative, so the zero point is free.
        steps: codes in use less one, from the lowest on; None is all.
        fixed_zero: the zero point, counted from the lowest code.
    """
    qmin, qmax = code_range(bits)
    levels = qmax - qmin if steps is None else steps
    x = values.double()
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    if not signed:
        low = 0.0
    span = high - low
    if span <= 0.0:
        return 1.0 / levels, qmin
    best = (torch.inf, 1.0 / levels, 0)
    zeros = [fixed_zero] if fixed_zero is not None else _zero_candidates(low, span, levels, bits) if signed else [0]
    for zero in zeros:
        room = max(high / (levels - zero) if zero < levels else 0.0, -low / zero if zero else 0.0)
        if zero == 0 and signed:
            room = high / levels
        trials = torch.linspace(0.05, 1.0, 39).tolist() if bits < 8 else torch.linspace(0.4, 1.0, 25).tolist()
        for factor in trials:
            step = room * factor
            if step <= 0.0:
                continue
            q = round_half_up(x / step).clamp_(-zero, levels - zero)
            error = float((q.mul_(step) - x).square_().sum())
            if error < best[0]:
                best = (error, step, zero)
    return best[1], qmin + best[2]


def _zero_candidates(low: float, span: float, levels: int, bits: int) -> list[int]:
    exact = round(-low / span * levels)
    reach = 2 if bits == 8 else levels
    return [z for z in range(exact - reach, exact + reach + 1) if 0 <= z <= levels]


def percentile_activation_range(
    values: Tensor, bits: int, *, signed: bool, fraction: float = 0.9995, steps: int | None = None
) -> tuple[float, int]:
    """(scale, zero point) that covers the central ``fraction`` of ``values`` and zero."""
    qmin, qmax = code_range(bits)
    qmax = qmax if steps is None else qmin + steps
    x = values.double()
    high = max(float(torch.quantile(x, fraction)), 0.0)
    low = min(float(torch.quantile(x, 1.0 - fraction)), 0.0) if signed else 0.0
    span = high - low
    if span <= 0.0:
        return 1.0 / (qmax - qmin), qmin
    step = span / (qmax - qmin)
    return step, min(max(qmin + int((-low / step + 0.5) // 1), qmin), qmax)


RangeMethod = Literal["mse", "percentile", "minmax", "lsq"]


def activation_range(
    values: Tensor, bits: int, *, signed: bool, method: str = "mse", steps: int | None = None
) -> tuple[float, int]:
    """(scale, zero point) for ``values`` by ``method``.

    Least squared error, central 99.95 %, all of them, or LSQ's start 2 mean|x| / sqrt(Qp). ``steps``: see
    :func:`mse_activation_range`.

    Raises:
        UsageError: unknown method.
    """
    match method:
        case "mse":
            return mse_activation_range(values, bits, signed=signed, steps=steps)
        case "percentile":
            return percentile_activation_range(values, bits, signed=signed, steps=steps)
        case "minmax":
            return percentile_activation_range(values, bits, signed=signed, fraction=1.0, steps=steps)
        case "lsq":
            return _lsq_start(values, bits, signed=signed, steps=steps)
        case _:
            raise UsageError(f"range method must be {', '.join(get_args(RangeMethod))}, got {method!r}")


def _lsq_start(values: Tensor, bits: int, *, signed: bool, steps: int | None) -> tuple[float, int]:
    """Step 2 mean|x| / sqrt(Qp) (Esser et al., 2020); the zero point of signed values lies in the middle."""
    qmin, qmax = code_range(bits)
    levels = qmax - qmin if steps is None else steps
    below = (levels + 1) // 2 if signed else 0
    mean = float(values.double().abs().mean())
    return (2.0 * mean / (levels - below) ** 0.5 if mean > 0 and levels > below else 1.0 / levels), qmin + below
