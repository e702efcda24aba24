"""Clean-up of an imported graph: constants added after a layer become its bias, unread operators go.

File formats write a bias or a normalization as Mul and Add nodes of their own; after this pass a graph from a
file has the operators that the same network has when it comes from PyTorch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from dataclasses import replace

import numpy as np

from mcuq.errors import CheckError, ModelError
from mcuq.frontend.expressions import collapse
from mcuq.ir.graph import BatchNorm, Conv2d, FloatArray, FloatOp, Graph, Norm
from mcuq.ir.verify import Level, verify


def simplify(graph: Graph, keep: Set[str] = frozenset(), fixed: Set[str] = frozenset()) -> tuple[Graph, dict[str, str]]:
    """``graph`` with functions of one tensor collapsed, affine operators merged, unread ones removed; same function.

    Args:
        keep: tensors that are quantization points: nothing is merged across them.
        fixed: operators whose parameters are the user's, which stay as they are.

    Returns:
        The graph and, for each operator merged into the one before it, that one's name.
    """
    graph = reachable(collapse(reachable(graph), keep))
    readers = Counter(name for op in graph for name in op.inputs)
    readers.update(graph.outputs)
    ops: dict[str, FloatOp] = {}
    renamed: dict[str, str] = {}
    for op in graph:
        op = replace(op, inputs=tuple(renamed.get(name, name) for name in op.inputs))
        producer = ops.get(op.inputs[0]) if op.inputs else None
        merged = None
        if producer is not None and readers[producer.name] == 1 and producer.name not in keep:
            merged = None if fixed & {producer.name, op.name} else _merge(producer, op)
        if merged is None:
            ops[op.name] = op
        else:
            ops[merged.name] = merged
            renamed[op.name] = merged.name
            readers[merged.name] = readers[op.name]
    return Graph(tuple(ops.values()), tuple(renamed.get(name, name) for name in graph.outputs)), renamed


def reachable(graph: Graph) -> Graph:
    """``graph`` without operators that no output needs."""
    wanted = set(graph.outputs)
    kept: list[FloatOp] = []
    for op in reversed(graph.ops):
        if op.name in wanted or not op.inputs:  # the input stays even when nothing reads it
            kept.append(op)
            wanted.update(op.inputs)
    return Graph(tuple(reversed(kept)), graph.outputs)


def _merge(producer: FloatOp, op: FloatOp) -> FloatOp | None:
    match producer, op:
        case Conv2d(norm=None, clamp=(None, None)), BatchNorm() if _plain(op.norm) and np.all(op.norm.gamma == 1.0):
            bias = op.norm.beta if producer.bias is None else producer.bias + op.norm.beta
            return replace(producer, bias=bias)
        case BatchNorm(), BatchNorm() if _plain(op.norm):
            gamma = producer.norm.gamma * op.norm.gamma
            beta = producer.norm.beta * op.norm.gamma + op.norm.beta
            return replace(producer, norm=replace(producer.norm, gamma=gamma, beta=beta))
        case BatchNorm(), BatchNorm() if _plain(producer.norm):
            gain, bias = op.norm.gain_bias()
            return replace(producer, norm=_affine(gain * producer.norm.gamma, gain * producer.norm.beta + bias))
        case _:
            return None


def _plain(norm: Norm) -> bool:
    """True when the norm is ``gamma * x + beta``, as constants in files give it."""
    return norm.epsilon == 0.0 and bool(np.all(norm.mean == 0.0) and np.all(norm.variance == 1.0))


def _affine(gain: FloatArray, bias: FloatArray) -> Norm:
    """The norm that is ``gain * x + bias``, arrays [C]."""
    return Norm(gain, bias, np.zeros_like(gain), np.ones_like(gain), 0.0)


def checked(graph: Graph, level: Level) -> Graph:
    """``graph`` after :func:`verify`. Raises ModelError where the model breaks a rule (sizes, numbers)."""
    try:
        verify(graph, level)
    except CheckError as error:
        raise ModelError(f"the model does not fit: {error}. Change the model.") from error
    return graph
