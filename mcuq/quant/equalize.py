"""Cross-layer equalization (Nagel et al., ICCV 2019): channels of neighbouring layers share one weight range.

A ReLU without upper bound commutes with a positive factor per channel, so a factor can move from the weights
that write a channel to the weights that read it without changing the network. Below an upper bound (ReLU6) that holds
for channels that do not reach it: those that did on the calibration images keep their factor, the others get none
that would let them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mcuq.ir import graph as ir
from mcuq.ir.graph import Conv2d, Graph
from mcuq.quant.float_model import FloatModel
from mcuq.quant.network import Inputs

ROUNDS = 20
LARGEST_FACTOR = 1e3
HEADROOM = 0.95
"""Largest share of the upper bound that a channel may be scaled up to."""


def equalize(model: FloatModel, peaks: Mapping[str, Tensor] | None = None) -> int:
    """Rescale ``model``'s weights and biases in place; returns the number of pairs of layers.

    Args:
        peaks: layer -> largest value of each channel [O], of :func:`bounded_peaks`; layers with an upper bound and
            without peaks stay as they are.
    """
    known = dict(peaks or {})
    pairs = [(first, second) for first in model.graph.convs for second in _reader(model.graph, first, known)]
    for _ in range(ROUNDS):
        for first, second in pairs:
            _balance(model, first, second, known)
    return len(pairs)


def bounded_peaks(model: FloatModel, x: Inputs) -> dict[str, Tensor]:
    """Largest value of each channel of layers with an upper bound, for real inputs x [N, C, H, W]."""
    values = model.run(x)
    return {op.name: values[op.name].amax((0, 2, 3)) for op in model.graph.convs if op.clamp[1] is not None}


def _reader(graph: Graph, conv: Conv2d, peaks: Mapping[str, Tensor]) -> list[Conv2d]:
    """The only convolution that reads ``conv``, if just pools and paddings lie between."""
    name, (low, high) = conv.name, conv.clamp
    homogeneous = low in (0.0, None) and (high is None or (low == 0.0 and high > 0 and name in peaks))
    while homogeneous and name not in graph.outputs:
        readers = graph.consumers(name)
        if len(readers) != 1:
            return []
        match readers[0]:
            case Conv2d() as second:
                return [second]
            case ir.MaxPool() | ir.AvgPool() | ir.Pad(value=0.0) | ir.Resample():
                name = readers[0].name
            case _:
                return []
    return []


def _balance(model: FloatModel, first: Conv2d, second: Conv2d, peaks: dict[str, Tensor]) -> None:
    written, read = model.weights[first.name], model.weights[second.name]
    outgoing = written.flatten(1).abs().amax(1)
    incoming = _by_input(read, second.groups).abs().amax(1)
    used = (outgoing > 0) & (incoming > 0)
    factor = torch.where(used, torch.sqrt(outgoing / incoming.clamp_min(1e-30)), torch.ones_like(outgoing))
    factor = factor.clamp(1 / LARGEST_FACTOR, LARGEST_FACTOR)
    bound = first.clamp[1]
    if bound is not None:
        peak = peaks[first.name]
        factor = torch.where(peak < HEADROOM * bound, torch.maximum(factor, peak / (HEADROOM * bound)), 1.0)
        peaks[first.name] = peak / factor
    model.weights[first.name] = written / factor[:, None, None, None]
    model.biases[first.name] = model.biases[first.name] / factor
    fan = read.shape[1]
    per_group = len(read) // second.groups
    columns = factor.reshape(second.groups, 1, fan).expand(-1, per_group, -1).reshape(len(read), fan)
    model.weights[second.name] = read * columns[:, :, None, None]


def _by_input(weight: Tensor, groups: int) -> Tensor:
    """Weights [O, I/groups, kh, kw] as rows per input channel [I, ...]."""
    outputs, fan = weight.shape[:2]
    grouped = weight.reshape(groups, outputs // groups, fan, -1)
    return grouped.transpose(1, 2).reshape(groups * fan, -1)
