"""Resizing and borders as choices and blends of rows and columns (``ir.Resample``)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from mcuq.frontend.builder import Builder
from mcuq.frontend.views import Refusal, View
from mcuq.ir import graph as ir
from mcuq.ir.graph import BLEND_UNIT, Blend

LARGEST = 4096
"""Rows or columns of a resized map."""
BORDERS = {"reflect": "reflect", "edge": "edge", "replicate": "edge", "wrap": "wrap", "circular": "wrap"}
BORDERS["symmetric"] = "symmetric"
"""Modes of padding other than with a constant, by numpy's name."""


def place(mode: str, index: int, size: int, outputs: int, scale: float) -> float:
    """Position in the input, in pixels, of output ``index``: a coordinate transformation by its ONNX name.

    Args:
        size, outputs: of input and output. scale: output pixels per input pixel.
    """
    match mode:
        case "half_pixel":
            return (index + 0.5) / scale - 0.5
        case "pytorch_half_pixel":
            return (index + 0.5) / scale - 0.5 if outputs > 1 else 0.0
        case "half_pixel_symmetric":
            adjusted = outputs / (size * scale)
            return size / 2 * (1 - adjusted) + (index + 0.5) / scale - 0.5
        case "half_pixel_centre":  # the pixel that holds the output's centre: TFLite's nearest
            return (index + 0.5) / scale
        case "align_corners":
            return index * (size - 1) / (outputs - 1) if outputs > 1 else 0.0
        case "asymmetric":
            return index / scale
        case _:
            raise Refusal(f"coordinate transformation {mode!r} is not supported")


def nearest(mode: str, rounding: str, size: int, outputs: int, scale: float) -> Blend:
    """Rows chosen by ``rounding``: floor, ceil, round_prefer_floor or round_prefer_ceil."""
    _check(outputs)
    rules: dict[str, Callable[[float], int]] = {
        "floor": math.floor,
        "ceil": math.ceil,
        "round_prefer_floor": lambda p: math.ceil(p - 0.5),
        "round_prefer_ceil": lambda p: math.floor(p + 0.5),
    }
    if rounding not in rules:
        raise Refusal(f"rounding {rounding!r} is not supported")
    chosen = (rules[rounding](round(place(mode, i, size, outputs, scale), 9)) for i in range(outputs))
    return Blend(tuple(min(max(c, 0), size - 1) for c in chosen))


def linear(mode: str, size: int, outputs: int, scale: float) -> Blend:
    """Rows blended with their next; shares are rounded to 1 / 2048."""
    _check(outputs)
    first: list[int] = []
    weights: list[int] = []
    for index in range(outputs):
        position = min(max(place(mode, index, size, outputs, scale), 0.0), size - 1.0)
        units = math.floor(position * BLEND_UNIT + 0.5)
        first.append(units // BLEND_UNIT)
        weights.append(units % BLEND_UNIT)
    return Blend(tuple(first), tuple(weights) if any(weights) else ())


def border(mode: str, size: int, before: int, after: int) -> Blend:
    """A border that reflects (the edge not repeated), repeats the edge, or wraps around."""
    _check(size + before + after)
    if mode not in BORDERS or min(before, after) < 0 or (mode == "reflect" and max(before, after) >= size):
        raise Refusal(f"padding {before}, {after} of {size} with mode {mode!r} is not supported")
    return Blend(tuple(np.pad(np.arange(size), (before, after), mode=BORDERS[mode]).tolist()))  # pyright: ignore


def adaptive(size: int, outputs: int, *, mean: bool) -> tuple[tuple[int, ...], int, int]:
    """Windows of adaptive pooling as even ones: rows to choose first, then kernel and stride.

    Where windows differ in size, each one's rows are repeated until they agree: for a ``mean`` every row equally
    often, for a maximum the last one.
    """
    first = [index * size // outputs for index in range(outputs)]
    end = [-(-(index + 1) * size // outputs) for index in range(outputs)]
    sizes, steps = {e - f for f, e in zip(first, end, strict=True)}, set(np.diff(first).tolist())
    if len(sizes) == 1 and len(steps) <= 1:
        return tuple(range(size)), sizes.pop(), max(steps, default=size)
    length = math.lcm(*sizes) if mean else max(sizes)
    _check(length * outputs)
    rows: list[int] = []
    for f, e in zip(first, end, strict=True):
        rows += [min(f + i * (e - f) // length, e - 1) if mean else min(f + i, e - 1) for i in range(length)]
    return tuple(rows), length, length


def resample(b: Builder, view: View, name: str, rows: Blend, columns: Blend, source: str = "") -> View:
    """Rows and columns of a map [1, C, H, W] or [1, C, L] (or channels last); nothing where nothing moves."""
    op, stored = b.map(view, source)
    same = (range(stored[0]), range(stored[1]))
    if all(blend.first == tuple(r) and not blend.weights for blend, r in zip((rows, columns), same, strict=True)):
        return view
    emitted = ir.Resample(name=b.name(name), inputs=(op,), shape=(0, 0, 0), source=source, rows=rows, columns=columns)
    sizes: Sequence[int] = (len(rows.first), len(columns.first))[4 - len(view.shape) :]
    shape = (*view.shape[:2], *sizes) if b.channels_first else (view.shape[0], *sizes, view.shape[-1])
    return b.emit(emitted, shape)


def bordered(b: Builder, view: View, name: str, mode: str, pads: tuple[int, int, int, int], source: str = "") -> View:
    """``view`` with a border (top, left, bottom, right) by :func:`border`."""
    _, stored = b.map(view, source)
    rows, columns = border(mode, stored[0], pads[0], pads[2]), border(mode, stored[1], pads[1], pads[3])
    return resample(b, view, name, rows, columns, source)


def padded(b: Builder, view: View, name: str, pads: tuple[int, int, int, int], value: float, source: str = "") -> View:
    """``view`` with a border (top, left, bottom, right) of ``value``."""
    if not any(pads):
        return view
    op, _ = b.map(view, source)
    pad = ir.Pad(name=b.name(name), inputs=(op,), shape=(0, 0, 0), source=source, padding=pads, value=value)
    sizes = (pads[0] + pads[2], pads[1] + pads[3])[4 - len(view.shape) :]
    at = 2 if b.channels_first else 1
    shape = list(view.shape)
    for axis, more in enumerate(sizes, at):
        shape[axis] += more
    return b.emit(pad, tuple(shape))


def _check(outputs: int) -> None:
    if not 1 <= outputs <= LARGEST:
        raise Refusal(f"{outputs} rows or columns; 1 to {LARGEST} are supported")
