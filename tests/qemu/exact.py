"""Expected outputs of every operator in exact integers: plain loops over taps, Python's floor division.

Written from docs/NUMERICS.md alone. It shares no code with the kernels, with mcuq.numerics or with
mcuq.reference, so that an error in one of them cannot hide here. Images are int64 arrays [H, W, C].
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Geometry:
    """Window of a convolution or pool; pads are top and left, the rest follows from the output size."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pad: tuple[int, int]
    output: tuple[int, int]


def pack_bytes(codes: Ints, bits: int) -> bytes:
    """Codes [..., C] to packed rows, first code in the lowest bits, rows padded with zero bits to a byte."""
    rows = codes.reshape(-1, codes.shape[-1])
    row_bytes = (rows.shape[1] * bits + 7) // 8
    out = bytearray()
    for row in rows.tolist():
        word = 0
        for i, code in enumerate(row):
            word |= (code % (1 << bits)) << (i * bits)
        out += word.to_bytes(row_bytes, "little")
    return bytes(out)


def requantize(acc: int, multiplier: int, shift: int, zero: int, lo: int, hi: int) -> int:
    """clamp(zero + floor(acc * multiplier / 2^shift + 1/2))."""
    doubled = 2 * acc * multiplier + (1 << shift)
    return min(max(zero + doubled // (2 << shift), lo), hi)


def requantize_twice(acc: int, multiplier: int, shift: int, zero: int, lo: int, hi: int) -> int:
    """The product to a multiple of 2^31, half up; then by a power of two, half away from zero; then clamped."""
    if shift <= 31:
        return requantize(acc, multiplier, shift, zero, lo, hi)
    high = (2 * acc * multiplier + (1 << 31)) // (1 << 32)
    magnitude = (2 * abs(high) + (1 << (shift - 31))) // (2 << (shift - 31))
    return min(max(zero + (magnitude if high >= 0 else -magnitude), lo), hi)


def rescale(total: int, constant: int, shift: int, lo: int, hi: int) -> int:
    """clamp(floor((total + constant) / 2^shift))."""
    return min(max((total + constant) // (1 << shift), lo), hi)


def taps(g: Geometry, size: tuple[int, int], row: int, col: int) -> Iterator[tuple[int, int, int, int, bool]]:
    """(kernel row, kernel column, input row, input column, inside) of one output pixel."""
    for i in range(g.kernel[0]):
        for j in range(g.kernel[1]):
            y = row * g.stride[0] - g.pad[0] + i * g.dilation[0]
            x = col * g.stride[1] - g.pad[1] + j * g.dilation[1]
            yield i, j, y, x, 0 <= y < size[0] and 0 <= x < size[1]


def convolution_sums(image: Ints, border: int, weights: Ints, zeros: Ints, g: Geometry, groups: int) -> Ints:
    """sum x * (w - zw[o]) for every output, without bias. weights [O, kh, kw, I/groups], zeros [O]."""
    outputs, _, _, depth = weights.shape
    centred = (weights - zeros[:, None, None, None]).reshape(groups, outputs // groups, *g.kernel, depth)
    (top, left), (height, width, channels) = g.pad, image.shape
    below, right = (k * d for k, d in zip(g.kernel, g.dilation, strict=True))
    framed = np.full((top + height + below, left + width + right, channels), border, dtype=np.int64)
    framed[top : top + height, left : left + width] = image
    acc = np.zeros((*g.output, groups, outputs // groups), dtype=np.int64)
    for i, j in itertools.product(range(g.kernel[0]), range(g.kernel[1])):
        rows = np.arange(g.output[0]) * g.stride[0] + i * g.dilation[0]
        columns = np.arange(g.output[1]) * g.stride[1] + j * g.dilation[1]
        pixels = framed[np.ix_(rows, columns)].reshape(*g.output, groups, depth)
        acc += np.einsum("yxgi,goi->yxgo", pixels, centred[:, :, i, j])
    return acc.reshape(*g.output, outputs)


def max_pool(image: Ints, g: Geometry) -> Ints:
    """Largest tap inside the input."""
    out = np.zeros((*g.output, image.shape[2]), dtype=np.int64)
    for row in range(g.output[0]):
        for col in range(g.output[1]):
            valid = [image[y, x] for _, _, y, x, inside in taps(g, image.shape[:2], row, col) if inside]
            out[row, col] = np.max(valid, axis=0)
    return out


def average_sums(image: Ints, zero: int, g: Geometry) -> tuple[Ints, NDArray[np.int64]]:
    """(sum (x - zero) over the taps inside [H, W, C], their number [H, W])."""
    sums = np.zeros((*g.output, image.shape[2]), dtype=np.int64)
    counts = np.zeros(g.output, dtype=np.int64)
    for row in range(g.output[0]):
        for col in range(g.output[1]):
            valid = [image[y, x] - zero for _, _, y, x, inside in taps(g, image.shape[:2], row, col) if inside]
            sums[row, col] = np.sum(valid, axis=0)
            counts[row, col] = len(valid)
    return sums, counts


def softmax(row: list[int], table: list[int]) -> list[int]:
    """Codes of one row: min(127, (256 e + S/2) div S - 128)."""
    exponentials = [table[max(row) - x] for x in row]
    total = sum(exponentials)
    return [min(127, (256 * e + total // 2) // total - 128) for e in exponentials]


def l2_normalize(row: list[int], zero: int) -> list[int]:
    """Largest k with k - 1/2 <= 128 d / sqrt(sum d^2), at most 127, by comparing squares; zeros stay zeros."""
    distances = [x - zero for x in row]
    total = sum(d * d for d in distances)

    def reached(k: int, d: int) -> bool:
        left, right = 2 * k - 1, 256 * d
        if (left > 0) != (right > 0):
            return left <= right
        return left * left * total <= right * right if left > 0 else left * left * total >= right * right

    return [max(k for k in range(-129, 128) if reached(k, d)) if total else 0 for d in distances]


def blend(image: Ints, zero: int, rows: list[tuple[int, int]], columns: list[tuple[int, int]]) -> Ints:
    """Weighted sums, in units of 2^-22, of x - zero; rows and columns are (first, weight of the next in 2^-11)."""
    out = np.zeros((len(rows), len(columns), image.shape[2]), dtype=np.int64)
    for (y, (row, down)), (x, (column, right)) in itertools.product(enumerate(rows), enumerate(columns)):
        for i, j in itertools.product(range(2), range(2)):
            weight = (down if i else 2048 - down) * (right if j else 2048 - right)
            if weight:
                out[y, x] += weight * (image[row + i, column + j] - zero)
    return out
