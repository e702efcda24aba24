"""Convolutions that run inside the addition that reads them: band by band, their output is never stored whole.

The result is that of the two operators one after the other, to the bit: a band of output rows is computed into scratch
at the convolution's own bits, then added (runtime_c/src/bands.c). The graph keeps both operators; order, arena
and emitted code have one step, named after the addition.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from mcuq.ir.graph import Add, Conv2d, FloatOp, Graph, Reshape, Shape
from mcuq.ir.integer import IntegerBase, IntegerGraph, IntegerOp, QAdd, QConv2d, QReshape

WIDE = 4
"""Fewest pixels of a band, a group of the matrix kernels; bands are whole groups where the height allows."""

BAND_FUNCTIONS = ("mcuq_band_start", "mcuq_band_next")
"""Runtime functions that a fused addition calls besides its kernel and mcuq_add."""


@dataclass(frozen=True, slots=True)
class Fusion:
    """``conv`` runs inside ``add``, ``rows`` output rows at a time; ``residual`` is the addition's other input."""

    conv: str
    add: str
    residual: str
    rows: int


@lru_cache(maxsize=16)
def fusions(graph: IntegerGraph | Graph) -> tuple[Fusion, ...]:
    """The fusions of a network, in execution order."""
    ops: dict[str, IntegerOp | FloatOp] = {op.name: op for op in graph}
    place = {name: k for k, name in enumerate(ops)}
    readers = readers_by_name(graph)
    found: list[Fusion] = []
    for op in graph:
        if not isinstance(op, Add | QAdd):
            continue
        inside = [n for n in op.inputs if readers[n] == [op.name] and n not in graph.outputs and band_rows(ops[n], ops)]
        # bands are added over the other input: a convolution that reads it, too, may need its own rows only
        others = {root_of(name, ops) for name in op.inputs}
        inside = [n for n in inside if _row_by_row(ops[n]) or root_of(ops[n].inputs[0], ops) not in others]
        if inside:
            conv = max(inside, key=lambda n: (_taps(ops[n]), place[n]))  # a pointwise shortcut may overwrite its input
            residual = op.inputs[1] if op.inputs[0] == conv else op.inputs[0]
            found.append(Fusion(conv, op.name, residual, band_rows(ops[conv], ops)))
    return tuple(found)


def readers_by_name(graph: IntegerGraph | Graph) -> dict[str, list[str]]:
    """Operators that read each tensor, once per reading."""
    readers: dict[str, list[str]] = {}
    for op in graph:
        for name in op.inputs:
            readers.setdefault(name, []).append(op.name)
    return readers


def _row_by_row(op: IntegerOp | FloatOp) -> bool:
    """Every output row of a convolution comes from the input row of the same number."""
    if not isinstance(op, Conv2d | QConv2d):
        return False
    window = op.window
    return window.kernel[0] == 1 and window.stride[0] == 1 and window.padding[0] == window.padding[2] == 0


def root_of(name: str, ops: Mapping[str, IntegerOp | FloatOp]) -> str:
    """The tensor whose bytes ``name`` shows under other shapes."""
    while isinstance(ops[name], Reshape | QReshape):
        name = ops[name].inputs[0]
    return name


def band_rows(op: IntegerOp | FloatOp, ops: Mapping[str, IntegerOp | FloatOp]) -> int:
    """Output rows of a band of a convolution; 0 for what does not run in bands."""
    if not isinstance(op, Conv2d | QConv2d):
        return 0
    if op.window.transposed:
        return 0
    height, width, _ = shape_of(op)
    source = shape_of(ops[op.inputs[0]])
    if (height - 1) * op.window.stride[0] - op.window.padding[0] >= source[0]:
        return 0  # the last band would read padding only
    fits = [b for b in range(1, height) if height % b == 0 and b * width >= WIDE]
    return min(fits, key=lambda b: (b * width % WIDE != 0, b), default=0)


def _taps(op: IntegerOp | FloatOp) -> int:
    return op.window.kernel[0] * op.window.kernel[1] if isinstance(op, Conv2d | QConv2d) else 0


def shape_of(op: IntegerOp | FloatOp) -> Shape:
    """Shape of an operator's output."""
    return op.output.shape if isinstance(op, IntegerBase) else op.shape


def fusion_of_conv(graph: IntegerGraph | Graph, conv: str) -> Fusion | None:
    """The fusion that convolution ``conv`` is part of."""
    return next((f for f in fusions(graph) if f.conv == conv), None)


def fusion_of_add(graph: IntegerGraph | Graph, add: str) -> Fusion | None:
    """The fusion that addition ``add`` is part of."""
    return next((f for f in fusions(graph) if f.add == add), None)


def steps(graph: IntegerGraph) -> tuple[IntegerOp, ...]:
    """The operators that are steps of their own: all but fused convolutions."""
    fused = {f.conv for f in fusions(graph)}
    return tuple(op for op in graph if op.name not in fused)


def reads(graph: IntegerGraph, op: IntegerOp) -> tuple[str, ...]:
    """Tensors that the step of ``op`` reads from the arena: a fused addition reads its convolution's input."""
    fusion = fusion_of_add(graph, op.name)
    if fusion is None:
        return op.inputs
    return tuple(i for n in op.inputs for i in (graph.op(n).inputs if n == fusion.conv else (n,)))


def band_bytes(row: int, width: int, rows: int) -> int:
    """Scratch of a band besides the kernel's: ``rows`` rows of ``width`` pixels of ``row`` bytes, rounded to words."""
    return (rows * width * row + 3) & ~3


def readers(graph: IntegerGraph, name: str) -> Iterable[IntegerOp]:
    """Steps that read tensor ``name``."""
    return (op for op in steps(graph) if name in reads(graph, op))
