"""Weights of one layer to codes, for :mod:`mcuq.quant.ptq`: steps per channel, then nearest or feedback rounding."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mcuq.ir.graph import Conv2d
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
    """

    bits: int
    given: Tensor | None
    power_of_two: bool
    least_error: bool
    feedback: bool


def quantize_weights(
    op: Conv2d, weight: Tensor, rule: WeightRule, meant: Tensor, seen: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """(codes [O, I/groups, kh, kw], scale [O]) of ``weight``.

    Args:
        meant, seen: float and stored values of the layer's input; feedback corrects their difference, too.
    """
    outputs = len(weight)
    rows = weight.reshape(outputs, -1).double()
    grouped = rows.reshape(op.groups, outputs // op.groups, -1)
    patches = torch.empty(0)
    if rule.feedback:
        state = generator.get_state()
        patches = weight_rounding.patches(op, seen, generator)
        generator.set_state(state)  # the same rows of both
        grouped = weight_rounding.compensate(grouped, patches, weight_rounding.patches(op, meant, generator))
        rows = grouped.reshape(outputs, -1)
    scale = _steps(rows, rule, patches, op.groups)
    if rule.feedback:
        steps = scale.reshape(op.groups, -1)
        codes = weight_rounding.round_with_feedback(grouped, steps, patches, rule.bits).reshape(outputs, -1)
    else:
        codes = round_half_up(rows / scale[:, None]).clamp_(*weight_codes(rule.bits))
    return codes.reshape(weight.shape), scale


def _steps(rows: Tensor, rule: WeightRule, patches: Tensor, groups: int) -> Tensor:
    """Scale per output channel [O]."""
    if rule.given is not None:
        return rule.given
    if rule.power_of_two:
        if rule.least_error:
            return _power_of_two_step(rows, rule.bits)
        return torch.full((len(rows),), 2.0 ** -weight_fl(float(rows.abs().max()), rule.bits), dtype=torch.float64)
    if not rule.least_error:
        largest = rows.abs().amax(1)
        return torch.where(largest > 0, largest, torch.ones_like(largest)) / weight_codes(rule.bits)[1]
    if patches.numel():
        power = patches.square().mean(1).repeat_interleave(len(rows) // groups, 0)
        return weight_rounding.weighted_steps(rows, power, rule.bits)
    return symmetric_mse_steps(rows, rule.bits)


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
