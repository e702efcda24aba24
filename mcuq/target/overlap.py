"""When a kernel that writes outputs group by group may write them over its own input."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from mcuq.ir.graph import Shape, Window
from mcuq.numerics import row_bytes
from mcuq.target.kernel_types import ConvCase
from mcuq.target.pool_bands import Bands


def may_overwrite(case: ConvCase, pixels: int) -> bool:
    """True when outputs written from the input's first byte on, ``pixels`` pixels at a time and each group after
    its own inputs were read, never touch an input byte that a later group reads, nor one behind the input."""
    longest = row_bytes(case.input_shape[2], case.input_bits)
    written = row_bytes(case.output_shape[2], case.output_bits)
    return _may_overwrite(case.input_shape[:2], case.output_shape[:2], case.window, longest, written, pixels)


@cache
def _may_overwrite(
    size: tuple[int, int], outputs: tuple[int, int], window: Window, read_row: int, written_row: int, pixels: int
) -> bool:
    count = outputs[0] * outputs[1]
    if count * written_row > size[0] * size[1] * read_row:
        return False
    first = first_reads(size, outputs, window)
    groups = np.arange(pixels, count, pixels)
    return bool((groups * written_row <= first[groups] * read_row).all())


@cache
def pool_may_overwrite(
    source: Shape, source_bits: int, window: Window, shape: Shape, pooled: Shape, bits: int, bands: Bands
) -> bool:
    """The same for a pool with a convolution of ``source`` to ``shape`` inside it, by ``bands``: what a band wrote
    never touches an input byte that the convolution's rows of later bands read."""
    pixel, written = row_bytes(source[2], source_bits), pooled[1] * row_bytes(pooled[2], bits)
    if pooled[0] * written > source[0] * source[1] * pixel:
        return False
    first = first_reads(source[:2], shape[:2], window)
    for band in range(bands.count - 1):
        later = bands.computed(band + 1).start * shape[1]
        if later < len(first) and (band + 1) * bands.pool_rows * written > first[later] * pixel:
            return False
    return True


def first_reads(size: tuple[int, int], outputs: tuple[int, int], window: Window) -> NDArray[np.int64]:
    """For every output pixel the number of the first input pixel that it or a later one reads."""
    end = size[0] * size[1]
    rows, columns = (_first_taps(size[i], outputs[i], window, i) for i in (0, 1))
    inside = (rows[:, None] < size[0]) & (columns[None, :] < size[1])
    reads = np.where(inside, rows[:, None] * size[1] + columns[None, :], end).reshape(-1)
    return np.minimum.accumulate(reads[::-1])[::-1]


def _first_taps(size: int, outputs: int, window: Window, axis: int) -> NDArray[np.int64]:
    """First input row or column that each output row or column reads; ``size`` where it reads padding only."""
    taps = np.arange(window.kernel[axis]) * window.dilation[axis]
    starts = np.arange(outputs)[:, None] * window.stride[axis] - window.padding[axis] + taps
    return np.where((starts >= 0) & (starts < size), starts, size).min(axis=1)
