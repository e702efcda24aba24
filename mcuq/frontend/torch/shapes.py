"""ATen operators that move elements, join, pad and resize."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mcuq.frontend import resampling
from mcuq.frontend.builder import Constant
from mcuq.frontend.elementwise import Length
from mcuq.frontend.torch.nodes import (
    MAX_VIEWED,
    Arguments,
    Handlers,
    Refusal,
    Translator,
    Value,
    aten_shape,
    handles,
    source_place,
)
from mcuq.frontend.views import View, pad_view
from mcuq.ir.graph import Blend

HANDLERS: Handlers = {}
MOVES = (
    "view.default", "_unsafe_view.default", "reshape.default", "flatten.using_ints", "unflatten.int", "squeeze.default",
    "squeeze.dim", "squeeze.dims", "unsqueeze.default", "permute.default", "transpose.int", "t.default", "mT.default",
    "slice.Tensor", "select.int", "split.Tensor", "split_with_sizes.default", "unbind.int", "chunk.default",
    "narrow.default", "flip.default", "roll.default", "repeat.default", "expand.default", "index_select.default",
    "pixel_shuffle.default", "pixel_unshuffle.default", "channel_shuffle.default", "movedim.int", "tile.default",
    "repeat_interleave.self_int", "unfold.default", "diagonal.default", "expand_as.default", "index.Tensor",
)  # fmt: skip
"""Operators that only move elements: they act on the indices of a view as on values."""


@handles(HANDLERS, *(f"aten.{name}" for name in MOVES))
def _move(t: Translator, node: Any, a: Arguments) -> Value | tuple[Value, ...]:
    source = next(iter(node.args))
    value = t.known(source)
    if isinstance(value, Length):
        return value
    view = t.view(source)
    if int(np.prod(aten_shape(node))) > MAX_VIEWED:
        raise Refusal(f"its result has {int(np.prod(aten_shape(node)))} elements, at most {MAX_VIEWED} are supported")
    indices = torch.from_numpy(np.ascontiguousarray(t.order(view)))
    moved = node.target(indices, *t.concrete(node.args[1:]), **t.concrete(node.kwargs))
    parts = moved if isinstance(moved, (tuple, list)) else [moved]
    views = tuple(_same_map(view.viewed(part.numpy())) for part in parts)
    return views if isinstance(moved, (tuple, list)) else views[0]


def _same_map(view: View) -> View:
    """The whole map without indices where it is one again, as behind a flattening that was undone."""
    whole = View(view.op, view.stored, view.shape, True)
    height, width, channels = view.stored
    shapes = ((1, channels, height, width), (1, channels, width), (1, channels))
    fits = view.shape in shapes[: 1 if height > 1 else 2 if width > 1 else 3]
    return whole if fits and np.array_equal(view.order, whole.order) else view


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
    return t.known(a.get("self", a.get("input")))


@handles(HANDLERS, "aten.to.dtype", "aten._to_copy.default", "aten.to.dtype_layout", "aten.to.device")
def _cast(t: Translator, node: Any, a: Arguments) -> Value:
    if not node.meta["val"].is_floating_point():
        raise Refusal("casts to integers are not supported inside the network")
    return t.known(a["self"])


@handles(HANDLERS, "aten.cat.default", "aten.concat.default")
def _cat(t: Translator, node: Any, a: Arguments) -> View:
    parts = [_activation(t, node, item) for item in a["tensors"]]
    axis = int(a["dim"]) % len(parts[0].shape)
    if axis == 0:
        raise Refusal("tensors cannot be joined along the batch")
    return t.builder.concat(parts, axis, t.name(node, "concat"), source_place(node))


@handles(HANDLERS, "aten.stack.default")
def _stack(t: Translator, node: Any, a: Arguments) -> View:
    parts = [_activation(t, node, item) for item in a["tensors"]]
    axis = int(a["dim"]) % (len(parts[0].shape) + 1)
    if axis == 0:
        raise Refusal("tensors cannot be joined along the batch")
    raised = [part.viewed(np.expand_dims(t.order(part), axis)) for part in parts]
    return t.builder.concat(raised, axis, t.name(node, "stack"), source_place(node))


def _activation(t: Translator, node: Any, item: Any) -> View:
    """An operand that has to be an activation: a constant becomes one."""
    value = t.operand(item)
    if isinstance(value, Length):
        raise Refusal("a length is joined with other tensors")
    return value if isinstance(value, View) else t.builder.constant(value, t.name(node, "constant"), source_place(node))


FILLED = {"zeros": 0.0, "ones": 1.0}


@handles(
    HANDLERS,
    *(f"aten.{what}_like.default" for what in (*FILLED, "full")),
    *(f"aten.new_{what}.default" for what in (*FILLED, "full")),
    "aten.fill.Scalar",
    "aten.fill.Tensor",
)
def _filled(t: Translator, node: Any, a: Arguments) -> Constant:
    kind = str(node.target).split(".")[1].removeprefix("new_").removesuffix("_like")
    given = a.get("fill_value", a.get("value"))
    value = FILLED[kind] if kind in FILLED else np.ravel(t.operand(given))[0]
    if int(np.prod(aten_shape(node))) > MAX_VIEWED:
        raise Refusal("a constant of that size")
    return Constant(np.full(aten_shape(node), value, dtype=np.float64))


@handles(HANDLERS, "aten.copy.default")
def _copied(t: Translator, node: Any, a: Arguments) -> Value:
    """``x[...] = source``: the source under the shape of what it replaces."""
    value, shape = t.known(a["src"]), aten_shape(node)
    if isinstance(value, View):
        return value if value.shape == shape else value.viewed(np.broadcast_to(t.order(value), shape))
    return value


@handles(HANDLERS, "aten.slice_scatter.default", "aten.select_scatter.default")
def _scattered(t: Translator, node: Any, a: Arguments) -> View:
    """A tensor with a part along one axis replaced: what is before it, the part and what is behind it, joined."""
    shape = aten_shape(node)
    axis = int(a["dim"]) % len(shape)
    whole, part = _activation(t, node, a["self"]), _activation(t, node, a["src"])
    if "index" in a:
        start, step = int(a["index"]) % shape[axis], 1
        part = part.viewed(np.expand_dims(t.order(part), axis))
    else:
        step = int(a["step"])
        start = slice(a["start"], None, step).indices(shape[axis])[0]
    if step != 1:
        raise Refusal("parts of a tensor are replaced with step 1")
    before, _, behind = np.split(t.order(whole), [start, start + part.shape[axis]], axis=axis)
    pieces = [whole.viewed(order) for order in (before, behind)]
    pieces = [piece for piece in (pieces[0], part, pieces[1]) if piece.shape[axis]]
    return t.builder.concat(pieces, axis, t.name(node, "concat"), source_place(node))


@handles(HANDLERS, "aten.pad.default", "aten.constant_pad_nd.default")
def _pad(t: Translator, node: Any, a: Arguments) -> View:
    """Height and width by an operator; channels and more by a view with zeros; negative paddings crop."""
    view = t.view(a["self"])
    sizes = [int(p) for p in a["pad"]]
    mode, value = a.get("mode", "constant"), float(a.get("value") or 0.0)
    spatial = len(view.shape) - 2
    if spatial in (1, 2) and not any(sizes[2 * spatial :]) and min(sizes) >= 0:
        left, right, top, bottom = (sizes[: 2 * spatial] + [0] * 4)[:4]
        pads = (top, left, bottom, right)
        name = t.name(node, "pad")
        if mode != "constant":
            return resampling.bordered(t.builder, view, name, mode, pads, source_place(node))
        return resampling.padded(t.builder, view, name, pads, value, source_place(node))
    if spatial in (1, 2) and not any(sizes[2 * spatial :]) and mode == "constant":  # crop first, then pad what is left
        left, right, top, bottom = (sizes[: 2 * spatial] + [0] * 4)[:4]
        sides = [(top, bottom), (left, right)][2 - spatial :]
        cut = [slice(max(0, -b), n - max(0, -e)) for (b, e), n in zip(sides, view.shape[2:], strict=True)]
        view = view.viewed(t.order(view)[(..., *cut)])
        pads = (max(0, top), max(0, left), max(0, bottom), max(0, right))
        return resampling.padded(t.builder, view, t.name(node, "pad"), pads, value, source_place(node))
    if mode != "constant" or value != 0:
        raise Refusal("only padding with zeros is supported besides height and width")
    pairs = [(0, 0)] * (len(view.shape) - len(sizes) // 2) + list(zip(sizes[::2], sizes[1::2], strict=True))[::-1]
    t.order(view)
    return pad_view(view, tuple(before for before, _ in pairs), tuple(after for _, after in pairs))


NEAREST = ("upsample_nearest1d.vec", "upsample_nearest2d.vec")
EXACT = ("_upsample_nearest_exact1d.vec", "_upsample_nearest_exact2d.vec")
LINEAR = ("upsample_linear1d.vec", "upsample_bilinear2d.vec")


@handles(HANDLERS, *(f"aten.{name}" for name in (*NEAREST, *EXACT, *LINEAR)))
def _upsample(t: Translator, node: Any, a: Arguments) -> View:
    view = t.view(a["input"])
    given = [float(s) for s in a.get("scale_factors") or []]
    blends: list[Blend] = []
    for axis, (size, outputs) in enumerate(zip(view.shape[2:], aten_shape(node)[2:], strict=True)):
        scale = given[axis] if given else outputs / size
        target = str(node.target).removeprefix("aten.")
        if target in LINEAR:
            mode = "align_corners" if a["align_corners"] else "half_pixel"
            blends.append(resampling.linear(mode, size, outputs, scale))
        elif target in EXACT:
            blends.append(resampling.nearest("half_pixel", "round_prefer_ceil", size, outputs, scale))
        else:
            blends.append(resampling.nearest("asymmetric", "floor", size, outputs, scale))
    rows = blends[0] if len(blends) == 2 else Blend((0,))
    return resampling.resample(t.builder, view, t.name(node, "upsample"), rows, blends[-1], source_place(node))
