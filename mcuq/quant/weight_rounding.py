"""Rounding weights so that a layer's output, not each weight, keeps its value.

The error that a rounded weight leaves is pushed onto the weights not yet rounded, through the inverse of the
layer's input correlations (optimal brain compression, Frantar & Alistarh, NeurIPS 2022; in the order and with
the Cholesky form of GPTQ, ICLR 2023). Before that, weights move to the least-squares answer to the errors that
earlier layers left in the inputs. After it, single codes move as long as the output's error shrinks, and each
channel's step is refitted to its codes. Codes reach one further below zero than above: a channel whose weights fit
better with opposite signs is stored so, its multiplier on the device is negative.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mcuq.ir.graph import Conv2d
from mcuq.quant.network import dilated
from mcuq.quant.ranges import fill_empty
from mcuq.quant.rounding import round_half_up
from mcuq.quant.widths import weight_codes

MAX_ROWS = 1 << 14
"""Output pixels, spread over all images, from which correlations are taken."""
SWEEPS = 4
"""Times every code is looked at again."""
DAMPING = 0.01
"""Share of the mean diagonal added to the correlations: they stay invertible when inputs are dead."""


def patches(op: Conv2d, x: Tensor, generator: torch.Generator) -> Tensor:
    """What the layer's kernel sees: [groups, rows, I/groups * kh * kw] of x [N, C, H, W], at most MAX_ROWS rows."""
    top, left, bottom, right = op.window.padding
    padded = F.pad(dilated(x, op.window.input_dilation), (left, right, top, bottom))
    per_image = op.shape[0] * op.shape[1]
    if len(x) * per_image > 8 * MAX_ROWS:  # unfold copies every pixel kh * kw times
        padded = padded[:: max(1, len(x) * per_image // (8 * MAX_ROWS))]
    columns = F.unfold(padded, op.window.kernel, op.window.dilation, 0, op.window.stride)
    rows = columns.transpose(1, 2).reshape(-1, columns.shape[1])
    if len(rows) > MAX_ROWS:
        rows = rows[torch.randperm(len(rows), generator=generator)[:MAX_ROWS]]
    return rows.reshape(len(rows), op.groups, -1).transpose(0, 1)


def compensate(weight: Tensor, seen: Tensor, meant: Tensor) -> Tensor:
    """Weights [G, O, K] that make, from inputs ``seen``, the outputs that ``weight`` makes from ``meant`` [G, R, K]."""
    correlation = (seen.transpose(1, 2) @ seen).double()
    ridge = _damping(correlation, 10 * DAMPING)
    moved = ((meant - seen).transpose(1, 2) @ seen).double()
    return weight + torch.linalg.solve(correlation + ridge, (weight @ moved).transpose(1, 2)).transpose(1, 2)


def _damping(correlation: Tensor, share: float) -> Tensor:
    size = correlation.shape[-1]
    mean = correlation.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-9)
    return share * mean[:, None, None] * torch.eye(size, dtype=correlation.dtype)


def weighted_steps(weight: Tensor, importance: Tensor, bits: int) -> Tensor:
    """Step per row of ``weight`` [R, K] with the least squared error, weighted by ``importance`` [R, K]."""
    low, high = weight_codes(bits)
    largest = weight.abs().amax(1)
    best = torch.full_like(largest, torch.inf)
    factors = torch.ones_like(largest)
    for factor in torch.linspace(0.3 if bits < 8 else 0.7, 1.05, 76).tolist():
        step = (largest / high * factor).clamp_min(1e-30).unsqueeze(1)
        codes = round_half_up(weight / step).clamp_(low, high)
        error = ((codes * step - weight).square() * importance).sum(1)
        better = error < best
        best, factors = torch.where(better, error, best), torch.where(better, factor, factors)
    return fill_empty(largest / high * factors, largest > 0, 1.0 / high)


def correlations(seen: Tensor) -> Tensor:
    """Damped mean correlations [G, K, K] of inputs ``seen`` [G, R, K]."""
    found = (seen.transpose(1, 2) @ seen).double() / seen.shape[1]
    return found + _damping(found, DAMPING)


def round_with_feedback(weight: Tensor, steps: Tensor, correlation: Tensor, bits: int) -> Tensor:
    """Codes [G, O, K] of ``weight`` on the grids ``steps`` [G, O], for inputs of ``correlation`` [G, K, K]."""
    low, high = weight_codes(bits)
    order = correlation.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True)
    left = torch.take_along_dim(weight, order[:, None, :], 2).clone()
    correlation = torch.take_along_dim(correlation, order[:, :, None], 1)
    correlation = torch.take_along_dim(correlation, order[:, None, :], 2)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(correlation))
    feedback = torch.linalg.cholesky(inverse, upper=True)
    codes = torch.empty_like(left)
    for j in range(left.shape[2]):
        codes[:, :, j] = round_half_up(left[:, :, j] / steps).clamp_(low, high)
        error = (left[:, :, j] - codes[:, :, j] * steps) / feedback[:, j, j, None]
        left[:, :, j + 1 :] -= error[:, :, None] * feedback[:, None, j, j + 1 :]
    return torch.take_along_dim(codes, order.argsort(dim=1)[:, None, :], 2)


def refine(
    weight: Tensor, codes: Tensor, steps: Tensor, correlation: Tensor, bits: int, *, refit: bool, shared: bool = False
) -> tuple[Tensor, Tensor]:
    """(codes, steps) after moving single codes while the output's error shrinks.

    Args:
        refit: steps move, too. shared: together, all channels have one.
    """
    low, high = weight_codes(bits)
    codes, steps = codes.clone(), _refitted(weight, codes, steps, correlation, shared) if refit else steps
    diagonal = correlation.diagonal(dim1=1, dim2=2)
    for _ in range(SWEEPS):
        slope = (codes * steps[:, :, None] - weight) @ correlation
        moved = False
        for j in range(weight.shape[2]):
            wanted = codes[:, :, j] - slope[:, :, j] / (steps * diagonal[:, j, None])
            change = round_half_up(wanted).clamp_(low, high) - codes[:, :, j]
            if bool(change.any()):
                codes[:, :, j] += change
                slope += (change * steps)[:, :, None] * correlation[:, None, j, :]
                moved = True
        if refit:
            steps = _refitted(weight, codes, steps, correlation, shared)
        if not moved:
            break
    return codes, steps


def _refitted(weight: Tensor, codes: Tensor, steps: Tensor, correlation: Tensor, shared: bool) -> Tensor:
    """Steps [G, O] with the least output error for fixed codes; all alike if ``shared``."""
    seen = codes @ correlation
    fit, power = (seen * weight).sum(2), (seen * codes).sum(2)
    if shared:
        fit, power = fit.sum(), power.sum()
    return torch.where((fit > 0) & (power > 0), fit / power.clamp_min(1e-30), steps)


def output_error(weight: Tensor, codes: Tensor, steps: Tensor, correlation: Tensor) -> Tensor:
    """Mean squared error [G, O] of the outputs."""
    error = codes * steps[:, :, None] - weight
    return ((error @ correlation) * error).sum(2)
