"""A float graph in torch: operators on [N, C, H, W] tensors, and which tensors share one quantizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

from mcuq.errors import UsageError
from mcuq.ir import functions
from mcuq.ir import graph as ir
from mcuq.ir.graph import FloatOp, Graph, Window
from mcuq.quant.activations import clip

Inputs = Tensor | Sequence[Tensor]
"""What a network takes: a tensor, or one for each of several inputs."""


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window, groups: int) -> Tensor:
    """Convolution of x [N, C, H, W] with weight [O, I/groups, kh, kw]; padding may differ per side."""
    top, left, bottom, right = window.padding
    x = dilated(x, window.input_dilation)
    if window.kernel == (1, 1) and window.stride != (1, 1) and not any(window.padding):
        return F.conv2d(Subsample.apply(x, window.stride), weight, bias, groups=groups)
    if (top, left) == (bottom, right):
        return F.conv2d(x, weight, bias, window.stride, (top, left), window.dilation, groups)
    x = F.pad(x, (left, right, top, bottom))
    return F.conv2d(x, weight, bias, window.stride, 0, window.dilation, groups)


class Subsample(torch.autograd.Function):
    """Every stride-th pixel of x [N, C, H, W]: all that a convolution 1x1 reads, whose backward pass is then short."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, stride: tuple[int, int]) -> Tensor:
        layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        ctx.stride, ctx.shape, ctx.layout = stride, x.shape, layout
        return x[:, :, :: stride[0], :: stride[1]].contiguous(memory_format=layout)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (g,) = grads
        dx = torch.empty(ctx.shape, dtype=g.dtype, device=g.device, memory_format=ctx.layout).zero_()
        dx[:, :, :: ctx.stride[0], :: ctx.stride[1]] = g
        return dx, None


def dilated(x: Tensor, dilation: tuple[int, int]) -> Tensor:
    """x [N, C, H, W] with ``dilation`` - 1 rows and columns of zeros between its own."""
    if dilation == (1, 1):
        return x
    count, channels, height, width = x.shape
    spread = x.new_zeros(count, channels, (height - 1) * dilation[0] + 1, (width - 1) * dilation[1] + 1)
    spread[:, :, :: dilation[0], :: dilation[1]] = x
    return spread


def evaluate(
    op: FloatOp,
    inputs: tuple[Tensor, ...],
    conv: Callable[[ir.Conv2d, Tensor], Tensor],
    slopes: Mapping[str, Tensor] = MappingProxyType({}),
) -> Tensor:
    """One operator of a fused graph without its clamp.

    Args:
        conv: computes convolutions. slopes: of PReLUs by name, [C] or [1], in place of the operators' own.
    """
    match op:
        case ir.Conv2d():
            return conv(op, inputs[0])
        case ir.Add():
            return inputs[0] - inputs[1] if op.subtract else inputs[0] + inputs[1]
        case ir.Mul():
            return inputs[0] * inputs[1]
        case ir.Extremum():
            return torch.minimum(*inputs) if op.smallest else torch.maximum(*inputs)
        case ir.Activation():
            return torch.nan_to_num(functions.evaluate(op.function, inputs[0], torch))
        case ir.Prelu():
            slope = slopes.get(op.name)
            return F.prelu(inputs[0], torch.from_numpy(op.slope).to(inputs[0]) if slope is None else slope)
        case ir.L2Normalize():
            return F.normalize(inputs[0], dim=1)
        case ir.Concat():
            return torch.cat(inputs, 1)
        case ir.Clip():
            return inputs[0]
        case ir.MaxPool():
            return max_pool(inputs[0], op.window)
        case ir.AvgPool():
            return average_pool(inputs[0], op.window, op.count_include_pad)
        case ir.Pad():
            top, left, bottom, right = op.padding
            return F.pad(inputs[0], (left, right, top, bottom), value=op.value)
        case ir.Reshape() | ir.Copy():
            return moved(op, inputs[0])
        case ir.Resample():
            return blended(blended(inputs[0], op.rows, 2), op.columns, 3)
        case ir.Softmax():
            return torch.softmax(inputs[0], 1)
        case ir.Argmax():
            return inputs[0].argmax(1, keepdim=True)
        case ir.Input() | ir.BatchNorm():
            raise ValueError(f"{op.name}: {type(op).__name__} is not part of a fused graph's body")
        case _:
            assert_never(op)


def moved(op: ir.Reshape | ir.Copy, x: Tensor) -> Tensor:
    """Elements of x [N, C, H, W] in their (H, W, C) order under the operator's shape."""
    flat = x.permute(0, 2, 3, 1).flatten(1)
    if isinstance(op, ir.Copy):
        index = torch.tensor([op.offset], device=x.device)
        for size, stride in zip(op.sizes, op.strides, strict=True):
            index = (index[:, None] + torch.arange(size, device=x.device) * stride).flatten()
        flat = flat[:, index]
    height, width, channels = op.shape
    return flat.reshape(-1, height, width, channels).permute(0, 3, 1, 2)


def blended(x: Tensor, blend: ir.Blend, axis: int) -> Tensor:
    """Rows (axis 2) or columns (axis 3) of x [N, C, H, W] chosen, or blended with their neighbours."""
    first = torch.tensor(blend.first, device=x.device)
    chosen = x.index_select(axis, first)
    if not blend.weights:
        return chosen
    weight = (torch.tensor(blend.weights, device=x.device) / ir.BLEND_UNIT).to(x).reshape(-1, *[1] * (3 - axis))
    second = x.index_select(axis, (first + 1).clamp(max=x.shape[axis] - 1))
    return chosen * (1.0 - weight) + second * weight


def max_pool(x: Tensor, window: Window) -> Tensor:
    """Max pool; padding taps are left out."""
    top, left, bottom, right = window.padding
    half = (window.kernel[0] // 2, window.kernel[1] // 2)
    if (top, left) == (bottom, right) and top <= half[0] and left <= half[1]:
        return F.max_pool2d(x, window.kernel, window.stride, (top, left), window.dilation)
    x = F.pad(x, (left, right, top, bottom), value=float("-inf"))
    return F.max_pool2d(x, window.kernel, window.stride, 0, window.dilation)


def average_pool(x: Tensor, window: Window, include_pad: bool) -> Tensor:
    """Average over the taps inside the input, or over the whole kernel when padding counts."""
    if not any(window.padding):
        return F.avg_pool2d(x, window.kernel, window.stride)
    top, left, bottom, right = window.padding
    padded = F.pad(x, (left, right, top, bottom))
    if include_pad:
        return F.avg_pool2d(padded, window.kernel, window.stride)
    inside = F.pad(torch.ones_like(x[:1, :1]), (left, right, top, bottom))
    share = F.avg_pool2d(inside, window.kernel, window.stride)
    return F.avg_pool2d(padded, window.kernel, window.stride) / share


def clamp_of(op: FloatOp) -> ir.Clamp:
    """The clip that an operator applies to its output."""
    return op.clamp if isinstance(op, ir.Conv2d | ir.Add | ir.Mul | ir.Clip) else ir.NO_CLAMP


def parts_of(graph: Graph, x: Inputs) -> tuple[Tensor, ...]:
    """Every input in order. Raises UsageError for another number of inputs than the network's."""
    parts = (x,) if isinstance(x, Tensor) else tuple(x)
    if len(parts) != len(graph.inputs):
        raise UsageError(f"the network takes {len(graph.inputs)} inputs, {len(parts)} were given")
    return parts


def by_name(graph: Graph, x: Inputs) -> dict[str, Tensor]:
    """Every input [N, C, H, W] by name. Raises UsageError as :func:`parts_of`."""
    return {op.name: part for op, part in zip(graph.inputs, parts_of(graph, x), strict=True)}


def run_float(
    graph: Graph,
    x: dict[str, Tensor],
    conv: Callable[[ir.Conv2d, Tensor], Tensor],
    slopes: Mapping[str, Tensor] = MappingProxyType({}),
) -> dict[str, Tensor]:
    """Every tensor of a fused graph for real inputs x [N, C, H, W] by name, nothing quantized; see :func:`evaluate`."""
    values = dict(x)
    for op in graph:
        if not isinstance(op, ir.Input):
            inputs = tuple(values[name] for name in op.inputs)
            values[op.name] = clip(evaluate(op, inputs, conv, slopes), clamp_of(op))
    return values


def summands(graph: Graph) -> frozenset[str]:
    """Convolutions whose output is read by an addition alone."""
    found: set[str] = set()
    for op in graph.convs:
        readers = graph.consumers(op.name)
        alone = len(readers) == 1 and op.name not in graph.outputs
        if (
            alone
            and isinstance(readers[0], ir.Add)
            and not readers[0].subtract
            and readers[0].inputs.count(op.name) == 1
        ):
            found.add(op.name)
    return frozenset(found)


def non_negative(graph: Graph) -> frozenset[str]:
    """Tensors that cannot be negative: behind a ReLU, and what pools, pads, joins only such."""
    found: set[str] = set()
    for op in graph:
        match op:
            case ir.Conv2d() | ir.Add() | ir.Mul() | ir.Clip() if op.clamp[0] is not None and op.clamp[0] >= 0:
                found.add(op.name)
            case ir.Conv2d() | ir.BatchNorm() | ir.Input():
                pass
            case ir.Activation():
                if functions.is_non_negative(op.function, of_non_negative=op.inputs[0] in found):
                    found.add(op.name)
            case ir.Add(subtract=True):
                pass
            case ir.Pad(value=value) if value < 0:
                pass
            case _ if all(name in found for name in op.inputs):
                found.add(op.name)
            case ir.Extremum(smallest=False) if any(name in found for name in op.inputs):
                found.add(op.name)
            case ir.Softmax():
                found.add(op.name)
            case _:
                pass
    return frozenset(found)


def moves_codes(op: FloatOp) -> bool:
    """The output holds the input's codes in other places: it has no bits of its own."""
    return isinstance(op, ir.Reshape | ir.Copy) or (isinstance(op, ir.Resample) and op.chooses)


def shares_codes(op: FloatOp) -> bool:
    """The operator only moves or selects codes: with equal bits its output keeps its input's scale."""
    return moves_codes(op) or isinstance(op, ir.MaxPool) or (isinstance(op, ir.Pad) and op.value == 0.0)


def fixed_at_eight(graph: Graph) -> frozenset[str]:
    """Tensors that keep 8 bits: inputs and outputs, normalized ones, inputs of softmax and argmax, aliases."""
    fixed = {*(op.name for op in graph.inputs), *graph.outputs}
    for op in reversed(graph.ops):
        if isinstance(op, ir.Softmax | ir.Argmax):
            fixed.update((op.name, *op.inputs))
        elif isinstance(op, ir.L2Normalize):
            fixed.add(op.name)
        elif op.name in fixed and moves_codes(op):
            fixed.update(op.inputs)
    return frozenset(fixed)


def last_uses(graph: Graph) -> tuple[tuple[str, ...], ...]:
    """By operator, in order: the tensors that nobody reads after it."""
    last = {name: op.name for op in graph for name in (op.name, *op.inputs)}
    return tuple(tuple(name for name, user in last.items() if user == op.name) for op in graph)


def most_values(graph: Graph) -> int:
    """Values of one image that are needed at the same time, when operators run in order."""
    held = most = 0
    for op, done in zip(graph, last_uses(graph), strict=True):
        held += math.prod(op.shape)
        most = max(most, held)
        held -= sum(math.prod(graph.op(name).shape) for name in done)
    return most
