"""Bytes a deployed network is promised to take, before anything is compiled.

Weights and parameters are exact: they follow from the graph and the kernels' layouts. Code comes from
``code_size.json``, a table of what every runtime function pulls in on every core, measured by
``scripts/measure_code``; a sum of it is within ``CODE_TOLERANCE`` of the linked image.
"""

from __future__ import annotations

from dataclasses import dataclass

from mcuq.ir.integer import IntegerGraph, IntegerOp, QConv2d, QReshape, reshape_is_alias
from mcuq.ir.plans import MemoryPlan
from mcuq.numerics import common_shift
from mcuq.target import code_table
from mcuq.target.cost import RAM_RESERVE, band_struct, conv_case, conv_parameter_bytes, struct_bytes
from mcuq.target.fusion import BAND_FUNCTIONS, fusions, steps
from mcuq.target.placement import ROW_FUNCTIONS, call_kind, placements
from mcuq.target.runtime import conv_kernel, function

CODE_TOLERANCE = 0.05
"""Promised code may differ from measured code by this fraction, in either direction."""

STACK_BYTES = RAM_RESERVE
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
    arena = sum(block.size for block in plan.blocks)
    return Footprint(weights, parameters, runtime, model, startup, arena, 0, stack_bytes)


def data_bytes(graph: IntegerGraph, core: str) -> tuple[int, int]:
    """Exact bytes of (weights, parameters) in flash: every array starts on a word, structs are whole words."""
    weights = sum(_round4(conv_kernel(op, graph, core).weight_bytes) for op in graph if isinstance(op, QConv2d))
    return weights, sum(_parameter_bytes(op, graph, core) for op in graph) + sum(map(band_struct, fusions(graph)))


def _parameter_bytes(op: IntegerOp, graph: IntegerGraph, core: str) -> int:
    if not isinstance(op, QConv2d):
        return struct_bytes(op)
    kernel, case = conv_kernel(op, graph, core), conv_case(graph, op)
    if kernel.packs_parameters:
        return struct_bytes(op)
    shifts = 0 if common_shift(op.shift) is not None else op.shift.size
    zero_points = op.weight_zero_point.size if case.asymmetric else 0
    return struct_bytes(op) + conv_parameter_bytes(op.bias.size, op.multiplier.size, shifts, zero_points)


def code_bytes(graph: IntegerGraph, core: str) -> tuple[int, int, int]:
    """Bytes of (runtime, model, startup) code by the measured table.

    Raises:
        UsageError: a function was never measured on this core.
    """
    names = {name for op in graph if not _is_view(op, graph) and (name := function(op, graph, core))}
    names |= {name for fusion in fusions(graph) for name in BAND_FUNCTIONS[type(fusion)]}
    names |= set(ROW_FUNCTIONS) if placements(graph) else set()
    needed = {symbol for name in names for symbol in code_table.symbols(name, core)}
    runtime = sum(code_table.symbol_bytes(symbol, core) for symbol in needed)
    calls = [(call_kind(graph, op), len(op.inputs)) for op in steps(graph)]
    return runtime, code_table.model_bytes(core, calls), code_table.startup_bytes(core)


def _is_view(op: IntegerOp, graph: IntegerGraph) -> bool:
    return isinstance(op, QReshape) and reshape_is_alias(graph.tensor(op.inputs[0]), op.output)


def _round4(size: int) -> int:
    return (size + 3) & ~3
