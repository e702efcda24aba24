"""Functions of one number as small programs: activations, and whatever arithmetic of one tensor comes down to.

A program is a tuple of steps for a stack machine. ``x`` and ``constant`` push, unary steps replace the top, binary
ones the two topmost values; one value is left. ``(Step("silu"),)`` is short for ``x`` then ``silu``: a program
starts with ``x`` on the stack. The device never runs them: lowering evaluates one at every code of its input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcuq.errors import ModelError

LONGEST = 64
"""Steps of one program."""
UNARY = {
    "sigmoid": 0, "tanh": 0, "erf": 0, "exp": 0, "log": 0, "sqrt": 0, "abs": 0, "reciprocal": 0, "gelu": 0,
    "gelu_tanh": 0, "silu": 0, "mish": 0, "softsign": 0, "hard_swish": 0, "softplus": 1, "affine": 2, "maximum": 1,
    "sin": 0, "cos": 0, "floor": 0, "ceil": 0, "round": 0, "sign": 0, "expm1": 0, "log1p": 0, "log2": 0, "log10": 0,
    "minimum": 1, "hard_sigmoid": 2, "elu": 1, "selu": 2, "celu": 1, "leaky_relu": 1, "power": 1, "threshold": 2,
}  # fmt: skip
"""Steps on the top of the stack and their numbers of parameters; ``evaluate`` has the formulas."""
BINARY = ("add", "subtract", "multiply", "divide", "max", "min")
SAME_NAME = (
    "tanh", "exp", "log", "sqrt", "abs", "sin", "cos", "floor", "ceil", "round", "sign", "expm1", "log1p", "log2",
    "log10",
)  # fmt: skip
"""Steps that numpy and torch have under the same name."""
NAMED = ("sigmoid", "tanh", "gelu", "gelu_tanh", "silu", "mish", "softplus", "softsign", "hard_swish", "hard_sigmoid")
GRID = np.concatenate([np.linspace(-12, 12, 481), [-1e3, -100.0, -40.0, 40.0, 100.0, 1e3]])
"""Points on which functions are compared and signs found."""


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction; ``parameters`` as :data:`UNARY` says, one number for ``constant``."""

    kind: str
    parameters: tuple[float, ...] = ()


Function = tuple[Step, ...]
X = Step("x")


def check(function: Function, what: str) -> None:
    """Raise ModelError unless ``function`` is a program that leaves one value."""
    depth = 1
    for step in function:
        count = 1 if step.kind == "constant" else UNARY.get(step.kind, 0)
        known = step.kind in UNARY or step.kind in BINARY or step.kind in ("x", "constant")
        if not known or len(step.parameters) != count or not all(math.isfinite(p) for p in step.parameters):
            raise ModelError(f"{what}: step {step.kind[:40]!r} with parameters {step.parameters[:4]} is no function")
        depth += 1 if step.kind in ("x", "constant") else -1 if step.kind in BINARY else 0
        if depth < 1:
            raise ModelError(f"{what}: the function takes a value that is not there")
    if depth != 1 or not 1 <= len(function) <= LONGEST:
        raise ModelError(f"{what}: a function has 1 to {LONGEST} steps and leaves one value, found {depth}")


def evaluate(function: Function, x: Any, m: Any = np) -> Any:
    """Values of ``function`` at ``x``. ``m`` is the array module of ``x``, numpy or torch."""
    stack: list[Any] = [x]
    for step in function:
        if step.kind == "x":
            stack.append(x)
        elif step.kind == "constant":
            stack.append(m.full_like(x, step.parameters[0]))
        elif step.kind in BINARY:
            right = stack.pop()
            stack.append(_binary(step.kind, stack.pop(), right, m))
        else:
            stack.append(_unary(step.kind, step.parameters, stack.pop(), m))
    return stack.pop()


def _binary(kind: str, a: Any, b: Any, m: Any) -> Any:
    match kind:
        case "add":
            return a + b
        case "subtract":
            return a - b
        case "multiply":
            return a * b
        case "divide":
            return a / b
        case "max":
            return m.maximum(a, b)
        case _:
            return m.minimum(a, b)


def _unary(kind: str, p: tuple[float, ...], x: Any, m: Any) -> Any:
    match kind:
        case "sigmoid":
            return _sigmoid(x, m)
        case "erf":
            return m.erf(x) if hasattr(m, "erf") else _erf(x)
        case _ if kind in SAME_NAME:
            return getattr(m, kind)(x)
        case "reciprocal":
            return 1.0 / x
        case "affine":
            return p[0] * x + p[1]
        case "maximum":
            return m.clip(x, p[0], None)
        case "minimum":
            return m.clip(x, None, p[0])
        case "power":
            return x ** p[0]
        case "hard_sigmoid":
            return m.clip(p[0] * x + p[1], 0.0, 1.0)
        case "hard_swish":
            return x * m.clip(x / 6.0 + 0.5, 0.0, 1.0)
        case "leaky_relu":
            return m.where(x >= 0, x, p[0] * x)
        case "threshold":
            return m.where(x > p[0], x, m.full_like(x, p[1]))
        case _:
            return _smooth(kind, p, x, m)


def _smooth(kind: str, p: tuple[float, ...], x: Any, m: Any) -> Any:
    """Functions with exponentials, none of which overflows."""
    below = m.clip(x, None, 0.0)
    match kind:
        case "silu":
            return x * _sigmoid(x, m)
        case "gelu":
            return x * (0.5 + 0.5 * _unary("erf", (), x * math.sqrt(0.5), m))
        case "gelu_tanh":
            return 0.5 * x * (1.0 + m.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)))
        case "softplus":
            return m.clip(x, 0.0, None) + m.log1p(m.exp(-p[0] * abs(x))) / p[0]
        case "mish":
            return x * m.tanh(_smooth("softplus", (1.0,), x, m))
        case "softsign":
            return x / (1.0 + abs(x))
        case "elu":
            return m.where(x > 0, x, p[0] * (m.exp(below) - 1.0))
        case "selu":
            return p[1] * m.where(x > 0, x, p[0] * (m.exp(below) - 1.0))
        case "celu":
            return m.where(x > 0, x, p[0] * (m.exp(below / p[0]) - 1.0))
        case _:
            raise ValueError(f"{kind!r} is no step of a function")


def _sigmoid(x: Any, m: Any) -> Any:
    return 0.5 + 0.5 * m.tanh(0.5 * x)


def _erf(x: NDArray[np.float64]) -> NDArray[np.float64]:
    values = np.fromiter((math.erf(v) for v in np.ravel(x).tolist()), np.float64, np.size(x))
    return values.reshape(np.shape(x))


def real_values(function: Function, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """``function`` at ``x`` in float64; where it has no value (logarithms of negative numbers) 0, poles are large."""
    with np.errstate(all="ignore"):
        return np.nan_to_num(np.asarray(evaluate(function, x), dtype=np.float64), nan=0.0, posinf=1e300, neginf=-1e300)


def is_non_negative(function: Function, *, of_non_negative: bool) -> bool:
    """No value below zero (at the points of :data:`GRID`), if wanted of arguments that are not negative only."""
    points = GRID[GRID >= 0] if of_non_negative else GRID
    return bool(np.all(real_values(function, points) >= 0.0))


def joined(kind: str, left: Function, right: Function) -> Function:
    """``left(x) kind right(x)`` for a binary step."""
    return (*left, X, *right, Step(kind))


def named(function: Function) -> Function:
    """The well-known activation that equals ``function``, else ``function``: exporters write them in many ways."""
    candidates: list[Function] = [(Step("softplus", (1.0,)),), (Step("hard_sigmoid", (1 / 6, 0.5)),)]
    candidates += [(Step(kind),) for kind in NAMED if UNARY[kind] == 0]
    values = real_values(function, GRID)
    for candidate in candidates:
        if np.allclose(values, real_values(candidate, GRID), rtol=1e-6, atol=1e-6):
            return candidate
    return function


def text(function: Function) -> str:
    """``leaky_relu(0.1)``; steps in order, joined by ``;``."""
    return ";".join(step.kind + (f"({','.join(f'{p:g}' for p in step.parameters)})" if step.parameters else "")
                    for step in function)  # fmt: skip
