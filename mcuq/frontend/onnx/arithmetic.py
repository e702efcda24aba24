"""Elementwise operators of ONNX: activations, sums, products, extremes, powers, L2 normalization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mcuq.frontend import masks
from mcuq.frontend.builder import Constant
from mcuq.frontend.elementwise import (
    Kind,
    Length,
    binary,
    divided_by_length,
    exponential,
    function,
    normalized,
    power,
    prelu,
    with_constant,
)
from mcuq.frontend.onnx.translate import Handler, Handlers, Node, Translator, Value
from mcuq.frontend.views import Refusal, View
from mcuq.ir.functions import Function, Step


def clip(t: Translator, node: Node) -> Value:
    if isinstance(node.inputs[0], Length):  # normalizations keep lengths above a tiny number
        return node.inputs[0]
    if node.opset < 11:
        bounds = [node.get("min"), node.get("max")]
    else:
        bounds = [_scalar(node.array(position)) for position in (1, 2)]
    low, high = (None if b is None or abs(float(b)) > 3e38 else float(b) for b in bounds)
    return t.builder.clip(node.view(), node.label, (low, high), node.where)


def _scalar(array: Any) -> float | None:
    if array is None:
        return None
    if np.size(array) != 1:
        raise Refusal("its bound has to be one number")
    return float(np.ravel(array)[0])


def relu(t: Translator, node: Node) -> View:
    return t.builder.clip(node.view(), node.label, (0.0, None), node.where)


KINDS: dict[str, Kind] = {
    "Add": "add",
    "Sum": "add",
    "Sub": "sub",
    "Mul": "mul",
    "Div": "div",
    "Max": "max",
    "Min": "min",
}


def arithmetic(kind: Kind) -> Handler:
    return lambda t, node: _arithmetic(t, node, kind)


def _arithmetic(t: Translator, node: Node, kind: Kind) -> Value:
    """Two operands, or any number of Sum, Max and Min."""
    operands = list(node.inputs)
    if len(operands) < (1 if kind in ("add", "max", "min") else 2) or any(value is None for value in operands):
        raise Refusal("both inputs have to be given")
    if kind == "div" and isinstance(operands[1], Length) and isinstance(operands[0], View):
        return divided_by_length(t.builder, operands[0], operands[1], node.label, node.where)
    if kind == "max" and isinstance(operands[0], Length):
        return operands[0]
    result = operands[0]
    for other in operands[1:]:
        result = _joined(t, node, kind, result, other)
    if not isinstance(result, View):
        raise Refusal("one of its inputs has to be an activation")
    return result


def _joined(t: Translator, node: Node, kind: Kind, left: Value | None, right: Value | None) -> View:
    b, name, source = t.builder, node.label, node.where
    match left, right:
        case View(), View():
            return binary(b, kind, left, right, name, source)
        case View(), Constant():
            return with_constant(b, kind, left, right.value, name, source=source)
        case Constant(), View():
            return with_constant(b, kind, right, left.value, name, first=True, source=source)
        case _:
            raise Refusal("lengths are supported in L2 normalization only: x / length(x)")


def negative(t: Translator, node: Node) -> View:
    return t.builder.affine(node.view(), node.label, np.full(1, -1.0), np.zeros(1), node.where)


def _step(kind: str, *attributes: tuple[str, float]) -> Callable[[Node], Function]:
    """A step whose parameters are attributes with their defaults."""
    return lambda node: (Step(kind, tuple(float(node.get(name, default)) for name, default in attributes)),)


def _gelu(node: Node) -> Function:
    return (Step("gelu_tanh" if node.get("approximate", "none") == "tanh" else "gelu"),)


def _swish(node: Node) -> Function:
    alpha = float(node.get("alpha", 1.0))
    scaled = (Step("affine", (alpha, 0.0)), Step("sigmoid"), Step("x"), Step("multiply"))
    return (Step("silu"),) if alpha == 1.0 else scaled


FUNCTIONS: dict[str, Callable[[Node], Function]] = {
    "Sigmoid": _step("sigmoid"),
    "Tanh": _step("tanh"),
    "HardSigmoid": _step("hard_sigmoid", ("alpha", 0.2), ("beta", 0.5)),
    "HardSwish": _step("hard_swish"),
    "Elu": _step("elu", ("alpha", 1.0)),
    "Selu": _step("selu", ("alpha", 1.67326319217681884765625), ("gamma", 1.05070102214813232421875)),
    "Celu": _step("celu", ("alpha", 1.0)),
    "Softplus": lambda node: (Step("softplus", (1.0,)),),
    "Softsign": _step("softsign"),
    "LeakyRelu": _step("leaky_relu", ("alpha", 0.01)),
    "ThresholdedRelu": lambda node: (Step("threshold", (float(node.get("alpha", 1.0)), 0.0)),),
    "Gelu": _gelu,
    "Mish": _step("mish"),
    "Swish": _swish,
    "Erf": _step("erf"),
    **{kind.capitalize(): _step(kind) for kind in ("exp", "log", "sqrt", "abs", "sign", "sin", "cos")},
    **{kind.capitalize(): _step(kind) for kind in ("floor", "ceil", "round")},
    "Reciprocal": _step("reciprocal"),
}


def unary(steps: Callable[[Node], Function]) -> Handler:
    return lambda t, node: function(t.builder, node.view(), node.label, steps(node), node.where)


def prelu_(t: Translator, node: Node) -> View:
    return prelu(t.builder, node.view(), node.label, node.required(1).value, node.where)


def power_(t: Translator, node: Node) -> View:
    base, exponent = (*node.inputs, None)[:2]
    if isinstance(base, View) and isinstance(exponent, Constant):
        return power(t.builder, base, node.label, _number(exponent), node.where)
    if isinstance(exponent, View) and isinstance(base, Constant):
        return exponential(t.builder, exponent, node.label, _number(base), node.where)
    raise Refusal("powers of an activation with a constant exponent, or of a constant, are supported")


def _number(constant: Constant) -> float:
    if constant.value.size != 1:
        raise Refusal("one number is needed")
    return float(np.ravel(constant.value)[0])


def normalization(t: Translator, node: Node) -> View:
    if int(node.get("p", 2)) != 2:
        raise Refusal("only L2 normalization (p=2) is supported")
    view = node.view()
    return normalized(t.builder, view, int(node.get("axis", -1)) % len(view.shape), node.label, node.where)


COMPARISONS: dict[str, masks.Comparison] = {
    "Greater": "gt", "GreaterOrEqual": "ge", "Less": "lt", "LessOrEqual": "le", "Equal": "eq"
}  # fmt: skip


def _operand(node: Node, position: int) -> masks.Operand:
    value = node.inputs[position]
    if not isinstance(value, View | Constant):
        raise Refusal("lengths are supported in L2 normalization only: x / length(x)")
    return value if isinstance(value, View) else value.value


def comparison(t: Translator, node: Node) -> View:
    kind = COMPARISONS[node.proto.op_type]
    return masks.compared(t.builder, kind, _operand(node, 0), _operand(node, 1), node.label, node.where)


def negation(t: Translator, node: Node) -> View:
    return masks.inverted(t.builder, node.view(), node.label, node.where)


def where(t: Translator, node: Node) -> View:
    mask, first, second = (_operand(node, position) for position in range(3))
    return masks.chosen(t.builder, mask, first, second, node.label, node.where)


HANDLERS: Handlers = {
    "Clip": clip,
    **dict.fromkeys(COMPARISONS, comparison),
    "Not": negation,
    "Where": where,
    "Relu": relu,
    **{name: arithmetic(kind) for name, kind in KINDS.items()},
    "Neg": negative,
    **{name: unary(steps) for name, steps in FUNCTIONS.items()},
    "PRelu": prelu_,
    "Pow": power_,
    "LpNormalization": normalization,
}
