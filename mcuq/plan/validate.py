"""Naive checks of every answer. Nothing here is shared with the solvers; simplicity before speed.

``check_memory`` plays a plan byte by byte: each byte of the arena remembers whose content it holds, and an
operator must find its inputs intact.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mcuq.errors import CheckError
from mcuq.ir.integer import IntegerGraph, IntegerOp, QConcat, QConv2d, QInput, QReshape
from mcuq.ir.plans import MemoryPlan
from mcuq.plan.validate_overlap import is_view, may_share, origin
from mcuq.target.fusion import readers, reads, steps
from mcuq.target.runtime import step_scratch


def check_memory(graph: IntegerGraph, core: str, plan: MemoryPlan, ram: int | None = None) -> None:
    """Raise CheckError unless ``plan`` runs ``graph`` on ``core`` (within ``ram`` bytes of arena, if given).

    Checked: the order is a topological permutation that starts with the inputs; each tensor has one buffer of
    its size whose span covers its writer and readers (graph outputs: to the end), each kernel its scratch;
    offsets are multiples of 4 inside the arena, no buffer lies on both sides of a cut; two buffers in use at one
    step share bytes only as a view or where an output may be written over an input; and, played step by step, no
    operator finds a byte of its inputs overwritten.
    """
    _check_order(graph, plan)
    _check_spans(graph, core, plan)
    _check_pairs(graph, core, plan)
    _play(graph, plan)
    if not 0 <= plan.lower_bound <= plan.arena_bytes:
        raise CheckError(f"arena of {plan.arena_bytes} bytes is below its own lower bound {plan.lower_bound}")
    if ram is not None and plan.arena_bytes > ram:
        raise CheckError(f"arena of {plan.arena_bytes} bytes exceeds the limit of {ram}")


def _check_order(graph: IntegerGraph, plan: MemoryPlan) -> None:
    if sorted(plan.order) != sorted(op.name for op in steps(graph)):
        raise CheckError("the order is not a permutation of the operators")
    inputs = [op.name for op in graph if isinstance(op, QInput)]
    if sorted(plan.order[: len(inputs)]) != sorted(inputs):
        raise CheckError(f"the order starts with {plan.order[0]}, not with all of {', '.join(inputs)}")
    seen: set[str] = set()
    for name in plan.order:
        missing = [i for i in reads(graph, graph.op(name)) if i not in seen]
        if missing:
            raise CheckError(f"{name} runs before its input {missing[0]}")
        seen.add(name)


def _check_spans(graph: IntegerGraph, core: str, plan: MemoryPlan) -> None:
    step = {name: k for k, name in enumerate(plan.order)}
    expected: dict[tuple[str, str], tuple[int, int, int]] = {}
    placed = _placed(graph, plan)
    into = {part for parts in placed.values() for part in parts}
    for op in steps(graph):
        first = min(step[name] for name in (op.name, *placed.get(op.name, ())))
        last = max([step[op.name], *(step[c.name] for c in readers(graph, op.name))])
        if op.name in graph.outputs:
            last = len(plan.order) - 1
        if op.name not in into:
            expected[op.name, "activation"] = (op.output.bytes, first, last)
        if scratch := step_scratch(op, graph, core):
            expected[op.name, "scratch"] = (scratch, step[op.name], step[op.name])
    found = {(b.name, b.kind): (b.size, b.first, b.last) for b in plan.buffers}
    if len(found) != len(plan.buffers):
        raise CheckError("a tensor has two buffers")
    for key in expected.keys() | found.keys():
        if expected.get(key) != found.get(key):
            raise CheckError(
                f"buffer {key[0]} ({key[1]}): (size, first, last) {found.get(key)}, expected {expected.get(key)}"
            )
    for b in plan.buffers:
        if b.offset < 0 or b.offset % 4 or b.offset + b.size > plan.arena_bytes:
            raise CheckError(f"buffer {b.name} at {b.offset} size {b.size}: outside the arena or not on 4 bytes")
        for cut in plan.cuts:
            if b.offset < cut < b.offset + b.size:
                raise CheckError(f"buffer {b.name} at {b.offset} size {b.size} lies on both sides of the cut at {cut}")


def _placed(graph: IntegerGraph, plan: MemoryPlan) -> dict[str, tuple[str, ...]]:
    """Concatenations whose inputs have no bytes of their own: convolutions that run band by band and write into them.

    Raises:
        CheckError: such an input is no convolution of that kind, or something else reads it.
    """
    found: dict[str, tuple[str, ...]] = {}
    every = [name for op in graph for name in op.inputs] + list(graph.outputs)
    buffers = {b.name for b in plan.buffers if b.kind == "activation"}
    for op in graph:
        if isinstance(op, QConcat) and not buffers.intersection(op.inputs):
            for name in op.inputs:
                if every.count(name) != 1 or not _in_bands(graph, graph.op(name)):
                    raise CheckError(f"{name} has no buffer, and cannot write into {op.name} band by band")
            found[op.name] = op.inputs
    return found


def _in_bands(graph: IntegerGraph, op: IntegerOp) -> bool:
    """A convolution of several rows, each part of which has four pixels or more and reads more than padding."""
    if not isinstance(op, QConv2d) or op.window.transposed:
        return False
    height, width, _ = op.output.shape
    last = (height - 1) * op.window.stride[0] - op.window.padding[0]
    parts = any(height % rows == 0 and rows * width >= 4 for rows in range(1, height))
    return parts and last < graph.tensor(op.inputs[0]).shape[0]


def _check_pairs(graph: IntegerGraph, core: str, plan: MemoryPlan) -> None:
    """Every pair in use at one step must be disjoint, unless it is a view or an output over its input."""
    for i, a in enumerate(plan.buffers):
        for b in plan.buffers[:i]:
            in_time = a.first <= b.last and b.first <= a.last
            in_space = a.offset < b.offset + b.size and b.offset < a.offset + a.size
            if in_time and in_space and not (may_share(graph, core, a, b) or may_share(graph, core, b, a)):
                raise CheckError(f"{a.kind} {a.name} and {b.kind} {b.name} overlap in steps and addresses")


def _play(graph: IntegerGraph, plan: MemoryPlan) -> None:
    """Run the plan on an arena whose bytes remember the tensor (by number) and index they hold.

    Where slices of a placed concatenation may share a byte, every two bits of the arena remember instead.
    """
    placed = _placed(graph, plan)
    parts = 4 if any(graph.tensor(name).bits < 8 for name in placed) else 1
    arena: NDArray[np.int64] = np.full(plan.arena_bytes * parts, -1, dtype=np.int64)
    number = {op.name: k for k, op in enumerate(graph)}
    buffers = {(b.name, b.kind): b for b in plan.buffers}
    slices = {part: _slice(graph, name, k, parts) for name, inputs in placed.items() for k, part in enumerate(inputs)}
    into = {part: name for name, inputs in placed.items() for part in inputs}

    def content(name: str) -> NDArray[np.int64]:
        size = graph.tensor(name).bytes * parts
        return np.arange(size, dtype=np.int64) + (np.int64(number[origin(graph, name)]) << 32)

    def view(name: str, kind: str = "activation") -> NDArray[np.int64]:
        b = buffers[name, kind]
        return arena[b.offset * parts : (b.offset + b.size) * parts]

    for name in plan.order:
        op = graph.op(name)
        target = into.get(name, name)
        whole = slices.get(name, np.ones(graph.tensor(target).bytes * parts, dtype=np.bool_))
        if (name, "scratch") in buffers:
            view(name, "scratch")[:] = -1
        for source in (name,) if name in placed else reads(graph, op):
            if not np.array_equal(view(source), content(source)):
                raise CheckError(f"{name} finds its input {source} overwritten")
        if isinstance(op, QInput) or not (isinstance(op, QReshape) and is_view(graph, op)):
            view(target)[whole] = content(target)[whole]
            if (name, "scratch") in buffers:
                view(name, "scratch")[:] = -1
                if not np.array_equal(view(target)[whole], content(target)[whole]):
                    raise CheckError(f"{name} has its scratch inside its output")
    for name in graph.outputs:
        if not np.array_equal(view(name), content(name)):
            raise CheckError(f"output {name} is overwritten before the end")


def _slice(graph: IntegerGraph, concat: str, index: int, parts: int) -> NDArray[np.bool_]:
    """The bytes (or their ``parts``) of a concatenation's output that its input number ``index`` writes."""
    op = graph.op(concat)
    height, width, channels = op.output.shape
    ends = np.cumsum([0, *(graph.tensor(name).shape[2] for name in op.inputs)])
    wide = op.output.bits * parts // 8
    row = np.zeros(op.output.bytes // (height * width) * parts, dtype=np.bool_)
    end = len(row) if ends[index + 1] == channels else ends[index + 1] * wide  # the last one also clears what is left
    row[ends[index] * wide : end] = True
    return np.tile(row, height * width)
