"""Executed instructions predicted per operator: a linear model over loop counts, measured under QEMU.

``scripts/measure_instructions`` fits one model per core and kernel family and writes ``instructions.json``. A
prediction is an estimate of executed instructions, not of cycles: no cache, wait state or dual issue is in it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any, assert_never

from mcuq.errors import UsageError
from mcuq.ir.graph import Shape
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
    reshape_is_alias,
)
from mcuq.numerics import Affine
from mcuq.target.cost import conv_case
from mcuq.target.files import product_text
from mcuq.target.kernels import ConvCase, Kernel
from mcuq.target.placement import bands, is_placed, placement_of
from mcuq.target.runtime import conv_kernel, function
from mcuq.target.work import Elementwise, Work, conv_work, elementwise_work, family


def measured_cores() -> tuple[str, ...]:
    """Cores whose instructions can be predicted."""
    return tuple(sorted(_table()["cores"]))


def conv_instructions(case: ConvCase, kernel: Kernel, core: str, *, calls: int = 1) -> int:
    """Predicted instructions of one convolution in ``calls`` bands. Raises UsageError for a core or function never
    measured."""
    work = conv_work(case, kernel)
    return predict(family(kernel.function), {**work, "call": work.get("call", 0) * calls}, core)


def slice_instructions(source: tuple[Shape, int], bits: int, core: str, *, kept: bool = False, calls: int = 1) -> int:
    """Predicted instructions of writing an input (shape, bits) into a concatenation of ``bits``. Raises as above.

    Args:
        kept: codes go there as they are. calls: bands in which a placed convolution writes it.
    """
    work = dict(elementwise_work(Elementwise((source,), (source[0], bits), kept=kept)))
    first = "kept" if kept else "call"
    return predict("mcuq_concat", {**work, first: calls}, core)


def elementwise_instructions(name: str, case: Elementwise, core: str) -> int:
    """Predicted instructions of the runtime function ``name``; 0 for "" (no call). Raises as above."""
    return predict(name, elementwise_work(case), core) if name else 0


def op_instructions(op: IntegerOp, graph: IntegerGraph, core: str) -> int:
    """Predicted instructions of one operator of an integer network. Raises as above."""
    match op:
        case QConv2d():
            return _conv(op, graph, core)
        case QConcat() if is_placed(graph, op.name):
            return 0
        case QConcat():
            return sum(_slice(op, index, graph, core) for index in range(len(op.inputs)))
        case QReshape() if reshape_is_alias(graph.tensor(op.inputs[0]), op.output):
            return 0
        case QMaxPool() | QAvgPool():
            window = op.window
        case QInput() | QAdd() | QPad() | QRescale() | QReshape() | QSoftmax() | QArgmax():
            window = None
        case QMul() | QExtremum() | QTable() | QPrelu() | QCopy() | QResample() | QL2Normalize():
            window = None
        case _:
            assert_never(op)
    sources = [graph.tensor(name) for name in op.inputs] or [op.output]
    case = Elementwise(tuple((t.shape, t.bits) for t in sources), (op.output.shape, op.output.bits), window)
    return elementwise_instructions(function(op, graph, core), case, core)


def _conv(op: QConv2d, graph: IntegerGraph, core: str) -> int:
    """A convolution, all its bands, and what it writes into a concatenation."""
    whole = replace(conv_case(graph, op), output_shape=op.output.shape)
    calls = bands(graph, op.name, op.output.shape)
    count = conv_instructions(whole, conv_kernel(op, graph, core), core, calls=calls)
    placement = placement_of(graph, op.name)
    if placement is None:
        return count
    concat = graph.op(placement.concat)
    assert isinstance(concat, QConcat)
    return count + _slice(concat, placement.index, graph, core, calls)


def _slice(op: QConcat, index: int, graph: IntegerGraph, core: str, calls: int = 1) -> int:
    source, bits = graph.tensor(op.inputs[index]), op.output.bits
    whole = op.clamp == (-128, 127) and source.bits == bits == 8
    kept = whole and op.affines[index] == Affine.identity()
    return slice_instructions((source.shape, source.bits), bits, core, kept=kept, calls=calls)


def graph_instructions(graph: IntegerGraph, core: str) -> int:
    """Predicted instructions of one inference. Raises as above."""
    return sum(op_instructions(op, graph, core) for op in graph)


def predict(name: str, work: Work, core: str) -> int:
    """Predicted instructions of a kernel family for loop counts. Raises UsageError for what was never measured."""
    cores = _table()["cores"]
    if core not in cores:
        known = ", ".join(sorted(cores))
        raise UsageError(f"instructions are known for {known}, not for core {core}; run scripts/measure_instructions")
    model: dict[str, float] | None = cores[core].get(name)
    if model is None:
        raise UsageError(f"instructions of {name} on {core} are not known; run scripts/measure_instructions")
    return max(1, round(sum(model.get(part, 0.0) * count for part, count in work.items())))


@cache
def _table() -> dict[str, Any]:
    return json.loads(product_text("instructions.json"))
