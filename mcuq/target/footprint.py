"""Bytes a deployed network is promised to take, before anything is compiled.

Weights and parameters are exact: they follow from the graph and the kernels' layouts. Code comes from
``code_size.json``, a table of what every runtime function pulls in on every core, measured by
``scripts/measure_code``; a sum of it is within ``CODE_TOLERANCE`` of the linked image.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from mcuq.errors import UsageError
from mcuq.ir.integer import (
    IntegerGraph,
    IntegerOp,
    QAdd,
    QArgmax,
    QConcat,
    QConv2d,
    QReshape,
    QSoftmax,
    reshape_is_alias,
)
from mcuq.ir.plans import MemoryPlan
from mcuq.target.cost import struct_bytes
from mcuq.target.files import product_text
from mcuq.target.runtime import conv_kernel, function

CODE_TOLERANCE = 0.05
"""Promised code may differ from measured code by this fraction, in either direction."""

STACK_BYTES = 2048
"""Stack that a linker script sets aside; the build proves from the call graph that it suffices."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Promised bytes. Flash: weights, parameters, runtime, model, startup. RAM: arena, statics, stack."""

    weights: int
    parameters: int
    runtime: int
    model: int
    startup: int
    arena: int
    statics: int
    stack: int

    @property
    def flash(self) -> int:
        return self.weights + self.parameters + self.runtime + self.model + self.startup

    @property
    def ram(self) -> int:
        return self.arena + self.statics + self.stack


def footprint(graph: IntegerGraph, plan: MemoryPlan, core: str, stack_bytes: int = STACK_BYTES) -> Footprint:
    """The promise for ``graph`` on ``core``.

    Raises:
        UsageError: the code of a function was never measured on this core.
    """
    weights, parameters = data_bytes(graph, core)
    runtime, model, startup = code_bytes(graph, core)
    return Footprint(weights, parameters, runtime, model, startup, plan.arena_bytes, 0, stack_bytes)


def data_bytes(graph: IntegerGraph, core: str) -> tuple[int, int]:
    """Exact bytes of (weights, parameters) in flash: every array starts on a word, structs are whole words."""
    weights = sum(_round4(conv_kernel(op, graph, core).weight_bytes) for op in graph if isinstance(op, QConv2d))
    return weights, sum(_parameter_bytes(op, graph, core) for op in graph)


def _parameter_bytes(op: IntegerOp, graph: IntegerGraph, core: str) -> int:
    match op:
        case QConv2d():
            if conv_kernel(op, graph, core).packs_parameters:
                return struct_bytes(op)
            zero_points = _round4(op.weight_zero_point.size) if op.weight_zero_point.any() else 0
            arrays = 4 * op.bias.size + 4 * op.multiplier.size + _round4(op.shift.size) + zero_points
            return struct_bytes(op) + arrays
        case _:
            return struct_bytes(op)


def code_bytes(graph: IntegerGraph, core: str) -> tuple[int, int, int]:
    """Bytes of (runtime, model, startup) code by the measured table.

    Raises:
        UsageError: a function was never measured on this core.
    """
    table = _table()["cores"].get(core)
    names = {name for op in graph if not _is_view(op, graph) and (name := function(op, graph, core))}
    missing = sorted(names - set(table["needs"])) if table else sorted(names)
    if table is None or missing:
        raise UsageError(f"code size of {', '.join(missing)} on {core} is not known; run scripts/measure_code")
    symbols = {symbol for name in names for symbol in table["needs"][name]}
    runtime = sum(_round4(table["bytes"][symbol]) for symbol in symbols)
    model = table["model"] + sum(table["operator"] + _more_arguments(op) for op in graph)
    return runtime, model, table["startup"]


def _is_view(op: IntegerOp, graph: IntegerGraph) -> bool:
    return isinstance(op, QReshape) and reshape_is_alias(graph.tensor(op.inputs[0]), op.output)


def _more_arguments(op: IntegerOp) -> int:
    """Code of a call beyond that of a convolution's: a pointer more, shapes by value, a list of inputs."""
    match op:
        case QAdd():
            return 4
        case QConcat():
            return 8 + 6 * len(op.inputs)
        case QSoftmax() | QArgmax():
            return 12
        case QReshape():
            return 20
        case _:
            return 0


@cache
def _table() -> dict[str, Any]:
    return json.loads(product_text("code_size.json"))


def _round4(size: int) -> int:
    return (size + 3) & ~3
