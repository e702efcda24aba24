"""Fusion: batch norms and clips move into the convolution, sum or product before them, paddings into windows.

Every rule keeps the network's function exactly (up to the order of two float operations) and applies only
when nobody else reads the intermediate tensor. A fused operator keeps the name of its convolution or
addition; readers and graph outputs are renamed to it. Afterwards every operator's output is a tensor that the
device stores, hence a point where activations are quantized.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from mcuq.ir.graph import Add, AvgPool, BatchNorm, Clamp, Clip, Conv2d, FloatOp, Graph, Mul, Pad, Window

MAX_PADDING = 255
"""Paddings of a window are stored in one byte on the device."""


def fuse(graph: Graph) -> Graph:
    """Fuse ``graph`` (any float graph; a fused one comes back unchanged).

    Rules: Conv2d -> BatchNorm becomes ``Conv2d.norm``; Conv2d, Add or Mul -> Clip becomes ``clamp``; a BatchNorm
    left over becomes a depthwise 1x1 Conv2d of weight one; a Pad with zeros that only convolutions (or average pools
    that count padding) read goes into their windows. A Clip after any other operator stays an operator.
    """
    return _fold_pads(_absorb(graph))


def _absorb(graph: Graph) -> Graph:
    """One pass over the operators: norms and clips go into the operator that produced their input."""
    readers = Counter(name for op in graph for name in op.inputs)
    readers.update(graph.outputs)
    fused: dict[str, FloatOp] = {}
    renamed: dict[str, str] = {}
    for op in graph:
        op = replace(op, inputs=tuple(renamed.get(name, name) for name in op.inputs))
        producer = fused.get(op.inputs[0]) if op.inputs else None
        merged = _merge(producer, op) if producer is not None and readers[producer.name] == 1 else None
        if merged is None:
            fused[op.name] = _depthwise(op) if isinstance(op, BatchNorm) else op
        else:
            fused[merged.name] = merged
            renamed[op.name] = merged.name
            readers[merged.name] = readers[op.name]
    return Graph(tuple(fused.values()), tuple(renamed.get(name, name) for name in graph.outputs))


def _merge(producer: FloatOp, op: FloatOp) -> FloatOp | None:
    """``producer`` followed by ``op`` as one operator, or None when no rule applies."""
    match producer, op:
        case Conv2d(norm=None, clamp=(None, None)), BatchNorm():
            return replace(producer, norm=op.norm)
        case ((Conv2d() | Add() | Mul()), Clip()):
            clamp = intersect(producer.clamp, op.clamp)
            return None if clamp is None else replace(producer, clamp=clamp)
        case _:
            return None


def intersect(first: Clamp, second: Clamp) -> Clamp | None:
    """The clamp that equals ``first`` then ``second``; None when they do not overlap."""
    lows = [clamp[0] for clamp in (first, second) if clamp[0] is not None]
    highs = [clamp[1] for clamp in (first, second) if clamp[1] is not None]
    low, high = max(lows, default=None), min(highs, default=None)
    return None if low is not None and high is not None and low > high else (low, high)


def _depthwise(op: BatchNorm) -> Conv2d:
    channels = op.shape[2]
    return Conv2d(
        name=op.name,
        inputs=op.inputs,
        shape=op.shape,
        source=op.source,
        weight=np.ones((channels, 1, 1, 1)),
        groups=channels,
        norm=op.norm,
    )


def _fold_pads(graph: Graph) -> Graph:
    """Fold paddings from the last one to the first, so that a pad of a pad folds, too."""
    ops = {op.name: op for op in graph}
    for pad in reversed(graph.ops):
        if not isinstance(pad, Pad) or pad.value != 0.0 or pad.name in graph.outputs:
            continue
        readers = [op for op in ops.values() if pad.name in op.inputs]
        folded = [_with_padding(op, pad) for op in readers]
        complete = [op for op in folded if op is not None]
        if readers and len(complete) == len(readers):
            del ops[pad.name]
            ops.update((op.name, op) for op in complete)
    return Graph(tuple(ops.values()), graph.outputs)


def _with_padding(op: FloatOp, pad: Pad) -> FloatOp | None:
    """``op`` reading the input of ``pad`` and padding by itself; None when it cannot."""
    if not isinstance(op, Conv2d | AvgPool):
        return None
    if op.window.transposed:
        return None
    own = op.window.padding
    padding = (own[0] + pad.padding[0], own[1] + pad.padding[1], own[2] + pad.padding[2], own[3] + pad.padding[3])
    if min(pad.padding) < 0 or max(padding) > MAX_PADDING:
        return None
    window: Window = replace(op.window, padding=padding)
    if isinstance(op, Conv2d):
        return replace(op, inputs=pad.inputs, window=window)
    if op.count_include_pad or own == (0, 0, 0, 0):  # every tap counts, the pad's zeros included
        return replace(op, inputs=pad.inputs, window=window, count_include_pad=True)
    return None
