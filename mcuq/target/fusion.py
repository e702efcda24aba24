"""Convolutions that run inside the addition or pool that reads them: their output is never stored whole.

The result is that of the two operators one after the other, to the bit: some output rows are computed into scratch
at the convolution's own bits, then added or pooled (runtime_c/src/bands.c). The graph keeps both
operators; order, arena and emitted code have one step, named after the addition or pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from mcuq.ir.graph import Add, AvgPool, Conv2d, FloatOp, Graph, MaxPool, Reshape, Shape, is_depthwise
from mcuq.ir.integer import IntegerBase, IntegerGraph, IntegerOp, QAdd, QAvgPool, QConv2d, QMaxPool, QReshape
from mcuq.target.overlap import pool_may_overwrite
from mcuq.target.pool_bands import Bands, bands_of

WIDE = 4
"""Fewest pixels of a band, a group of the matrix kernels; bands are whole groups where the height allows."""


@dataclass(frozen=True, slots=True)
class AddFusion:
    """``conv`` runs inside the addition ``into``, ``rows`` output rows at a time; ``residual`` is its other input."""

    conv: str
    into: str
    residual: str
    rows: int


@dataclass(frozen=True, slots=True)
class PoolFusion:
    """``conv`` runs inside the pool ``into``, ``rows`` output rows at a time, as the pool's ``bands`` need them."""

    conv: str
    into: str
    rows: int
    bands: Bands


Fusion = AddFusion | PoolFusion

BAND_FUNCTIONS = {
    AddFusion: ("mcuq_band_start", "mcuq_band_next"),
    PoolFusion: ("mcuq_pool_band_start", "mcuq_pool_band_call", "mcuq_pool_band_next"),
}
"""Runtime functions that a fusion calls besides the operators' own."""

Ops = Mapping[str, IntegerOp | FloatOp]


@lru_cache(maxsize=16)
def fusions(graph: IntegerGraph | Graph) -> tuple[Fusion, ...]:
    """The fusions of a network, in execution order."""
    ops: dict[str, IntegerOp | FloatOp] = {op.name: op for op in graph}
    readers = readers_by_name(graph)
    found: list[Fusion] = []
    for op in graph:
        inside = tuple(n for n in op.inputs if readers[n] == [op.name] and n not in graph.outputs)
        if isinstance(op, Add | QAdd):
            fusion = _in_addition(op, inside, ops)
        elif isinstance(op, MaxPool | QMaxPool | AvgPool | QAvgPool) and inside:
            conv = ops[inside[0]]
            kept = bool(conv.inputs) and (readers[conv.inputs[0]] != [conv.name] or conv.inputs[0] in graph.outputs)
            fusion = _in_pool(op, conv, ops, kept=kept)
        else:
            continue
        if fusion:
            found.append(fusion)
    return tuple(found)


def readers_by_name(graph: IntegerGraph | Graph) -> dict[str, list[str]]:
    """Operators that read each tensor, once per reading."""
    readers: dict[str, list[str]] = {}
    for op in graph:
        for name in op.inputs:
            readers.setdefault(name, []).append(op.name)
    return readers


def _in_addition(op: Add | QAdd, inside: tuple[str, ...], ops: Ops) -> AddFusion | None:
    place = {name: k for k, name in enumerate(ops)}
    inside = tuple(n for n in inside if band_rows(ops[n], ops))
    # bands are added over the other input: a convolution that reads it, too, may need its own rows only
    others = {root_of(name, ops) for name in op.inputs}
    inside = tuple(n for n in inside if _row_by_row(ops[n]) or root_of(ops[n].inputs[0], ops) not in others)
    if not inside:
        return None
    conv = max(inside, key=lambda n: (_taps(ops[n]), place[n]))  # a pointwise shortcut may overwrite its input
    residual = op.inputs[1] if op.inputs[0] == conv else op.inputs[0]
    return AddFusion(conv, op.name, residual, band_rows(ops[conv], ops))


def _in_pool(
    pool: MaxPool | QMaxPool | AvgPool | QAvgPool, conv: IntegerOp | FloatOp, ops: Ops, *, kept: bool
) -> PoolFusion | None:
    """The fusion that needs less memory than both operators apart, counted in codes; bands of whole groups of pixels
    where there are such, then of the fewest rows. ``kept``: the convolution's input lives on."""
    if not isinstance(conv, Conv2d | QConv2d) or _reads_only_padding(conv, ops) or conv.window.transposed:
        return None
    height, width, channels = shape = shape_of(conv)
    pooled, source = shape_of(pool), shape_of(ops[conv.inputs[0]])
    apart = max(_apart(conv, source, shape, kept=kept), prod(shape) + prod(pooled) + kept * prod(source))
    found: list[tuple[bool, Bands]] = []
    for bands in bands_of(pool.window, height, pooled[0]):
        over = not kept and pool_may_overwrite(source, 8, conv.window, shape, pooled, 8, bands)
        inside = max(prod(source), prod(pooled)) if over else prod(source) + prod(pooled)
        if inside + bands.held * width * channels < apart:
            found.append((bands.rows * width % WIDE != 0, bands))
    if not found:
        return None
    _, bands = min(found, key=lambda one: (one[0], one[1].held))
    return PoolFusion(conv.name, pool.name, bands.rows, bands)


def _apart(conv: Conv2d | QConv2d, source: Shape, shape: Shape, *, kept: bool) -> int:
    """Codes of input and output of a convolution by itself; a pointwise or depthwise one may overwrite its input."""
    depthwise = is_depthwise(conv.groups, conv.weight.shape, source[2])
    pointwise = conv.window.kernel == (1, 1) and conv.groups == 1 and shape[2] <= source[2]
    return max(prod(source), prod(shape)) if not kept and (depthwise or pointwise) else prod(source) + prod(shape)


def _row_by_row(op: IntegerOp | FloatOp) -> bool:
    """Every output row of a convolution comes from the input row of the same number."""
    if not isinstance(op, Conv2d | QConv2d):
        return False
    window = op.window
    return window.kernel[0] == 1 and window.stride[0] == 1 and window.padding[0] == window.padding[2] == 0


def root_of(name: str, ops: Ops) -> str:
    """The tensor whose bytes ``name`` shows under other shapes."""
    while isinstance(ops[name], Reshape | QReshape):
        name = ops[name].inputs[0]
    return name


def _reads_only_padding(op: Conv2d | QConv2d, ops: Ops) -> bool:
    """The last output row has no tap inside the input: no part of the input can be its band's."""
    height = shape_of(op)[0]
    return (height - 1) * op.window.stride[0] - op.window.padding[0] >= shape_of(ops[op.inputs[0]])[0]


def band_rows(op: IntegerOp | FloatOp, ops: Ops) -> int:
    """Output rows of a band of a convolution; 0 for what does not run in bands."""
    if not isinstance(op, Conv2d | QConv2d) or op.window.transposed or _reads_only_padding(op, ops):
        return 0
    height, width, _ = shape_of(op)
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


def fusion_into(graph: IntegerGraph | Graph, name: str) -> Fusion | None:
    """The fusion that runs a convolution inside operator ``name``."""
    return next((f for f in fusions(graph) if f.into == name), None)


def steps(graph: IntegerGraph) -> tuple[IntegerOp, ...]:
    """The operators that are steps of their own: all but fused convolutions."""
    fused = {f.conv for f in fusions(graph)}
    return tuple(op for op in graph if op.name not in fused)


def reads(graph: IntegerGraph, op: IntegerOp) -> tuple[str, ...]:
    """Tensors that the step of ``op`` reads from the arena: its own inputs, a fused convolution's in its place."""
    fusion = fusion_into(graph, op.name)
    if fusion is None:
        return op.inputs
    return tuple(i for n in op.inputs for i in (graph.op(n).inputs if n == fusion.conv else (n,)))


def overwrites_input(
    fusion: PoolFusion, conv: Conv2d | QConv2d, source: Shape, pooled: Shape, bits: tuple[int, int]
) -> bool:
    """True when the pool's rows may be written from the first byte of the convolution's input on; bits of both."""
    return pool_may_overwrite(source, bits[0], conv.window, shape_of(conv), pooled, bits[1], fusion.bands)


def band_bytes(row: int, width: int, rows: int) -> int:
    """Scratch of a band besides the kernel's: ``rows`` rows of ``width`` pixels of ``row`` bytes, rounded to words."""
    return (rows * width * row + 3) & ~3


def readers(graph: IntegerGraph, name: str) -> Iterable[IntegerOp]:
    """Steps that read tensor ``name``."""
    return (op for op in steps(graph) if name in reads(graph, op))
