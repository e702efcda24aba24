"""Naive check of two buffers that share bytes at one step: the kernel's reads and writes are played group by group."""

from __future__ import annotations

from itertools import product

from mcuq.ir.graph import Window
from mcuq.ir.integer import (
    IntegerGraph,
    IntegerOp,
    QAdd,
    QAvgPool,
    QConcat,
    QConv2d,
    QExtremum,
    QMaxPool,
    QMul,
    QPad,
    QPrelu,
    QResample,
    QRescale,
    QReshape,
    QTable,
    reshape_is_alias,
)
from mcuq.ir.plans import Buffer
from mcuq.target.cost import conv_case
from mcuq.target.fusion import AddFusion, PoolFusion, fusion_into, reads
from mcuq.target.kernel_types import Groups
from mcuq.target.kernels import select

_ELEMENTWISE = QAdd | QMul | QExtremum | QTable | QPrelu | QRescale
_PIXEL = Groups(1, holds=True)

Reads = list[int]
"""By output pixel the first input pixel that it reads; -1: none."""


def may_share(graph: IntegerGraph, core: str, later: Buffer, earlier: Buffer) -> bool:
    """Both name the bytes of one view, or ``later`` is written over (a view of) ``earlier`` in the step it dies."""
    if later.kind != "activation" or earlier.kind != "activation":
        return False
    source = origin(graph, earlier.name)
    if origin(graph, later.name) == source:
        return later.offset == earlier.offset
    op = graph.op(later.name)
    while isinstance(op, QReshape) and is_view(graph, op):
        op = graph.op(op.inputs[0])
    if earlier.last > (later.first if op.name == later.name else -1):  # a view of the output starts later than it
        return False
    gap = earlier.offset - later.offset
    if isinstance(op, QConcat):
        return gap == 0 and _spreads(graph, op, source)
    names = [name for name in reads(graph, op) if origin(graph, name) == source]
    return bool(names) and all(_keeps_ahead(graph, core, op, name, gap) for name in names)


def _spreads(graph: IntegerGraph, op: QConcat, source: str) -> bool:
    """``op`` reads the bytes of ``source`` once, in no more bits than it writes."""
    found = [i for i in op.inputs if origin(graph, i) == source]
    return len(found) == 1 and graph.tensor(found[0]).bits <= op.output.bits


def _keeps_ahead(graph: IntegerGraph, core: str, op: IntegerOp, name: str, gap: int) -> bool:
    """What ``op`` reads of ``name``, ``gap`` bytes behind its output's first byte, was not yet stored over."""
    fusion = fusion_into(graph, op.name)
    if isinstance(fusion, PoolFusion):
        return _pool_keeps_ahead(graph, fusion, gap)
    read, written = _row(graph, name), _row(graph, op.name)
    readings: list[tuple[Reads, Groups]] = []
    if isinstance(op, QConv2d):
        kernel = select(conv_case(graph, op), core)
        if gap == 0 and kernel.in_place:
            return op.output.bytes <= graph.tensor(name).bytes
        if kernel.groups is None:
            return False
        readings.append((_first_reads(graph, op, name), kernel.groups))
    elif isinstance(fusion, AddFusion) and name in graph.op(fusion.conv).inputs:
        conv = graph.op(fusion.conv)
        readings.append((_first_reads(graph, conv, name), Groups(fusion.rows * op.output.shape[1])))
    if isinstance(op, _ELEMENTWISE) and (fusion is None or name == getattr(fusion, "residual", "")):
        readings.append((_first_reads(graph, op, name), Groups(1, holds=written > read)))
    elif isinstance(op, QMaxPool | QAvgPool | QPad | QResample):
        readings.append((_first_reads(graph, op, name), _PIXEL))
    return bool(readings) and all(_played(first, read, written, gap, groups) for first, groups in readings)


def _first_reads(graph: IntegerGraph, op: IntegerOp, name: str) -> Reads:
    (height, width, _), outputs = graph.tensor(name).shape, op.output.shape
    if isinstance(op, QResample):
        return [int(y) * width + int(x) for y, x in product(op.row, op.column)]
    if isinstance(op, _ELEMENTWISE):
        return list(range(height * width)) if graph.tensor(name).shape == outputs else [0] * (outputs[0] * outputs[1])
    assert isinstance(op, QConv2d | QMaxPool | QAvgPool | QPad)
    window = Window(padding=op.padding) if isinstance(op, QPad) else op.window
    return _first_taps((height, width), outputs[:2], window)


def _first_taps(size: tuple[int, int], outputs: tuple[int, int], window: Window) -> Reads:
    """Tap by tap: the first one inside has the lowest address."""
    found: Reads = []
    for oy, ox in product(range(outputs[0]), range(outputs[1])):
        first = -1
        for ky, kx in product(range(window.kernel[0]), range(window.kernel[1])):
            y = oy * window.stride[0] - window.padding[0] + ky * window.dilation[0]
            x = ox * window.stride[1] - window.padding[1] + kx * window.dilation[1]
            if y % window.input_dilation[0] or x % window.input_dilation[1]:
                continue
            y, x = y // window.input_dilation[0], x // window.input_dilation[1]
            if 0 <= y < size[0] and 0 <= x < size[1]:
                first = y * size[1] + x
                break
        found.append(first)
    return found


def _played(first: Reads, read: int, written: int, gap: int, groups: Groups) -> bool:
    """No group reads a byte that was stored before, or meanwhile if it holds its inputs."""
    stored = 0
    for start in range(0, len(first), groups.pixels):
        end = min(start + groups.pixels, len(first))
        begin = max(0, min(start, end - groups.again)) if end == len(first) else start
        if groups.holds:
            stored = end * written
        if any(pixel >= 0 and gap + pixel * read < stored for pixel in first[begin:end]):
            return False
        stored = end * written
    return True


def _pool_keeps_ahead(graph: IntegerGraph, fusion: PoolFusion, gap: int) -> bool:
    """No row of the convolution reads what bands before it have stored."""
    conv, pool, bands = graph.op(fusion.conv), graph.op(fusion.into), fusion.bands
    assert isinstance(conv, QConv2d)
    columns = conv.output.shape[1]
    pixel, row = _row(graph, conv.inputs[0]), pool.output.shape[1] * _row(graph, pool.name)
    first = _first_reads(graph, conv, conv.inputs[0])
    done = 0
    for band in range(bands.count):
        stored, needed = band * bands.pool_rows * row, bands.end(band)
        rows = first[max(done, bands.first(band)) * columns : needed * columns]
        if any(one >= 0 and gap + one * pixel < stored for one in rows):
            return False
        done = max(done, needed)
    return True


def _row(graph: IntegerGraph, name: str) -> int:
    tensor = graph.tensor(name)
    return -(-tensor.shape[2] * tensor.bits // 8)


def is_view(graph: IntegerGraph, op: QReshape) -> bool:
    """A reshape that moves no byte."""
    return reshape_is_alias(graph.tensor(op.inputs[0]), op.output)


def origin(graph: IntegerGraph, name: str) -> str:
    """The tensor whose bytes ``name`` shows."""
    op = graph.op(name)
    return origin(graph, op.inputs[0]) if isinstance(op, QReshape) and is_view(graph, op) else name
