"""Means, sums and extremes over axes as pools."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from mcuq.frontend.builder import Builder
from mcuq.frontend.views import Refusal, View
from mcuq.ir import graph as ir
from mcuq.ir.graph import Window

Kind = Literal["mean", "sum", "max"]
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
    if rank in (3, 4) and axes <= set(spatial):
        op, stored = b.map(view, source)
        rows = rank == 4 and spatial[0] in axes
        kernel = (stored[0] if rows or rank == 3 else 1, stored[1] if spatial[-1] in axes else 1)
        kept = tuple(1 if axis in axes else n for axis, n in enumerate(view.shape))
    else:  # the elements of one result become a row, the results channels
        order = [*sorted(axes), *(axis for axis in range(rank) if axis not in axes)]
        count = math.prod(view.shape[axis] for axis in axes)
        moved = view.order.transpose(order).reshape(1, count, -1)
        op, _ = b.rows(view.viewed(moved), 2, source)
        kernel, kept = (1, count), (1, 1, moved.shape[2])
    if max(kernel) > LARGEST:
        raise Refusal(f"a reduction over {kernel[0]} x {kernel[1]} elements; at most {LARGEST} per axis are supported")
    pool = ir.MaxPool if kind == "max" else ir.AvgPool
    pooled = b.emit(
        pool(name=b.name(name), inputs=(op,), shape=(0, 0, 0), source=source, window=Window(kernel, kernel)), kept
    )
    if kept[:2] == (1, 1) and not (rank in (3, 4) and axes <= set(spatial)):
        pooled = pooled.viewed(np.arange(kept[2]).reshape(kept))
    if kind == "sum":
        pooled = b.affine(pooled, f"{name}.sum", np.array(float(math.prod(kernel))), np.zeros(1), source)
    return pooled if shape == kept else pooled.viewed(pooled.order.reshape(shape))
