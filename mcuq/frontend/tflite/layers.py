"""Operators of TFLite, one handler each. Option fields are numbered as in the schema."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mcuq.frontend import reductions, resampling, transposed
from mcuq.frontend.builder import Constant
from mcuq.frontend.reductions import Kind, reduced
from mcuq.frontend.tflite.translate import Handlers, Node, Translator, Value, output_axis
from mcuq.frontend.views import Refusal, View, pad_view
from mcuq.ir import graph as ir
from mcuq.ir.graph import Window

SAME, VALID = 0, 1


def _window(
    node: Node, shape: tuple[int, ...], kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> Window:
    """Window with the schema's padding: SAME divides it, the odd pixel below and right."""
    if min(*kernel, *stride, *dilation) < 1:
        raise Refusal("kernel, strides and dilations have to be positive")
    padding = node.operator.option(0, "b")
    if padding == VALID:
        return Window(kernel, stride, (0, 0, 0, 0), dilation)
    if padding != SAME:
        raise Refusal(f"padding {padding} is neither SAME nor VALID")
    total = [
        max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n)
        for n, k, s, d in zip(shape[1:3], kernel, stride, dilation, strict=True)
    ]
    top, left = total[0] // 2, total[1] // 2
    return Window(kernel, stride, (top, left, total[0] - top, total[1] - left), dilation)


def _bias(t: Translator, node: Node, weight: Constant) -> NDArray[np.float64] | None:
    """Real biases; integer ones stand on the scale of input times weight."""
    bias = node.constant(2)
    if bias is None or bias.value.dtype.kind == "f":
        return None if bias is None else bias.value.ravel()
    source = t.builder.params.get(node.view().op)
    if weight.coded is None or source is None:
        raise Refusal("integer biases need quantized weights and inputs")
    return bias.value.astype(np.float64).ravel() * source.scale * weight.coded.scale


def _conv(t: Translator, node: Node, weight: Constant, groups: int, activation: int, dilations: int) -> View:
    view, option = node.view(), node.operator.option
    if len(view.shape) != 4 or weight.value.ndim != 4:
        raise Refusal(f"convolutions take maps [1, H, W, C], found {list(view.shape)}")
    outputs, height, width, fan = weight.value.shape
    if fan * groups != view.shape[3] or outputs % groups:
        raise Refusal(f"weights of {fan * groups} channels do not fit {view.shape[3]}")
    dilation = option(dilations + 1, "i", 1), option(dilations, "i", 1)
    window = _window(node, view.shape, (height, width), (option(2, "i"), option(1, "i")), dilation)
    shape = (1, *window.output_hw(*view.shape[1:3]), outputs)
    bias = _bias(t, node, weight)
    result = t.builder.conv(view, node.label, weight, bias, window, groups, shape, node.where)
    t.convolutions.add(result.op)
    return t.activated(node, result, option(activation, "b"))


def conv_2d(t: Translator, node: Node) -> View:
    weight = node.required(1)
    fan = weight.value.shape[3] if weight.value.ndim == 4 else 1
    groups = node.view().shape[-1] // max(1, fan)
    return _conv(t, node, replace(weight, coded=output_axis(weight, 0)), groups, 3, 4)


def depthwise_conv_2d(t: Translator, node: Node) -> View:
    """Weights are stored [1, kh, kw, channels * multiplier]."""
    weight = node.required(1)
    if weight.value.ndim != 4 or weight.value.shape[0] != 1:
        raise Refusal(f"depthwise weights have shape [1, kh, kw, C], found {list(weight.value.shape)}")
    coded = output_axis(weight, 3)
    coded = None if coded is None else replace(coded, codes=coded.codes.transpose(3, 1, 2, 0))
    moved = Constant(weight.value.transpose(3, 1, 2, 0), weight.name, coded)
    return _conv(t, node, moved, node.view().shape[-1], 4, 5)


def transpose_conv(t: Translator, node: Node) -> View:
    """Inputs: the output's shape, weights [O, kh, kw, I], the activation, a bias."""
    (_, height, width, _), weight, view = node.ints(0), node.required(1), node.view(2)
    option, bias = node.operator.option, node.constant(3)
    if weight.value.ndim != 4 or len(view.shape) != 4:
        raise Refusal("transposed convolutions take maps [1, H, W, C]")
    stride = (option(2, "i"), option(1, "i"))
    padding: list[tuple[int, int]] = []
    for axis, wanted in enumerate((height, width)):
        total = (view.shape[axis + 1] - 1) * stride[axis] + weight.value.shape[axis + 1] - wanted
        before = max(total, 0) // 2 if option(0, "b") == SAME else 0
        padding.append((before, total - before))
    real = None if bias is None else bias.value.astype(np.float64).ravel()
    source = t.builder.params.get(view.op)
    if bias is not None and bias.value.dtype.kind != "f":
        if weight.coded is None or source is None or real is None:
            raise Refusal("integer biases need quantized weights and inputs")
        real = real * source.scale * weight.coded.scale
    coded = output_axis(weight, 0)
    coded = None if coded is None else replace(coded, codes=coded.codes[:, ::-1, ::-1])
    mirrored = Constant(weight.value[:, ::-1, ::-1], weight.name, coded)
    rows, columns = padding
    result = transposed.convolution(
        t.builder, view, node.label, mirrored, real, stride, (rows, columns), (0, 0), (1, 1), 1, node.where
    )
    return t.activated(node, result, option(3, "b"))


def fully_connected(t: Translator, node: Node) -> View:
    view, weight = node.view(), node.required(1)
    if weight.value.ndim != 2 or node.operator.option(1, "b"):
        raise Refusal("fully connected weights have shape [O, F]")
    weight = replace(weight, coded=output_axis(weight, 0))
    features = weight.value.shape[1]
    rows, left = divmod(int(np.prod(view.shape)), features)
    if left:
        raise Refusal(f"{features} features do not fit an input of shape {list(view.shape)}")
    keep = view.shape[:-1] if node.operator.option(2, "?", False) else (rows,)
    flat = view if view.shape == (*keep, features) else t.move(view, view.order.reshape(*keep, features))
    result = t.builder.fully_connected(flat, node.label, weight, _bias(t, node, weight), node.where)
    return t.activated(node, result, node.operator.option(0, "b"))


def _pool(t: Translator, node: Node, *, average: bool) -> View:
    view, option = node.view(), node.operator.option
    if len(view.shape) != 4:
        raise Refusal(f"pools take maps [1, H, W, C], found {list(view.shape)}")
    op, _ = t.builder.map(view, node.where)
    kernel, stride = (option(4, "i"), option(3, "i")), (option(2, "i"), option(1, "i"))
    window = _window(node, view.shape, kernel, stride, (1, 1))
    height, width = window.output_hw(*view.shape[1:3])
    shape = (1, height, width, view.shape[3])
    kind = ir.AvgPool if average else ir.MaxPool
    name = t.builder.name(node.label)
    result = t.builder.emit(kind(name=name, inputs=(op,), shape=(0, 0, 0), source=node.where, window=window), shape)
    return t.activated(node, result, option(5, "b"))


def average_pool_2d(t: Translator, node: Node) -> View:
    return _pool(t, node, average=True)


def max_pool_2d(t: Translator, node: Node) -> View:
    return _pool(t, node, average=False)


REDUCTIONS: dict[str, Kind] = {"MEAN": "mean", "SUM": "sum", "REDUCE_MAX": "max", "REDUCE_MIN": "min"}


def reduce(t: Translator, node: Node) -> View:
    view = node.view()
    rank = len(view.shape)
    axes = {axis % rank for axis in node.ints(1)}
    keep = bool(node.operator.option(0, "?", False))
    shape = tuple(1 if i in axes else n for i, n in enumerate(view.shape) if keep or i not in axes)
    return reduced(t.builder, REDUCTIONS[node.operator.kind], view, axes, shape, node.label, node.where)


def pad(t: Translator, node: Node) -> View:
    """Padding with zeros, or (PADV2) with a constant."""
    view = node.view()
    pairs = np.asarray(node.ints(1)).reshape(-1, 2)
    value = float(np.ravel(node.required(2).value)[0]) if len(node.inputs) > 2 else 0.0
    if len(pairs) != len(view.shape) or (pairs < 0).any() or (pairs > 4096).any():
        raise Refusal(f"paddings {pairs.tolist()} do not fit {list(view.shape)}")
    if len(view.shape) == 4 and not pairs[[0, 3]].any():
        pads = (int(pairs[1, 0]), int(pairs[2, 0]), int(pairs[1, 1]), int(pairs[2, 1]))
        return resampling.padded(t.builder, view, node.label, pads, value, node.where)
    if value != 0:
        raise Refusal("only padding with zeros is supported besides height and width")
    t.count(2 * int(np.prod([int(n) + int(p.sum()) for n, p in zip(view.shape, pairs, strict=True)])))
    return pad_view(view, tuple(int(p) for p in pairs[:, 0]), tuple(int(p) for p in pairs[:, 1]))


def mirror_pad(t: Translator, node: Node) -> View:
    """A border that reflects: mode 0 without the edge, 1 with it."""
    view = node.view()
    pairs = np.asarray(node.ints(1)).reshape(-1, 2)
    if len(view.shape) != 4 or len(pairs) != 4 or pairs[[0, 3]].any():
        raise Refusal("only height and width of maps [1, H, W, C] can reflect")
    pads = (int(pairs[1, 0]), int(pairs[2, 0]), int(pairs[1, 1]), int(pairs[2, 1]))
    mode = "symmetric" if node.operator.option(0, "b") else "reflect"
    return resampling.bordered(t.builder, view, node.label, mode, pads, node.where)


def depth_to_space(t: Translator, node: Node) -> View:
    view, size = node.view(), node.operator.option(0, "i")
    n, h, w, c = view.shape
    if size < 1 or c % size**2:
        raise Refusal(f"{c} channels do not divide into blocks of {size}")
    parts = view.order.reshape(n, h, w, size, size, c // size**2).transpose(0, 1, 3, 2, 4, 5)
    return t.move(view, parts.reshape(n, h * size, w * size, c // size**2))


def space_to_depth(t: Translator, node: Node) -> View:
    view, size = node.view(), node.operator.option(0, "i")
    n, h, w, c = view.shape
    if size < 1 or h % size or w % size:
        raise Refusal(f"{h} x {w} pixels do not divide into blocks of {size}")
    parts = view.order.reshape(n, h // size, size, w // size, size, c).transpose(0, 1, 3, 2, 4, 5)
    return t.move(view, parts.reshape(n, h // size, w // size, c * size**2))


def shape_of(t: Translator, node: Node) -> Constant:
    """The shape as a constant: converters compute reshapes from it."""
    value = node.inputs[0]
    found = value.shape if isinstance(value, View) else value.value.shape if isinstance(value, Constant) else ()
    return Constant(np.asarray(found, dtype=np.int64))


def pack(t: Translator, node: Node) -> Value:
    """Numbers of a shape put together, or activations joined along a new axis."""
    constants = [value.value for value in node.inputs if isinstance(value, Constant)]
    if len(constants) == len(node.inputs):
        return Constant(np.stack(constants, axis=node.operator.option(1, "i")))
    views = [node.view(position) for position in range(len(node.inputs))]
    axis = node.operator.option(1, "i") % (len(views[0].shape) + 1)
    raised = [t.move(v, np.expand_dims(v.order, axis)) for v in views]
    return t.builder.concat(raised, axis, node.label, node.where)


def unpack(t: Translator, node: Node) -> tuple[View, ...]:
    view = node.view()
    axis = node.operator.option(1, "i") % len(view.shape)
    return tuple(t.move(view, np.take(view.order, i, axis)) for i in range(view.shape[axis]))


def split_v(t: Translator, node: Node) -> tuple[View, ...]:
    """Pieces of given sizes."""
    view, sizes, axis = node.view(), node.ints(1), node.ints(2)[0] % len(node.view().shape)
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = view.shape[axis] - sum(sizes) - 1
    if sum(sizes) != view.shape[axis] or min(sizes) < 1:
        raise Refusal(f"pieces of {sizes} do not fit {view.shape[axis]}")
    return tuple(t.move(view, piece) for piece in np.split(view.order, np.cumsum(sizes)[:-1], axis=axis))


def gather(t: Translator, node: Node) -> View:
    view, axis = node.view(), node.operator.option(0, "i") % len(node.view().shape)
    indices = node.required(1).value.astype(np.int64)
    if indices.size > 1 << 16 or indices.min(initial=0) < 0 or indices.max(initial=0) >= view.shape[axis]:
        raise Refusal("indices outside the tensor")
    return t.move(view, np.take(view.order, indices, axis))


def tile(t: Translator, node: Node) -> View:
    view, repeats = node.view(), node.ints(1)
    if len(repeats) != len(view.shape) or min(repeats) < 1 or max(repeats) > 4096:
        raise Refusal(f"repetitions {repeats} do not fit {list(view.shape)}")
    t.count(int(np.prod(view.shape)) * int(np.prod(repeats)))
    return t.move(view, np.tile(view.order, repeats))


def reverse(t: Translator, node: Node) -> View:
    view = node.view()
    return t.move(view, np.flip(view.order, tuple(a % len(view.shape) for a in node.ints(1))))


def concatenation(t: Translator, node: Node) -> View:
    views = [
        t.builder.constant(value.value.astype(np.float64), f"{node.label}.constant", node.where)
        if isinstance(value, Constant)
        else node.view(position)
        for position, value in enumerate(node.inputs)
    ]
    axis = node.operator.option(0, "i") % len(views[0].shape)
    if axis == 0 and len(views[0].shape) > 1 and views[0].shape[0] == 1:
        raise Refusal("tensors cannot be joined along the batch")
    result = t.builder.concat(views, axis, node.label, node.where)
    return t.activated(node, result, node.operator.option(1, "b"))


def reshape(t: Translator, node: Node) -> View:
    """The result's shape is the declared one; a declared batch other than 1 stays 1."""
    view = node.view()
    target = node.output.shape
    if int(np.prod(target)) != int(np.prod(view.shape)) and len(target) > 1:
        target = (1, *target[1:])
    if int(np.prod(target)) != int(np.prod(view.shape)):
        raise Refusal(f"cannot reshape {list(view.shape)} to {list(node.output.shape)}")
    return view if target == view.shape else t.move(view, view.order.reshape(target))


def transpose(t: Translator, node: Node) -> View:
    view, permutation = node.view(), node.ints(1)
    if sorted(permutation) != list(range(len(view.shape))):
        raise Refusal(f"permutation {permutation} does not fit {list(view.shape)}")
    return t.move(view, view.order.transpose(permutation))


def slice_(t: Translator, node: Node) -> View:
    view, begin, size = node.view(), node.ints(1), node.ints(2)
    if len(begin) != len(view.shape) or len(size) != len(begin):
        raise Refusal("a slice needs one begin and size per dimension")
    pairs = zip(begin, size, strict=True)
    return t.move(view, view.order[tuple(slice(b, None if s < 0 else b + s) for b, s in pairs)])


def strided_slice(t: Translator, node: Node) -> Value:
    value, option = node.inputs[0], node.operator.option
    if value is None:
        raise Refusal("its input is missing")
    order = value.value if isinstance(value, Constant) else value.order
    bounds = [node.ints(position) for position in (1, 2, 3)]
    if option(2, "i") or option(3, "i") or any(len(b) != order.ndim for b in bounds) or 0 in bounds[2]:
        raise Refusal("ellipsis, new axes and steps of 0 are not supported in slices")
    key: list[slice | int] = []
    for axis, (begin, end, step) in enumerate(zip(*bounds, strict=True)):
        first = None if option(0, "i") >> axis & 1 else begin
        last = None if option(1, "i") >> axis & 1 else end
        key.append(begin if option(4, "i") >> axis & 1 else slice(first, last, step))
    try:
        part = np.asarray(order[tuple(key)])
    except IndexError as error:
        raise Refusal(f"a slice is outside the tensor: {error}") from error
    return Constant(part) if isinstance(value, Constant) else t.move(value, part)


def split(t: Translator, node: Node) -> tuple[View, ...]:
    """Equal pieces along one axis (input 0)."""
    view, axis = node.view(1), node.ints(0)[0] % len(node.view(1).shape)
    count = len(node.operator.outputs)
    if view.shape[axis] % count:
        raise Refusal(f"{view.shape[axis]} does not divide into {count} pieces")
    return tuple(t.move(view, piece) for piece in np.split(view.order, count, axis=axis))


def softmax(t: Translator, node: Node) -> View:
    view, logarithm = node.view(), node.operator.kind == "LOG_SOFTMAX"
    if not logarithm and node.operator.option(0, "f", 0.0) != 1.0:
        raise Refusal("softmax with beta other than 1; scale the scores in the layer before")
    return reductions.softmax(t.builder, view, len(view.shape) - 1, node.label, node.where, logarithm=logarithm)


def arg_max(t: Translator, node: Node) -> View:
    view, axes = node.view(), node.ints(1)
    if len(axes) != 1 or axes[0] % len(view.shape) == 0:
        raise Refusal("over one axis, not the batch")
    if node.operator.kind == "ARG_MIN":
        view = reductions.mirrored(t.builder, view, f"{node.label}.minus", node.where)
    axis = axes[0] % len(view.shape)
    shape = view.shape[:axis] + view.shape[axis + 1 :]
    return reductions.argmax(t.builder, view, axis, shape, node.label, node.where)


def quantize(t: Translator, node: Node) -> View:
    """The walk notes the output's parameters."""
    return node.view()


def cast(t: Translator, node: Node) -> Value:
    """Between float types, or of constants."""
    value = node.inputs[0]
    if isinstance(value, View) and node.output.kind != "<f4":
        raise Refusal("casts to integers are not supported inside the network")
    if value is None:
        raise Refusal("its input is missing")
    return value


def dequantize(t: Translator, node: Node) -> Value:
    """The real value: of an activation the same view, of a constant what it stands for."""
    value = node.inputs[0]
    if value is None:
        raise Refusal("its input is missing")
    return value


HANDLERS: Handlers = {
    "CONV_2D": conv_2d,
    "DEPTHWISE_CONV_2D": depthwise_conv_2d,
    "FULLY_CONNECTED": fully_connected,
    "TRANSPOSE_CONV": transpose_conv,
    "AVERAGE_POOL_2D": average_pool_2d,
    "MAX_POOL_2D": max_pool_2d,
    **dict.fromkeys(REDUCTIONS, reduce),
    "PAD": pad,
    "PADV2": pad,
    "MIRROR_PAD": mirror_pad,
    "DEPTH_TO_SPACE": depth_to_space,
    "SPACE_TO_DEPTH": space_to_depth,
    "SHAPE": shape_of,
    "PACK": pack,
    "UNPACK": unpack,
    "SPLIT_V": split_v,
    "GATHER": gather,
    "TILE": tile,
    "REVERSE_V2": reverse,
    "CONCATENATION": concatenation,
    "RESHAPE": reshape,
    "SQUEEZE": reshape,
    "EXPAND_DIMS": reshape,
    "TRANSPOSE": transpose,
    "SLICE": slice_,
    "STRIDED_SLICE": strided_slice,
    "SPLIT": split,
    **dict.fromkeys(("SOFTMAX", "LOG_SOFTMAX"), softmax),
    **dict.fromkeys(("ARG_MAX", "ARG_MIN"), arg_max),
    "CAST": cast,
    "QUANTIZE": quantize,
    "DEQUANTIZE": dequantize,
}
