"""Output shape of every operator of both graphs, from its inputs' shapes and its parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import assert_never

from mcuq.errors import ModelError
from mcuq.ir.graph import (
    BLEND_UNIT,
    Activation,
    Add,
    Argmax,
    AvgPool,
    BatchNorm,
    Clip,
    Concat,
    Conv2d,
    Copy,
    Extremum,
    FloatOp,
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
)

MAX_COPY = 6
"""Counters of a copy: what the device's loop has."""


def infer_shape(op: FloatOp | IntegerOp, inputs: tuple[Shape, ...]) -> Shape:
    """Shape (H, W, C) that ``op`` computes from tensors of shapes ``inputs``.

    An input's own shape and a reshape's target are free: they are returned as stored (a reshape's after
    checking that it holds as many values).

    Raises:
        ModelError: wrong number of inputs, or shapes that do not fit the operator.
    """
    _check_arity(op, len(inputs))
    match op:
        case Input():
            return op.shape
        case QInput():
            return op.output.shape
        case Conv2d() | QConv2d():
            return _conv(op, inputs[0])
        case BatchNorm() | Clip() | Activation() | Prelu() | L2Normalize() | Softmax():
            return inputs[0]
        case QRescale() | QTable() | QPrelu() | QL2Normalize() | QSoftmax():
            return inputs[0]
        case Add() | QAdd() | Extremum() | QExtremum():
            if inputs[0] != inputs[1]:
                raise ModelError(f"{op.name}: two equal shapes are needed, found {inputs[0]} and {inputs[1]}")
            return inputs[0]
        case Mul() | QMul():
            if any(b not in (1, a) for a, b in zip(inputs[0], inputs[1], strict=True)):
                raise ModelError(f"{op.name}: {inputs[1]} cannot be repeated to {inputs[0]}")
            return inputs[0]
        case Concat() | QConcat():
            return _concat(op.name, inputs)
        case MaxPool() | AvgPool() | QMaxPool() | QAvgPool():
            return (*_window(op.name, op.window, inputs[0]), inputs[0][2])
        case Pad() | QPad():
            top, left, bottom, right = op.padding
            height, width, channels = inputs[0]
            return height + top + bottom, width + left + right, channels
        case Copy():
            return _copy(op, inputs[0], op.shape)
        case QCopy():
            return _copy(op, inputs[0], op.output.shape)
        case Resample():
            rows, columns = (op.rows.first, op.rows.weights), (op.columns.first, op.columns.weights)
            return _resample(op.name, rows, columns, inputs[0])
        case QResample():
            rows, columns = (op.row.tolist(), op.row_weight.tolist()), (op.column.tolist(), op.column_weight.tolist())
            return _resample(op.name, rows, columns, inputs[0])
        case Reshape():
            return _reshape(op.name, inputs[0], op.shape)
        case QReshape():
            return _reshape(op.name, inputs[0], op.output.shape)
        case Argmax() | QArgmax():
            return (*inputs[0][:2], 1)
        case _:
            assert_never(op)


def _check_arity(op: FloatOp | IntegerOp, found: int) -> None:
    match op:
        case Input() | QInput():
            fits, wanted = found == 0, "no input"
        case Add() | QAdd() | Mul() | QMul() | Extremum() | QExtremum():
            fits, wanted = found == 2, "2 inputs"
        case Concat() | QConcat():
            fits, wanted = found >= 1, "at least 1 input"
        case _:
            fits, wanted = found == 1, "1 input"
    if not fits:
        raise ModelError(f"{op.name}: {type(op).__name__} takes {wanted}, found {found}")


def _window(name: str, window: Window, shape: Shape) -> tuple[int, int]:
    height, width = window.output_hw(shape[0], shape[1])
    if height < 1 or width < 1:
        raise ModelError(f"{name}: a {window.kernel} window does not fit an input of shape {shape}")
    return height, width


def _conv(op: Conv2d | QConv2d, shape: Shape) -> Shape:
    outputs, height, width, channels = op.weight.shape
    if op.groups < 1 or shape[2] != channels * op.groups or outputs % op.groups:
        raise ModelError(
            f"{op.name}: weights {op.weight.shape} with {op.groups} groups do not fit {shape[2]} input channels"
        )
    if (height, width) != op.window.kernel:
        raise ModelError(f"{op.name}: weights {op.weight.shape} do not fit a {op.window.kernel} kernel")
    return (*_window(op.name, op.window, shape), outputs)


def _concat(name: str, inputs: tuple[Shape, ...]) -> Shape:
    if len({shape[:2] for shape in inputs}) != 1:
        raise ModelError(f"{name}: concatenation needs one height and width, found {list(inputs)}")
    return (*inputs[0][:2], sum(shape[2] for shape in inputs))


def _reshape(name: str, source: Shape, target: Shape) -> Shape:
    if source[0] * source[1] * source[2] != target[0] * target[1] * target[2]:
        raise ModelError(f"{name}: cannot reshape {source} to {target}: the number of values differs")
    return target


def _copy(op: Copy | QCopy, source: Shape, target: Shape) -> Shape:
    """The stored target shape, after checking that every index lies in the input."""
    if len(op.sizes) != len(op.strides) or not 1 <= len(op.sizes) <= MAX_COPY or min(op.sizes) < 1:
        raise ModelError(f"{op.name}: sizes {op.sizes} with strides {op.strides}; 1 to {MAX_COPY} of each are needed")
    if math.prod(op.sizes) != math.prod(target):
        raise ModelError(f"{op.name}: {op.sizes} are not the elements of {target}")
    steps = [(size - 1) * stride for size, stride in zip(op.sizes, op.strides, strict=True)]
    first, last = op.offset + sum(min(s, 0) for s in steps), op.offset + sum(max(s, 0) for s in steps)
    if first < 0 or last >= math.prod(source):
        raise ModelError(f"{op.name}: reads elements {first} to {last} of a tensor of shape {source}")
    return target


def _resample(
    name: str, rows: tuple[Sequence[int], Sequence[int]], columns: tuple[Sequence[int], Sequence[int]], shape: Shape
) -> Shape:
    """Output shape of a resampling, after checking every position against the input."""
    for (first, weights), size in zip((rows, columns), shape[:2], strict=True):
        if not first or (len(weights) not in (0, len(first))):
            raise ModelError(f"{name}: {len(first)} positions with {len(weights)} weights")
        blended = [bool(w) for w in weights] or [False] * len(first)
        if any(not 0 <= f < size - b for f, b in zip(first, blended, strict=True)):
            raise ModelError(f"{name}: reads a position outside 0..{size - 1}")
        if any(not 0 <= w < BLEND_UNIT for w in weights):
            raise ModelError(f"{name}: weights lie in 0..{BLEND_UNIT - 1}")
    return len(rows[0]), len(columns[0]), shape[2]
