"""ATen layers to the float graph: convolutions, linear layers, batch norms, pools, classifier ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mcuq.frontend import transposed
from mcuq.frontend.builder import Constant, map_shape
from mcuq.frontend.norms import Constants, group_norm, layer_norm
from mcuq.frontend.reductions import Kind, argmax, mirrored, reduced, softmax
from mcuq.frontend.resampling import adaptive, resample
from mcuq.frontend.resampling import padded as padded_
from mcuq.frontend.torch.nodes import (
    Arguments,
    Handlers,
    Refusal,
    Translator,
    aten_shape,
    handles,
    owner_of,
    source_place,
    window_pair,
)
from mcuq.frontend.views import View
from mcuq.ir import graph as ir
from mcuq.ir.graph import Blend, Norm, Window

HANDLERS: Handlers = {}


@handles(HANDLERS, "aten.conv2d.default", "aten.conv1d.default", "aten.conv2d.padding", "aten.conv1d.padding")
def _conv(t: Translator, node: Any, a: Arguments) -> View:
    view = t.view(a["input"])
    weight_name, weight = t.parameter(a["weight"])
    weight = weight[:, :, None, :] if weight.ndim == 3 else weight
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    dilation = window_pair(view, a["dilation"])
    if isinstance(a["padding"], str):
        total = [d * (k - 1) if a["padding"] == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
        padding = (total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2)
    else:
        top, left = window_pair(view, a["padding"], 0)
        padding = (top, left, top, left)
    window = Window(kernel, window_pair(view, a["stride"]), padding, dilation)
    return _emit_conv(t, node, a, view, weight.transpose(0, 2, 3, 1), window, weight_name)


def _emit_conv(
    t: Translator, node: Any, a: Arguments, view: View, weight: Any, window: Window, weight_name: str
) -> View:
    names = {"weight": weight_name}
    bias = None
    if a["bias"] is not None:
        names["bias"], bias = t.parameter(a["bias"])
    name = t.name(node, "conv", owner_of(weight_name))
    result = t.builder.conv(
        view, name, Constant(weight), bias, window, int(a["groups"]), aten_shape(node), source_place(node)
    )
    t.owned(node, result, names)
    return result


@handles(HANDLERS, "aten.conv_transpose2d.input", "aten.conv_transpose1d.default")
def _conv_transpose(t: Translator, node: Any, a: Arguments) -> View:
    view, groups = t.view(a["input"]), int(a["groups"])
    weight_name, weight = t.parameter(a["weight"])
    names = {"iohw": weight_name}
    bias = None
    if a["bias"] is not None:
        names["bias"], bias = t.parameter(a["bias"])
    top, left = window_pair(view, a["padding"], 0)
    result = transposed.convolution(
        t.builder,
        view,
        t.name(node, "conv_transpose", owner_of(weight_name)),
        transposed.from_iohw(Constant(weight), groups),
        bias,
        window_pair(view, a["stride"]),
        ((top, top), (left, left)),
        window_pair(view, a["output_padding"], 0),
        window_pair(view, a["dilation"]),
        groups,
        source_place(node),
    )
    t.owned(node, result, names)
    return result


@handles(HANDLERS, "aten.linear.default")
def _linear(t: Translator, node: Any, a: Arguments) -> View:
    view = t.view(a["input"])
    weight_name, weight = t.parameter(a["weight"])
    names = {"weight": weight_name}
    bias = None
    if a["bias"] is not None:
        names["bias"], bias = t.parameter(a["bias"])
    if int(np.prod(view.shape)) == weight.shape[1] and not _flattened(view):
        # The user's weight has to be a view of the layer's: other orders are made by moving the activation.
        op, stored = t.builder.rows(view, len(view.shape) - 1, source_place(node))
        view = View(op, stored, map_shape(stored, True), True).viewed(np.arange(weight.shape[1]).reshape(view.shape))
    name = t.name(node, "linear", owner_of(weight_name))
    result = t.builder.fully_connected(view, name, Constant(weight), bias, source_place(node))
    t.owned(node, result, names)
    return result


@handles(HANDLERS, "aten.matmul.default", "aten.mm.default", "aten.addmm.default")
def _matmul(t: Translator, node: Any, a: Arguments) -> View:
    """With a constant matrix [F, O], which training leaves as it is."""
    view = t.view(a["mat1"] if "mat1" in a else a["self"])
    matrix = t.operand(a.get("mat2") or a.get("other"))
    if isinstance(matrix, View) or matrix.ndim != 2:
        raise Refusal("use nn.Linear with constant weights; products of two activations (attention) are not supported")
    bias = None
    if "mat1" in a:
        if a["beta"] != 1 or a["alpha"] != 1 or isinstance(t.operand(a["self"]), View):
            raise Refusal("addmm needs a constant bias, alpha and beta 1; use nn.Linear")
        bias = np.broadcast_to(np.ravel(t.operand(a["self"])), (matrix.shape[1],))
    weight = Constant(np.ascontiguousarray(matrix.T))
    return t.builder.fully_connected(view, t.name(node, "linear"), weight, bias, source_place(node))


def _flattened(view: View) -> bool:
    """The whole map in the C, H, W order of ``flatten``."""
    whole = View(view.op, view.stored, map_shape(view.stored, True), True)
    return np.array_equal(view.order.ravel(), whole.order.ravel())


@handles(HANDLERS, "aten._native_batch_norm_legit_no_training.default", "aten.batch_norm.default")
def _batch_norm(t: Translator, node: Any, a: Arguments) -> View:
    view = t.builder.whole(t.view(a["input"]), source_place(node))
    if a.get("training") or a.get("running_mean") is None:
        raise Refusal("batch normalization needs running statistics (track_running_stats=True)")
    mean_name, mean = t.parameter(a["running_mean"])
    variance_name, variance = t.parameter(a["running_var"])
    names = {"mean": mean_name, "variance": variance_name}
    gamma, beta = np.ones_like(mean), np.zeros_like(mean)
    if a["weight"] is not None:
        names["gamma"], gamma = t.parameter(a["weight"])
    if a["bias"] is not None:
        names["beta"], beta = t.parameter(a["bias"])
    name = t.name(node, "batch_norm", owner_of(mean_name))
    norm = Norm(gamma, beta, mean, variance, float(a["eps"]))
    result = t.builder.batch_norm(view, name, norm, source_place(node))
    t.owned(node, result, names)
    return result


def _constants(t: Translator, a: Arguments) -> Constants:
    """Gamma and beta of a norm, which training leaves as they are."""
    gamma, beta = (None if a.get(name) is None else t.operand(a[name]) for name in ("weight", "bias"))
    if isinstance(gamma, View) or isinstance(beta, View):
        raise Refusal("gamma and beta have to be constant")
    return gamma, beta


@handles(HANDLERS, "aten.layer_norm.default", "aten.native_layer_norm.default")
def _layer_norm(t: Translator, node: Any, a: Arguments) -> View:
    view, name = t.view(a["input"]), t.name(node, "layer_norm")
    rank = len(view.shape)
    axes = set(range(rank - len(a["normalized_shape"]), rank))
    return layer_norm(t.builder, view, axes, _constants(t, a), float(a["eps"]), name, source_place(node))


@handles(HANDLERS, "aten.group_norm.default", "aten.instance_norm.default")
def _group_norm(t: Translator, node: Any, a: Arguments) -> View:
    view, name, source = t.view(a["input"]), t.name(node, "group_norm"), source_place(node)
    epsilon = float(a["eps"])
    if not a.get("use_input_stats", True):  # an instance norm with running statistics is a batch norm
        mean, variance = (t.parameter(a[field])[1] for field in ("running_mean", "running_var"))
        gamma, beta = _constants(t, a)
        gamma, beta = np.ones_like(mean) if gamma is None else gamma, np.zeros_like(mean) if beta is None else beta
        whole = t.builder.whole(view, source)
        return t.builder.batch_norm(whole, name, Norm(gamma, beta, mean, variance, epsilon), source)
    groups = int(a.get("num_groups", view.shape[1]))
    return group_norm(t.builder, view, groups, _constants(t, a), epsilon, name, source)


def _window(view: View, stored: tuple[int, int, int], a: Arguments, outputs: tuple[int, ...]) -> Window:
    """Window of a pool. Ceil mode becomes padding at bottom and right, which pools leave out."""
    kernel = window_pair(view, a["kernel_size"])
    stride = window_pair(view, a["stride"]) if a["stride"] else kernel
    top, left = window_pair(view, a["padding"], 0)
    dilation = window_pair(view, a.get("dilation") or [1])
    sizes = (1, *outputs[2:]) if len(outputs) == 3 else outputs[2:]
    more = [
        max(0, (out - 1) * s + (k - 1) * d + 1 - size - 2 * p)
        for out, s, k, d, size, p in zip(sizes, stride, kernel, dilation, stored[:2], (top, left), strict=True)
    ]
    return Window(kernel, stride, (top, left, top + more[0], left + more[1]), dilation)


def _pool(
    t: Translator, node: Any, view: View, kind: str, window: Window, shape: tuple[int, ...], include_pad: bool = False
) -> View:
    """Emit a pool whose output is ``shape`` once its reduced axes are kept."""
    op, _ = t.builder.map(view, source_place(node))
    name, source = t.builder.name(t.name(node, kind)), source_place(node)
    if kind == "max_pool":
        return t.builder.emit(ir.MaxPool(name=name, inputs=(op,), shape=(0, 0, 0), source=source, window=window), shape)
    pool = ir.AvgPool(
        name=name, inputs=(op,), shape=(0, 0, 0), source=source, window=window, count_include_pad=include_pad
    )
    return t.builder.emit(pool, shape)


@handles(HANDLERS, "aten.max_pool2d.default", "aten.max_pool1d.default", "aten.max_pool2d_with_indices.default")
def _max_pool(t: Translator, node: Any, a: Arguments) -> View:
    view = t.view(a["self"])
    _, stored = t.builder.map(view, source_place(node))
    return _pool(t, node, view, "max_pool", _window(view, stored, a, aten_shape(node)), aten_shape(node))


@handles(HANDLERS, "aten.avg_pool2d.default", "aten.avg_pool1d.default")
def _avg_pool(t: Translator, node: Any, a: Arguments) -> View:
    view = t.view(a["self"])
    _, stored = t.builder.map(view, source_place(node))
    window = _window(view, stored, a, aten_shape(node))
    top, left, bottom, right = window.padding
    include, padded = bool(a["count_include_pad"]), any(window.padding)
    if (divisor := a.get("divisor_override")) is not None:
        mean = _pool(t, node, view, "avg_pool", window, aten_shape(node), padded)
        factor = np.full(1, window.kernel[0] * window.kernel[1] / float(divisor))
        return t.builder.affine(mean, f"{t.name(node, 'avg_pool')}.scale", factor, np.zeros(1), source_place(node))
    if include and (top, left) != (bottom, right):  # ceil mode: its padding is left out, the user's counts
        name = f"{t.name(node, 'avg_pool')}.pad"
        view = padded_(t.builder, view, name, (top, left, top, left), 0.0, source_place(node))
        window, include = replace(window, padding=(0, 0, bottom - top, right - left)), False
    return _pool(t, node, view, "avg_pool", window, aten_shape(node), include and padded)


@handles(HANDLERS, "aten.adaptive_avg_pool2d.default", "aten.adaptive_avg_pool1d.default")
def _adaptive_avg_pool(t: Translator, node: Any, a: Arguments) -> View:
    return _adaptive(t, node, a, "avg_pool")


@handles(HANDLERS, "aten.adaptive_max_pool2d.default", "aten.adaptive_max_pool1d.default")
def _adaptive_max_pool(t: Translator, node: Any, a: Arguments) -> View:
    return _adaptive(t, node, a, "max_pool")


def _adaptive(t: Translator, node: Any, a: Arguments, kind: str) -> View:
    view = t.view(a["self"])
    _, stored = t.builder.map(view, source_place(node))
    shape = aten_shape(node)
    outputs = (1, shape[2]) if len(shape) == 3 else (shape[2], shape[3])
    if outputs == stored[:2]:
        return view
    if outputs == (1, 1):
        axes = set(range(2, len(shape)))
        name, source = t.name(node, kind), source_place(node)
        return reduced(t.builder, "mean" if kind == "avg_pool" else "max", view, axes, shape, name, source)
    (rows, *tall), (columns, *wide) = (
        adaptive(size, count, mean=kind == "avg_pool") for size, count in zip(stored[:2], outputs, strict=True)
    )
    name = f"{t.name(node, kind)}.windows"
    view = resample(t.builder, view, name, Blend(rows), Blend(columns), source_place(node))
    return _pool(t, node, view, kind, Window((tall[0], wide[0]), (tall[1], wide[1])), shape)


REDUCTIONS: dict[str, Kind] = {
    "aten.mean.dim": "mean",
    "aten.mean.default": "mean",
    "aten.sum.dim_IntList": "sum",
    "aten.amax.default": "max",
    "aten.amin.default": "min",
}


@handles(HANDLERS, *REDUCTIONS)
def _reduce(t: Translator, node: Any, a: Arguments) -> View:
    view, kind = t.view(a["self"]), REDUCTIONS[str(node.target)]
    given = a.get("dim")
    dims = range(len(view.shape)) if given in (None, []) else given if isinstance(given, (list, tuple)) else [given]
    axes = {int(d) % len(view.shape) for d in dims}
    name = "max_pool" if kind in ("max", "min") else "avg_pool"
    return reduced(t.builder, kind, view, axes, aten_shape(node), t.name(node, name), source_place(node))


@handles(HANDLERS, "aten.max.dim", "aten.min.dim")
def _extreme(t: Translator, node: Any, a: Arguments) -> tuple[View, ...]:
    """Values and their indices, each emitted when it is read."""
    view, kind = t.view(a["self"]), "max" if "max" in str(node.target) else "min"
    axis, shape, source = int(a["dim"]) % len(view.shape), aten_shape(node), source_place(node)
    read = {user.args[1] for user in node.users if len(user.args) > 1}
    name = t.name(node, "max_pool")
    values = reduced(t.builder, kind, view, {axis}, shape, name, source) if 0 in read else view
    if 1 not in read:
        return (values,)
    ranked = view if kind == "max" else mirrored(t.builder, view, f"{name}.minus", source)
    return values, argmax(t.builder, ranked, axis, shape, t.name(node, "argmax"), source)


@handles(HANDLERS, "aten.softmax.int", "aten._softmax.default", "aten.log_softmax.int", "aten._log_softmax.default")
def _softmax(t: Translator, node: Any, a: Arguments) -> View:
    view, logarithm = t.view(a["self"]), "log" in str(node.target)
    axis, name = int(a["dim"]) % len(view.shape), t.name(node, "log_softmax" if logarithm else "softmax")
    return softmax(t.builder, view, axis, name, source_place(node), logarithm=logarithm)


@handles(HANDLERS, "aten.argmax.default", "aten.argmin.default")
def _argmax(t: Translator, node: Any, a: Arguments) -> View:
    view, kind = t.view(a["self"]), str(node.target).split(".")[1]
    if a["dim"] is None:
        view = view.viewed(t.order(view).reshape(1, -1))
    axis, name = -1 if a["dim"] is None else int(a["dim"]), t.name(node, kind)
    if kind == "argmin":
        view = mirrored(t.builder, view, f"{name}.minus", source_place(node))
    return argmax(t.builder, view, axis % len(view.shape), aten_shape(node), name, source_place(node))
