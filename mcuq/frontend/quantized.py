"""Quantized graphs from files that hold scales: parameters of every stored tensor, codes of every layer.

A file says scales where its own runtime needs them; a tensor without any takes those of its neighbours when
that changes no value (max pools, reshapes, paddings, selections keep codes), or a range that holds every value.
"""

from __future__ import annotations

import numpy as np

from mcuq.errors import UnsupportedError
from mcuq.frontend.builder import Builder, Coded
from mcuq.frontend.simplify import checked, simplify
from mcuq.ir.fuse import fuse
from mcuq.ir.graph import (
    Add,
    Argmax,
    AvgPool,
    Clip,
    Concat,
    Conv2d,
    Copy,
    Extremum,
    FloatOp,
    Graph,
    Input,
    L2Normalize,
    MaxPool,
    Pad,
    Resample,
    Reshape,
    Softmax,
)
from mcuq.ir.quantized import ActivationQuant, QuantizedGraph, QuantParams, WeightQuant
from mcuq.ir.verify import Level
from mcuq.numerics import code_range

UNIT = QuantParams(8, 1 / 128, 0)
SOFTMAX, ARGMAX = QuantParams(8, 1 / 256, -128), QuantParams(32, 1.0, 0)


def quantized_graph(builder: Builder, outputs: list[str]) -> QuantizedGraph:
    """The quantized graph of what ``builder`` collected.

    Raises:
        UnsupportedError: operators without counterpart, or tensors without scales; all are listed.
    """
    graph, renamed = simplify(builder.graph(outputs), frozenset(builder.params))
    fused = checked(fuse(graph), Level.FUSED)
    known = _homes(builder.params, renamed, graph, fused)
    selections = {name for name in builder.selections if name in {op.name for op in fused}}
    weights = tuple(_weight_quant(op, builder.coded.get(op.name), op.name in selections) for op in fused.convs)
    _complete(fused, known, selections, {w.layer: w for w in weights})
    return QuantizedGraph(fused, weights, tuple(ActivationQuant(op.name, known[op.name]) for op in fused))


def _homes(
    params: dict[str, QuantParams], renamed: dict[str, str], graph: Graph, fused: Graph
) -> dict[str, QuantParams]:
    """Parameters by name in the fused graph: those of an operator merged into another go to that one."""
    ops = {op.name: op for op in graph}
    left = {op.name for op in fused}
    homes: dict[str, QuantParams] = {}
    for name, found in params.items():
        home = renamed.get(name, name)
        while home in ops and home not in left and not isinstance(ops[home], Pad):
            home = ops[home].inputs[0]
        if home in left:
            homes[home] = found  # of a layer and its activation, the activation's come later
    return homes


def _weight_quant(op: Conv2d, coded: Coded | None, selection: bool) -> WeightQuant:
    channels = len(op.weight)
    gain, offset = (np.ones(channels), np.zeros(channels)) if op.norm is None else op.norm.gain_bias()
    bias = gain * (np.zeros(channels) if op.bias is None else op.bias) + offset
    if selection:
        coded = Coded(op.weight.astype(np.int64), 2, np.ones(1), np.zeros(1, dtype=np.int64))
    elif coded is None:
        coded = _symmetric(op)
    return WeightQuant(
        op.name, coded.codes.astype(np.int8), coded.bits, coded.scale, coded.zero_point.astype(np.int64), gain, bias
    )


def _symmetric(op: Conv2d) -> Coded:
    """Codes of a layer that the file keeps in float: 8 bits, largest magnitude per channel."""
    largest = np.abs(op.weight).reshape(len(op.weight), -1).max(axis=1)
    scale = np.where(largest > 0, largest, 1.0) / 127
    codes = np.clip(np.floor(op.weight / scale[:, None, None, None] + 0.5), -128, 127)
    return Coded(codes.astype(np.int64), 8, scale, np.zeros(len(scale), dtype=np.int64))


def _complete(
    graph: Graph, known: dict[str, QuantParams], selections: set[str], weights: dict[str, WeightQuant]
) -> None:
    """Fill ``known`` until nothing changes; then final scores get 32 bits and the rest is refused."""
    changed = True
    while changed:
        changed = False
        for op in graph:
            found = known.get(op.name) or _forward(op, known, selections) or _backward(op, graph, known, selections)
            if found is not None and op.name not in known:
                known[op.name] = found
                changed = True
    for op in graph:
        if op.name in known:
            continue
        readers = graph.consumers(op.name)
        if isinstance(op, Conv2d) and all(isinstance(reader, Argmax) for reader in readers):
            known[op.name] = _scores(op, weights[op.name], known)
    missing = [op.name for op in graph if op.name not in known]
    if missing:
        raise UnsupportedError(
            f"the model is quantized, but {len(missing)} tensors have no scale: {', '.join(missing[:20])}. "
            "Quantize the whole network (activations of every layer), or import the float model."
        )


def _keeps_codes(op: FloatOp, selections: set[str]) -> bool:
    if isinstance(op, Resample | Pad):
        return op.chooses if isinstance(op, Resample) else op.value == 0.0
    return isinstance(op, MaxPool | Reshape | Copy | Clip) or op.name in selections


def _forward(op: FloatOp, known: dict[str, QuantParams], selections: set[str]) -> QuantParams | None:
    """Parameters that follow from the inputs'."""
    match op:
        case Softmax():
            return SOFTMAX
        case Argmax():
            return ARGMAX
        case L2Normalize():
            return UNIT
        case Input(normalization=pixels) if pixels is not None:
            return QuantParams(8, pixels.scale, pixels.zero_point - 128)
        case Input():
            return None
        case Add(subtract=False) | Concat() | Extremum():
            inputs = [known.get(name) for name in op.inputs]
            return _union([p for p in inputs if p is not None], isinstance(op, Add)) if None not in inputs else None
        case _ if _keeps_codes(op, selections) or isinstance(op, AvgPool | Resample):
            return known.get(op.inputs[0])
        case _:
            return None


def _backward(op: FloatOp, graph: Graph, known: dict[str, QuantParams], selections: set[str]) -> QuantParams | None:
    """Parameters that every reader has, when all readers keep codes: rounding commutes with them."""
    readers = graph.consumers(op.name)
    found = {known.get(r.name) for r in readers if _keeps_codes(r, selections)}
    if not readers or len(found) != 1 or not all(_keeps_codes(r, selections) for r in readers):
        return None
    return found.pop()


def _union(inputs: list[QuantParams], added: bool) -> QuantParams:
    """Parameters of 8 bits that hold the sum, or the union, of the inputs' ranges."""
    lows = [p.scale * (code_range(p.bits)[0] - p.zero_point) for p in inputs]
    highs = [p.scale * (code_range(p.bits)[1] - p.zero_point) for p in inputs]
    low, high = (sum(lows), sum(highs)) if added else (min(lows), max(highs))
    scale = (high - low) / 255
    return QuantParams(8, scale, int(np.clip(np.floor(-128 - low / scale + 0.5), -128, 127)))


def _scores(op: Conv2d, weights: WeightQuant, known: dict[str, QuantParams]) -> QuantParams:
    """32 bits on the scale of the largest channel, as lowering stores final scores."""
    source = known[op.inputs[0]].scale if op.inputs[0] in known else 1.0
    return QuantParams(32, float(np.max(source * np.abs(weights.gain) * weights.scale)) or 1.0, 0)
