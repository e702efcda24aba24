"""Predicted instructions of every operator as costs that depend on bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mcuq.ir.graph import AvgPool, Concat, Conv2d, FloatOp, Graph, MaxPool
from mcuq.plan.problem import Cost, Term
from mcuq.target.cost import float_case
from mcuq.target.instructions import conv_instructions, elementwise_instructions, slice_instructions
from mcuq.target.kernels import select
from mcuq.target.placement import bands, is_placed
from mcuq.target.work import Elementwise

Key = tuple[int, ...]
Rows = Callable[[tuple[str, ...]], tuple[tuple[str, ...], list[tuple[Key, Key]]]]
"""Decisions of tensors, and rows of (choice of each decision, choice of each tensor)."""
Functions = Callable[[FloatOp], tuple[tuple[str, ...], list[tuple[Key, str]]]]
"""Decisions of an operator's runtime function, and rows of (their bits, function)."""


def instruction_costs(
    graph: Graph, core: str, rows: Rows, functions: Functions, *, asymmetric: bool
) -> tuple[Cost, ...]:
    """One or more costs per operator, named after it, in executed instructions.

    Raises:
        UsageError: a kernel was never measured on ``core``.
    """
    found: list[Cost] = []
    for op in graph:
        if isinstance(op, Conv2d):
            names, chosen = rows((op.inputs[0], f"{op.name}.weight", op.name))
            table: list[tuple[Key, int]] = []
            for key, (x, w, y) in chosen:
                case = float_case(graph, op, (x, w, y), asymmetric=asymmetric)
                whole, calls = replace(case, output_shape=op.shape), bands(graph, op.name, op.shape)
                table.append((key, conv_instructions(whole, select(case, core), core, calls=calls)))
            found.append(Cost(op.name, Term(names, tuple(table))))
        elif isinstance(op, Concat):
            found += [_slice(graph, op, source, core, rows) for source in op.inputs]
        else:
            found.append(_joint(graph, op, core, rows, functions))
    return tuple(found)


def _slice(graph: Graph, op: Concat, source: str, core: str, rows: Rows) -> Cost:
    """What it takes to write one input into a concatenation, by whomever."""
    names, chosen = rows((source, op.name))
    shape, calls = graph.op(source).shape, bands(graph, source, op.shape) if is_placed(graph, op.name) else 1
    table = [(key, slice_instructions((shape, x), y, core, calls=calls)) for key, (x, y) in chosen]
    return Cost(source if is_placed(graph, op.name) else op.name, Term(names, tuple(table)))


def _joint(graph: Graph, op: FloatOp, core: str, rows: Rows, functions: Functions) -> Cost:
    tensors = (*op.inputs, op.name)
    names, chosen = rows(tensors)
    name_of = _lookup(names, functions(op))
    table = [(key, _count(graph, op, name_of(key), bits, core)) for key, bits in chosen]
    return Cost(op.name, Term(names, tuple(table)))


def _lookup(names: tuple[str, ...], found: tuple[tuple[str, ...], list[tuple[Key, str]]]) -> Callable[[Key], str]:
    """The function under the bits of ``names``, which hold all decisions that it depends on."""
    own, table = found
    places = [names.index(name) for name in own]
    return lambda key: dict(table)[tuple(key[k] for k in places)]


def _count(graph: Graph, op: FloatOp, name: str, bits: Key, core: str) -> int:
    shapes = [graph.op(source).shape for source in op.inputs] or [op.shape]
    inputs = tuple(zip(shapes, bits, strict=False))
    window = op.window if isinstance(op, MaxPool | AvgPool) else None
    return elementwise_instructions(name, Elementwise(inputs, (op.shape, bits[-1]), window), core)
