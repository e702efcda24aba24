"""Weights of one layer to codes, for :mod:`mcuq.quant.ptq`: steps per channel, then nearest or feedback rounding."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mcuq.ir.graph import Conv2d
from mcuq.ir.scaling import restricted
from mcuq.quant import weight_rounding
from mcuq.quant.ranges import symmetric_mse_steps
from mcuq.quant.rounding import round_half_up
from mcuq.quant.widths import weight_codes


@dataclass(frozen=True, slots=True)
class WeightRule:
    """How a layer's weights become codes.

    Attributes:
        bits: width. given: scale per channel [O] that goes before the rest. power_of_two: one power of two for
            the layer. least_error: steps of least squared error, else the largest magnitude. feedback: rounding.
        free: steps may follow the codes and have either sign. shared: one step for the layer.
    """

    bits: int
    given: Tensor | None
    power_of_two: bool
    least_error: bool
    feedback: bool
    free: bool
    shared: bool = False


def quantize_weights(
    op: Conv2d, weight: Tensor, rule: WeightRule, meant: Tensor, seen: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """(codes [O, I/groups, kh, kw], scale [O]) of ``weight``; a negative scale is a channel of opposite sign.

    Args:
        meant, seen: float and stored values of the layer's input; feedback corrects their difference, too.
    """
    outputs = len(weight)
    rows = weight.reshape(outputs, -1).double()
    if not rule.feedback:
        scale = _steps(rows, rule, torch.empty(0))
        codes = round_half_up(rows / scale[:, None]).clamp_(*weight_codes(rule.bits))
        return codes.reshape(weight.shape), scale
    state = generator.get_state()
    patches = weight_rounding.patches(op, seen, generator)
    generator.set_state(state)  # the same rows of both
    grouped = rows.reshape(op.groups, outputs // op.groups, -1)
    grouped = weight_rounding.compensate(grouped, patches, weight_rounding.patches(op, meant, generator))
    codes, steps = _round(grouped, rule, patches)
    return codes.reshape(weight.shape), steps.flatten()


def _round(weight: Tensor, rule: WeightRule, patches: Tensor) -> tuple[Tensor, Tensor]:
    """(codes [G, O, K], steps [G, O]) by feedback; where steps are free, of the sign with the smaller error."""
    correlation = weight_rounding.correlations(patches)
    power = patches.double().square().mean(1)
    best: tuple[Tensor, Tensor, Tensor] | None = None
    for sign in (1.0, -1.0) if rule.free else (1.0,):
        target = weight * sign
        rows = target.flatten(0, 1)
        steps = _steps(rows, rule, power.repeat_interleave(weight.shape[1], 0)).reshape(weight.shape[:2])
        codes = weight_rounding.round_with_feedback(target, steps, correlation, rule.bits)
        codes, steps = weight_rounding.refine(
            target, codes, steps, correlation, rule.bits, refit=rule.free, shared=rule.shared
        )
        error = weight_rounding.output_error(target, codes, steps, correlation)
        if rule.shared:
            error = error.sum().expand_as(error)
        if best is None:
            best = error, codes, steps
        else:
            better = error < best[0]
            best = error, torch.where(better[:, :, None], codes, best[1]), torch.where(better, -steps, best[2])
    assert best is not None
    return best[1], best[2]


def _steps(rows: Tensor, rule: WeightRule, power: Tensor) -> Tensor:
    """Scale per output channel [O]; ``power`` of the inputs weighs errors [O, K] (empty: all alike)."""
    if rule.given is not None:
        return rule.given
    if rule.shared:
        return _steps(rows.reshape(1, -1), replace(rule, shared=False), power.reshape(1, -1)).repeat(len(rows))
    if rule.power_of_two:
        if rule.least_error:
            return _power_of_two_step(rows, rule.bits)
        return torch.full((len(rows),), 2.0 ** -weight_fl(float(rows.abs().max()), rule.bits), dtype=torch.float64)
    if not rule.least_error:
        largest = rows.abs().amax(1)
        return torch.where(largest > 0, largest, torch.ones_like(largest)) / weight_codes(rule.bits)[1]
    if power.numel():
        return weight_rounding.weighted_steps(rows, power, rule.bits)
    return symmetric_mse_steps(rows, rule.bits)


def steps_of_form(weight: Tensor, bits: int, ratio: Tensor, form: str) -> Tensor:
    """Scale per output channel [O] with which the requantization factor is one of ``form`` exactly.

    Of some such near the step of least squared error, the one with the least. A factor that is rounded later instead
    would change the channel's gain, by up to a third where it has to be a power of two.

    Args:
        ratio: factor / scale [O]; channels where it is 0 keep their step.
    """
    low, high = weight_codes(bits)
    rows = weight.flatten(1).double()
    plain = symmetric_mse_steps(rows, bits)
    best, steps = torch.full_like(plain, torch.inf), plain
    for stretch in (1.0, 0.71, 1.41, 2.0):
        factors = torch.from_numpy(restricted((plain * ratio * stretch).numpy(), form))
        trial = torch.where((ratio > 0) & (factors > 0), factors / ratio, plain)
        codes = round_half_up(rows / trial[:, None]).clamp_(low, high)
        error = (codes * trial[:, None] - rows).square().sum(1)
        better = error < best
        best, steps = torch.where(better, error, best), torch.where(better, trial, steps)
    return steps


def weight_fl(largest: float, bits: int) -> int:
    """Fractional bits of a layer's weights by the rule of CHaiDNN's fusion: bits minus 1, 2 or ceil(log2 max) + 1.

    Args:
        largest: magnitude, which is below one, one, or above.
    """
    integer = 1 if largest < 1 else 2 if largest == 1 else math.ceil(math.log2(largest)) + 1
    return bits - integer


def _power_of_two_step(rows: Tensor, bits: int) -> Tensor:
    """One power of two for the layer, with the least squared error of all its weights."""
    low, high = weight_codes(bits)
    largest = max(float(rows.abs().max()), 1e-12)
    up = 2.0 ** np.ceil(np.log2(largest / high) - 1e-9)

    def error(step: float) -> float:
        return float((round_half_up(rows / step).clamp_(low, high) * step - rows).square().sum())

    return torch.full((len(rows),), min((up, up / 2, up / 4), key=error), dtype=torch.float64)
