"""Which bytes of its inputs an operator may write its output over, of float and integer networks alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mcuq.ir.graph import (
    Activation,
    Add,
    AvgPool,
    Clip,
    Conv2d,
    Extremum,
    FloatOp,
    Graph,
    MaxPool,
    Mul,
    Pad,
    Prelu,
    Resample,
    Shape,
    Window,
)
from mcuq.ir.integer import (
    IntegerGraph,
    IntegerOp,
    QAdd,
    QAvgPool,
    QConv2d,
    QExtremum,
    QMaxPool,
    QMul,
    QPad,
    QPrelu,
    QResample,
    QRescale,
    QTable,
)
from mcuq.numerics import row_bytes
from mcuq.target.fusion import AddFusion, PoolFusion, fusion_into, shape_of
from mcuq.target.kernel_types import Groups, Kernel
from mcuq.target.overlap import Ints, ascending, bands_distance, least_distance, pool_may_overwrite, window_distance


@dataclass(frozen=True, slots=True)
class Overlap:
    """Where an input that dies at an operator may lie: at the output's first byte (``in_place``; the output is then no
    longer), or ``distance`` bytes or more behind it (None: behind its last byte)."""

    in_place: bool
    distance: int | None


Op = FloatOp | IntegerOp
PIXEL = Groups(1, holds=True)
"""Pixel by pixel, some channels at a time."""


def overlap(
    graph: Graph | IntegerGraph, op: Op, source: str, bits: tuple[int, int], kernel: Kernel | None
) -> Overlap | None:
    """How the step of ``op`` may write over ``source``, which it reads; ``bits`` of both.

    ``kernel``: of a convolution. None: not at all, or by rules of their own (reshapes, concatenations).
    """
    before, fusion = shape_of(graph.op(source)), fusion_into(graph, op.name)
    if isinstance(op, Conv2d | QConv2d):
        assert kernel is not None
        far = None if kernel.groups is None else _behind(before, shape_of(op), op.window, bits, kernel.groups)
        return Overlap(kernel.in_place, far)
    if isinstance(fusion, AddFusion):
        inside = _in_bands(graph, op, fusion, before, bits) if source in graph.op(fusion.conv).inputs else None
        beside = _alone(op, before, bits) if source == fusion.residual else None
        return _both(inside, beside) if inside and beside else inside or beside
    return _in_bands(graph, op, fusion, before, bits) if fusion else _alone(op, before, bits)


def _both(a: Overlap, b: Overlap) -> Overlap:
    """Of an input that is read twice, if it is overwritten in place by one of its readers only row by row."""
    distance = None if a.distance is None or b.distance is None else max(a.distance, b.distance)
    return Overlap(a.in_place or b.in_place, distance)


def _behind(before: Shape, after: Shape, window: Window, bits: tuple[int, int], groups: Groups) -> int:
    pixel = row_bytes(before[2], bits[0]), row_bytes(after[2], bits[1])
    return window_distance(before[:2], after[:2], window, pixel, groups)


def _alone(op: Op, before: Shape, bits: tuple[int, int]) -> Overlap | None:
    after = shape_of(op)
    match op:
        case Add() | Mul() | Extremum() | Activation() | Prelu() | Clip():
            return _elementwise(before, after, bits)
        case QAdd() | QMul() | QExtremum() | QTable() | QPrelu() | QRescale():
            return _elementwise(before, after, bits)
        case MaxPool() | AvgPool() | QMaxPool() | QAvgPool():
            return Overlap(False, _behind(before, after, op.window, bits, PIXEL))
        case Pad() | QPad():
            return Overlap(False, _behind(before, after, Window(padding=op.padding), bits, PIXEL))
        case Resample():
            first = (np.array(op.rows.first, np.int64), np.array(op.columns.first, np.int64))
            return _resampled(*first, before, after, bits)
        case QResample():
            return _resampled(op.row.astype(np.int64), op.column.astype(np.int64), before, after, bits)
        case _:
            return None


def _elementwise(before: Shape, after: Shape, bits: tuple[int, int]) -> Overlap | None:
    """Codes are read and written in ascending order: rows that do not grow never overtake what they come from."""
    if before != after:
        return None  # repeated by a product
    if row_bytes(after[2], bits[1]) <= row_bytes(before[2], bits[0]):
        return Overlap(True, 0)
    return Overlap(False, _behind(before, after, Window(), bits, PIXEL))


def _resampled(rows: Ints, columns: Ints, before: Shape, after: Shape, bits: tuple[int, int]) -> Overlap:
    """The second of two neighbours is read, too, but lies behind."""
    first = ascending((rows[:, None] * before[1] + columns[None, :]).reshape(-1))
    starts = np.arange(len(first))
    pixel = row_bytes(before[2], bits[0]), row_bytes(after[2], bits[1])
    return Overlap(False, least_distance(first, pixel, starts, starts + 1, holds=True))


def _in_bands(
    graph: Graph | IntegerGraph, op: Op, fusion: AddFusion | PoolFusion, before: Shape, bits: tuple[int, int]
) -> Overlap:
    """Over the input of a convolution whose rows wait in scratch to be added or pooled."""
    conv, after = graph.op(fusion.conv), shape_of(op)
    assert isinstance(conv, Conv2d | QConv2d)
    if isinstance(fusion, PoolFusion):
        geometry = before, bits[0], conv.window, shape_of(conv), after, bits[1], fusion.bands
        return Overlap(pool_may_overwrite(*geometry), bands_distance(*geometry))
    return Overlap(False, _behind(before, after, conv.window, bits, Groups(fusion.rows * after[1])))
