"""The float interpreter: what a float graph means, in float64 numpy."""

from __future__ import annotations

from functools import reduce
from typing import assert_never

import numpy as np

from mcuq.ir.functions import real_values
from mcuq.ir.graph import (
    BLEND_UNIT,
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
    FloatArray,
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
    Softmax,
)
from mcuq.ir.samples import Samples, split
from mcuq.reference.taps import convolve, copied, pad_images, tap_counts, windows


def run(graph: Graph, x: Samples) -> dict[str, FloatArray]:
    """Evaluate every operator.

    Args:
        x: real inputs [N, H, W, C], normalized already (``scale * (pixel - zero_point)`` for raw pixels); of several
            inputs see ``ir.samples``.

    Returns:
        Tensor name -> float64 [N, H, W, C], in execution order.

    Raises:
        DataError: ``x`` does not fit the network's inputs.
    """
    values = {name: part.astype(np.float64) for name, part in split(graph, x).items()}
    for op in graph:
        if not isinstance(op, Input):
            values[op.name] = evaluate(op, tuple(values[name] for name in op.inputs))
    return values


def evaluate(op: FloatOp, inputs: tuple[FloatArray, ...]) -> FloatArray:
    """One operator on batches [N, H, W, C]."""
    match op:
        case Input():
            raise ValueError(f"{op.name} is an input, it has a value, not a function")
        case Conv2d():
            return _conv(op, inputs[0])
        case BatchNorm():
            gain, bias = op.norm.gain_bias()
            return inputs[0] * gain + bias
        case Clip():
            return _clip(inputs[0], op.clamp)
        case Add():
            return _clip(inputs[0] - inputs[1] if op.subtract else inputs[0] + inputs[1], op.clamp)
        case Mul():
            return _clip(inputs[0] * inputs[1], op.clamp)
        case Extremum():
            return np.minimum(*inputs) if op.smallest else np.maximum(*inputs)
        case Activation():
            return real_values(op.function, inputs[0])
        case Prelu():
            return np.where(inputs[0] >= 0, inputs[0], inputs[0] * op.slope)
        case Concat():
            return np.concatenate(inputs, axis=3)
        case MaxPool():
            return reduce(np.maximum, (view for _, _, view in windows(inputs[0], op.window, -np.inf)))
        case AvgPool():
            total = reduce(np.add, (view for _, _, view in windows(inputs[0], op.window, 0.0)))
            return total / _divisor(op, inputs[0])
        case Pad():
            return pad_images(inputs[0], op.padding, op.value)
        case Copy():
            return copied(inputs[0], op.sizes, op.strides, op.offset, op.shape)
        case Resample():
            rows = _blended(inputs[0], op.rows, 1)
            return _blended(rows, op.columns, 2)
        case L2Normalize():
            length = np.sqrt((inputs[0] ** 2).sum(axis=3, keepdims=True))
            return inputs[0] / np.where(length > 0, length, 1.0)
        case Reshape():
            return inputs[0].reshape(len(inputs[0]), *op.shape)
        case Softmax():
            e = np.exp(inputs[0] - inputs[0].max(axis=3, keepdims=True))
            return e / e.sum(axis=3, keepdims=True)
        case Argmax():
            return inputs[0].argmax(axis=3)[..., None].astype(np.float64)
        case _:
            assert_never(op)


def _conv(op: Conv2d, x: FloatArray) -> FloatArray:
    y = convolve(x, op.weight.astype(np.float64), op.window, op.groups, 0.0)
    if op.bias is not None:
        y = y + op.bias
    if op.norm is not None:
        gain, bias = op.norm.gain_bias()
        y = y * gain + bias
    return _clip(y, op.clamp)


def _blended(x: FloatArray, blend: Blend, axis: int) -> FloatArray:
    first = np.asarray(blend.first)
    chosen = np.take(x, first, axis)
    if not blend.weights:
        return chosen
    weight = (np.asarray(blend.weights) / BLEND_UNIT).reshape(-1, *[1] * (3 - axis))
    return chosen * (1.0 - weight) + np.take(x, np.minimum(first + 1, x.shape[axis] - 1), axis) * weight


def _clip(x: FloatArray, clamp: Clamp) -> FloatArray:
    return x if clamp == (None, None) else np.clip(x, clamp[0], clamp[1])


def _divisor(op: AvgPool, x: FloatArray) -> FloatArray | int:
    if op.count_include_pad:
        return op.window.kernel[0] * op.window.kernel[1]
    return tap_counts(x.shape[1], x.shape[2], op.window)[:, :, None].astype(np.float64)
