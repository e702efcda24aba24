"""Elementwise operators and resizing of TFLite. Option fields are numbered as in the schema."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mcuq.frontend import masks, resampling
from mcuq.frontend.builder import Constant
from mcuq.frontend.elementwise import Kind, binary, exponential, function, normalized, power, prelu, with_constant
from mcuq.frontend.tflite.translate import Handlers, Node, Translator
from mcuq.frontend.views import Refusal, View
from mcuq.ir.functions import Function, Step
from mcuq.ir.graph import Blend, Clamp

KINDS: dict[str, Kind] = {
    "ADD": "add",
    "SUB": "sub",
    "MUL": "mul",
    "DIV": "div",
    "MAXIMUM": "max",
    "MINIMUM": "min",
    "SQUARED_DIFFERENCE": "sub",
}


def arithmetic(t: Translator, node: Node) -> View:
    kind, (left, right) = KINDS[node.operator.kind], (*node.inputs, None, None)[:2]
    b, name, source = t.builder, node.label, node.where
    match left, right:
        case View(), View():
            result = binary(b, kind, left, right, name, source)
        case View(), Constant():
            result = with_constant(b, kind, left, right.value, name, source=source)
        case Constant(), View():
            result = with_constant(b, kind, right, left.value, name, first=True, source=source)
        case _:
            raise Refusal("one of its inputs has to be an activation")
    if node.operator.kind == "SQUARED_DIFFERENCE":
        return power(b, result, f"{name}.square", 2.0, source)
    return result if kind in ("max", "min") else t.activated(node, result, node.operator.option(0, "b"))


FUNCTIONS: dict[str, Callable[[Node], Function]] = {
    "LOGISTIC": lambda node: (Step("sigmoid"),),
    "TANH": lambda node: (Step("tanh"),),
    "HARD_SWISH": lambda node: (Step("hard_swish"),),
    "ELU": lambda node: (Step("elu", (1.0,)),),
    "LEAKY_RELU": lambda node: (Step("leaky_relu", (float(node.operator.option(0, "f", 0.0)),)),),
    "GELU": lambda node: (Step("gelu_tanh" if node.operator.option(0, "?", False) else "gelu"),),
    **{kind: lambda node: (Step(node.operator.kind.lower()),) for kind in ("EXP", "LOG", "SQRT", "ABS", "SIN", "COS")},
    **{kind: lambda node: (Step(node.operator.kind.lower()),) for kind in ("FLOOR", "CEIL", "ROUND", "SIGN")},
    "RSQRT": lambda node: (Step("sqrt"), Step("reciprocal")),
    "SQUARE": lambda node: (Step("power", (2.0,)),),
}


def unary(t: Translator, node: Node) -> View:
    return function(t.builder, node.view(), node.label, FUNCTIONS[node.operator.kind](node), node.where)


CLAMPS: dict[str, Clamp] = {
    "RELU": (0.0, None),
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
    "RELU_0_TO_1": (0.0, 1.0),
}


def clip(t: Translator, node: Node) -> View:
    return t.builder.clip(node.view(), node.label, CLAMPS[node.operator.kind], node.where)


def negative(t: Translator, node: Node) -> View:
    return t.builder.affine(node.view(), node.label, np.full(1, -1.0), np.zeros(1), node.where)


def prelu_(t: Translator, node: Node) -> View:
    return prelu(t.builder, node.view(), node.label, node.required(1).value, node.where)


def power_(t: Translator, node: Node) -> View:
    base, exponent = (*node.inputs, None, None)[:2]
    if isinstance(base, View) and isinstance(exponent, Constant) and exponent.value.size == 1:
        return power(t.builder, base, node.label, float(exponent.value.ravel()[0]), node.where)
    if isinstance(exponent, View) and isinstance(base, Constant) and base.value.size == 1:
        return exponential(t.builder, exponent, node.label, float(base.value.ravel()[0]), node.where)
    raise Refusal("powers of an activation with one constant exponent, or of one constant, are supported")


def l2_normalization(t: Translator, node: Node) -> View:
    view = node.view()
    result = normalized(t.builder, view, len(view.shape) - 1, node.label, node.where)
    return t.activated(node, result, node.operator.option(0, "b"))


def _places(node: Node) -> str:
    """The coordinate transformation that two options say."""
    corners, half = (2, 3) if node.operator.kind == "RESIZE_BILINEAR" else (0, 1)
    if node.operator.option(corners, "?", False):
        return "align_corners"
    return "half_pixel" if node.operator.option(half, "?", False) else "asymmetric"


def resize(t: Translator, node: Node) -> View:
    view, sizes, mode = node.view(), node.ints(1), _places(node)
    if len(view.shape) != 4 or len(sizes) != 2:
        raise Refusal("maps [1, H, W, C] are resized to [height, width]")
    blends: list[Blend] = []
    for size, outputs in zip(view.shape[1:3], sizes, strict=True):
        scale = outputs / size
        if node.operator.kind == "RESIZE_BILINEAR":
            blends.append(resampling.linear(mode, size, outputs, scale))
        else:
            place = "half_pixel_centre" if mode == "half_pixel" else mode
            rounding = "round_prefer_ceil" if mode == "align_corners" else "floor"
            blends.append(resampling.nearest(place, rounding, size, outputs, scale))
    return resampling.resample(t.builder, view, node.label, blends[0], blends[1], node.where)


COMPARISONS: dict[str, masks.Comparison] = {
    "GREATER": "gt", "GREATER_EQUAL": "ge", "LESS": "lt", "LESS_EQUAL": "le", "EQUAL": "eq", "NOT_EQUAL": "ne"
}  # fmt: skip


def _operand(node: Node, position: int) -> masks.Operand:
    value = node.inputs[position]
    return node.view(position) if not isinstance(value, Constant) else value.value


def comparison(t: Translator, node: Node) -> View:
    kind = COMPARISONS[node.operator.kind]
    return masks.compared(t.builder, kind, _operand(node, 0), _operand(node, 1), node.label, node.where)


def logical_not(t: Translator, node: Node) -> View:
    return masks.inverted(t.builder, node.view(), node.label, node.where)


def select(t: Translator, node: Node) -> View:
    mask, first, second = (_operand(node, position) for position in range(3))
    return masks.chosen(t.builder, mask, first, second, node.label, node.where)


HANDLERS: Handlers = {
    **dict.fromkeys(COMPARISONS, comparison),
    "LOGICAL_NOT": logical_not,
    **dict.fromkeys(("SELECT", "SELECT_V2"), select),
    **dict.fromkeys(KINDS, arithmetic),
    **dict.fromkeys(FUNCTIONS, unary),
    **dict.fromkeys(CLAMPS, clip),
    "NEG": negative,
    "PRELU": prelu_,
    "POW": power_,
    "L2_NORMALIZATION": l2_normalization,
    "RESIZE_BILINEAR": resize,
    "RESIZE_NEAREST_NEIGHBOR": resize,
}
