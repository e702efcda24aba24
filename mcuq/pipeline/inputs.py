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
    params = {op.name: quantized.params(op.name) for op in quantized.graph.inputs}
    rules = {n: Normalization(p.scale, p.zero_point + 128) for n, p in params.items() if p.bits == 8}
    ops = (
        replace(op, normalization=rules[op.name]) if isinstance(op, Input) and op.name in rules else op
        for op in quantized.graph
    )
    return replace(quantized, graph=Graph(tuple(ops), quantized.graph.outputs))


def per_channel(values: tuple[float, ...], channels: int, option: str) -> Any:
    if len(values) not in (1, channels):
        raise UsageError(f"{option} has {len(values)} values; give one, or one for each of {channels} channels")
    return np.broadcast_to(np.asarray(values, np.float64), (channels,)).copy()


def normalized(graph: Graph, mean: Any, std: Any) -> Graph:
    """``graph`` with ``(x - mean) / std`` per channel behind every input (a depthwise layer after fusion)."""
    taken = {op.name for op in graph}
    front: dict[str, BatchNorm] = {}
    for number, source in enumerate(graph.inputs):
        name = f"normalize{number or ''}"
        while name in taken:
            name += "_"
        centre, spread = (np.broadcast_to(values, (source.shape[2],)).copy() for values in (mean, std))
        norm = Norm(np.ones_like(centre), np.zeros_like(centre), centre, spread**2, 0.0)
        front[source.name] = BatchNorm(name=name, inputs=(source.name,), shape=source.shape, norm=norm)
    body = (op for op in graph if not isinstance(op, Input))
    moved = (replace(op, inputs=tuple(front[i].name if i in front else i for i in op.inputs)) for op in body)
    return Graph((*graph.inputs, *front.values(), *moved), graph.outputs)
