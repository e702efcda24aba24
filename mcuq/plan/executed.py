"""Predicted instructions of every operator as costs that depend on bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mcuq.ir.graph import AvgPool, Conv2d, FloatOp, Graph, MaxPool
from mcuq.plan.problem import Cost, Term
from mcuq.target.cost import float_case
from mcuq.target.instructions import conv_instructions, elementwise_instructions
from mcuq.target.kernels import select
from mcuq.target.work import Elementwise

Key = tuple[int, ...]
Rows = Callable[[tuple[str, ...]], tuple[tuple[str, ...], list[tuple[Key, Key]]]]
"""Decisions of tensors, and rows of (bits of each decision, bits of each tensor)."""
Functions = Callable[[FloatOp], tuple[tuple[str, ...], list[tuple[Key, str]]]]
"""Decisions of an operator's runtime function, and rows of (their bits, function)."""

JOINT = 2
"""Inputs up to which the bits of an operator without weights are tabled together; beyond, each input apart."""


def instruction_costs(
    graph: Graph, core: str, rows: Rows, functions: Functions, *, asymmetric: bool, per_channel: bool
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
                case = float_case(graph, op, (x, w, y), asymmetric=asymmetric, per_channel=per_channel)
                whole = replace(case, output_shape=op.shape)  # all bands of one inside an addition
                table.append((key, conv_instructions(whole, select(case, core), core)))
            found.append(Cost(op.name, Term(names, tuple(table))))
        elif len(op.inputs) <= JOINT:
            found.append(_joint(graph, op, core, rows, functions))
        else:
            found += _apart(graph, op, core, rows, functions)
    return tuple(found)


def _joint(graph: Graph, op: FloatOp, core: str, rows: Rows, functions: Functions) -> Cost:
    tensors = (*op.inputs, op.name)
    names, chosen = rows(tensors)
    name_of = _lookup(names, functions(op))
    table = [(key, _count(graph, op, name_of(key), bits, core)) for key, bits in chosen]
    return Cost(op.name, Term(names, tuple(table)))


def _apart(graph: Graph, op: FloatOp, core: str, rows: Rows, functions: Functions) -> list[Cost]:
    """All tensors at 8 bits, and what each changes by itself: the model is linear in the inputs."""
    tensors = (*op.inputs, op.name)
    name = functions(op)[1][0][1]
    base = (8,) * len(tensors)
    whole = _count(graph, op, name, base, core)
    found = [Cost(op.name, Term((), (((), whole),)))]
    for k, tensor in enumerate(tensors):
        names, chosen = rows((tensor,))
        changed = [(key, (*base[:k], bits[0], *base[k + 1 :])) for key, bits in chosen]
        table = tuple((key, _count(graph, op, name, bits, core) - whole) for key, bits in changed)
        found.append(Cost(op.name, Term(names, table)))
    return found


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
