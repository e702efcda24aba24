"""ATen layers to the float graph: convolutions, linear layers, batch norms, pools, classifier ends."""

from __future__ import annotations

from typing import Any

import numpy as np

from mcuq.frontend import transposed
from mcuq.frontend.builder import Constant, map_shape
from mcuq.frontend.reductions import Kind, reduced
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
from mcuq.ir.graph import Norm, Window

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
    t.parameters[result.op] = names
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
    t.parameters[result.op] = names
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
    t.parameters[result.op] = names
    return result


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
    t.parameters[result.op] = names
    return result


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
    padded = any(window.padding)
    if a.get("divisor_override") is not None:
        raise Refusal("divisor_override is not supported; fold the factor into the next layer's weights")
    if a["count_include_pad"] and padded and (top, left) != (bottom, right):
        raise Refusal("ceil_mode with count_include_pad=True is not supported; use count_include_pad=False")
    return _pool(t, node, view, "avg_pool", window, aten_shape(node), bool(a["count_include_pad"]) and padded)


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
    height, width = (1, shape[2]) if len(shape) == 3 else shape[2:]
    if stored[0] % height or stored[1] % width:
        raise Refusal(f"adaptive pooling {stored[:2]} to {(height, width)} has uneven windows; use AvgPool2d")
    kernel = (stored[0] // height, stored[1] // width)
    return view if kernel == (1, 1) else _pool(t, node, view, kind, Window(kernel, kernel), shape)


REDUCTIONS: dict[str, Kind] = {
    "aten.mean.dim": "mean",
    "aten.mean.default": "mean",
    "aten.sum.dim_IntList": "sum",
    "aten.amax.default": "max",
}


@handles(HANDLERS, *REDUCTIONS)
def _reduce(t: Translator, node: Any, a: Arguments) -> View:
    view, kind = t.view(a["self"]), REDUCTIONS[str(node.target)]
    given = a.get("dim")
    dims = range(len(view.shape)) if given in (None, []) else given if isinstance(given, (list, tuple)) else [given]
    axes = {int(d) % len(view.shape) for d in dims}
    name = "max_pool" if kind == "max" else "avg_pool"
    return reduced(t.builder, kind, view, axes, aten_shape(node), t.name(node, name), source_place(node))


@handles(HANDLERS, "aten.softmax.int", "aten._softmax.default")
def _softmax(t: Translator, node: Any, a: Arguments) -> View:
    view = t.view(a["self"])
    axis = int(a["dim"]) % len(view.shape)
    op, stored = t.builder.rows(view, axis, source_place(node))
    name = t.builder.name(t.name(node, "softmax"))
    softmax = ir.Softmax(name=name, inputs=(op,), shape=stored, source=source_place(node))
    result = t.builder.emit(softmax, view.shape)
    moved = np.moveaxis(np.empty(view.shape), axis, -1).shape
    return result.viewed(np.moveaxis(np.arange(int(np.prod(moved))).reshape(moved), -1, axis).reshape(view.shape))


@handles(HANDLERS, "aten.argmax.default")
def _argmax(t: Translator, node: Any, a: Arguments) -> View:
    view = t.view(a["self"])
    axis = -1 if a["dim"] is None else int(a["dim"])
    if a["dim"] is None and sum(n > 1 for n in view.shape) > 1:
        raise Refusal("only over the channels of a vector [N, C] (dim=1)")
    op, stored = t.builder.rows(view, axis % len(view.shape), source_place(node))
    if stored[:2] != (1, 1):
        raise Refusal("only over the channels of a vector [N, C] (dim=1)")
    name = t.builder.name(t.name(node, "argmax"))
    result = t.builder.emit(ir.Argmax(name=name, inputs=(op,), shape=(1, 1, 1), source=source_place(node)), (1,))
    return result.viewed(np.zeros(aten_shape(node), dtype=np.int64))
