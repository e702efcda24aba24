"""Graphs as text, one operator per line, for tests, error texts and eyes; for example

conv = conv2d(x) 3x3 stride 2,2 pad 0,0,1,1 w8x3x3x3 norm clamp 0..6 : 16x16x8
"""

from __future__ import annotations

from typing import assert_never

import numpy as np

from mcuq.ir import functions
from mcuq.ir.graph import (
    NO_CLAMP,
    Activation,
    Add,
    Argmax,
    AvgPool,
    BatchNorm,
    Blend,
    Clamp,
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
    Mul,
    Pad,
    Prelu,
    Resample,
    Reshape,
    Shape,
    Softmax,
    Window,
)
from mcuq.ir.integer import (
    IntegerGraph,
    IntegerOp,
    QAdd,
    QArgmax,
    QAvgPool,
    QConcat,
    QConv2d,
    QCopy,
    QExtremum,
    QInput,
    QL2Normalize,
    QMaxPool,
    QMul,
    QPad,
    QPrelu,
    QResample,
    QRescale,
    QReshape,
    QSoftmax,
    QTable,
    QTensor,
)
from mcuq.numerics import Affine, code_range


def to_text(graph: Graph | IntegerGraph) -> str:
    """``graph`` with one operator per line and a last line ``return <outputs>``; parameters' shapes, not values."""
    lines = [integer_line(op) for op in graph] if isinstance(graph, IntegerGraph) else [float_line(op) for op in graph]
    return "\n".join([*lines, f"return {', '.join(graph.outputs)}"]) + "\n"


def float_line(op: FloatOp) -> str:
    """One operator of a float graph as text."""
    match op:
        case Input():
            words = ["input", *_normalization(op)]
        case Conv2d():
            words = ["conv2d", *_window(op.window), *_groups(op.groups), f"w{_dims(op.weight.shape)}"]
            words += ["bias"] * (op.bias is not None) + ["norm"] * (op.norm is not None) + _clamp(op.clamp)
        case BatchNorm():
            words = ["batch_norm"]
        case Clip():
            words = ["clip", *_clamp(op.clamp)]
        case Add():
            words = ["subtract" if op.subtract else "add", *_clamp(op.clamp)]
        case Mul():
            words = ["mul", *_clamp(op.clamp)]
        case Extremum():
            words = ["minimum" if op.smallest else "maximum"]
        case Activation():
            words = ["activation", functions.text(op.function)]
        case Prelu():
            words = ["prelu"]
        case Concat():
            words = ["concat"]
        case MaxPool():
            words = ["max_pool", *_window(op.window)]
        case AvgPool():
            words = ["avg_pool", *_window(op.window)] + ["count_include_pad"] * op.count_include_pad
        case Pad():
            words = ["pad", _numbers(op.padding)] + [f"value {op.value:g}"] * (op.value != 0.0)
        case Copy():
            words = ["copy", *_counters(op.sizes, op.strides, op.offset)]
        case Resample():
            words = ["resample", f"rows {_blend(op.rows)}", f"columns {_blend(op.columns)}"]
        case L2Normalize():
            words = ["l2_normalize"]
        case Reshape():
            words = ["reshape"]
        case Softmax():
            words = ["softmax"]
        case Argmax():
            words = ["argmax"]
        case _:
            assert_never(op)
    return _line(op.name, op.inputs, words, _dims(op.shape))


def integer_line(op: IntegerOp) -> str:
    """One operator of an integer graph as text."""
    match op:
        case QInput():
            words = ["input", op.encoding]
        case QConv2d():
            words = ["conv2d", *_window(op.window), *_groups(op.groups), f"w{_dims(op.weight.shape)}"]
            words += [f"{op.weight_bits}-bit"] + ["asymmetric"] * bool(np.any(op.weight_zero_point))
            words += ["two-roundings"] * (op.roundings == 2)
            words += ["per-channel" if op.multiplier.size > 1 else "per-layer", *_codes(op.clamp, op.output)]
        case QAdd():
            words = ["add", _affine(op.affine), *_codes(op.clamp, op.output)]
        case QMul():
            words = ["mul", f"({int(op.multiplier[0]):+d}) >> {int(op.shift[0])}", *_codes(op.clamp, op.output)]
        case QExtremum():
            words = ["minimum" if op.smallest else "maximum", *map(_affine, op.affines), *_codes(op.clamp, op.output)]
        case QTable():
            words = ["table", str(op.entries.size)]
        case QPrelu():
            words = ["prelu", _affine(op.affine), *_codes(op.clamp, op.output)]
        case QConcat():
            words = ["concat", *map(_affine, op.affines), *_codes(op.clamp, op.output)]
        case QMaxPool():
            words = ["max_pool", *_window(op.window), _affine(op.affine), *_codes(op.clamp, op.output)]
        case QAvgPool():
            words = ["avg_pool", *_window(op.window), f"table {op.multiplier.size}", *_codes(op.clamp, op.output)]
        case QPad():
            words = ["pad", _numbers(op.padding), _affine(op.affine), *_codes(op.clamp, op.output)]
            words += [f"border {op.border}"] * (op.border != op.output.zero_point)
        case QRescale():
            words = ["rescale", _affine(op.affine), *_codes(op.clamp, op.output)]
        case QCopy():
            words = ["copy", *_counters(op.sizes, op.strides, op.offset)]
        case QResample():
            words = ["resample", "chosen" if op.chooses else f"({int(op.multiplier[0]):+d}) >> {int(op.shift[0])}"]
        case QL2Normalize():
            words = ["l2_normalize"]
        case QReshape():
            words = ["reshape"]
        case QSoftmax():
            words = ["softmax"]
        case QArgmax():
            words = ["argmax"]
        case _:
            assert_never(op)
    tensor = op.output
    stored = f"{_dims(tensor.shape)} {tensor.bits}-bit scale {tensor.scale:.6g} zero {tensor.zero_point}"
    return _line(op.name, op.inputs, words, stored)


def _line(name: str, inputs: tuple[str, ...], words: list[str], stored: str) -> str:
    return " ".join([f"{name} = {words[0]}({', '.join(inputs)})", *words[1:], ":", stored])


def _dims(shape: Shape | tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _numbers(values: tuple[int, ...]) -> str:
    return ",".join(map(str, values))


def _counters(sizes: tuple[int, ...], strides: tuple[int, ...], offset: int) -> list[str]:
    return [f"sizes {_numbers(sizes)}", f"strides {_numbers(strides)}", *[f"from {offset}"] * (offset != 0)]


def _blend(blend: Blend) -> str:
    """Ends and number of positions: the whole list is long."""
    positions = f"{blend.first[0]}..{blend.first[-1]} in {len(blend.first)}"
    return f"{positions} blended" if blend.weights else positions


def _window(window: Window) -> list[str]:
    words = [_dims(window.kernel)]
    if window.stride != (1, 1):
        words.append(f"stride {_numbers(window.stride)}")
    if window.padding != (0, 0, 0, 0):
        words.append(f"pad {_numbers(window.padding)}")
    if window.dilation != (1, 1):
        words.append(f"dilation {_numbers(window.dilation)}")
    if window.transposed:
        words.append(f"input dilation {_numbers(window.input_dilation)}")
    return words


def _groups(groups: int) -> list[str]:
    return [f"groups {groups}"] if groups > 1 else []


def _clamp(clamp: Clamp) -> list[str]:
    if clamp == NO_CLAMP:
        return []
    low, high = ("" if bound is None else f"{bound:g}" for bound in clamp)
    return [f"clamp {low}..{high}"]


def _normalization(op: Input) -> list[str]:
    if op.normalization is None:
        return []
    return [f"pixels scale {op.normalization.scale:.6g} zero {op.normalization.zero_point}"]


def _codes(clamp: tuple[int, int], tensor: QTensor) -> list[str]:
    return [] if clamp == code_range(tensor.bits) else [f"clamp {clamp[0]}..{clamp[1]}"]


def _affine(affine: Affine) -> str:
    if affine.is_identity:
        return "identity"
    return f"({', '.join(f'{m:+d}' for m in affine.multipliers)}; {affine.constant:+d}) >> {affine.shift}"
