"""ATen pools, padding, reshapes and classifier ends to the float graph; one handler per operator."""

from __future__ import annotations

import math
from typing import Any

from mcuq.frontend.torch.nodes import (
    Arguments,
    Handlers,
    Refusal,
    Translator,
    Value,
    aten_shape,
    handles,
    map_shape,
    source_place,
    window_pair,
)
from mcuq.ir import graph as ir
from mcuq.ir.graph import Window

HANDLERS: Handlers = {}


def _window(node: Any, x: Value, a: Arguments) -> Window:
    """Window of a pool. Ceil mode becomes padding at bottom and right, which pools leave out."""
    kernel = window_pair(node, a["kernel_size"])
    stride = window_pair(node, a["stride"]) if a["stride"] else kernel
    top, left = window_pair(node, a["padding"], 0)
    dilation = window_pair(node, a.get("dilation") or [1])
    height, width, _ = map_shape(node)
    more = [
        max(0, (out - 1) * s + (k - 1) * d + 1 - size - 2 * p)
        for out, s, k, d, size, p in zip(
            (height, width), stride, kernel, dilation, x.shape[:2], (top, left), strict=True
        )
    ]
    return Window(kernel, stride, (top, left, top + more[0], left + more[1]), dilation)


@handles(HANDLERS, "aten.max_pool2d.default", "aten.max_pool1d.default", "aten.max_pool2d_with_indices.default")
def _max_pool(t: Translator, node: Any, a: Arguments) -> Value:
    x = t.value(a["self"])
    return t.emit(
        ir.MaxPool(
            name=t.name(node, "max_pool"),
            inputs=(x.op,),
            shape=map_shape(node),
            source=source_place(node),
            window=_window(node, x, a),
        )
    )


@handles(HANDLERS, "aten.avg_pool2d.default", "aten.avg_pool1d.default")
def _avg_pool(t: Translator, node: Any, a: Arguments) -> Value:
    x = t.value(a["self"])
    window = _window(node, x, a)
    top, left, bottom, right = window.padding
    padded = any(window.padding)
    if a.get("divisor_override") is not None:
        raise Refusal("divisor_override is not supported; fold the factor into the next layer's weights")
    if a["count_include_pad"] and padded and (top, left) != (bottom, right):
        raise Refusal("ceil_mode with count_include_pad=True is not supported; use count_include_pad=False")
    return _emit_average(t, node, x, window, bool(a["count_include_pad"]) and padded)


def _emit_average(t: Translator, node: Any, x: Value, window: Window, include_pad: bool = False) -> Value:
    height, width = window.output_hw(*x.shape[:2])
    return t.emit(
        ir.AvgPool(
            name=t.name(node, "avg_pool"),
            inputs=(x.op,),
            shape=(height, width, x.shape[2]),
            source=source_place(node),
            window=window,
            count_include_pad=include_pad,
        )
    )


@handles(HANDLERS, "aten.adaptive_avg_pool2d.default", "aten.adaptive_avg_pool1d.default")
def _adaptive_avg_pool(t: Translator, node: Any, a: Arguments) -> Value:
    x = t.value(a["self"])
    height, width, _ = map_shape(node)
    if x.shape[0] % height or x.shape[1] % width:
        raise Refusal(f"adaptive pooling {x.shape[:2]} to {(height, width)} has uneven windows; use AvgPool2d")
    kernel = (x.shape[0] // height, x.shape[1] // width)
    return x if kernel == (1, 1) else _emit_average(t, node, x, Window(kernel, kernel))


@handles(HANDLERS, "aten.mean.dim")
def _mean(t: Translator, node: Any, a: Arguments) -> Value:
    x = t.value(a["self"])
    rank = len(aten_shape(a["self"]))
    dims = sorted(int(d) % rank for d in a["dim"] or [])
    if rank < 3 or dims != list(range(2, rank)):
        raise Refusal("a mean has to cover height and width together (dim=(2, 3))")
    return _emit_average(t, node, x, Window(x.shape[:2], x.shape[:2])) if x.shape[:2] != (1, 1) else x


@handles(HANDLERS, "aten.pad.default", "aten.constant_pad_nd.default")
def _pad(t: Translator, node: Any, a: Arguments) -> Value:
    x = t.value(a["self"])
    sizes = [int(p) for p in a["pad"]]
    if a.get("mode", "constant") != "constant" or a.get("value") not in (None, 0):
        raise Refusal("only padding with zeros is supported")
    if len(aten_shape(node)) == 3:
        sizes = [*sizes[:2], 0, 0, *sizes[2:]]
    sizes += [0] * (4 - len(sizes))
    if any(sizes[4:]) or min(sizes) < 0:
        raise Refusal("padding has to be of height and width, and not negative")
    left, right, top, bottom = sizes[:4]
    if not any(sizes):
        return x
    return t.emit(
        ir.Pad(
            name=t.name(node, "pad"),
            inputs=(x.op,),
            shape=map_shape(node),
            source=source_place(node),
            padding=(top, left, bottom, right),
        )
    )


@handles(
    HANDLERS,
    "aten.view.default",
    "aten.reshape.default",
    "aten.flatten.using_ints",
    "aten.unflatten.int",
    "aten.squeeze.default",
    "aten.squeeze.dim",
    "aten.squeeze.dims",
    "aten.unsqueeze.default",
    "aten._unsafe_view.default",
)
def _reshape(t: Translator, node: Any, a: Arguments) -> Value:
    x = t.value(a.get("self"), flat_ok=True)
    source, target = aten_shape(a["self"]), aten_shape(node)
    if source[0] != target[0]:
        raise Refusal("the batch dimension must stay as it is")
    shape = map_shape(node)
    if shape == x.shape:  # also undoing a flattening
        return Value(x.op, x.shape)
    if len(target) == 2 and (x.shape[2] > 1 and math.prod(x.shape[:2]) > 1):
        return Value(x.op, x.shape, flat=True)
    if x.flat or not (_vector_like(x.shape) and _vector_like(shape)):
        raise Refusal(f"reshaping {source[1:]} to {target[1:]} moves elements across channels")
    return t.emit(ir.Reshape(name=t.name(node, "reshape"), inputs=(x.op,), shape=shape, source=source_place(node)))


def _vector_like(shape: tuple[int, int, int]) -> bool:
    """Elements have one order in [C, H, W] and [H, W, C]."""
    return shape[2] == 1 or shape[:2] == (1, 1)


@handles(
    HANDLERS,
    "aten.clone.default",
    "aten.alias.default",
    "aten.contiguous.default",
    "aten.detach.default",
    "aten.dropout.default",
    "aten.feature_dropout.default",
    "aten.lift_fresh_copy.default",
)
def _identity(t: Translator, node: Any, a: Arguments) -> Value:
    return t.value(a.get("self", a.get("input")), flat_ok=True)


@handles(HANDLERS, "aten.to.dtype", "aten._to_copy.default", "aten.to.dtype_layout", "aten.to.device")
def _cast(t: Translator, node: Any, a: Arguments) -> Value:
    if not node.meta["val"].is_floating_point():
        raise Refusal("casts to integers are not supported inside the network")
    return t.value(a["self"], flat_ok=True)


def _check_channel_axis(node: Any, x: Value, dim: Any) -> None:
    if dim is None or int(dim) % len(aten_shape(node)) != 1 or x.shape[:2] != (1, 1):
        raise Refusal("only over the channels of a vector [N, C] (dim=1)")


@handles(HANDLERS, "aten.softmax.int", "aten._softmax.default")
def _softmax(t: Translator, node: Any, a: Arguments) -> Value:
    x = t.value(a["self"])
    _check_channel_axis(node, x, a["dim"])
    return t.emit(ir.Softmax(name=t.name(node, "softmax"), inputs=(x.op,), shape=x.shape, source=source_place(node)))


@handles(HANDLERS, "aten.argmax.default")
def _argmax(t: Translator, node: Any, a: Arguments) -> Value:
    x = t.value(a["self"])
    _check_channel_axis(a["self"], x, a["dim"])
    return t.emit(ir.Argmax(name=t.name(node, "argmax"), inputs=(x.op,), shape=(1, 1, 1), source=source_place(node)))
