"""Pools, padding, joins and classifier ends of ONNX, and the window attributes they share with Conv."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mcuq.frontend import reductions, resampling
from mcuq.frontend.builder import Constant, map_shape
from mcuq.frontend.elementwise import Length
from mcuq.frontend.onnx.translate import Handler, Handlers, Node, Translator, Value
from mcuq.frontend.reductions import Kind, composed, reduced
from mcuq.frontend.views import Refusal, View, pad_view
from mcuq.ir import graph as ir
from mcuq.ir.graph import Shape, Window


def _pair(values: list[int], default: int) -> tuple[int, int]:
    """One or two ints of an attribute as (vertical, horizontal)."""
    if not 1 <= len(values) <= 2:
        raise Refusal(f"windows have one or two dimensions, found {len(values)}")
    return (default, int(values[0])) if len(values) == 1 else (int(values[0]), int(values[1]))


def window_of(node: Node, view: View, kernel: tuple[int, ...], *, ceil: bool = False) -> Window:
    """Window from kernel_shape, strides, dilations, pads, auto_pad; ceil mode becomes padding below and right.

    Raises:
        Refusal: sizes below 1, or negative paddings.
    """
    spatial = view.shape[2:]
    rank = len(spatial)
    declared = node.get("kernel_shape")
    if declared is not None and tuple(declared) != tuple(kernel):
        raise Refusal(f"kernel_shape {list(declared)} does not fit weights of {list(kernel)}")
    sizes = _pair([1] * (2 - rank) + list(spatial), 1)
    kernel_hw = _pair(list(kernel), 1)
    stride = _pair(list(node.get("strides", [1] * rank)), 1)
    dilation = _pair(list(node.get("dilations", [1] * rank)), 1)
    if min(*kernel_hw, *stride, *dilation) < 1:
        raise Refusal("kernel, strides and dilations have to be positive")
    spans = [(k - 1) * d + 1 for k, d in zip(kernel_hw, dilation, strict=True)]
    pads = _pads(node, rank, sizes, spans, stride)
    if ceil:
        pads = _with_ceil(pads, sizes, spans, stride)
    return Window(kernel_hw, stride, pads, dilation)


Padding = tuple[int, int, int, int]


def _pads(node: Node, rank: int, sizes: tuple[int, int], spans: list[int], stride: tuple[int, int]) -> Padding:
    mode = node.get("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        total = [
            max(0, (-(-size // s) - 1) * s + span - size) for size, span, s in zip(sizes, spans, stride, strict=True)
        ]
        less = [t // 2 if mode == "SAME_UPPER" else t - t // 2 for t in total]
        return less[0], less[1], total[0] - less[0], total[1] - less[1]
    pads = [0] * (2 * rank) if mode == "VALID" else [int(p) for p in node.get("pads", [0] * (2 * rank))]
    if mode not in ("NOTSET", "VALID") or len(pads) != 2 * rank or min(pads) < 0:
        raise Refusal(f"auto_pad {mode!r} with pads {pads} is not supported")
    return (0, pads[0], 0, pads[1]) if rank == 1 else (pads[0], pads[1], pads[2], pads[3])


def _with_ceil(pads: Padding, sizes: tuple[int, int], spans: list[int], stride: tuple[int, int]) -> Padding:
    more: list[int] = []
    for before, after, size, span, s in zip(pads[:2], pads[2:], sizes, spans, stride, strict=True):
        outputs = -(-(size + before + after - span) // s) + 1
        if (outputs - 1) * s >= size + before:  # a window that starts in the padding is left out
            outputs -= 1
            after = min(after, max(0, (outputs - 1) * s + span - size - before))
        more.append(max(after, (outputs - 1) * s + span - size - before))
    return pads[0], pads[1], more[0], more[1]


def _pool(t: Translator, node: Node, *, pad: bool = False) -> tuple[str, Window, tuple[int, ...]]:
    """(operator, window, result shape) of a pool; ``pad``: its own padding, without ceil mode's, is an operator."""
    view = node.view()
    if len(view.shape) not in (3, 4):
        raise Refusal("only 1-D and 2-D pools are supported")
    kernel = tuple(node.get("kernel_shape", ()))
    window = window_of(node, view, kernel, ceil=bool(node.get("ceil_mode", 0)))
    if pad:
        own = window_of(node, view, kernel).padding
        rest = tuple(max(0, n - o) for n, o in zip(window.padding, own, strict=True))
        view = resampling.padded(t.builder, view, f"{node.label}.pad", own, 0.0, node.where)
        window = replace(window, padding=(rest[0], rest[1], rest[2], rest[3]))
    op, stored = t.builder.map(view, node.where)
    height, width = window.output_hw(stored[0], stored[1])
    return op, window, (*view.shape[:2], *(height, width)[4 - len(view.shape) :])


def max_pool(t: Translator, node: Node) -> View:
    op, window, shape = _pool(t, node)
    if node.get("storage_order", 0):
        raise Refusal("storage_order is not supported")
    pool = ir.MaxPool(name=t.builder.name(node.label), inputs=(op,), shape=(0, 0, 0), source=node.where, window=window)
    return t.builder.emit(pool, shape)


def average_pool(t: Translator, node: Node) -> View:
    include = bool(node.get("count_include_pad", 0))
    apart = include and bool(node.get("ceil_mode", 0))  # ceil mode's padding is left out, the model's own counts
    op, window, shape = _pool(t, node, pad=apart)
    return _average(t, node, op, window, shape, include and not apart and any(window.padding))


def _average(t: Translator, node: Node, op: str, window: Window, shape: tuple[int, ...], include: bool = False) -> View:
    pool = ir.AvgPool(
        name=t.builder.name(node.label),
        inputs=(op,),
        shape=(0, 0, 0),
        source=node.where,
        window=window,
        count_include_pad=include,
    )
    return t.builder.emit(pool, shape)


def global_average(t: Translator, node: Node) -> View:
    view = node.view()
    op, stored = t.builder.map(view, node.where)
    shape = (*view.shape[:2], *(1 for _ in view.shape[2:]))
    return _whole_average(t, node, op, stored, shape)


def _whole_average(t: Translator, node: Node, op: str, stored: Shape, shape: tuple[int, ...]) -> View:
    if stored[:2] == (1, 1):
        kept = View(op, stored, map_shape(stored, True), True)
        return kept.viewed(kept.order.reshape(shape))
    kernel = stored[:2]
    pooled = _average(t, node, op, Window(kernel, kernel), (1, stored[2], 1, 1))
    return pooled.viewed(pooled.order.reshape(shape))


def global_max(t: Translator, node: Node) -> View:
    view = node.view()
    op, stored = t.builder.map(view, node.where)
    pool = ir.MaxPool(
        name=t.builder.name(node.label),
        inputs=(op,),
        shape=(0, 0, 0),
        source=node.where,
        window=Window(stored[:2], stored[:2]),
    )
    return t.builder.emit(pool, (*view.shape[:2], *(1 for _ in view.shape[2:])))


def split(t: Translator, node: Node) -> tuple[View, ...]:
    """Pieces along one axis: equal ones, or of given sizes."""
    view = node.view()
    axis = int(node.get("axis", 0)) % len(view.shape)
    given = node.array(1) if node.opset >= 13 else node.get("split")
    count = int(node.get("num_outputs", len(node.proto.output)))
    size = -(-view.shape[axis] // count)
    sizes = [size] * (count - 1) + [view.shape[axis] - size * (count - 1)]
    if given is not None:
        sizes = [int(n) for n in np.ravel(given)]
    if sum(sizes) != view.shape[axis] or min(sizes) < 1 or len(sizes) < len(node.proto.output):
        raise Refusal(f"pieces of {sizes} do not fit {view.shape[axis]}")
    pieces = np.split(t.order(view), np.cumsum(sizes)[:-1], axis=axis)
    return tuple(view.viewed(piece) for piece in pieces)


REDUCTIONS: dict[str, Kind] = {"ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "max", "ReduceMin": "min"}
COMPOSED = {
    "ReduceL1": "sum of magnitudes",
    "ReduceSumSquare": "sum of squares",
    "ReduceLogSum": "logarithm of the sum",
    "ReduceLogSumExp": "logarithm of the sum of powers",
}


def reduction(kind: str) -> Handler:
    return lambda t, node: _reduction(t, node, kind)


def _reduction(t: Translator, node: Node, kind: str) -> Value:
    """Axes are an input in newer versions, an attribute in older ones. ReduceL2 may be half of an L2 normalization."""
    view, given = node.view(), node.array(1)
    given = node.get("axes") if given is None else given
    rank = len(view.shape)
    if (given is None or not np.size(given)) and node.get("noop_with_empty_axes", 0):
        return view
    axes = {int(a) % rank for a in (range(rank) if given is None or not np.size(given) else np.ravel(given))}
    keep = bool(node.get("keepdims", 1))
    shape = tuple(1 if i in axes else n for i, n in enumerate(view.shape) if keep or i not in axes)
    if kind in REDUCTIONS:
        return reduced(t.builder, REDUCTIONS[kind], view, axes, shape, node.label, node.where)
    if kind == "ReduceL2" and len(axes) == 1 and keep and t.divides(node):
        return Length(view, min(axes), view.shape)
    return composed(t.builder, COMPOSED.get(kind, "length"), view, axes, shape, node.label, node.where)


def pad(t: Translator, node: Node) -> View:
    """Padding of height and width by an operator, of channels with zeros by a view."""
    view = node.view()
    rank = len(view.shape)
    mode = node.get("mode", "constant")
    amounts = node.get("pads") if node.opset < 11 else node.required(1).value
    constant = node.get("value", 0.0) if node.opset < 11 else node.array(2)
    chosen = node.array(3)
    axes = list(range(rank)) if chosen is None else [int(a) % rank for a in np.ravel(chosen)]
    widths = [int(p) for p in np.ravel(amounts)]
    if len(widths) != 2 * len(axes):
        raise Refusal(f"{len(widths)} paddings for {len(axes)} axes")
    before, after = [0] * rank, [0] * rank
    for position, axis in enumerate(axes):
        before[axis], after[axis] = widths[position], widths[position + len(axes)]
    size = int(np.prod([max(0, n + b + a) for n, b, a in zip(view.shape, before, after, strict=True)]))
    if size > 1 << 22 or not size:
        raise Refusal(f"padding to {size} elements")
    value = 0.0 if constant is None or not np.size(constant) else _real(t, view, constant)
    if rank in (3, 4) and not any(before[:2] + after[:2]) and min(before + after) >= 0:
        pads = (before[2] if rank == 4 else 0, before[-1], after[2] if rank == 4 else 0, after[-1])
        if mode != "constant":
            return resampling.bordered(t.builder, view, node.label, mode, pads, node.where)
        return resampling.padded(t.builder, view, node.label, pads, value, node.where)
    if mode != "constant" or value != 0:
        raise Refusal("only padding with zeros is supported besides height and width")
    return pad_view(view, tuple(before), tuple(after))


def _real(t: Translator, view: View, constant: Any) -> float:
    """The padding as a real number; for a padding of integer codes what they stand for."""
    value = float(np.ravel(constant)[0])
    params, kind = t.builder.params.get(view.op), np.asarray(constant).dtype.str
    if params is None or kind not in ("|i1", "|u1"):
        return value
    return params.scale * (value - params.zero_point - (128 if kind == "|u1" else 0))


def _activation(t: Translator, node: Node, position: int) -> View:
    """An input that has to be an activation: a constant becomes one."""
    value = node.inputs[position]
    if isinstance(value, Constant):
        return t.builder.constant(value.value.astype(np.float64), f"{node.label}.constant", node.where)
    return node.view(position)


def concat(t: Translator, node: Node) -> View:
    views = [_activation(t, node, position) for position in range(len(node.inputs))]
    axis = int(node.get("axis", 1)) % len(views[0].shape)
    if any(v.shape[:axis] + v.shape[axis + 1 :] != views[0].shape[:axis] + views[0].shape[axis + 1 :] for v in views):
        raise Refusal(f"shapes {[list(v.shape) for v in views]} do not fit along axis {axis}")
    if axis == 0 and len(views[0].shape) > 1 and views[0].shape[0] == 1:
        raise Refusal("tensors cannot be joined along the batch")
    return t.builder.concat(views, axis, node.label, node.where)


def softmax(t: Translator, node: Node) -> View:
    view = node.view()
    axis = int(node.get("axis", -1 if node.opset >= 13 else 1)) % len(view.shape)
    logarithm = node.proto.op_type == "LogSoftmax"
    if node.opset >= 13:
        return reductions.softmax(t.builder, view, axis, node.label, node.where, logarithm=logarithm)
    # older versions normalize over all axes from ``axis`` on
    flat = view.viewed(view.order.reshape(int(np.prod(view.shape[:axis])), -1))
    result = reductions.softmax(t.builder, flat, 1, node.label, node.where, logarithm=logarithm)
    return result.viewed(result.order.reshape(view.shape))


def argmax(t: Translator, node: Node) -> View:
    view = node.view()
    axis = int(node.get("axis", 0)) % len(view.shape)
    if node.get("select_last_index", 0):
        raise Refusal("the first index on ties (select_last_index=0) is supported")
    if axis == 0 and len(view.shape) > 1:
        raise Refusal("not over the batch")
    shape = tuple(1 if i == axis else n for i, n in enumerate(view.shape) if i != axis or node.get("keepdims", 1))
    if node.proto.op_type == "ArgMin":
        view = reductions.mirrored(t.builder, view, f"{node.label}.minus", node.where)
    return reductions.argmax(t.builder, view, axis, shape, node.label, node.where)


HANDLERS: Handlers = {
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average,
    "GlobalMaxPool": global_max,
    **{kind: reduction(kind) for kind in (*REDUCTIONS, *COMPOSED, "ReduceL2")},
    "Pad": pad,
    "Split": split,
    "Concat": concat,
    "Softmax": softmax,
    "LogSoftmax": softmax,
    "ArgMax": argmax,
    "ArgMin": argmax,
}
