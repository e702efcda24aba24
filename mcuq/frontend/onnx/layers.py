"""Layers and elementwise operators of ONNX, one handler per operator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mcuq.frontend.builder import Constant
from mcuq.frontend.onnx.translate import Handlers, Node, Translator
from mcuq.frontend.onnx.windows import window_of
from mcuq.frontend.views import Refusal, View
from mcuq.ir.graph import Clamp, Norm


def layer_name(node: Node, weight: Constant) -> str:
    """The layer's path when the weight is called ``path.weight``, else the node's name."""
    owner, dot, field = weight.name.removesuffix("_quantized").rpartition(".")
    return owner if dot and field == "weight" else node.label


def conv(t: Translator, node: Node) -> View:
    view, weight, bias = node.view(), node.required(1), node.array(2)
    if len(view.shape) not in (3, 4) or weight.value.ndim != len(view.shape):
        raise Refusal(f"only 1-D and 2-D convolutions are supported, found weights {list(weight.value.shape)}")
    window = window_of(node, view, tuple(weight.value.shape[2:]))
    groups = int(node.get("group", 1))
    outputs, fan = weight.value.shape[:2]
    if groups < 1 or fan * groups != view.shape[1] or outputs % groups:
        raise Refusal(f"weights {list(weight.value.shape)} with group {groups} do not fit {view.shape[1]} channels")
    shape = (1, outputs, *window.output_hw(*_hw(view))[4 - len(view.shape) :])
    return t.builder.conv(view, layer_name(node, weight), ohwi(weight), bias, window, groups, shape, node.where)


def _hw(view: View) -> tuple[int, int]:
    return (1, view.shape[2]) if len(view.shape) == 3 else (view.shape[2], view.shape[3])


def ohwi(weight: Constant) -> Constant:
    """OIHW (or OIW) weights, codes included, as OHWI."""

    def moved(array: Any) -> Any:
        array = array[:, :, None, :] if array.ndim == 3 else array
        return array.transpose(0, 2, 3, 1)

    coded = weight.coded
    if coded is not None:
        along_output = coded.scale.size == 1 or coded.axis == 0
        coded = replace(coded, codes=moved(coded.codes)) if along_output else None
    return replace(weight, value=moved(weight.value), coded=coded)


def gemm(t: Translator, node: Node) -> View:
    view, weight = node.view(), node.required(1)
    alpha, beta = float(node.get("alpha", 1.0)), float(node.get("beta", 1.0))
    if node.get("transA", 0) or len(view.shape) != 2 or weight.value.ndim != 2:
        raise Refusal("Gemm needs an activation [1, F] and constant weights (transA=0)")
    weight = weight if node.get("transB", 0) else transposed(weight)
    weight = weight if alpha == 1.0 else Constant(weight.value * alpha, weight.name)
    bias = node.array(2)
    if bias is not None:
        bias = beta * np.broadcast_to(bias.ravel() if bias.shape[:-1] in ((), (1,)) else bias, (len(weight.value),))
    return t.builder.fully_connected(view, layer_name(node, weight), weight, bias, node.where)


def transposed(weight: Constant) -> Constant:
    """Weights [F, O] as [O, F]; codes stay when one scale serves all or each output has its own."""
    coded = weight.coded
    if coded is not None:
        along_output = coded.scale.size == 1 or coded.axis % 2 == 1
        coded = replace(coded, codes=coded.codes.T, axis=0) if along_output else None
    return replace(weight, value=weight.value.T, coded=coded)


def matmul(t: Translator, node: Node) -> View:
    view, weight = node.view(), node.required(1)
    if weight.value.ndim != 2:
        raise Refusal("MatMul needs an activation times a constant matrix [F, O]")
    return t.builder.fully_connected(view, layer_name(node, weight), transposed(weight), None, node.where)


def batch_normalization(t: Translator, node: Node) -> View:
    view = node.view()
    if node.get("training_mode", 0) or not node.get("spatial", 1):
        raise Refusal("batch normalization has to be per channel and in inference mode")
    gamma, beta, mean, variance = (node.required(i).value.astype(np.float64) for i in (1, 2, 3, 4))
    op, stored = t.builder.map(view, node.where)
    if gamma.shape != (stored[2],):
        raise Refusal(f"{gamma.size} scales do not fit {stored[2]} channels")
    epsilon = float(node.get("epsilon", 1e-5))
    if (variance + epsilon <= 0).any():
        raise Refusal("a variance is negative")
    norm = Norm(gamma, beta, mean, variance, epsilon)
    return t.builder.batch_norm(
        View(op, stored, view.shape, True), layer_name(node, node.required(1)), norm, node.where
    )


def clip(t: Translator, node: Node) -> View:
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


def maximum(t: Translator, node: Node) -> View:
    return _bound(t, node, lambda bound: (bound, None))


def minimum(t: Translator, node: Node) -> View:
    return _bound(t, node, lambda bound: (None, bound))


def _bound(t: Translator, node: Node, clamp: Any) -> View:
    views = [v for v in node.inputs if isinstance(v, View)]
    bounds = [v.value for v in node.inputs if isinstance(v, Constant)]
    if len(views) != 1 or len(bounds) != 1:
        raise Refusal("only with one activation and one constant number (a clip)")
    bound: Clamp = clamp(_scalar(bounds[0]))
    return t.builder.clip(views[0], node.label, bound, node.where)


def add(t: Translator, node: Node) -> View:
    left, right = _operands(node)
    if isinstance(right, View):
        return t.builder.add(left, right, node.label, node.where)
    return t.builder.affine(left, node.label, np.ones(1), _fitting(left, right), node.where)


def total(t: Translator, node: Node) -> View:
    """Sum of any number of activations."""
    result = node.view(0)
    for position in range(1, len(node.inputs)):
        result = t.builder.add(result, node.view(position), node.label, node.where)
    return result


def subtract(t: Translator, node: Node) -> View:
    left, right = node.inputs[0], node.inputs[1]
    minus = np.full(1, -1.0)
    if isinstance(left, View) and isinstance(right, Constant):
        return t.builder.affine(left, node.label, np.ones(1), -_fitting(left, right.value), node.where)
    if isinstance(left, Constant) and isinstance(right, View):
        return t.builder.affine(right, node.label, minus, _fitting(right, left.value), node.where)
    negated = t.builder.affine(node.view(1), f"{node.label}.negated", minus, np.zeros(1), node.where)
    return t.builder.add(node.view(0), negated, node.label, node.where)


def multiply(t: Translator, node: Node) -> View:
    left, right = _operands(node)
    if isinstance(right, View):
        raise Refusal("products of two activations have no kernel; fold constant factors into a layer")
    return t.builder.affine(left, node.label, _fitting(left, right), np.zeros(1), node.where)


def divide(t: Translator, node: Node) -> View:
    divisor = node.required(1).value.astype(np.float64)
    if (divisor == 0).any():
        raise Refusal("a division by zero")
    return t.builder.affine(node.view(), node.label, 1.0 / _fitting(node.view(), divisor), np.zeros(1), node.where)


def negative(t: Translator, node: Node) -> View:
    return t.builder.affine(node.view(), node.label, np.full(1, -1.0), np.zeros(1), node.where)


def _operands(node: Node) -> tuple[View, Any]:
    """(activation, other): the other is an activation or a constant's array."""
    left, right = node.inputs[0], node.inputs[1]
    if isinstance(left, Constant):
        left, right = right, left
    if not isinstance(left, View) or right is None:
        raise Refusal("both inputs have to be given")
    return left, right.value if isinstance(right, Constant) else right


def _fitting(view: View, array: Any) -> Any:
    """A constant as floats, without dimensions of 1 in front that the activation lacks."""
    array = np.asarray(array, dtype=np.float64)
    while array.ndim > len(view.shape) and array.shape[0] == 1:
        array = array[0]
    if array.ndim > len(view.shape):
        raise Refusal(f"a constant of shape {list(array.shape)} does not fit {list(view.shape)}")
    return array


def identity(t: Translator, node: Node) -> View:
    if node.proto.op_type == "Dropout" and len(node.inputs) > 2 and bool(np.any(node.array(2))):
        raise Refusal("dropout in training mode; export the model for inference")
    return node.view()


def cast(t: Translator, node: Node) -> View:
    if int(node.get("to", 0)) not in (1, 10, 11, 16):
        raise Refusal("casts to integers are not supported inside the network")
    return node.view()


HANDLERS: Handlers = {
    "Conv": conv,
    "Gemm": gemm,
    "MatMul": matmul,
    "BatchNormalization": batch_normalization,
    "Clip": clip,
    "Relu": relu,
    "Max": maximum,
    "Min": minimum,
    "Add": add,
    "Sum": total,
    "Sub": subtract,
    "Mul": multiply,
    "Div": divide,
    "Neg": negative,
    "Dropout": identity,
    "Identity": identity,
    "Cast": cast,
}
