"""Tensors of a user's model as views of operator outputs.

The graph stores maps as (H, W, C); file formats transpose, flatten, slice and join tensors on the way. A
:class:`View` says, for each element of the model's tensor, which element of which operator's output it is.
Reshape, transpose, slice, channel shuffle and zero padding then are plain numpy operations on indices, and
only what a layer finally reads decides whether an operator is needed: none, a reshape, or a convolution with
constant weights 0 and 1 that selects (strided slices, channel padding, channel permutations).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcuq.ir.graph import Shape, Window
from mcuq.ir.shapes import MAX_COPY

IndexArray = NDArray[np.int64]
MAX_SELECTION = 1 << 20
"""Weights of one selecting convolution."""
ZERO = -1
"""Index of an element that is the constant zero."""


class Refusal(Exception):
    """This use of an operator is not supported; the text says what to do instead."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A tensor of the model.

    Attributes:
        op: name of the operator whose output (H, W, C) holds the elements; stored: that shape.
        shape: shape of the model's tensor, batch included where the model has it.
        channels_first: layout of a whole map: [1, C, ...] or [1, ..., C]; without meaning when ``indices`` is set.
        indices: flat (H, W, C) index of every element, :data:`ZERO` for constant zero, shaped ``shape``; None
            when the view is the whole map in its usual layout.
    """

    op: str
    stored: Shape
    shape: tuple[int, ...]
    channels_first: bool
    indices: IndexArray | None = None

    @property
    def order(self) -> IndexArray:
        """``indices``, computed for a whole map."""
        if self.indices is not None:
            return self.indices
        order = np.arange(math.prod(self.stored), dtype=np.int64).reshape(self.stored)
        return (order.transpose(2, 0, 1) if self.channels_first else order).reshape(self.shape)

    def viewed(self, indices: IndexArray) -> View:
        """The same operator's output under other indices."""
        return View(self.op, self.stored, tuple(indices.shape), self.channels_first, indices)

    @property
    def has_zeros(self) -> bool:
        return self.indices is not None and bool((self.indices == ZERO).any())


def map_of(shape: tuple[int, ...], *, channels_first: bool) -> Shape:
    """(H, W, C) of a model tensor [1, C, H, W], [1, C, L] or [1, F] (or channels last); of more axes H takes several.

    Raises:
        Refusal: no batch of 1.
    """
    if len(shape) < 2 or shape[0] != 1:
        raise Refusal(f"tensors must be [N, C, H, W], [N, C, L] or [N, F] with a batch N of 1, found {list(shape)}")
    body = shape[1:]
    channels, spatial = (body[0], body[1:]) if channels_first else (body[-1], body[:-1])
    if len(spatial) > 2:
        spatial = (math.prod(spatial[:-1]), spatial[-1])
    return (*(1,) * (2 - len(spatial)), *spatial, channels)  # pyright: ignore[reportReturnType]


def rows_of(order: IndexArray, axis: int) -> IndexArray:
    """Indices [H, W, C] of a view whose ``axis`` counts channels. A leading batch of 1 goes; of more than two others,
    all axes but the last count rows."""
    if order.ndim == 0:
        return order.reshape(1, 1, 1)
    moved = np.moveaxis(order, axis, -1)
    spatial = moved.shape[:-1]
    if spatial and spatial[0] == 1:
        spatial = spatial[1:]
    if len(spatial) > 2:
        spatial = (int(np.prod(spatial[:-1])), spatial[-1])
    return moved.reshape(*(1,) * (2 - len(spatial)), *spatial, moved.shape[-1])


Counters = tuple[tuple[int, ...], tuple[int, ...], int]
"""Sizes and strides of nested counters, outermost first, and the index they start from."""


def counters(rows: IndexArray) -> Counters | None:
    """Counters that give ``rows`` in order: at most MAX_COPY of them, else None."""
    sequence = rows.ravel()
    offset, found = int(sequence[0]), list[tuple[int, int]]()
    while len(sequence) > 1 and len(found) < MAX_COPY:
        stride = int(sequence[1] - sequence[0])
        breaks = np.flatnonzero(np.diff(sequence) != stride)
        longest = int(breaks[0]) + 1 if breaks.size else len(sequence)
        size = next((n for n in range(longest, 1, -1) if len(sequence) % n == 0 and _repeats(sequence, n, stride)), 0)
        if not size:
            return None
        found.insert(0, (size, stride))
        sequence = sequence[::size]
    if len(sequence) > 1:
        return None
    found = found or [(1, 0)]
    return tuple(size for size, _ in found), tuple(stride for _, stride in found), offset


def _repeats(sequence: IndexArray, size: int, stride: int) -> bool:
    blocks = sequence.reshape(-1, size)
    return np.array_equal(blocks, blocks[:, :1] + np.arange(size) * stride)


def chosen_rows(rows: IndexArray, stored: Shape) -> tuple[IndexArray, IndexArray] | None:
    """Rows and columns of a map (H, W, C) = ``stored`` whose pixels, whole, are ``rows`` [H', W', C]; else None."""
    _, width, channels = stored
    if rows.shape[2] != channels or (rows == ZERO).any():
        return None
    row, column = rows[:, 0, 0] // (width * channels), rows[0, :, 0] // channels % width
    expected = ((row[:, None] * width + column)[:, :, None] * channels) + np.arange(channels)
    return (row, column) if np.array_equal(expected, rows) else None


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """A convolution that picks elements: weights of 0 and 1 [O, kh, kw, I/groups]."""

    weight: NDArray[np.float64]
    window: Window
    groups: int


def select(rows: IndexArray, stored: Shape) -> Selection:
    """The convolution of a map (H, W, C) = ``stored`` that yields elements ``rows`` [H', W', C'].

    Raises:
        Refusal: ``rows`` is not a strided slice of rows and columns with a choice (or zero) per channel.
    """
    height, width, channels = stored
    used = (rows != ZERO).any(axis=(0, 1))
    if not used.any():
        raise Refusal("a tensor of constant zeros")
    first = int(np.argmax(used))
    row = _axis(rows[:, 0, first] // (width * channels))
    column = _axis(rows[0, :, first] // channels % width)
    source = np.where(used, rows[0, 0] % channels, ZERO)
    expected = (row[0] + row[1] * np.arange(rows.shape[0]))[:, None] * width
    expected = (expected + row_columns(column, rows.shape[1]))[:, :, None] * channels + source
    if not np.array_equal(np.where(used, expected, ZERO), rows):
        raise Refusal(
            "elements move across rows and channels; strided slices, choices of channels and flattening are supported"
        )
    kernel = (_kernel(height, rows.shape[0], row), _kernel(width, rows.shape[1], column))
    window = Window(kernel, (row[1], column[1]))
    whole = np.array_equal(source, np.arange(channels)) and channels > 1
    size = len(source) * kernel[0] * kernel[1] * (1 if whole else channels)
    if size > MAX_SELECTION:
        raise Refusal(f"selecting these elements would take {size} weights, at most {MAX_SELECTION} are allowed")
    weight = np.zeros((len(source), *kernel, 1 if whole else channels))
    for output, channel in enumerate(source):
        if channel != ZERO:
            weight[output, row[0], column[0], 0 if whole else channel] = 1.0
    return Selection(weight, window, channels if whole else 1)


def row_columns(column: tuple[int, int], count: int) -> IndexArray:
    """Source columns of ``count`` output columns, for (offset, stride)."""
    return (column[0] + column[1] * np.arange(count))[None, :]


def _axis(positions: IndexArray) -> tuple[int, int]:
    """(offset, stride) of positions that advance evenly; the caller checks the result against all indices."""
    stride = int(positions[1] - positions[0]) if len(positions) > 1 else 1
    if stride < 1:
        raise Refusal("rows or columns are repeated or reversed")
    return int(positions[0]), stride


def _kernel(size: int, count: int, axis: tuple[int, int]) -> int:
    """Smallest kernel that holds the offset and gives exactly ``count`` outputs (floor mode)."""
    offset, stride = axis
    return max(offset + 1, size - count * stride + 1)


def scatter(weight: NDArray[Any], view: View, fill: NDArray[Any] | float = 0.0) -> NDArray[Any]:
    """Weights [O, F] over the elements of ``view`` as OHWI weights over the whole stored map.

    Args:
        fill: weight of stored elements that the view leaves out: scalar or [O].

    Raises:
        Refusal: the view repeats an element.
    """
    order = view.order.ravel()
    kept = order != ZERO
    if len(np.unique(order[kept])) != int(kept.sum()):
        raise Refusal("an element is read twice")
    spread = np.empty((len(weight), math.prod(view.stored)), dtype=weight.dtype)
    spread[:] = np.reshape(fill, (-1, 1))
    spread[:, order[kept]] = weight[:, kept]
    return spread.reshape(len(weight), *view.stored)


def per_channel(view: View, constant: NDArray[Any]) -> NDArray[np.float64]:
    """``constant``, broadcast to the view, as one value per stored channel [C]."""
    channels = view.stored[2]
    padded = (1,) * (len(view.shape) - np.ndim(constant)) + np.shape(constant)
    axis = 1 if view.channels_first else len(view.shape) - 1
    if view.indices is None and len(padded) == len(view.shape) and padded[axis] == np.size(constant) in (1, channels):
        return np.broadcast_to(np.ravel(constant).astype(np.float64), (channels,)).copy()
    spread = np.zeros(int(np.prod(view.stored)))
    order = view.order.ravel()
    try:
        wanted = np.broadcast_to(constant, view.shape).ravel()
    except ValueError as error:
        raise Refusal(f"a constant of shape {list(np.shape(constant))} does not fit {list(view.shape)}") from error
    spread[order] = wanted
    if (spread[order] != wanted).any():
        raise Refusal("copies of one element with constants that differ")
    table = spread.reshape(-1, view.stored[2])
    seen = np.zeros(table.size, dtype=bool)
    seen[order] = True
    if not seen.all():
        raise Refusal("arithmetic with constants on a sliced tensor; do it before slicing")
    if (table != table[0]).any():
        raise Refusal("constants may differ per channel, not per row or column")
    return table[0]


def pad_view(view: View, before: tuple[int, ...], after: tuple[int, ...]) -> View:
    """``view`` with constant zeros around it; negative paddings crop."""
    order = view.order
    crops = tuple(slice(max(0, -b), n - max(0, -a)) for b, a, n in zip(before, after, view.shape, strict=True))
    widths = [(max(0, b), max(0, a)) for b, a in zip(before, after, strict=True)]
    return view.viewed(np.pad(order[crops], widths, constant_values=ZERO))
