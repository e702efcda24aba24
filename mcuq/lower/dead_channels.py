"""Exact removal of channels that cannot matter: constant for every possible input, or read by zero weights only.

Channels that must go together (a depthwise convolution's input and output, both sides of an addition, a
flattened channel's pixels) form one class. A class goes when every full convolution that reads one of its
channels can do without: its weights there equal their zero point, or the code there is constant and can move
into the bias. Behind a padded window a constant can move only if it is the code that padding reads. Outputs
of the network stay the same to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from mcuq.ir.graph import is_depthwise
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
from mcuq.ir.verify import Level, verify
from mcuq.lower.intervals import Interval, intervals
from mcuq.numerics import IntArray

Kept = NDArray[np.bool_]


def remove_dead_channels(graph: IntegerGraph) -> IntegerGraph:
    """``graph`` without the channels that cannot matter; the same object when there are none.

    Every remaining tensor keeps at least one channel. Inputs and outputs keep their shape.
    """
    while True:
        kept = _kept_channels(graph)
        if all(mask.all() for mask in kept.values()):
            return graph
        graph = _without(graph, kept)
        verify(graph, Level.INTEGER)


@dataclass(frozen=True, slots=True, eq=False)
class _Classes:
    """Union-find over all channels; ``first`` is the number of a tensor's channel 0."""

    first: dict[str, int]
    parents: IntArray
    pinned: Kept

    def numbers(self, name: str, channels: int) -> IntArray:
        return np.arange(self.first[name], self.first[name] + channels)

    def root(self, number: int) -> int:
        parents = self.parents
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = int(parents[number])
        return number

    def tie(self, one: IntArray, other: IntArray) -> None:
        """Channels at equal places of both arrays go or stay together."""
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            self.parents[self.root(a)] = self.root(b)

    def pin(self, numbers: IntArray) -> None:
        """These channels stay."""
        self.pinned[numbers] = True


def _kept_channels(graph: IntegerGraph) -> dict[str, Kept]:
    """Tensor name -> which channels stay."""
    sizes = {op.name: op.output.shape[2] for op in graph}
    starts = np.cumsum([0, *sizes.values()])
    total = int(starts[-1])
    first = dict(zip(sizes, starts.tolist(), strict=False))
    classes = _Classes(first, np.arange(total), np.zeros(total, dtype=np.bool_))
    ranges = intervals(graph)
    for op in graph:
        _constrain(classes, op, graph, ranges)
    for name in graph.outputs:
        classes.pin(classes.numbers(name, sizes[name]))
    roots = np.array([classes.root(number) for number in range(total)])
    pinned = np.zeros(total, dtype=np.bool_)
    np.logical_or.at(pinned, roots, classes.pinned)
    return _leave_one(roots, pinned, {name: slice(first[name], first[name] + size) for name, size in sizes.items()})


def _leave_one(roots: IntArray, pinned: Kept, places: dict[str, slice]) -> dict[str, Kept]:
    """Masks from the pinned classes; a tensor about to lose its last channel keeps its first class."""
    pinned = pinned.copy()
    for place in places.values():
        if not pinned[roots[place]].any():
            pinned[roots[place][0]] = True
    return {name: pinned[roots[place]] for name, place in places.items()}


def _constrain(classes: _Classes, op: IntegerOp, graph: IntegerGraph, ranges: dict[str, Interval]) -> None:
    """Tie and pin what ``op`` needs."""
    outputs = classes.numbers(op.name, op.output.shape[2])
    inputs = [classes.numbers(name, graph.tensor(name).shape[2]) for name in op.inputs]
    match op:
        case QInput():
            classes.pin(outputs)
        case QConv2d():
            source = graph.tensor(op.inputs[0])
            if is_depthwise(op.groups, op.weight.shape, source.shape[2]):
                classes.tie(inputs[0], outputs)
            elif op.groups > 1:
                classes.pin(inputs[0])
                classes.pin(outputs)
            else:
                classes.pin(inputs[0][~_dispensable(op, source, ranges[op.inputs[0]])])
        case QAdd() | QExtremum() | QTable() | QPrelu() | QMaxPool() | QAvgPool() | QPad() | QRescale() | QResample():
            for numbers in inputs:
                classes.tie(numbers, outputs)
        case QMul():
            classes.tie(inputs[0], outputs)
            if len(inputs[1]) == len(outputs):
                classes.tie(inputs[1], outputs)
            else:  # one channel for all
                classes.pin(inputs[1])
        case QConcat():
            classes.tie(np.concatenate(inputs), outputs)
        case QReshape():
            _tie_reshape(classes, inputs[0], outputs)
        case QCopy() | QL2Normalize() | QSoftmax() | QArgmax():
            classes.pin(inputs[0])
            classes.pin(outputs)
        case _:
            assert_never(op)


def _tie_reshape(classes: _Classes, source: IntArray, target: IntArray) -> None:
    """Codes keep their (H, W, C) order, so channels correspond when one count divides the other."""
    if len(target) % len(source) == 0:
        classes.tie(np.resize(source, len(target)), target)
    elif len(source) % len(target) == 0:
        classes.tie(source, np.resize(target, len(source)))
    else:
        classes.pin(source)
        classes.pin(target)


def _effective(op: QConv2d) -> IntArray:
    """Weights less their zero points, int64 [O, kh, kw, I/groups]."""
    return op.weight.astype(np.int64) - op.weight_zero_point.astype(np.int64).reshape(-1, 1, 1, 1)


def _dispensable(op: QConv2d, source: QTensor, x: Interval) -> Kept:
    """Per input channel of a full convolution: its contribution is zero or the same for every input and pixel."""
    unused = ~_effective(op).any(axis=(0, 1, 2))
    constant = x.low == x.high
    if any(op.window.padding) or op.window.transposed:
        constant &= x.low == source.zero_point
    return unused | constant


def _without(graph: IntegerGraph, kept: dict[str, Kept]) -> IntegerGraph:
    """``graph`` with the channels of every mask that is False taken out."""
    ranges = intervals(graph)
    ops: list[IntegerOp] = []
    for op in graph:
        height, width, _ = op.output.shape
        output = replace(op.output, shape=(height, width, int(kept[op.name].sum())))
        if isinstance(op, QConv2d):
            constants = ranges[op.inputs[0]].low
            ops.append(_narrow(replace(op, output=output), kept[op.inputs[0]], kept[op.name], constants))
        elif isinstance(op, QPrelu):
            ops.append(replace(op, output=output, multiplier=op.multiplier[kept[op.name]]))
        else:
            ops.append(replace(op, output=output))
    return IntegerGraph(tuple(ops), graph.outputs)


def _narrow(op: QConv2d, inputs: Kept, outputs: Kept, constants: IntArray) -> QConv2d:
    """A convolution of the kept channels, the removed ones' codes moved into the bias.

    The bias cannot outgrow the proof: |bias + sum code * w| <= |bias| + max|x| * sum|w| held before.
    """

    def rows(values: NDArray[np.generic]) -> NDArray[np.generic]:
        return values[outputs] if len(values) == len(outputs) else values

    weight, bias, groups = op.weight, op.bias.astype(np.int64), op.groups
    if groups == 1:
        removed = np.where(inputs, 0, constants)  # of channels with no weight at all any code will do: times 0
        bias = bias + _effective(op).sum(axis=(1, 2)) @ removed
        weight = weight[..., inputs]
    elif not inputs.all():
        groups = int(inputs.sum())
    return replace(
        op,
        weight=weight[outputs],
        weight_zero_point=rows(op.weight_zero_point),
        bias=bias[outputs].astype(np.int32),
        multiplier=rows(op.multiplier),
        shift=rows(op.shift),
        groups=groups,
    )
