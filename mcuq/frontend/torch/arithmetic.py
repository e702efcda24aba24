"""ATen elementwise operators to the float graph: activations, sums, products, extremes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mcuq.frontend import masks
from mcuq.frontend.elementwise import (
    Kind,
    Length,
    binary,
    divided_by_length,
    exponential,
    function,
    power,
    prelu,
    with_constant,
)
from mcuq.frontend.reductions import composed
from mcuq.frontend.torch.nodes import (
    Arguments,
    Handlers,
    Refusal,
    Translator,
    Value,
    aten_shape,
    handles,
    source_place,
)
from mcuq.frontend.views import View
from mcuq.ir.functions import SAME_NAME, Function, Step
from mcuq.ir.graph import Clamp

HANDLERS: Handlers = {}


def _clip(t: Translator, node: Any, operand: Any, kind: str, clamp: Clamp) -> View:
    return t.builder.clip(t.view(operand), t.name(node, kind), clamp, source_place(node))


@handles(HANDLERS, "aten.relu.default")
def _relu(t: Translator, node: Any, a: Arguments) -> View:
    return _clip(t, node, a["self"], "relu", (0.0, None))


@handles(HANDLERS, "aten.relu6.default")
def _relu6(t: Translator, node: Any, a: Arguments) -> View:
    return _clip(t, node, a["self"], "relu6", (0.0, 6.0))


@handles(HANDLERS, "aten.hardtanh.default")
def _hardtanh(t: Translator, node: Any, a: Arguments) -> View:
    low, high = float(a["min_val"]), float(a["max_val"])
    return _clip(t, node, a["self"], "relu6" if (low, high) == (0.0, 6.0) else "clip", (low, high))


@handles(HANDLERS, "aten.clamp.default", "aten.clamp_min.default", "aten.clamp_max.default", "aten.clamp.Tensor")
def _clamp(t: Translator, node: Any, a: Arguments) -> Value:
    value = t.known(a["self"])
    if isinstance(value, Length):  # F.normalize keeps lengths above a tiny number
        return value
    given = [None if v is None else t.operand(v) for v in (a.get("min"), a.get("max"))]
    if any(isinstance(v, View) or np.size(v) != 1 for v in given if v is not None):
        raise Refusal("bounds have to be one number each; use maximum and minimum of two activations")
    bounds = [None if v is None or np.isinf(v).all() else float(np.ravel(v)[0]) for v in given]
    return _clip(t, node, a["self"], "clamp", (bounds[0], bounds[1]))


def _numbers(a: Arguments, *names: str) -> tuple[float, ...]:
    return tuple(float(a[name]) for name in names)


def _elu(a: Arguments) -> Function:
    alpha, scale, inner = _numbers(a, "alpha", "scale", "input_scale")
    if inner != 1.0:
        raise Refusal("input_scale other than 1 is not supported")
    return (Step("elu", (alpha,)),) if scale == 1.0 else (Step("selu", (alpha, scale)),)


def _gelu(a: Arguments) -> Function:
    return (Step("gelu_tanh" if a.get("approximate") == "tanh" else "gelu"),)


MINUS = Step("affine", (-1.0, 0.0))
SELU = (1.6732632423543772, 1.0507009873554805)
FUNCTIONS: dict[str, Callable[[Arguments], Function]] = {
    **{
        f"aten.{name}.default": lambda a, kind=kind: (Step(kind),)
        for name, kind in {
            "sigmoid": "sigmoid", "tanh": "tanh", "silu": "silu", "mish": "mish", "hardswish": "hard_swish",
            "erf": "erf", "reciprocal": "reciprocal", **{same: same for same in SAME_NAME},
        }.items()
    },
    "aten.gelu.default": _gelu,
    "aten.elu.default": _elu,
    "aten.selu.default": lambda a: (Step("selu", SELU),),
    "aten.celu.default": lambda a: (Step("celu", _numbers(a, "alpha")),),
    "aten.hardsigmoid.default": lambda a: (Step("hard_sigmoid", (1 / 6, 0.5)),),
    "aten.softplus.default": lambda a: (Step("softplus", _numbers(a, "beta")),),
    "aten.log_sigmoid.default": lambda a: (MINUS, Step("softplus", (1.0,)), MINUS),
    "aten.leaky_relu.default": lambda a: (Step("leaky_relu", _numbers(a, "negative_slope")),),
    "aten.rrelu.default": lambda a: (Step("leaky_relu", (sum(_numbers(a, "lower", "upper")) / 2,)),),
    "aten.threshold.default": lambda a: (Step("threshold", _numbers(a, "threshold", "value")),),
    "aten.rsqrt.default": lambda a: (Step("sqrt"), Step("reciprocal")),
    "aten.exp2.default": lambda a: (Step("affine", (math.log(2.0), 0.0)), Step("exp")),
    "aten.square.default": lambda a: (Step("power", (2.0,)),),
}  # fmt: skip


@handles(HANDLERS, *FUNCTIONS)
def _function(t: Translator, node: Any, a: Arguments) -> View:
    kind = str(node.target).split(".")[1]
    return function(
        t.builder, t.view(a["self"]), t.name(node, kind), FUNCTIONS[str(node.target)](a), source_place(node)
    )


@handles(HANDLERS, "aten.glu.default")
def _glu(t: Translator, node: Any, a: Arguments) -> View:
    """The first half of an axis times the sigmoid of the second."""
    view, name = t.view(a["self"]), t.name(node, "glu")
    halves = [view.viewed(half) for half in np.split(t.order(view), 2, axis=int(a["dim"]))]
    whole = [t.builder.whole(half, source_place(node)) for half in halves]
    gate = function(t.builder, whole[1], f"{name}.gate", (Step("sigmoid"),), source_place(node))
    return binary(t.builder, "mul", whole[0], gate, name, source_place(node))


@handles(HANDLERS, "aten.neg.default")
def _negative(t: Translator, node: Any, a: Arguments) -> View:
    return t.builder.affine(t.view(a["self"]), t.name(node, "neg"), np.full(1, -1.0), np.zeros(1), source_place(node))


@handles(HANDLERS, "aten.prelu.default")
def _prelu(t: Translator, node: Any, a: Arguments) -> View:
    view = t.view(a["self"])
    slope = t.operand(a["weight"])
    if isinstance(slope, View):
        raise Refusal("slopes have to be constant")
    shaped = slope.reshape(-1, *[1] * (len(view.shape) - 2)) if slope.size > 1 else slope
    result = prelu(t.builder, view, t.name(node, "prelu"), shaped, source_place(node))
    if a["weight"].name in t.tensors and slope.size in (1, result.stored[2]):
        t.parameters[result.op] = {"slope": t.tensors[a["weight"].name][0]}
    return result


@handles(HANDLERS, "aten.pow.Tensor_Scalar", "aten.pow.Scalar", "aten.pow.Tensor_Tensor")
def _power(t: Translator, node: Any, a: Arguments) -> View:
    base, exponent = t.operand(a["self"]), t.operand(a["exponent"])
    constant = exponent if isinstance(base, View) else base
    if isinstance(constant, View) or np.size(constant) != 1:
        raise Refusal("powers of an activation with one constant exponent, or of one constant, are supported")
    number, name, source = float(np.ravel(constant)[0]), t.name(node, "pow"), source_place(node)
    if isinstance(base, View):
        return power(t.builder, base, name, number, source)
    return exponential(t.builder, exponent, name, number, source)


KINDS: dict[str, Kind] = {
    "aten.add.Tensor": "add",
    "aten.sub.Tensor": "sub",
    "aten.rsub.Scalar": "sub",
    "aten.mul.Tensor": "mul",
    "aten.div.Tensor": "div",
    "aten.maximum.default": "max",
    "aten.minimum.default": "min",
    "aten.max.other": "max",
    "aten.min.other": "min",
}


def _scaled(t: Translator, operand: Any, factor: float, name: str, source: str) -> Any:
    if isinstance(operand, View):
        return t.builder.affine(operand, name, np.full(1, factor), np.zeros(1), source)
    return operand * factor


@handles(HANDLERS, *KINDS)
def _binary(t: Translator, node: Any, a: Arguments) -> View:
    kind = KINDS[str(node.target)]
    left, right = t.operand(a["self"]), t.operand(a["other"])
    if "rsub" in str(node.target):
        left, right = right, left
    name, source = t.name(node, kind), source_place(node)
    if (alpha := float(a.get("alpha", 1.0))) != 1.0:
        right = _scaled(t, right, alpha, f"{name}.alpha", source)
    if isinstance(left, Length) or (isinstance(right, Length) and (kind != "div" or not isinstance(left, View))):
        raise Refusal("lengths are supported in L2 normalization only: x / length(x)")
    if isinstance(right, Length):
        return divided_by_length(t.builder, left, right, name, source)
    if isinstance(left, View) and isinstance(right, View):
        return binary(t.builder, kind, left, right, name, source)
    if isinstance(left, View):
        return with_constant(t.builder, kind, left, right, name, source=source)
    return with_constant(t.builder, kind, right, left, name, first=True, source=source)


@handles(HANDLERS, "aten.linalg_vector_norm.default", "aten.norm.ScalarOpt_dim")
def _length(t: Translator, node: Any, a: Arguments) -> Value:
    """A length over one axis that is only divided by is half of an L2 normalization."""
    order, view = float(a.get("ord") or a.get("p") or 2.0), t.view(a["self"])
    given = range(len(view.shape)) if a["dim"] is None else a["dim"]
    axes = {int(d) % len(view.shape) for d in (given if isinstance(given, (list, tuple, range)) else [given])}
    if order not in (1.0, 2.0):
        raise Refusal(f"norms of order 1 and 2 are supported, found {order:g}")
    if order == 2.0 and len(axes) == 1 and _divides(node):
        return Length(view, min(axes), view.shape)
    kind = "length" if order == 2.0 else "sum of magnitudes"
    return composed(t.builder, kind, view, axes, aten_shape(node), t.name(node, "norm"), source_place(node))


PASSED = ("aten.clamp_min.default", "aten.clamp.default", "aten.expand.default", "aten.expand_as.default")


def _divides(node: Any) -> bool:
    """The node's result is only divided by, perhaps bounded and repeated before."""
    readers = [(str(user.target), user) for user in node.users]
    return bool(readers) and all(
        _divides(user) if kind in PASSED else kind == "aten.div.Tensor" and user.args[1] is node
        for kind, user in readers
    )


COMPARISONS: dict[str, masks.Comparison] = {
    f"aten.{kind}.{form}": kind for kind in ("gt", "ge", "lt", "le", "eq", "ne") for form in ("Scalar", "Tensor")
}


@handles(HANDLERS, *COMPARISONS)
def _comparison(t: Translator, node: Any, a: Arguments) -> View:
    kind = COMPARISONS[str(node.target)]
    left, right = t.operand(a["self"]), t.operand(a["other"])
    return masks.compared(t.builder, kind, left, right, t.name(node, kind), source_place(node))


@handles(HANDLERS, "aten.logical_not.default")
def _not(t: Translator, node: Any, a: Arguments) -> View:
    return masks.inverted(t.builder, t.view(a["self"]), t.name(node, "not"), source_place(node))


@handles(HANDLERS, "aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf", "aten.where.Scalar")
def _where(t: Translator, node: Any, a: Arguments) -> View:
    mask, first, second = (t.operand(a[name]) for name in ("condition", "self", "other"))
    return masks.chosen(t.builder, mask, first, second, t.name(node, "where"), source_place(node))


@handles(HANDLERS, "aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def _masked_fill(t: Translator, node: Any, a: Arguments) -> View:
    mask, value, rest = (t.operand(a[name]) for name in ("mask", "value", "self"))
    return masks.chosen(t.builder, mask, value, rest, t.name(node, "where"), source_place(node))
