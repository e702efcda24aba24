"""Interval propagation: the smallest and largest code every channel can take, for every possible input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import numpy as np

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
from mcuq.numerics import BLEND_BITS, Affine, IntArray, apply_affine, code_range, requantize


@dataclass(frozen=True, slots=True, eq=False)
class Interval:
    """Per channel, over all pixels and inputs: int64 [C], ``low <= code <= high``. Sound, not always tight."""

    low: IntArray
    high: IntArray

    def with_code(self, code: int) -> Interval:
        """The interval that also holds ``code``."""
        return Interval(np.minimum(self.low, code), np.maximum(self.high, code))


def intervals(graph: IntegerGraph) -> dict[str, Interval]:
    """Tensor name -> interval of every channel."""
    found: dict[str, Interval] = {}
    for op in graph:
        tensors = tuple(graph.tensor(name) for name in op.inputs)
        found[op.name] = interval(op, tuple(found[name] for name in op.inputs), tensors)
    return found


def interval(op: IntegerOp, inputs: tuple[Interval, ...], tensors: tuple[QTensor, ...]) -> Interval:
    """Interval of what ``op`` writes, from those of its inputs; ``tensors`` are the inputs themselves."""
    match op:
        case QInput() | QSoftmax() | QL2Normalize():
            low, high = code_range(op.output.bits)
            return _full(op.output.shape[2], low, high)
        case QArgmax():
            return _full(1, 0, tensors[0].shape[2] - 1)
        case QConv2d():
            return _conv(op, inputs[0], tensors[0])
        case QAdd():
            return _rescaled(inputs, op.affine, op.clamp)
        case QMul():
            return _mul(op, inputs, tensors)
        case QExtremum():
            a, b = (_rescaled((x,), affine, op.clamp) for x, affine in zip(inputs, op.affines, strict=True))
            choose = np.minimum if op.smallest else np.maximum
            return Interval(choose(a.low, b.low), choose(a.high, b.high))
        case QTable():
            return _table(op, inputs[0], tensors[0])
        case QPrelu():
            return _prelu(op, inputs[0], tensors[0])
        case QConcat():
            parts = [_rescaled((x,), a, op.clamp) for x, a in zip(inputs, op.affines, strict=True)]
            return Interval(np.concatenate([p.low for p in parts]), np.concatenate([p.high for p in parts]))
        case QMaxPool() | QRescale():
            return _rescaled(inputs, op.affine, op.clamp)
        case QPad():
            rescaled = _rescaled(inputs, op.affine, op.clamp)
            return rescaled.with_code(op.border) if any(op.padding) else rescaled
        case QAvgPool():
            return _avg_pool(op, inputs[0], tensors[0])
        case QReshape():
            return _reshaped(inputs[0], op.output.shape[2])
        case QCopy():
            return _full(op.output.shape[2], int(inputs[0].low.min()), int(inputs[0].high.max()))
        case QResample():
            return inputs[0] if op.chooses else _blended(op, inputs[0], tensors[0])
        case _:
            assert_never(op)


def _full(channels: int, low: int, high: int) -> Interval:
    return Interval(np.full(channels, low, dtype=np.int64), np.full(channels, high, dtype=np.int64))


def _between(first: IntArray, second: IntArray) -> Interval:
    return Interval(np.minimum(first, second), np.maximum(first, second))


def _conv(op: QConv2d, x: Interval, source: QTensor) -> Interval:
    """Extremes of a sum are the sums of its terms' extremes; requantization is monotone, or falling."""
    if any(op.window.padding) or op.window.transposed:
        x = x.with_code(source.zero_point)
    weight = op.weight.astype(np.int64) - op.weight_zero_point.astype(np.int64).reshape(-1, 1, 1, 1)
    shape = (op.groups, len(weight) // op.groups, weight.shape[3])
    positive = np.maximum(weight, 0).sum(axis=(1, 2)).reshape(shape)
    negative = np.minimum(weight, 0).sum(axis=(1, 2)).reshape(shape)
    low, high = (bound.reshape(op.groups, 1, -1) for bound in (x.low, x.high))
    bias = op.bias.astype(np.int64)
    least = bias + (positive * low + negative * high).sum(axis=2).reshape(-1)
    most = bias + (positive * high + negative * low).sum(axis=2).reshape(-1)
    zero = op.output.zero_point
    codes = (requantize(a, op.multiplier, op.shift, zero, *op.clamp, op.roundings) for a in (least, most))
    return _between(*codes)


def _rescaled(inputs: tuple[Interval, ...], affine: Affine, clamp: tuple[int, int]) -> Interval:
    lows = tuple(x.low if m >= 0 else x.high for x, m in zip(inputs, affine.multipliers, strict=True))
    highs = tuple(x.high if m >= 0 else x.low for x, m in zip(inputs, affine.multipliers, strict=True))
    return Interval(apply_affine(lows, affine, *clamp), apply_affine(highs, affine, *clamp))


def _mul(op: QMul, inputs: tuple[Interval, ...], tensors: tuple[QTensor, ...]) -> Interval:
    """A product is extreme at the ends of both factors; requantization is monotone, or falling."""
    a, b = ((x.low - t.zero_point, x.high - t.zero_point) for x, t in zip(inputs, tensors, strict=True))
    corners = np.stack([x * y for x in a for y in b])
    ends = (corners.min(axis=0), corners.max(axis=0))
    codes = (requantize(end, op.multiplier, op.shift, op.output.zero_point, *op.clamp) for end in ends)
    return _between(*codes)


def _table(op: QTable, x: Interval, source: QTensor) -> Interval:
    """Extremes of the entries that each channel can reach."""
    first = code_range(source.bits)[0]
    reached = [op.entries[low - first : high - first + 1] for low, high in zip(x.low, x.high, strict=True)]
    low, high = ([int(bound(part)) for part in reached] for bound in (np.min, np.max))
    return Interval(np.array(low, dtype=np.int64), np.array(high, dtype=np.int64))


def _prelu(op: QPrelu, x: Interval, source: QTensor) -> Interval:
    """Both sides of zero are straight: the extremes lie at the ends and at zero."""
    zero, negative = source.zero_point, op.multiplier.astype(np.int64)
    values: list[IntArray] = []
    for code in (x.low, x.high, np.clip(np.full_like(x.low, zero), x.low, x.high)):
        factor = np.where(code >= zero, op.affine.multipliers[0], negative)
        values.append(np.clip(((code - zero) * factor + op.affine.constant) >> op.affine.shift, *op.clamp))
    every = np.stack(values)
    return Interval(every.min(axis=0), every.max(axis=0))


def _blended(op: QResample, x: Interval, source: QTensor) -> Interval:
    """A blend lies between its neighbours."""
    ends = ((code - source.zero_point) << (2 * BLEND_BITS) for code in (x.low, x.high))
    return _between(*(requantize(e, op.multiplier, op.shift, op.output.zero_point, *op.clamp) for e in ends))


def _avg_pool(op: QAvgPool, x: Interval, source: QTensor) -> Interval:
    """Over every possible number of taps inside the image; all of them where there is no padding."""
    area = op.window.kernel[0] * op.window.kernel[1]
    if not any(op.window.padding):
        counts = np.array([area])
    else:
        counts = np.arange(0 if op.multiplier.size == 1 else 1, area + 1)  # a table has no entry for no tap
    entry = np.zeros_like(counts) if op.multiplier.size == 1 else counts - 1
    multiplier, shift = op.multiplier[entry][:, None], op.shift[entry][:, None]
    bounds: list[IntArray] = []
    for code in (x.low, x.high):
        total = counts[:, None] * (code - source.zero_point)
        bounds.append(requantize(total, multiplier, shift, op.output.zero_point, *op.clamp))
    every = np.concatenate(bounds)
    return Interval(every.min(axis=0), every.max(axis=0))


def _reshaped(x: Interval, channels: int) -> Interval:
    if channels % len(x.low) == 0:
        return Interval(np.resize(x.low, channels), np.resize(x.high, channels))
    if len(x.low) % channels == 0:
        return Interval(x.low.reshape(-1, channels).min(axis=0), x.high.reshape(-1, channels).max(axis=0))
    return _full(channels, int(x.low.min()), int(x.high.max()))
