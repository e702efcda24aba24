"""Elementwise arithmetic of one tensor becomes one function of it.

Exporters write GELU as five nodes, SiLU as two, hard swish as four. Wherever sums, products and extremes have two
sides that are functions of the same tensor, they are a function of it, too; on the device one table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set

import numpy as np

from mcuq.ir.functions import LONGEST, Function, Step, joined, named
from mcuq.ir.graph import Activation, Add, BatchNorm, Clip, Extremum, FloatOp, Graph, Mul

Form = tuple[str, Function]
"""A tensor as a function of another one (of itself: no steps)."""


def collapse(graph: Graph, keep: Set[str] = frozenset()) -> Graph:
    """``graph`` with arithmetic of one tensor as activations; operators that nobody reads any more are left in.

    Args:
        keep: quantization points: what is behind one is no function of what is before.
    """
    readers = Counter(name for op in graph for name in op.inputs)
    readers.update(graph.outputs)
    ops: dict[str, FloatOp] = {}
    forms: dict[str, Form] = {}
    for op in graph:
        new = _collapsed(op, ops, forms, readers, keep)
        ops[op.name] = new
        forms[op.name] = _form(new, forms, keep)
    return Graph(tuple(ops.values()), graph.outputs)


def _collapsed(
    op: FloatOp, ops: dict[str, FloatOp], forms: dict[str, Form], readers: Counter[str], keep: Set[str]
) -> FloatOp:
    steps = _steps(op)
    if steps is None:
        kind = _kind(op)
        if kind is None or len({forms[name][0] for name in op.inputs}) != 1:
            return op
        (root, left), (_, right) = (forms[name] for name in op.inputs)
        return _activation(op, root, joined(kind, left, right)) if ops[root].shape == op.shape else op
    producer = ops[op.inputs[0]]
    if isinstance(producer, Activation) and readers[producer.name] == 1 and producer.name not in keep:
        return _activation(op, producer.inputs[0], producer.function + steps)
    root, before = forms[op.inputs[0]]
    whole = before + steps
    return _activation(op, root, whole) if len(whole) > 1 and named(whole) != whole else op


def _activation(op: FloatOp, root: str, function: Function) -> FloatOp:
    function = named(function)
    if len(function) > LONGEST:
        return op
    return Activation(name=op.name, inputs=(root,), shape=op.shape, source=op.source, function=function)


def _form(op: FloatOp, forms: dict[str, Form], keep: Set[str]) -> Form:
    steps = _steps(op)
    if steps is None or op.name in keep:
        return op.name, ()
    root, before = forms[op.inputs[0]]
    whole = before + steps
    return (root, whole) if len(whole) <= LONGEST // 2 else (op.name, ())


def _kind(op: FloatOp) -> str | None:
    """Step of an operator of two tensors."""
    match op:
        case Add():
            return "subtract" if op.subtract else "add"
        case Mul():
            return "multiply"
        case Extremum():
            return "min" if op.smallest else "max"
        case _:
            return None


def _steps(op: FloatOp) -> Function | None:
    """What an operator of one tensor does to every element alike; None for others."""
    match op:
        case Activation():
            return op.function
        case Clip(clamp=(low, high)):
            lower = () if low is None else (Step("maximum", (low,)),)
            return (*lower, *(() if high is None else (Step("minimum", (high,)),)))
        case BatchNorm():
            gain, bias = op.norm.gain_bias()
            constant = op.norm.epsilon == 0.0 and bool(np.all(op.norm.variance == 1.0) and np.all(op.norm.mean == 0.0))
            uniform = bool(np.all(gain == gain[0]) and np.all(bias == bias[0]))
            return (Step("affine", (float(gain[0]), float(bias[0]))),) if constant and uniform else None
        case _:
            return None
