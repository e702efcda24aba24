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
from mcuq.target.cost import conv_case
from mcuq.target.files import product_text
from mcuq.target.kernels import ConvCase, Kernel
from mcuq.target.runtime import conv_kernel, function
from mcuq.target.work import Elementwise, Work, conv_work, elementwise_work, family


def measured_cores() -> tuple[str, ...]:
    """Cores whose instructions can be predicted."""
    return tuple(sorted(_table()["cores"]))


def conv_instructions(case: ConvCase, kernel: Kernel, core: str) -> int:
    """Predicted instructions of one convolution. Raises UsageError for a core or function never measured."""
    return predict(family(kernel.function), conv_work(case, kernel), core)


def elementwise_instructions(name: str, case: Elementwise, core: str) -> int:
    """Predicted instructions of the runtime function ``name``; 0 for "" (no call). Raises as above."""
    return predict(name, elementwise_work(case), core) if name else 0


def op_instructions(op: IntegerOp, graph: IntegerGraph, core: str) -> int:
    """Predicted instructions of one operator of an integer network. Raises as above."""
    match op:
        case QConv2d():
            whole = replace(conv_case(graph, op), output_shape=op.output.shape)  # all bands of a fused one
            return conv_instructions(whole, conv_kernel(op, graph, core), core)
        case QReshape() if reshape_is_alias(graph.tensor(op.inputs[0]), op.output):
            return 0
        case QMaxPool() | QAvgPool():
            window = op.window
        case QInput() | QAdd() | QConcat() | QPad() | QRescale() | QReshape() | QSoftmax() | QArgmax():
            window = None
        case QMul() | QExtremum() | QTable() | QPrelu() | QCopy() | QResample() | QL2Normalize():
            window = None
        case _:
            assert_never(op)
    sources = [graph.tensor(name) for name in op.inputs] or [op.output]
    case = Elementwise(tuple((t.shape, t.bits) for t in sources), (op.output.shape, op.output.bits), window)
    return elementwise_instructions(function(op, graph, core), case, core)


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
