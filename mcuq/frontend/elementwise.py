"""Arithmetic of activations, shared by the front ends: functions of one tensor, sums, products and extremes of two."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mcuq.frontend.builder import Builder
from mcuq.frontend.views import Refusal, View, per_channel
from mcuq.ir import graph as ir
from mcuq.ir.functions import Function, Step
from mcuq.ir.graph import FloatOp

Kind = Literal["add", "sub", "mul", "div", "max", "min"]


@dataclass(frozen=True, slots=True, eq=False)
class Length:
    """Euclidean length over one axis of a tensor, as exporters write L2 normalization: x / length(x)."""

    view: View
    axis: int
    shape: tuple[int, ...]


def function(b: Builder, view: View, name: str, steps: Function, source: str = "") -> View:
    """A function of every element: any view of a map becomes the same view of the new map."""
    view = b.whole(view, source) if view.has_zeros else view
    op = ir.Activation(name=b.name(name), inputs=(view.op,), shape=view.stored, source=source, function=steps)
    return replace(view, op=b.emit(op, view.shape).op)


def unary(b: Builder, view: View, name: str, kind: str, *parameters: float, source: str = "") -> View:
    """:func:`function` of one step."""
    return function(b, view, name, (Step(kind, tuple(float(p) for p in parameters)),), source)


def power(b: Builder, view: View, name: str, exponent: float, source: str = "") -> View:
    """``x ** exponent``."""
    kinds: dict[float, Function] = {0.5: (Step("sqrt"),), -1.0: (Step("reciprocal"),)}
    steps = kinds.get(exponent, (Step("power", (exponent,)),))
    return view if exponent == 1.0 else function(b, view, name, steps, source)


def exponential(b: Builder, view: View, name: str, base: float, source: str = "") -> View:
    """``base ** x``."""
    if base <= 0:
        raise Refusal(f"powers of {base:g}; the base has to be above 0")
    return function(b, view, name, (Step("affine", (math.log(base), 0.0)), Step("exp")), source)


def prelu(b: Builder, view: View, name: str, slope: NDArray[Any], source: str = "") -> View:
    """``x`` or, below zero, ``slope * x`` with one slope, or one per channel."""
    view = b.whole(view, source) if view.has_zeros else view
    single = np.size(slope) == 1
    slopes = np.full(view.stored[2], float(np.ravel(slope)[0])) if single else per_channel(view, slope)
    op = ir.Prelu(name=b.name(name), inputs=(view.op,), shape=view.stored, source=source, slope=slopes)
    return replace(view, op=b.emit(op, view.shape).op)


def binary(b: Builder, kind: Kind, left: View, right: View, name: str, source: str = "") -> View:
    """Sum, difference, product, quotient or extreme of two activations; smaller shapes are repeated as in numpy.

    Raises:
        Refusal: the shapes do not fit.
    """
    if kind == "div":
        right = unary(b, right, f"{name}.reciprocal", "reciprocal", source=source)
        kind = "mul"
    if left.shape != right.shape:
        return _repeated(b, kind, left, right, name, source)
    if not _alike(left, right) or left.has_zeros:
        left, right = b.whole(left, source), b.whole(right, source)
    op = replace(_operator(kind), name=b.name(name), inputs=(left.op, right.op), shape=left.stored, source=source)
    return replace(left, op=b.emit(op, left.shape).op)


def _operator(kind: Kind) -> FloatOp:
    match kind:
        case "mul":
            return ir.Mul(name="", inputs=(), shape=(0, 0, 0))
        case "max" | "min":
            return ir.Extremum(name="", inputs=(), shape=(0, 0, 0), smallest=kind == "min")
        case _:
            return ir.Add(name="", inputs=(), shape=(0, 0, 0), subtract=kind == "sub")


def _alike(left: View, right: View) -> bool:
    """Elements at equal places of both views lie at equal places of their maps."""
    if left.stored != right.stored:
        return False
    return left.indices is right.indices is None or np.array_equal(left.order, right.order)


def _repeated(b: Builder, kind: Kind, left: View, right: View, name: str, source: str) -> View:
    """A product repeats its second tensor by itself; for the others the smaller tensor is copied."""
    try:
        shape = np.broadcast_shapes(left.shape, right.shape)
    except ValueError as error:
        raise Refusal(f"shapes {list(left.shape)} and {list(right.shape)} do not fit") from error
    if kind == "mul" and shape in (left.shape, right.shape) and len(shape) <= 4:
        full, other = (left, right) if left.shape == shape else (right, left)
        ranked = other.viewed(other.order.reshape(*(1,) * (len(shape) - len(other.shape)), *other.shape))
        large, small = b.whole(full, source), b.whole(ranked, source)
        op = ir.Mul(name=b.name(name), inputs=(large.op, small.op), shape=(0, 0, 0), source=source)
        return b.emit(op, shape)
    views = [v if v.shape == shape else v.viewed(np.broadcast_to(v.order, shape)) for v in (left, right)]
    return binary(b, kind, b.whole(views[0], source), b.whole(views[1], source), name, source)


def with_constant(
    b: Builder, kind: Kind, view: View, constant: NDArray[Any], name: str, *, first: bool = False, source: str = ""
) -> View:
    """``view kind constant`` (``first``: the constant is the left operand).

    Raises:
        Refusal: the constant varies over rows or columns, or is none that the operation takes.
    """
    value = np.asarray(constant, dtype=np.float64)
    if kind in ("max", "min"):
        if value.size != 1:
            raise Refusal("a maximum or minimum with one constant number, or of two activations, is supported")
        bound = float(np.ravel(value)[0])
        return b.clip(view, name, (bound, None) if kind == "max" else (None, bound), source)
    if kind == "div" and first:
        view, kind = unary(b, view, f"{name}.reciprocal", "reciprocal", source=source), "mul"
    while value.ndim > len(view.shape) and value.shape[0] == 1:
        value = value[0]
    if value.ndim > len(view.shape):
        raise Refusal(f"a constant of shape {list(value.shape)} does not fit {list(view.shape)}")
    one, zero = np.ones(1), np.zeros(1)
    if kind == "mul":
        return b.affine(view, name, value, zero, source)
    if kind == "div":
        if (value == 0).any():
            raise Refusal("a division by zero")
        return b.affine(view, name, 1.0 / value, zero, source)
    if kind == "sub":
        return b.affine(view, name, -one, value, source) if first else b.affine(view, name, one, -value, source)
    return b.affine(view, name, one, value, source)


def normalized(b: Builder, view: View, axis: int, name: str, source: str = "") -> View:
    """L2 normalization over ``axis``. Raises Refusal for the batch."""
    if axis == 0 and len(view.shape) > 1 and view.shape[0] == 1:
        raise Refusal("normalization over the batch")
    op, stored = b.rows(view, axis, source)
    result = b.emit(ir.L2Normalize(name=b.name(name), inputs=(op,), shape=stored, source=source), view.shape)
    moved = np.moveaxis(view.order, axis, -1).shape
    order = np.moveaxis(np.arange(int(np.prod(moved))).reshape(moved), -1, axis)
    return result.viewed(order.reshape(view.shape))


def divided_by_length(b: Builder, view: View, length: Length, name: str, source: str = "") -> View:
    """``view / length``, when it is the view's own. Raises Refusal otherwise."""
    same = view.op == length.view.op and view.shape == length.view.shape
    if not same or not np.array_equal(view.order, length.view.order):
        raise Refusal("a division by the length of another tensor; x / length(x) is supported")
    return normalized(b, view, length.axis % len(view.shape), name, source)
