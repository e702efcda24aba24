"""Output shape of every operator of both graphs, from its inputs' shapes and its parameters."""

from __future__ import annotations

from typing import assert_never

from mcuq.errors import ModelError
from mcuq.ir.graph import (
    Add,
    Argmax,
    AvgPool,
    BatchNorm,
    Clip,
    Concat,
    Conv2d,
    FloatOp,
    Input,
    MaxPool,
    Pad,
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
    QInput,
    QMaxPool,
    QPad,
    QRescale,
    QReshape,
    QSoftmax,
)


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
        case BatchNorm() | Clip() | Softmax() | QRescale() | QSoftmax():
            return inputs[0]
        case Add() | QAdd():
            if inputs[0] != inputs[1]:
                raise ModelError(f"{op.name}: addition needs two equal shapes, found {inputs[0]} and {inputs[1]}")
            return inputs[0]
        case Concat() | QConcat():
            return _concat(op.name, inputs)
        case MaxPool() | AvgPool() | QMaxPool() | QAvgPool():
            return (*_window(op.name, op.window, inputs[0]), inputs[0][2])
        case Pad() | QPad():
            top, left, bottom, right = op.padding
            height, width, channels = inputs[0]
            return height + top + bottom, width + left + right, channels
        case Reshape():
            return _reshape(op.name, inputs[0], op.shape)
        case QReshape():
            return _reshape(op.name, inputs[0], op.output.shape)
        case Argmax() | QArgmax():
            return 1, 1, 1
        case _:
            assert_never(op)


def _check_arity(op: FloatOp | IntegerOp, found: int) -> None:
    match op:
        case Input() | QInput():
            fits, wanted = found == 0, "no input"
        case Add() | QAdd():
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
