"""Concatenations whose inputs are computed where they belong, and inputs that concatenations may spread in place.

Where every input is a convolution that nothing else reads, they run band by band and every band is rescaled into
its channels of the concatenation's output (runtime_c/src/bands.c, concat.c): no input is ever whole in memory, and the
concatenation itself has nothing left to do. Output codes are those of the operators one after the other. Other
concatenations copy their inputs; one that dies there may lie where the output begins and is spread in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from mcuq.ir.graph import Concat, FloatOp, Graph, Shape
from mcuq.ir.integer import IntegerGraph, IntegerOp, QConcat
from mcuq.target.fusion import (
    PoolFusion,
    band_rows,
    fusion_into,
    fusion_of_conv,
    readers_by_name,
    root_of,
    shape_of,
)

ROW_FUNCTIONS = ("mcuq_rows_start", "mcuq_rows_next", "mcuq_concat")
"""Runtime functions that a placed convolution calls besides its kernel."""

SPREAD = 2
"""Inputs of a concatenation, the largest, of which one may be spread in place."""


@dataclass(frozen=True, slots=True)
class Placement:
    """``conv`` writes input number ``index`` of ``concat``, its channels from ``first`` on, ``rows`` rows at a time."""

    conv: str
    concat: str
    index: int
    first: int
    rows: int


@lru_cache(maxsize=16)
def placements(graph: IntegerGraph | Graph) -> tuple[Placement, ...]:
    """The placed convolutions of a network, by concatenation in execution order."""
    ops: dict[str, IntegerOp | FloatOp] = {op.name: op for op in graph}
    readers = readers_by_name(graph)
    found: list[Placement] = []
    for op in graph:
        if not isinstance(op, Concat | QConcat):
            continue
        rows = [band_rows(ops[n], ops) for n in op.inputs]
        alone = all(readers[n] == [op.name] and n not in graph.outputs for n in op.inputs)
        if not alone or not all(rows) or not _pays(op.inputs, ops, readers):
            continue
        channels = [shape_of(ops[n])[2] for n in op.inputs]
        found += [Placement(n, op.name, k, sum(channels[:k]), rows[k]) for k, n in enumerate(op.inputs)]
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Branch:
    """Sizes of the operators that lead to one input: before its convolution, what that reads, what it writes."""

    before: int
    last: int
    output: int

    @property
    def peak(self) -> int:
        return max(self.before, self.last + self.output)


def _pays(inputs: tuple[str, ...], ops: Mapping[str, IntegerOp | FloatOp], readers: Mapping[str, list[str]]) -> bool:
    """Placing holds no more codes than storing every input and spreading the largest, branch after branch.

    Placed, the whole output is live from the end of the first branch on; stored, what was computed so far is.
    """
    branches = [_branch(name, ops, readers) for name in inputs]
    total = sum(branch.output for branch in branches)
    shared = {n for name in inputs for n in _shared(name, ops, readers)}
    source = sum(prod(shape_of(ops[n])) for n in shared)
    placed = [
        max(first.before, total + first.last, *(total + max(b.before, b.last) for b in branches if b is not first))
        for first in branches
    ]
    done, stored_peak = 0, 0
    for branch in sorted(branches, key=lambda b: b.output - b.peak):
        stored_peak, done = max(stored_peak, source + done + branch.peak), done + branch.output
    spread = 2 * total - max(branch.output for branch in branches)
    return source + min(placed) <= max(stored_peak, spread)


def _branch(name: str, ops: Mapping[str, IntegerOp | FloatOp], readers: Mapping[str, list[str]]) -> _Branch:
    own = [n for n in ops[name].inputs if len(readers[n]) == 1]
    parts = [_branch(n, ops, readers) for n in own]
    last = sum(part.output for part in parts)
    return _Branch(max((part.peak for part in parts), default=0), last, prod(shape_of(ops[name])))


def _shared(name: str, ops: Mapping[str, IntegerOp | FloatOp], readers: Mapping[str, list[str]]) -> set[str]:
    """Tensors that the branch of ``name`` reads and others, too."""
    found: set[str] = set()
    for n in ops[name].inputs:
        found |= {n} if len(readers[n]) > 1 else _shared(n, ops, readers)
    return found


def placement_of(graph: IntegerGraph | Graph, conv: str) -> Placement | None:
    """Where convolution ``conv`` writes, if it writes into a concatenation."""
    return next((p for p in placements(graph) if p.conv == conv), None)


def is_placed(graph: IntegerGraph | Graph, concat: str) -> bool:
    """All inputs of ``concat`` are written in place: nothing is left to copy."""
    return any(p.concat == concat for p in placements(graph))


def stored(graph: IntegerGraph | Graph, name: str) -> str:
    """The tensor into whose bytes the step of operator ``name`` writes: its own, or a concatenation's."""
    placement = placement_of(graph, name)
    return placement.concat if placement else name


def rows_at_a_time(graph: IntegerGraph | Graph, conv: str) -> int:
    """Output rows of one call of a convolution's kernel inside another operator or into a concatenation; 0: all."""
    part = fusion_of_conv(graph, conv) or placement_of(graph, conv)
    return part.rows if part else 0


def rows_held(graph: IntegerGraph | Graph, conv: str) -> int:
    """Rows of a convolution's output in scratch at once; 0: none, it is stored whole."""
    part = fusion_of_conv(graph, conv)
    return part.bands.held if isinstance(part, PoolFusion) else rows_at_a_time(graph, conv)


def bands(graph: IntegerGraph | Graph, conv: str, shape: Shape) -> int:
    """Calls of a convolution's kernel for an output of ``shape``."""
    return shape[0] // (rows_at_a_time(graph, conv) or shape[0])


def call_kind(graph: IntegerGraph | Graph, op: IntegerOp | FloatOp) -> str:
    """What the emitted call of the step ``op`` is called in the table of code sizes (``code_table``)."""
    if fusion := fusion_into(graph, op.name):
        return type(fusion).__name__
    if placement_of(graph, op.name):
        return "PlacedConv"
    return "Placed" if is_placed(graph, op.name) else type(op).__name__.removeprefix("Q")


def spreadable(graph: IntegerGraph | Graph, op: IntegerOp | FloatOp) -> tuple[str, ...]:
    """Inputs of a concatenation that may be spread in place where their bits are no more than the output's: the largest
    of those whose bytes it reads once."""
    ops: dict[str, IntegerOp | FloatOp] = {o.name: o for o in graph}
    roots = [root_of(name, ops) for name in op.inputs]
    once = [n for n, root in zip(op.inputs, roots, strict=True) if roots.count(root) == 1]
    return tuple(sorted(once, key=lambda n: -shape_of(ops[n])[2])[:SPREAD])
