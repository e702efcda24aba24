"""Means, sums and extremes over axes as pools; softmax and argmax over an axis."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from mcuq.frontend.builder import Builder
from mcuq.frontend.elementwise import function
from mcuq.frontend.views import Refusal, View
from mcuq.ir import graph as ir
from mcuq.ir.functions import Function, Step
from mcuq.ir.graph import Window
from mcuq.ir.quantized import QuantParams

Kind = Literal["mean", "sum", "max", "min"]
MINUS = (Step("affine", (-1.0, 0.0)),)
SQUARE = (Step("power", (2.0,)),)
COMPOSED: dict[str, tuple[Function, Function]] = {
    "sum of magnitudes": ((Step("abs"),), ()),
    "sum of squares": (SQUARE, ()),
    "length": (SQUARE, (Step("sqrt"),)),
    "logarithm of the sum": ((), (Step("log"),)),
    "logarithm of the sum of powers": ((Step("exp"),), (Step("log"),)),
}
"""Sums over axes with a function of every element before, and one of every result behind."""
LARGEST = 255
"""Rows and columns of a pool's kernel."""


def reduced(
    b: Builder, kind: Kind, view: View, axes: set[int], shape: tuple[int, ...], name: str, source: str = ""
) -> View:
    """``view`` reduced over ``axes``, as a tensor of ``shape``.

    Raises:
        Refusal: over the batch, or over more elements than a pool has taps.
    """
    rank = len(view.shape)
    if not axes or (0 in axes and view.shape[0] != 1):
        raise Refusal("the batch cannot be reduced")
    axes = axes - {0}
    spatial = list(range(2, rank) if b.channels_first else range(1, rank - 1))
    if not axes or all(view.shape[axis] == 1 for axis in axes):
        return view.viewed(view.order.reshape(shape))
    if kind == "min":
        largest = reduced(b, "max", mirrored(b, view, f"{name}.minus", source), axes, shape, f"{name}.max", source)
        return mirrored(b, largest, name, source)
    within = rank in (3, 4) and axes <= set(spatial) and max(view.shape[axis] for axis in axes) <= LARGEST
    if within:
        op, stored = b.map(view, source)
        rows = rank == 4 and spatial[0] in axes
        kernel = (stored[0] if rows or rank == 3 else 1, stored[1] if spatial[-1] in axes else 1)
        kept = tuple(1 if axis in axes else n for axis, n in enumerate(view.shape))
    else:  # the elements of one result become a row, the results channels
        order = [*sorted(axes), *(axis for axis in range(rank) if axis not in axes)]
        count = math.prod(view.shape[axis] for axis in axes)
        across = max(n for n in range(1, LARGEST + 1) if count % n == 0)
        moved = view.order.transpose(order).reshape(1, count // across, across, -1)
        op, _ = b.rows(view.viewed(moved), 3, source)
        kernel, kept = (count // across, across), (1, 1, moved.shape[3])
    if max(kernel) > LARGEST:
        raise Refusal(f"a reduction over {kernel[0]} x {kernel[1]} elements; at most {LARGEST} per axis are supported")
    pool = ir.MaxPool if kind == "max" else ir.AvgPool
    pooled = b.emit(
        pool(name=b.name(name), inputs=(op,), shape=(0, 0, 0), source=source, window=Window(kernel, kernel)), kept
    )
    if not within:
        pooled = pooled.viewed(np.arange(kept[2]).reshape(kept))
    if kind == "sum":
        pooled = b.affine(pooled, f"{name}.sum", np.array(float(math.prod(kernel))), np.zeros(1), source)
    return pooled if shape == kept else pooled.viewed(pooled.order.reshape(shape))


def composed(
    b: Builder, kind: str, view: View, axes: set[int], shape: tuple[int, ...], name: str, source: str = ""
) -> View:
    """A sum over ``axes`` of :data:`COMPOSED`."""
    before, behind = COMPOSED[kind]
    if before:
        view = function(b, view, f"{name}.each", before, source)
    total = reduced(b, "sum", view, axes, shape, f"{name}.sum" if behind else name, source)
    return function(b, total, name, behind, source) if behind else total


def mirrored(b: Builder, view: View, name: str, source: str = "") -> View:
    """``-view``; of a quantized tensor the code q becomes -1 - q, exactly."""
    result = function(b, view, name, MINUS, source)
    known = b.params.get(view.op)
    if known is None or known.bits != 8:
        return result
    return b.quantize(result, QuantParams(8, known.scale, -1 - known.zero_point), source)


def softmax(b: Builder, view: View, axis: int, name: str, source: str = "", *, logarithm: bool = False) -> View:
    """Softmax over ``axis``, or its logarithm. Raises Refusal for the batch."""
    if axis == 0 and len(view.shape) > 1 and view.shape[0] == 1:
        raise Refusal("softmax over the batch")
    op, stored = b.rows(view, axis, source)
    inner = f"{name}.softmax" if logarithm else name
    result = b.emit(ir.Softmax(name=b.name(inner), inputs=(op,), shape=stored, source=source), view.shape)
    moved = np.moveaxis(np.empty(view.shape), axis, -1).shape
    result = result.viewed(np.moveaxis(np.arange(math.prod(moved)).reshape(moved), -1, axis).reshape(view.shape))
    return function(b, result, name, (Step("log"),), source) if logarithm else result


def argmax(b: Builder, view: View, axis: int, shape: tuple[int, ...], name: str, source: str = "") -> View:
    """Lowest index of the largest element along ``axis``, as a tensor of ``shape``."""
    op, (height, width, _) = b.rows(view, axis, source)
    result = b.emit(ir.Argmax(name=b.name(name), inputs=(op,), shape=(height, width, 1), source=source), (1,))
    return result.viewed(np.arange(height * width).reshape(shape))
