"""The integer interpreter: the oracle that the emitted C must equal byte for byte (docs/NUMERICS.md).

Convolutions are summed in floating point where that is provably exact: every partial sum, in any order, is an
integer of magnitude at most ``max|x| * sum|w - zw|``, and a float32 (float64) holds all integers up to 2^24
(2^53). Everything else is int64. Every result is checked to lie in its tensor's code range and every
accumulator in int32, so that a wrong graph fails here instead of wrapping on a device.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from mcuq.errors import CheckError, DataError, ModelError
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
from mcuq.ir.samples import Samples, split
from mcuq.numerics import (
    INT32_MAX,
    INT32_MIN,
    IntArray,
    apply_affine,
    blend,
    code_range,
    l2_normalize,
    requantize,
    softmax,
)
from mcuq.reference.taps import convolve, copied, pad_images, tap_counts, windows

BATCH = 32
"""Images evaluated together by :func:`run_outputs`; larger ones gain nothing and take more memory."""


def run(graph: IntegerGraph, x: Samples) -> dict[str, IntArray]:
    """Evaluate every operator.

    Args:
        x: integers [N, H, W, C]; raw pixels 0..255 when the input's encoding is ``uint8``, else its codes. Of several
            inputs see ``ir.samples``.

    Returns:
        Tensor name -> int64 codes [N, H, W, C], in execution order.

    Raises:
        DataError: ``x`` does not fit the network's input.
        CheckError: an accumulator leaves int32 or a result its code range (a graph that does not verify).
    """
    return dict(_steps(graph, encoded(graph, x), keep=True))


def run_outputs(graph: IntegerGraph, x: Samples, batch: int = BATCH) -> dict[str, IntArray]:
    """The outputs alone, ``batch`` images at a time, every intermediate dropped after its last reader.

    Arguments, errors and the form of the result are :func:`run`'s.
    """
    codes = encoded(graph, x)
    count = len(next(iter(codes.values())))
    parts: dict[str, list[IntArray]] = {name: [] for name in graph.outputs}
    for start in range(0, max(count, 1), batch):
        some = {name: value[start : start + batch] for name, value in codes.items()}
        for name, value in _steps(graph, some, keep=False):
            if name in parts:
                parts[name].append(value)
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def encoded(graph: IntegerGraph, x: Samples) -> dict[str, IntArray]:
    """What the device's input tensors hold, by name: :func:`encode_input` of each. Raises DataError."""
    parts = split(graph, x)
    return {op.name: encode_input(op, parts[op.name]) for op in graph.inputs}


def encode_input(op: QInput, x: NDArray[Any]) -> IntArray:
    """What the device's input tensor holds: int64 codes [N, H, W, C] of pixels or codes ``x``.

    Raises:
        DataError: not integers, or out of range.
    """
    images = np.asarray(x)
    if not np.issubdtype(images.dtype, np.integer):
        raise DataError(f"input holds {images.dtype}, the integer network takes integers")
    codes = images.astype(np.int64)
    lo, hi = (0, 255) if op.encoding == "uint8" else code_range(op.output.bits)
    if codes.size and (codes.min() < lo or codes.max() > hi):
        raise DataError(f"input values {codes.min()}..{codes.max()} are outside {lo}..{hi}")
    return codes - 128 if op.encoding == "uint8" else codes


def _steps(graph: IntegerGraph, codes: dict[str, IntArray], *, keep: bool) -> Iterator[tuple[str, IntArray]]:
    """(name, value) of every tensor in execution order; without ``keep`` values are freed after their last use."""
    tensors = {op.name: op.output for op in graph}
    last = {name: op.name for op in graph for name in op.inputs}
    values: dict[str, IntArray] = {}
    for op in graph:
        inputs = tuple(values[name] for name in op.inputs)
        value = codes[op.name] if isinstance(op, QInput) else evaluate(op, inputs, tuple(tensors[n] for n in op.inputs))
        _check_codes(op, value)
        values[op.name] = value
        yield op.name, value
        if not keep:
            for name in {*op.inputs, op.name}:
                if last.get(name, op.name) == op.name:
                    values.pop(name, None)


def _check_codes(op: IntegerOp, value: IntArray) -> None:
    lo, hi = code_range(op.output.bits)
    if value.shape[1:] != op.output.shape:
        raise CheckError(f"{op.name}: computed shape {value.shape[1:]}, declared {op.output.shape}")
    if value.size and (value.min() < lo or value.max() > hi):
        raise CheckError(f"{op.name}: codes {value.min()}..{value.max()} leave {lo}..{hi} ({op.output.bits} bits)")


def evaluate(op: IntegerOp, inputs: tuple[IntArray, ...], tensors: tuple[QTensor, ...]) -> IntArray:
    """One operator on batches of codes [N, H, W, C]; ``tensors`` describes ``inputs``."""
    match op:
        case QInput():
            raise ValueError(f"{op.name} is an input, it has a value, not a function")
        case QConv2d():
            return _conv(op, inputs[0], tensors[0])
        case QAdd():
            return apply_affine(inputs, op.affine, *op.clamp)
        case QMul():
            product = (inputs[0] - tensors[0].zero_point) * (inputs[1] - tensors[1].zero_point)
            return requantize(product, op.multiplier, op.shift, op.output.zero_point, *op.clamp)
        case QExtremum():
            both = [apply_affine((x,), a, *op.clamp) for x, a in zip(inputs, op.affines, strict=True)]
            return np.minimum(*both) if op.smallest else np.maximum(*both)
        case QTable():
            return op.entries.astype(np.int64)[inputs[0] - code_range(tensors[0].bits)[0]]
        case QPrelu():
            return _prelu(op, inputs[0] - tensors[0].zero_point)
        case QConcat():
            rescaled = [apply_affine((x,), a, *op.clamp) for x, a in zip(inputs, op.affines, strict=True)]
            return np.concatenate(rescaled, axis=3)
        case QMaxPool():
            lowest = code_range(tensors[0].bits)[0]  # of padding taps: never above a tap inside the image
            largest = reduce(np.maximum, (view for _, _, view in windows(inputs[0], op.window, lowest)))
            return apply_affine((largest,), op.affine, *op.clamp)
        case QAvgPool():
            return _avg_pool(op, inputs[0], tensors[0])
        case QPad():
            rescaled = apply_affine(inputs, op.affine, *op.clamp)
            return pad_images(rescaled, op.padding, op.border)
        case QRescale():
            return apply_affine(inputs, op.affine, *op.clamp)
        case QCopy():
            return copied(inputs[0], op.sizes, op.strides, op.offset, op.output.shape)
        case QResample():
            return _resample(op, inputs[0], tensors[0].zero_point)
        case QL2Normalize():
            return l2_normalize(inputs[0], tensors[0].zero_point)
        case QReshape():
            return inputs[0].reshape(len(inputs[0]), *op.output.shape)
        case QSoftmax():
            return softmax(inputs[0], op.table)
        case QArgmax():
            return inputs[0].argmax(axis=3)[..., None].astype(np.int64)
        case _:
            assert_never(op)


def accumulate(op: QConv2d, x: IntArray, tensor: QTensor) -> IntArray:
    """Accumulators ``bias + sum x * (w - zw)`` of a convolution, int64 [N, OH, OW, O], exact.

    Raises:
        CheckError: one leaves int32.
    """
    zero_points = op.weight_zero_point.astype(np.int64).reshape(-1, 1, 1, 1)
    weight = op.weight.astype(np.int64) - zero_points
    largest = max(abs(code) for code in code_range(tensor.bits))
    bound = largest * int(np.abs(weight).reshape(len(weight), -1).sum(axis=1).max(initial=0))
    if bound >= 1 << 53:
        raise ModelError(f"{op.name}: sums may reach {bound}, which float64 does not hold exactly")
    exact = np.float32 if bound < 1 << 24 else np.float64
    sums = convolve(x.astype(exact), weight.astype(exact), op.window, op.groups, tensor.zero_point)
    acc = sums.astype(np.int64)
    acc += op.bias.astype(np.int64)
    if acc.size and (acc.min() < INT32_MIN or acc.max() > INT32_MAX):
        raise CheckError(f"{op.name}: accumulators {acc.min()}..{acc.max()} leave int32")
    return acc


def _conv(op: QConv2d, x: IntArray, tensor: QTensor) -> IntArray:
    acc = accumulate(op, x, tensor)
    return requantize(acc, op.multiplier, op.shift, op.output.zero_point, *op.clamp, op.roundings)


def _prelu(op: QPrelu, distance: IntArray) -> IntArray:
    factor = np.where(distance >= 0, op.affine.multipliers[0], op.multiplier.astype(np.int64))
    return np.clip((distance * factor + op.affine.constant) >> op.affine.shift, *op.clamp)


def _resample(op: QResample, x: IntArray, zero_point: int) -> IntArray:
    """Columns, then rows; without weights the codes themselves."""
    row, column = op.row.astype(np.int64), op.column.astype(np.int64)
    if op.chooses:
        return x[:, row][:, :, column]
    d = x - zero_point
    right, below = np.minimum(column + 1, x.shape[2] - 1), np.minimum(row + 1, x.shape[1] - 1)
    across = blend(d[:, :, column], d[:, :, right], op.column_weight[:, None])
    both = blend(across[:, row], across[:, below], op.row_weight[:, None, None])
    return requantize(both, op.multiplier, op.shift, op.output.zero_point, *op.clamp)


def _avg_pool(op: QAvgPool, x: IntArray, tensor: QTensor) -> IntArray:
    total = reduce(np.add, (view for _, _, view in windows(x - tensor.zero_point, op.window, 0)))
    if op.multiplier.size == 1:
        entry = np.zeros((1, 1), dtype=np.int64)
    else:
        entry = tap_counts(x.shape[1], x.shape[2], op.window) - 1
    multiplier, shift = op.multiplier[entry][:, :, None], op.shift[entry][:, :, None]
    return requantize(total, multiplier, shift, op.output.zero_point, *op.clamp)
