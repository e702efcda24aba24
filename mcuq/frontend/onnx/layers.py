"""Layers of ONNX, one handler per operator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mcuq.frontend import masks, norms, transposed
from mcuq.frontend.builder import Constant
from mcuq.frontend.onnx.translate import Handlers, Node, Translator
from mcuq.frontend.onnx.windows import window_of
from mcuq.frontend.views import Refusal, View
from mcuq.ir.graph import Norm


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


def conv_transpose(t: Translator, node: Node) -> View:
    view, groups = node.view(), int(node.get("group", 1))
    rank = len(view.shape) - 2
    weight = transposed.from_iohw(node.required(1), groups)
    if rank not in (1, 2):
        raise Refusal("only 1-D and 2-D transposed convolutions are supported")

    def pair(name: str, default: int) -> tuple[int, int]:
        values = [int(v) for v in node.get(name, [default] * rank)]
        return (default, values[0]) if rank == 1 else (values[0], values[1])

    stride, dilation, more = pair("strides", 1), pair("dilations", 1), pair("output_padding", 0)
    sizes = (1, view.shape[2]) if rank == 1 else view.shape[2:]
    spans = [(k - 1) * d + 1 for k, d in zip(weight.value.shape[1:3], dilation, strict=True)]
    whole = [(n - 1) * s + span for n, s, span in zip(sizes, stride, spans, strict=True)]
    mode, given = node.get("auto_pad", "NOTSET"), node.get("output_shape")
    pads = [int(p) for p in node.get("pads", [0] * (2 * rank))]
    padding = [(0, 0)] * (2 - rank) + list(zip(pads[:rank], pads[rank:], strict=True))
    if given is not None or mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [n * s for n, s in zip(sizes, stride, strict=True)] if given is None else list(given)[-rank:]
        wanted = [whole[0]] * (2 - rank) + wanted if len(wanted) < 2 else wanted
        total = [w + o - int(n) for w, o, n in zip(whole, more, wanted, strict=True)]
        less = [n // 2 if mode == "SAME_UPPER" else n - n // 2 for n in total]
        padding = [(first, n - first) for first, n in zip(less, total, strict=True)]
    name = layer_name(node, weight)
    rows, columns = padding
    return transposed.convolution(
        t.builder, view, name, weight, node.array(2), stride, (rows, columns), more, dilation, groups, node.where
    )


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
    weight = weight if node.get("transB", 0) else matrix_transposed(weight)
    weight = weight if alpha == 1.0 else Constant(weight.value * alpha, weight.name)
    bias = node.array(2)
    if bias is not None:
        bias = beta * np.broadcast_to(bias.ravel() if bias.shape[:-1] in ((), (1,)) else bias, (len(weight.value),))
    return t.builder.fully_connected(view, layer_name(node, weight), weight, bias, node.where)


def matrix_transposed(weight: Constant) -> Constant:
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
    return t.builder.fully_connected(view, layer_name(node, weight), matrix_transposed(weight), None, node.where)


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


def layer_normalization(t: Translator, node: Node) -> View:
    view = node.view()
    rank = len(view.shape)
    axes = set(range(int(node.get("axis", -1)) % rank, rank))
    constants, epsilon = (node.array(1), node.array(2)), float(node.get("epsilon", 1e-5))
    return norms.layer_norm(t.builder, view, axes, constants, epsilon, node.label, node.where)


def group_normalization(t: Translator, node: Node) -> View:
    """Instance norms are groups of one channel. Before version 21 groups, not channels, have their constants."""
    view, channels = node.view(), node.view().shape[1]
    groups = int(node.get("num_groups", channels))
    constants = (node.array(1), node.array(2))
    if any(c is not None and (not c.size or channels % c.size) for c in constants):
        raise Refusal(f"its constants do not fit {channels} channels")
    gamma, beta = (None if c is None else np.repeat(c, channels // c.size) for c in constants)
    epsilon = float(node.get("epsilon", 1e-5))
    return norms.group_norm(t.builder, view, groups, (gamma, beta), epsilon, node.label, node.where)


def identity(t: Translator, node: Node) -> View:
    if node.proto.op_type == "Dropout" and len(node.inputs) > 2 and bool(np.any(node.array(2))):
        raise Refusal("dropout in training mode; export the model for inference")
    return node.view()


def cast(t: Translator, node: Node) -> View:
    if int(node.get("to", 0)) == 9:  # bool
        return masks.compared(t.builder, "ne", node.view(), np.zeros(1), node.label, node.where)
    if int(node.get("to", 0)) not in (1, 10, 11, 16):
        raise Refusal("casts to integers are not supported inside the network")
    return node.view()


HANDLERS: Handlers = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "MatMul": matmul,
    "BatchNormalization": batch_normalization,
    "LayerNormalization": layer_normalization,
    "GroupNormalization": group_normalization,
    "InstanceNormalization": group_normalization,
    "Dropout": identity,
    "Identity": identity,
    "Cast": cast,
}
