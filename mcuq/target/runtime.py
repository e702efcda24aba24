"""Which runtime function every operator of an integer graph calls, and which runtime files a model needs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import assert_never

from mcuq.ir.integer import (
    IntegerGraph,
    IntegerOp,
    QAdd,
    QArgmax,
    QAvgPool,
    QConcat,
    QConv2d,
    QCopy,
    QExtremum,
    QInput,
    QL2Normalize,
    QMaxPool,
    QMul,
    QPad,
    QPrelu,
    QResample,
    QRescale,
    QReshape,
    QSoftmax,
    QTable,
)
from mcuq.numerics import row_bytes
from mcuq.target.cost import RESAMPLE, conv_case
from mcuq.target.files import product_dir, product_file
from mcuq.target.fusion import band_bytes, fusion_into, fusions
from mcuq.target.kernels import Kernel, select
from mcuq.target.kernels_dsp import CORES, ELEMENTWISE, ELEMENTWISE_SOURCES, PACKED_ELEMENTWISE
from mcuq.target.kernels_mve import MVE_CORES, MVE_ELEMENTWISE, MVE_ELEMENTWISE_SOURCES
from mcuq.target.placement import placements, rows_held


def conv_kernel(op: QConv2d, graph: IntegerGraph, core: str) -> Kernel:
    """The kernel of a convolution on ``core``."""
    return select(conv_case(graph, op), core)


def step_scratch(op: IntegerOp, graph: IntegerGraph, core: str) -> int:
    """Scratch bytes of the step of ``op``."""
    fusion = fusion_into(graph, op.name)
    conv = op if fusion is None else graph.op(fusion.conv)
    return sum(conv_scratch(conv, graph, core)) if isinstance(conv, QConv2d) else 0


def conv_scratch(conv: QConv2d, graph: IntegerGraph, core: str) -> tuple[int, int]:
    """Scratch of a convolution: the kernel's, and its rows behind it (then the kernel's is whole words)."""
    own, rows = conv_kernel(conv, graph, core).scratch_bytes, rows_held(graph, conv.name)
    if not rows:
        return own, 0
    _, width, channels = conv.output.shape
    return (own + 3) & ~3, band_bytes(row_bytes(channels, conv.output.bits), width, rows)


def function(op: IntegerOp, graph: IntegerGraph, core: str) -> str:
    """C symbol of the runtime function that computes ``op``; empty when the network's input needs none."""
    match op:
        case QConv2d():
            return conv_kernel(op, graph, core).function
        case QInput():
            return "mcuq_pixels_to_int8" if op.encoding == "uint8" else ""
        case QAdd():
            return _elementwise("mcuq_add", op, graph, core)
        case QMul():
            return "mcuq_mul"
        case QExtremum():
            return "mcuq_extremum"
        case QTable():
            return "mcuq_table"
        case QPrelu():
            return "mcuq_prelu"
        case QCopy():
            return "mcuq_copy"
        case QResample():
            return RESAMPLE[op.chooses]
        case QL2Normalize():
            return "mcuq_l2_normalize"
        case QConcat():
            return "mcuq_concat"
        case QMaxPool():
            return _elementwise("mcuq_max_pool", op, graph, core)
        case QAvgPool():
            return _elementwise("mcuq_avg_pool", op, graph, core)
        case QPad():
            return "mcuq_pad"
        case QRescale():
            return "mcuq_rescale_copy"
        case QReshape():
            return "mcuq_reshape"
        case QSoftmax():
            return "mcuq_softmax"
        case QArgmax():
            return "mcuq_argmax"
        case _:
            assert_never(op)


def _elementwise(name: str, op: QAdd | QMaxPool | QAvgPool, graph: IntegerGraph, core: str) -> str:
    bits = [op.output.bits, *(graph.tensor(i).bits for i in op.inputs)]
    return elementwise(name, core, bits, dilated=not isinstance(op, QAdd) and op.window.dilation != (1, 1))


def elementwise(name: str, core: str, bits: Iterable[int], *, dilated: bool) -> str:
    """``name`` or its faster twin on ``core``, for tensors of ``bits`` and windows without dilation."""
    widths = set(bits)
    if name == "mcuq_add" and core in MVE_CORES and widths != {8}:
        return "mcuq_add_packed_mve"
    if dilated or core not in CORES or len(widths) > 1:
        return name
    if widths != {8}:
        return PACKED_ELEMENTWISE.get(name, name)
    return MVE_ELEMENTWISE[name] if core in MVE_CORES else ELEMENTWISE[name]


_SOURCES = {"mcuq_pixels_to_int8": "pixels.c", "mcuq_rescale_copy": "rescale.c"}
"""Files of functions that are not called as their file."""
_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


def runtime_files(graph: IntegerGraph, core: str) -> tuple[str, ...]:
    """Paths under ``runtime_c`` of every runtime source and header the graph needs on ``core``, sorted.

    A source that includes ``x.h`` beside an ``x.c`` needs that source too.
    """
    sources: set[str] = set()
    for op in graph:
        if isinstance(op, QConv2d):
            sources.update(conv_kernel(op, graph, core).sources)
        elif name := function(op, graph, core):
            own = ELEMENTWISE_SOURCES | MVE_ELEMENTWISE_SOURCES
            sources.update(own.get(name) or (_source(name),))
    if fusions(graph) or placements(graph):
        sources.add("bands.c")
    return _closure(f"src/{source}" for source in sources)


def _source(name: str) -> str:
    return _SOURCES.get(name, f"{name.removeprefix('mcuq_')}.c")


def _closure(start: Iterable[str]) -> tuple[str, ...]:
    root = product_dir("runtime_c")
    needed: set[str] = set()
    todo = ["include/mcuq/mcuq.h", *start]
    while todo:
        path = todo.pop()
        if path in needed:
            continue
        needed.add(path)
        text = product_file("runtime_c", *path.split("/")).read_text(encoding="utf-8")
        for name in _INCLUDE.findall(text):
            homes = (path.rpartition("/")[0] + "/" + name, "include/" + name, "src/" + name)
            header = next((home for home in homes if (root / home).is_file()), None)
            if header is None:
                raise FileNotFoundError(f"{path} includes {name}, which is not in runtime_c")
            todo.append(header)
            twin = header.removesuffix(".h") + ".c"
            if (root / twin).is_file():
                todo.append(twin)
    return tuple(sorted(needed))


def undeclared_kernels(graph: IntegerGraph, core: str) -> tuple[str, ...]:
    """Convolution kernels of the graph that ``mcuq/mcuq.h``, which has the portable ones, does not declare."""
    header = product_file("runtime_c", "include", "mcuq", "mcuq.h").read_text(encoding="utf-8")
    names = {conv_kernel(op, graph, core).function for op in graph if isinstance(op, QConv2d)}
    return tuple(sorted(name for name in names if f"void {name}(" not in header))
