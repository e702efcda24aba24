"""The per-layer table: one row per operator of the integer graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mcuq.ir.graph import Shape
from mcuq.ir.integer import IntegerGraph, IntegerOp, QConv2d

_NAMES = {
    "QInput": "input",
    "QAdd": "add",
    "QMul": "product",
    "QExtremum": "maximum or minimum",
    "QTable": "table",
    "QPrelu": "prelu",
    "QCopy": "copy",
    "QResample": "resample",
    "QL2Normalize": "L2 normalization",
    "QConcat": "concat",
    "QMaxPool": "max pool",
    "QAvgPool": "average pool",
    "QPad": "pad",
    "QRescale": "rescale",
    "QReshape": "reshape",
    "QSoftmax": "softmax",
    "QArgmax": "argmax",
}


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One operator. ``shape`` is the output's; bytes are of packed codes; ``instructions`` of one inference."""

    name: str
    operator: str
    shape: Shape
    weight_bits: int | None
    activation_bits: int
    macs: int
    weight_bytes: int
    activation_bytes: int
    instructions: int | None = None


def layer_rows(graph: IntegerGraph, instructions: Mapping[str, int] | None = None) -> tuple[LayerRow, ...]:
    """Rows in execution order; ``instructions`` maps operator names to executed instructions."""
    counts = instructions or {}
    return tuple(_row(graph, op, counts.get(op.name)) for op in graph)


def _row(graph: IntegerGraph, op: IntegerOp, instructions: int | None) -> LayerRow:
    bits, size = None, 0
    if isinstance(op, QConv2d):
        bits, size = op.weight_bits, (int(op.weight.size) * op.weight_bits + 7) // 8
    return LayerRow(
        name=op.name,
        operator=_operator(graph, op),
        shape=op.output.shape,
        weight_bits=bits,
        activation_bits=op.output.bits,
        macs=macs_of(op),
        weight_bytes=size,
        activation_bytes=op.output.bytes,
        instructions=instructions,
    )


def macs_of(op: IntegerOp) -> int:
    """Multiply-accumulates with padding taps, 0 without weights."""
    if not isinstance(op, QConv2d):
        return 0
    height, width, _ = op.output.shape
    return height * width * int(np.prod(op.weight.shape))


def _operator(graph: IntegerGraph, op: IntegerOp) -> str:
    if not isinstance(op, QConv2d):
        return _NAMES[type(op).__name__]
    height, width, channels = graph.tensor(op.inputs[0]).shape
    kernel = op.window.kernel
    if kernel == (height, width) and op.output.shape[:2] == (1, 1) and op.groups == 1 and not any(op.window.padding):
        return "fully connected"
    stride = "" if op.window.stride == (1, 1) else f", stride {max(op.window.stride)}"
    kind = "depthwise" if op.groups == channels > 1 else "conv" if op.groups == 1 else f"conv, {op.groups} groups"
    return f"{kind} {kernel[0]}x{kernel[1]}{stride}"
