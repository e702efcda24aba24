"""Cross-layer equalization (Nagel et al., ICCV 2019): channels of neighbouring layers share one weight range.

A ReLU without upper bound commutes with a positive factor per channel, so a factor can move from the weights
that write a channel to the weights that read it without changing the network.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mcuq.ir import graph as ir
from mcuq.ir.graph import Conv2d, Graph
from mcuq.quant.float_model import FloatModel

ROUNDS = 20
LARGEST_FACTOR = 1e3


def equalize(model: FloatModel) -> int:
    """Rescale ``model``'s weights and biases in place; returns the number of pairs of layers."""
    pairs = [(first, second) for first in model.graph.convs for second in _reader(model.graph, first)]
    for _ in range(ROUNDS):
        for first, second in pairs:
            _balance(model, first, second)
    return len(pairs)


def _reader(graph: Graph, conv: Conv2d) -> list[Conv2d]:
    """The only convolution that reads ``conv``, if just pools and paddings lie between."""
    name, homogeneous = conv.name, conv.clamp in ((0.0, None), (None, None))
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


def _balance(model: FloatModel, first: Conv2d, second: Conv2d) -> None:
    written, read = model.weights[first.name], model.weights[second.name]
    outgoing = written.flatten(1).abs().amax(1)
    incoming = _by_input(read, second.groups).abs().amax(1)
    used = (outgoing > 0) & (incoming > 0)
    factor = torch.where(used, torch.sqrt(outgoing / incoming.clamp_min(1e-30)), torch.ones_like(outgoing))
    factor = factor.clamp(1 / LARGEST_FACTOR, LARGEST_FACTOR)
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
