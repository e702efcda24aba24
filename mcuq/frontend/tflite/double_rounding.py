"""TFLite's two roundings: kept, or answered with one by scales and biases under which fewer values differ by a step.

TFLite's reference kernels round a product twice: ``h = round(acc * m / 2^31)``, then ``h / 2^e`` half away
from zero. For positive sums that is one rounding half up with the constant ``2^(s-1) + 2^30``, ``s = 31 + e``, for
negative ones with ``2^(s-1) - 2^30``: each boundary between two codes lies ``2^30 / m``, half to one step of the
accumulator, closer to zero. mcuq's constant is fixed (docs/NUMERICS.md), bias and multiplier are free: a bias one step
larger moves every boundary by one step, a multiplier larger by a factor 1 + r moves the j-th by r times its distance.
Each channel gets the pair that leaves the least distance, codes near zero counting most. Fully connected layers are
left alone: LiteRT rounds them once.

Average pools divide the plain sum of codes, half away from zero: ties of codes below zero go down. A multiplier one or
two units smaller sends ties down and changes nothing else.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from mcuq.ir.graph import AvgPool, Conv2d, FloatArray
from mcuq.ir.quantized import ActivationQuant, QuantizedGraph, QuantParams, WeightQuant
from mcuq.numerics import SHIFT_MAX, code_range, quantize_multiplier

SPREAD = 12.0
"""Codes are taken to fall off from zero like exp(-|code| / SPREAD)."""
STEPS = (0, 1, -1)
CROSSINGS = (2.0, 4.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0, 128.0, np.inf)
"""Codes at which a changed multiplier meets the boundary exactly."""
TIES = 1.0 + 2.0**-29
"""A scale larger by this makes a multiplier of 31 bits smaller by one or two units."""
CHUNK = 64
"""Channels fitted together."""


def with_one_rounding(graph: QuantizedGraph, layers: Set[str]) -> QuantizedGraph:
    """``graph`` as the file has it; scales and biases of the convolutions ``layers`` follow the reference kernels."""
    params = {a.tensor: a.params for a in graph.activations}
    ops = {op.name: op for op in graph.graph}
    weights: list[WeightQuant] = []
    for weight in graph.weights:
        op = ops[weight.layer]
        assert isinstance(op, Conv2d)
        plain = params[op.name].bits == 8 and np.all(weight.gain == 1.0) and not np.any(weight.zero_point)
        weights.append(_fitted(weight, op, params) if plain and op.name in layers else weight)
    return QuantizedGraph(graph.graph, tuple(weights), _with_ties_down(graph))


def with_two_roundings(graph: QuantizedGraph, layers: Set[str]) -> QuantizedGraph:
    """``graph`` as the file has it; the convolutions ``layers`` round twice where their outputs have 8 bits."""
    twice = {a.tensor for a in graph.activations if a.tensor in layers and a.params.bits == 8}
    weights = tuple(replace(w, roundings=2) if w.layer in twice else w for w in graph.weights)
    return QuantizedGraph(graph.graph, weights, _with_ties_down(graph))


def _with_ties_down(graph: QuantizedGraph) -> tuple[ActivationQuant, ...]:
    params = {a.tensor: a.params for a in graph.activations}
    for op in graph.graph:
        if isinstance(op, AvgPool) and params[op.name] == params[op.inputs[0]]:
            params[op.name] = replace(params[op.name], scale=params[op.name].scale * TIES)
    return tuple(ActivationQuant(a.tensor, params[a.tensor]) for a in graph.activations)


def _fitted(weight: WeightQuant, op: Conv2d, params: dict[str, QuantParams]) -> WeightQuant:
    target = params[op.name]
    unit = params[op.inputs[0]].scale * weight.scale
    low, high = (end - target.zero_point for end in code_range(target.bits))
    if op.clamp[0] is not None:
        low = max(low, int(np.clip(np.floor(op.clamp[0] / target.scale), -256, 256)))
    if op.clamp[1] is not None:
        high = min(high, int(np.clip(np.ceil(op.clamp[1] / target.scale), -256, 256)))
    codes = np.arange(low + 1, high + 1, dtype=np.float64)
    if not codes.size:
        return weight
    chunks = [boundary_shift(unit[i : i + CHUNK] / target.scale, codes) for i in range(0, len(unit), CHUNK)]
    step, rate = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    with np.errstate(all="ignore"):
        bias = (np.floor(weight.bias / unit + 0.5) + step) * (unit * (1.0 + rate))
    moved = np.isfinite(bias) & ((step != 0) | (rate != 0))
    return replace(weight, scale=weight.scale * (1.0 + rate), bias=np.where(moved, bias, weight.bias))


def boundary_shift(factors: FloatArray, codes: FloatArray) -> tuple[NDArray[np.int64], FloatArray]:
    """(steps to add to the bias, relative change of the multiplier) per channel.

    Args:
        factors: Sx * Sw / Sy [C]. codes: the codes, zero point taken off, whose lower boundaries matter [K].
    """
    none = np.zeros(len(factors), np.int64), np.zeros(len(factors))
    if not np.all(np.isfinite(factors)) or factors.min() <= 2.0 ** (30 - SHIFT_MAX) or factors.max() >= 0.5:
        return none  # at or above one half there is no second rounding
    multiplier, shift = np.array([quantize_multiplier(float(f)) for f in factors], dtype=np.float64).T
    width, nudge = (2.0**shift / multiplier)[:, None], (2.0**30 / multiplier)[:, None]
    boundary = (codes - 0.5) * width
    wanted = np.ceil(boundary - np.sign(codes - 0.5) * nudge)
    importance = np.exp(-np.abs(codes) / SPREAD)
    pairs = [(step, (nudge - step) / ((at - 0.5) * width)) for step, at in product(STEPS, CROSSINGS)]
    distances = [np.abs(np.ceil(boundary / (1.0 + rate)) - step - wanted) @ importance for step, rate in pairs]
    best = np.argmin(np.stack(distances), axis=0)
    rates = np.stack([rate[:, 0] for _, rate in pairs])
    return np.array([step for step, _ in pairs])[best], rates[best, np.arange(len(best))]
