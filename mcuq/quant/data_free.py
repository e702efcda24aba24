"""Sensitivity without data, from weights and batch norms alone: what ``mcuq solve`` uses."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor

from mcuq.ir import graph as ir
from mcuq.ir.graph import Graph
from mcuq.ir.plans import Sensitivity
from mcuq.quant.activations import clip
from mcuq.quant.float_model import FloatModel
from mcuq.quant.network import clamp_of, evaluate, non_negative
from mcuq.quant.sensitivity import (
    Key,
    activation_params,
    choices,
    measured_activations,
    noise_to_signal,
    quantized_activation,
    quantized_weights,
    table,
)

QUANTILES = 96
"""Values per channel of the distributions :func:`data_free` assumes."""


def data_free(graph: Graph, *, per_layer: Collection[str] = ()) -> Sensitivity:
    """Noise-to-signal power of each tensor without any data.

    Weights: the real ones, per channel (those of ``per_layer`` with one step for the layer, too). Activations: a
    convolution with batch norm writes Normal(beta, |gamma|) per channel, others Normal(bias, sum w^2 E[x^2]); then the
    operator's clamp. Pools, additions and joins combine their inputs' values as if independent. Raw pixels are
    uniform, other inputs Normal(0, 1). The sum of noise-to-signal ratios estimates that of the scores when layers add
    noise independently.
    """
    model = FloatModel(graph)
    graph = model.graph
    losses: dict[Key, float] = {}
    for op in graph.convs:
        weight = model.weights[op.name]
        for choice in choices(op.name, per_layer):
            losses[op.name, "weight", choice] = noise_to_signal(quantized_weights(weight, choice), weight)
    positive = non_negative(graph)
    assumed: dict[str, Tensor] = {}
    widths = measured_activations(graph)
    for op in graph:
        assumed[op.name] = _assumed_values(op, tuple(assumed[name] for name in op.inputs))
        for bits in widths.get(op.name, ()):
            values = assumed[op.name].flatten()
            params = activation_params(values, bits, op, signed=op.name not in positive)
            losses[op.name, "activation", bits] = noise_to_signal(quantized_activation(values, params), values)
    return table("data-free", losses)


def _assumed_values(op: ir.FloatOp, inputs: tuple[Tensor, ...]) -> Tensor:
    """Values [QUANTILES, C] that stand for the distribution of ``op``'s output."""
    match op:
        case ir.Input():
            return _input_values(op)
        case ir.Conv2d():
            values = _conv_values(op, inputs[0])
        case ir.Add():
            values = inputs[0] + _shuffled(inputs[1], 1) * (-1.0 if op.subtract else 1.0)
        case ir.Mul():
            values = inputs[0] * _shuffled(inputs[1], 1)
        case ir.Extremum():
            choose = torch.minimum if op.smallest else torch.maximum
            values = choose(inputs[0], _shuffled(inputs[1], 1))
        case ir.Activation() | ir.Prelu() | ir.L2Normalize():
            values = evaluate(op, (inputs[0][:, :, None, None],), _none)[:, :, 0, 0]
        case ir.Concat():
            values = torch.cat(inputs, 1)
        case ir.MaxPool():
            values = torch.stack([_shuffled(inputs[0], i) for i in range(_taps(op.window))]).amax(0)
        case ir.AvgPool():
            values = torch.stack([_shuffled(inputs[0], i) for i in range(_taps(op.window))]).mean(0)
        case ir.Reshape() | ir.Copy():
            values = inputs[0].flatten()[:: inputs[0].shape[1]].unsqueeze(1).expand(-1, op.shape[2])
        case _:
            values = inputs[0]
    return clip(values, clamp_of(op))


def _none(op: ir.Conv2d, x: Tensor) -> Tensor:
    raise AssertionError(f"{op.name} has weights")


def _taps(window: ir.Window) -> int:
    return min(window.kernel[0] * window.kernel[1], 64)


def _input_values(op: ir.Input) -> Tensor:
    channels = op.shape[2]
    if op.normalization is None:
        return _normal().unsqueeze(1).expand(-1, channels)
    pixels = torch.linspace(0, 255, QUANTILES).round()
    real = (pixels - op.normalization.zero_point) * op.normalization.scale
    return real.unsqueeze(1).expand(-1, channels)


def _conv_values(op: ir.Conv2d, x: Tensor) -> Tensor:
    if op.norm is not None:
        mean, deviation = op.norm.beta, np.abs(op.norm.gamma)
    else:
        power = x.double().square().mean(0).numpy()
        groups = np.split(power, op.groups) if len(power) == op.weight.shape[3] * op.groups else None
        mean = np.zeros(len(op.weight)) if op.bias is None else op.bias
        energy = np.square(op.weight).sum(axis=(1, 2))
        if groups is None:
            deviation = np.sqrt(energy.sum(1) * power.mean())
        else:
            each = np.repeat(np.stack(groups), len(op.weight) // op.groups, axis=0)
            deviation = np.sqrt((energy * each).sum(1))
    centre = torch.from_numpy(np.asarray(mean, dtype=np.float64)).float()
    spread = torch.from_numpy(np.asarray(deviation, dtype=np.float64)).float()
    return _normal().unsqueeze(1) * spread + centre


def _normal() -> Tensor:
    """Standard normal quantiles [QUANTILES]."""
    return torch.special.ndtri((torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES).float()


def _shuffled(values: Tensor, index: int) -> Tensor:
    """Rows in another, fixed order: independent of the original; index 0 is the original itself."""
    if index == 0:
        return values
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(index))
    return values[order]
