"""Sliding windows over batches of images, shared by both interpreters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcuq.ir.graph import Window

Array = NDArray[Any]


def pad_images(x: Array, padding: tuple[int, int, int, int], value: float) -> Array:
    """Images [N, H, W, C] with a border of ``value``; padding is (top, left, bottom, right)."""
    top, left, bottom, right = padding
    if padding == (0, 0, 0, 0):
        return x
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=x.dtype.type(value))


def dilate_images(x: Array, dilation: tuple[int, int], value: float) -> Array:
    """Images [N, H, W, C] with ``dilation`` - 1 rows and columns of ``value`` between theirs."""
    if dilation == (1, 1):
        return x
    count, height, width, channels = x.shape
    spread = np.full(
        (count, (height - 1) * dilation[0] + 1, (width - 1) * dilation[1] + 1, channels), x.dtype.type(value)
    )
    spread[:, :: dilation[0], :: dilation[1]] = x
    return spread


def copied(x: Array, sizes: tuple[int, ...], strides: tuple[int, ...], offset: int, shape: tuple[int, ...]) -> Array:
    """Images [N, *shape] of moved elements: flat index ``offset + sum counter_i * strides_i``, row-major over sizes."""
    counters = np.indices(sizes).reshape(len(sizes), -1)
    index = offset + np.asarray(strides) @ counters
    return x.reshape(len(x), -1)[:, index].reshape(len(x), *shape)


def windows(x: Array, window: Window, value: float) -> Iterator[tuple[int, int, Array]]:
    """Yield (row, column, [N, OH, OW, C]) for every kernel tap, padding taps being ``value``.

    The arrays are views of the padded images: entry [n, y, x] is what tap (row, column) of the window at output
    pixel (y, x) reads.
    """
    height, width = window.output_hw(x.shape[1], x.shape[2])
    padded = pad_images(dilate_images(x, window.input_dilation, value), window.padding, value)
    (stride_h, stride_w), (dilation_h, dilation_w) = window.stride, window.dilation
    for row in range(window.kernel[0]):
        for column in range(window.kernel[1]):
            top, left = row * dilation_h, column * dilation_w
            bottom, right = top + (height - 1) * stride_h + 1, left + (width - 1) * stride_w + 1
            yield row, column, padded[:, top:bottom:stride_h, left:right:stride_w]


def tap_counts(height: int, width: int, window: Window) -> NDArray[np.int64]:
    """Taps inside the image for every output pixel: int64 [OH, OW]."""
    ones = np.ones((1, height, width, 1), dtype=np.int64)
    total = sum(view for _, _, view in windows(ones, window, 0))
    return np.asarray(total, dtype=np.int64)[0, :, :, 0]


def convolve(x: Array, weight: Array, window: Window, groups: int, value: float) -> Array:
    """Sums of products of images [N, H, W, C] and weights [O, kh, kw, C/groups], in the dtype of both.

    Args:
        value: what padding taps read.

    Returns:
        [N, OH, OW, O].
    """
    outputs, fan = weight.shape[0], weight.shape[3]
    if fan == 1 and groups == x.shape[3] == outputs:
        return _depthwise(x, weight, window, value)
    columns = _columns(x, window, value)
    pixels, per_group = columns.shape[:3], outputs // groups
    if groups == 1:
        flat = columns.reshape(-1, columns.shape[3] * fan)
        return (flat @ weight.reshape(outputs, -1).T).reshape(*pixels, outputs)
    result = np.empty((*pixels, outputs), dtype=x.dtype)
    for group in range(groups):
        part = columns[..., group * fan : (group + 1) * fan].reshape(-1, columns.shape[3] * fan)
        rows = slice(group * per_group, (group + 1) * per_group)
        result[..., rows] = (part @ weight[rows].reshape(per_group, -1).T).reshape(*pixels, per_group)
    return result


def _columns(x: Array, window: Window, value: float) -> Array:
    """im2col: [N, OH, OW, kh*kw, C]; a view for 1x1 kernels."""
    views = [view for _, _, view in windows(x, window, value)]
    return views[0][:, :, :, None, :] if len(views) == 1 else np.stack(views, axis=3)


def _depthwise(x: Array, weight: Array, window: Window, value: float) -> Array:
    height, width = window.output_hw(x.shape[1], x.shape[2])
    total = np.zeros((x.shape[0], height, width, x.shape[3]), dtype=x.dtype)
    for row, column, view in windows(x, window, value):
        total += view * weight[:, row, column, 0]
    return total
