"""Comparisons, masks and choices by them: a mask is an activation of zeros and ones.

``where(x > 0, x, 0.1 * x)`` then is arithmetic of one tensor, which ``expressions.collapse`` makes one function.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mcuq.frontend.builder import Builder
from mcuq.frontend.elementwise import binary, function, with_constant
from mcuq.frontend.views import Refusal, View
from mcuq.ir.functions import Function, Step

Comparison = Literal["gt", "ge", "lt", "le", "eq", "ne"]
Operand = View | NDArray[Any]
MIRRORED: dict[Comparison, Comparison] = {"gt": "lt", "ge": "le", "lt": "gt", "le": "ge", "eq": "eq", "ne": "ne"}
NOT: Function = (Step("affine", (-1.0, 1.0)),)


def _steps(kind: Comparison, bound: float) -> Function:
    """1 where ``x kind bound``, else 0."""
    above: Function = (Step("affine", (1.0, -bound)), Step("sign"), Step("maximum", (0.0,)))
    below: Function = (Step("affine", (-1.0, bound)), Step("sign"), Step("maximum", (0.0,)))
    other: Function = (Step("affine", (1.0, -bound)), Step("sign"), Step("abs"))
    steps: dict[Comparison, Function] = {
        "gt": above, "lt": below, "ge": below + NOT, "le": above + NOT, "ne": other, "eq": other + NOT
    }  # fmt: skip
    return steps[kind]


def compared(b: Builder, kind: Comparison, left: Operand, right: Operand, name: str, source: str = "") -> View:
    """``left kind right`` of two activations, or of one and a number. Raises Refusal for other constants."""
    if not isinstance(left, View):
        left, right, kind = right, left, MIRRORED[kind]
    if not isinstance(left, View):
        raise Refusal("one side of a comparison has to be an activation")
    if isinstance(right, View):
        left, right = binary(b, "sub", left, right, f"{name}.difference", source), np.zeros(1)
    if np.size(right) != 1 or not np.isfinite(right).all():
        raise Refusal("a comparison with one finite number, or of two activations, is supported")
    return function(b, left, name, _steps(kind, float(np.ravel(right)[0])), source)


def inverted(b: Builder, mask: View, name: str, source: str = "") -> View:
    """1 where ``mask`` is 0 and the other way round."""
    return function(b, mask, name, NOT, source)


def chosen(b: Builder, mask: Operand, first: Operand, second: Operand, name: str, source: str = "") -> View:
    """``first`` where ``mask`` is 1, ``second`` where it is 0, as ``second + mask * (first - second)``."""
    for value in (first, second):
        if not isinstance(value, View) and not np.isfinite(value).all():
            raise Refusal("a choice of infinite numbers; give a finite bound")
    difference = _difference(b, first, second, f"{name}.difference", source)
    if isinstance(mask, View) and isinstance(difference, View):
        part: Operand = binary(b, "mul", difference, mask, f"{name}.part", source)
    elif isinstance(mask, View):
        part = with_constant(b, "mul", mask, np.asarray(difference), f"{name}.part", source=source)
    elif isinstance(difference, View):
        part = with_constant(b, "mul", difference, np.asarray(mask, np.float64), f"{name}.part", source=source)
    else:
        raise Refusal("a choice between constants by a constant")
    if isinstance(second, View):
        return binary(b, "add", part, second, name, source)
    return with_constant(b, "add", part, second, name, source=source)


def _difference(b: Builder, first: Operand, second: Operand, name: str, source: str) -> Operand:
    match first, second:
        case View(), View():
            return binary(b, "sub", first, second, name, source)
        case View(), _:
            return with_constant(b, "sub", first, np.asarray(second), name, source=source)
        case _, View():
            return with_constant(b, "sub", second, np.asarray(first), name, first=True, source=source)
        case _:
            return np.asarray(first, np.float64) - np.asarray(second, np.float64)
