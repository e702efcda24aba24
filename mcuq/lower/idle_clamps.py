"""Exact removal of clamps that can never act: the interval of what they clamp lies inside their bounds.

Kernels that saturate to int8 anyway finish a row in one pass where the clamp is the whole code range. A rescaling that
then changes no code at all is taken out. Outputs of the network stay the same to the last bit.
"""

from __future__ import annotations

from dataclasses import replace

from mcuq.ir.integer import (
    IntegerGraph,
    IntegerOp,
    QAdd,
    QAvgPool,
    QConcat,
    QConv2d,
    QExtremum,
    QMaxPool,
    QMul,
    QPad,
    QPrelu,
    QResample,
    QRescale,
    QTensor,
)
from mcuq.ir.verify import Level, verify
from mcuq.lower.intervals import Interval, interval
from mcuq.numerics import code_range

_CLAMPED = QConv2d | QAdd | QMul | QExtremum | QPrelu | QConcat | QMaxPool | QAvgPool | QPad | QRescale | QResample
_UNBOUNDED = (-(1 << 62), 1 << 62)


def drop_idle_clamps(graph: IntegerGraph) -> IntegerGraph:
    """``graph`` with every bound that cannot act moved to the end of the code range, and without rescalings that
    then change nothing; the same object when there are none. Inputs and outputs keep their names."""
    ranges: dict[str, Interval] = {}
    tensors: dict[str, QTensor] = {}
    renamed: dict[str, str] = {}
    ops: list[IntegerOp] = []
    for op in graph:
        inputs = tuple(renamed.get(name, name) for name in op.inputs)
        old = op
        if inputs != op.inputs:
            op = replace(op, inputs=inputs)
        sources, known = tuple(tensors[name] for name in inputs), tuple(ranges[name] for name in inputs)
        if isinstance(op, _CLAMPED):
            clamp = _needed(op, interval(replace(op, clamp=_UNBOUNDED), known, sources))
            op = op if clamp == op.clamp else replace(op, clamp=clamp)
        if isinstance(op, QRescale) and old.name not in graph.outputs and _changes_nothing(op, sources[0]):
            renamed[op.name] = inputs[0]
            continue
        ranges[op.name], tensors[op.name] = interval(op, known, sources), op.output
        ops.append(op)
    if all(op is old for op, old in zip(ops, graph, strict=False)) and not renamed:
        return graph
    result = IntegerGraph(tuple(ops), graph.outputs)
    verify(result, Level.INTEGER)
    return result


def _needed(op: _CLAMPED, before: Interval) -> tuple[int, int]:
    """The clamp of ``op`` with bounds that no code of ``before``, its output before clamping, exceeds let go."""
    least, most = code_range(op.output.bits)
    low, high = op.clamp
    return least if int(before.low.min()) >= low else low, most if int(before.high.max()) <= high else high


def _changes_nothing(op: QRescale, source: QTensor) -> bool:
    return op.affine.is_identity and source == op.output and op.clamp == code_range(op.output.bits)
