"""How pixels become the input of a model file: by the file's own scale, one scale, or a layer in front."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mcuq.errors import UsageError
from mcuq.ir.graph import BatchNorm, Graph, Input, Norm, Normalization
from mcuq.ir.quantized import QuantizedGraph


def pixel_scale(mean: Any, std: Any) -> Normalization | None:
    """``(pixel / 255 - mean) / std`` as one scale and a whole zero point 0..255, or None where that is not exact."""
    zero = 255 * mean
    whole = np.abs(zero - np.round(zero)).max() < 1e-9 and zero.min() >= 0 and zero.max() <= 255
    if not whole or np.any(mean != mean[0]) or np.any(std != std[0]):
        return None
    return Normalization(1 / (255 * float(std[0])), round(float(zero[0])))


def from_pixels(quantized: QuantizedGraph) -> QuantizedGraph:
    """``quantized`` taking pixels: pixel p is the input's code p - 128, whatever the file's scale makes of it."""
    source = quantized.graph.input
    params = quantized.params(source.name)
    if params.bits != 8:
        return quantized
    rule = Normalization(params.scale, params.zero_point + 128)
    ops = tuple(replace(op, normalization=rule) if isinstance(op, Input) else op for op in quantized.graph)
    return replace(quantized, graph=Graph(ops, quantized.graph.outputs))


def per_channel(values: tuple[float, ...], channels: int, option: str) -> Any:
    if len(values) not in (1, channels):
        raise UsageError(f"{option} has {len(values)} values; give one, or one for each of {channels} channels")
    return np.broadcast_to(np.asarray(values, np.float64), (channels,)).copy()


def normalized(graph: Graph, mean: Any, std: Any) -> Graph:
    """``graph`` with ``(x - mean) / std`` per channel in front (a depthwise layer after fusion)."""
    source = graph.input
    zeros, ones = np.zeros_like(mean), np.ones_like(mean)
    norm = Norm(ones, zeros, mean, std**2, 0.0)
    name = "normalize"
    while any(op.name == name for op in graph):
        name += "_"
    front = BatchNorm(name=name, inputs=(source.name,), shape=source.shape, norm=norm)
    ops = [
        op if isinstance(op, Input) else replace(op, inputs=tuple(name if i == source.name else i for i in op.inputs))
        for op in graph
    ]
    at = next(i for i, op in enumerate(ops) if isinstance(op, Input)) + 1
    return Graph((*ops[:at], front, *ops[at:]), graph.outputs)
