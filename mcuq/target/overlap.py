"""Where a kernel's output may lie over its input: the least distance from the output's first byte to the input's.

A kernel computes output pixels in groups, in ascending order, and each group's outputs are stored once its inputs were
read (or, if it *holds* them, reads them until the last is stored). With the input ``distance`` bytes behind the
output's first byte, or further, no store reaches a byte that is still to be read. Written outputs may be longer than
what was read: the input then lies towards the end of the output's bytes. A distance of zero is the output in the
input's own place.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from mcuq.ir.graph import Shape, Window
from mcuq.numerics import row_bytes
from mcuq.target.kernel_types import ConvCase, Groups
from mcuq.target.pool_bands import Bands

Ints = NDArray[np.int64]


def may_overwrite(case: ConvCase, pixels: int) -> bool:
    """True when outputs written from the input's first byte on, ``pixels`` pixels at a time and each group after
    its own inputs were read, never touch an input byte that a later group reads, nor one behind the input."""
    read, written = row_bytes(case.input_shape[2], case.input_bits), row_bytes(case.output_shape[2], case.output_bits)
    size, outputs = case.input_shape[:2], case.output_shape[:2]
    shorter = outputs[0] * outputs[1] * written <= size[0] * size[1] * read
    return shorter and window_distance(size, outputs, case.window, (read, written), Groups(pixels)) == 0


@cache
def window_distance(
    size: tuple[int, int], outputs: tuple[int, int], window: Window, pixel_bytes: tuple[int, int], groups: Groups
) -> int:
    """Least distance, in bytes, where output pixels read a window; ``pixel_bytes`` of input and output."""
    count = outputs[0] * outputs[1]
    starts = np.arange(0, count, groups.pixels)
    ends = np.minimum(starts + groups.pixels, count)
    starts[-1] = max(0, min(int(starts[-1]), count - groups.again))
    return least_distance(first_reads(size, outputs, window), pixel_bytes, starts, ends, groups.holds)


def least_distance(first: Ints, pixel_bytes: tuple[int, int], starts: Ints, ends: Ints, holds: bool) -> int:
    """Of groups of output pixels [start, end): ``first`` is, by output pixel, the first input pixel that it or a later
    one reads, or more than there are. No more than the bytes written, at which nothing is shared."""
    read, written = pixel_bytes
    stored, reading = (ends, starts) if holds else (ends[:-1], starts[1:])
    gaps = np.where(first[reading] < NOTHING, stored * written - first[reading] * read, 0)
    return int(min(gaps.max(initial=0), ends[-1] * written))


@cache
def bands_distance(
    source: Shape, source_bits: int, window: Window, shape: Shape, pooled: Shape, bits: int, bands: Bands
) -> int:
    """The same for a pool with a convolution of ``source`` to ``shape`` inside it, by ``bands``: what a band wrote
    never touches an input byte that the convolution's rows of later bands read."""
    pixel, written = row_bytes(source[2], source_bits), pooled[1] * row_bytes(pooled[2], bits)
    first = first_reads(source[:2], shape[:2], window)
    distance = 0
    for band in range(bands.count - 1):
        later = bands.computed(band + 1).start * shape[1]
        if later < len(first) and first[later] < NOTHING:
            distance = max(distance, (band + 1) * bands.pool_rows * written - int(first[later]) * pixel)
    return min(distance, pooled[0] * written)


def pool_may_overwrite(
    source: Shape, source_bits: int, window: Window, shape: Shape, pooled: Shape, bits: int, bands: Bands
) -> bool:
    """True when the pool's rows may be written from the input's first byte on and are no longer altogether."""
    shorter = pooled[0] * pooled[1] * row_bytes(pooled[2], bits) <= source[0] * source[1] * row_bytes(
        source[2], source_bits
    )
    return shorter and bands_distance(source, source_bits, window, shape, pooled, bits, bands) == 0


NOTHING = 1 << 40
"""The number of no input pixel."""


@cache
def first_reads(size: tuple[int, int], outputs: tuple[int, int], window: Window) -> Ints:
    """For every output pixel the number of the first input pixel that it or a later one reads, or NOTHING."""
    rows, columns = (_first_taps(size[i], outputs[i], window, i) for i in (0, 1))
    inside = (rows[:, None] < size[0]) & (columns[None, :] < size[1])
    reads = np.where(inside, rows[:, None] * size[1] + columns[None, :], NOTHING).reshape(-1)
    return ascending(reads)


def ascending(reads: Ints) -> Ints:
    """The least of what each entry and those behind it read."""
    return np.minimum.accumulate(reads[::-1])[::-1]


def _first_taps(size: int, outputs: int, window: Window, axis: int) -> Ints:
    """First input row or column that each output row or column reads; ``size`` where it reads padding only."""
    apart = window.input_dilation[axis]
    taps = np.arange(window.kernel[axis]) * window.dilation[axis]
    starts = np.arange(outputs)[:, None] * window.stride[axis] - window.padding[axis] + taps
    inside = (starts >= 0) & (starts < size * apart) & (starts % apart == 0)
    return np.where(inside, starts // apart, size).min(axis=1)
