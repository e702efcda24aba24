"""Precision per layer: widths with thresholds or fractional bits, as CHaiDNN's ``precision_param`` blocks have them.

``threshold``: the largest code stands for the threshold, scale = th / (2^(bw-1) - 1), symmetric; weights have one
threshold per output channel. ``fixed``: fl fractional bits, scale = 2^-fl, one fl for a layer's weights. What a
block leaves out is calibrated (activations) or the largest magnitude (weights). Files: ``precision_file``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mcuq.errors import UsageError
from mcuq.ir.graph import (
    NO_CLAMP,
    Add,
    Argmax,
    Clip,
    Concat,
    Conv2d,
    Copy,
    FloatOp,
    Graph,
    Input,
    L2Normalize,
    Reshape,
    Softmax,
)
from mcuq.ir.quantized import QuantizedGraph, QuantParams
from mcuq.quant.widths import symmetric_params, width_of

Mode = Literal["threshold", "fixed"]
_WITHOUT = Softmax | Argmax | Reshape | Copy | L2Normalize
GRID = ".grid"
"""Behind a layer's name: the copy of its output on the grid that its block asks for."""


@dataclass(frozen=True, slots=True)
class LayerPrecision:
    """Block of one layer. Ranges are thresholds or fractional bits; None: not given.

    Attributes:
        bw_*: bits. layer_in, layer_out: range of the activation read and written. params: of the weights, one
            per output channel (threshold) or one in all (fixed). norm: fields of a batch norm kept as fixed point
            (``fixed_norm.NORM_FIELDS``).
    """

    layer: str
    bw_layer_in: int | None = None
    layer_in: float | None = None
    bw_layer_out: int | None = None
    layer_out: float | None = None
    bw_params: int | None = None
    params: tuple[float, ...] | None = None
    norm: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Precision:
    """Precision of a network, one block per layer that is mentioned."""

    mode: Mode
    layers: tuple[LayerPrecision, ...]

    def block(self, layer: str) -> LayerPrecision:
        """The block of ``layer``; an empty one when it is not mentioned."""
        return next((block for block in self.layers if block.layer == layer), LayerPrecision(layer))

    def activation(self, layer: str, bits: int) -> QuantParams | None:
        """Parameters of the tensor that ``layer`` writes, or None when its range is left open."""
        block = self.block(layer)
        if block.layer_out is None:
            return None
        bits = block.bw_layer_out or bits
        zero = 0 if bits in (8, 6) else 1 << (bits - 1)
        return symmetric_params(bits, self._scale(block.layer_out, bits), zero)

    def weight_scales(self, layer: str, channels: int, bits: int) -> NDArray[np.float64] | None:
        """Scale per output channel [O], or None when the block leaves it open.

        Raises:
            UsageError: neither one threshold nor one per channel.
        """
        given = self.block(layer).params
        if given is None:
            return None
        if len(given) not in (1, channels):
            raise UsageError(f"{layer} has {channels} output channels, its precision block {len(given)} thresholds")
        return np.broadcast_to([self._scale(value, bits) for value in given], (channels,)).astype(np.float64)

    def _scale(self, value: float, bits: int) -> float:
        return value / ((1 << (bits - 1)) - 1) if self.mode == "threshold" else 2.0**-value

    def warnings(self, graph: Graph) -> tuple[str, ...]:
        """What in this file has no effect on ``graph`` (fused), or contradicts itself; one sentence each."""
        names = {op.name: op for op in graph}
        found: list[str] = []
        for block in self.layers:
            op = names.get(block.layer)
            if op is None:
                found.append(f"{block.layer}: the network has no such layer; its precision is not used")
            else:
                found += self._warnings(block, op)
        return tuple(found)

    def _warnings(self, block: LayerPrecision, op: FloatOp) -> list[str]:
        found: list[str] = []
        if isinstance(op, _WITHOUT):
            found.append(f"{block.layer}: a {type(op).__name__} has no precision of its own; it is not used")
        if block.params is not None and not isinstance(op, Conv2d):
            found.append(f"{block.layer}: only convolutions and linear layers have parameters; they are not used")
        if block.norm and not (isinstance(op, Conv2d) and op.norm is not None):
            found.append(f"{block.layer}: it has no batch norm; {', '.join(name for name, _ in block.norm)} not used")
        written = {name: self.block(name).layer_out for name in op.inputs}
        for name, out in written.items():
            if None not in (block.layer_in, out) and block.layer_in != out:
                found.append(
                    f"{block.layer} reads {name} with range {block.layer_in}, but it is written with {out}: "
                    "a drop in accuracy may be observed; the writer's is used"
                )
        different = {out for out in written.values() if out is not None}
        if isinstance(op, Add | Concat) and len(different) > 1:
            ranges = ", ".join(f"{name} {out}" for name, out in written.items())
            found.append(
                f"{block.layer}: its inputs have different ranges ({ranges}); accelerators without a rescaling need "
                "equal ones, mcuq rescales them"
            )
        return found


def uniform(graph: Graph, mode: Mode, bits: tuple[int, int, int], fl: tuple[int, int, int] | None = None) -> Precision:
    """The same widths everywhere: ``bits`` = (network's input, params, layer outputs), ``fl`` likewise or calibrated.

    The network's input has the first, every layer's output the third.
    """
    blocks: list[LayerPrecision] = []
    inputs = {op.name for op in graph.inputs}
    into, params, out = (None, None, None) if fl is None else (float(value) for value in fl)
    for op in graph:
        if not op.inputs:
            blocks.append(LayerPrecision(op.name, bw_layer_out=bits[0], layer_out=into))
            continue
        first = op.inputs[0] in inputs
        block = LayerPrecision(op.name, bits[0] if first else bits[2], into if first else out, bits[2], out)
        if isinstance(op, Conv2d):
            block = replace(block, bw_params=bits[1], params=None if params is None else (params,))
        blocks.append(block)
    return Precision(mode, tuple(blocks))


def uniform_fixed(graph: Graph, fl: tuple[int, int, int], bits: int = 8) -> Precision:
    """Fixed point with the same fractional bits everywhere; see :func:`uniform`."""
    return uniform(graph, "fixed", (bits, bits, bits), fl)


def with_input_grid(graph: Graph, precision: Precision) -> tuple[Graph, Precision]:
    """``graph`` with a copy behind every input of pixels whose grid ``precision`` gives.

    Pixels have the grid of their normalization; the copy brings them to the block's. Nothing changes without a block.
    """
    copies: dict[str, Clip] = {}
    for source in graph.inputs:
        block = precision.block(source.name)
        if source.normalization is not None and not (block.layer_out is None and block.bw_layer_out in (None, 8)):
            copies[source.name] = Clip(
                name=source.name + GRID,
                inputs=(source.name,),
                shape=source.shape,
                clamp=NO_CLAMP,
                source=source.source,
            )
    if not copies:
        return graph, precision
    names = {name: copy.name for name, copy in copies.items()}
    body = (op for op in graph if not isinstance(op, Input))
    moved = (replace(op, inputs=tuple(names.get(i, i) for i in op.inputs)) for op in body)
    outputs = tuple(names.get(o, o) for o in graph.outputs)
    blocks = tuple(replace(b, layer=names.get(b.layer, b.layer)) for b in precision.layers)
    return Graph((*graph.inputs, *copies.values(), *moved), outputs), replace(precision, layers=blocks)


def precision_of(q: QuantizedGraph, mode: Mode, used: Precision | None = None) -> Precision:
    """The precision that ``q`` was quantized with (grids ``threshold`` or ``fixed``), for saving and editing.

    Args:
        used: what the calibration was given; 6-bit weights are told from 8-bit ones by it.
    """
    used = used or Precision(mode, ())
    copied = {op.name for op in q.graph} & {op.name + GRID for op in q.graph.inputs}
    blocks: list[LayerPrecision] = []
    for op in q.graph:
        if isinstance(op, _WITHOUT) or op.name in copied:
            continue
        out = q.params(op.name + GRID if op.name + GRID in copied else op.name)
        block = LayerPrecision(op.name, bw_layer_out=width_of(out), layer_out=_range(out.scale, width_of(out), mode))
        if op.inputs:
            into = q.params(op.inputs[0])
            width, equal = width_of(into), len({q.params(name) for name in op.inputs}) == 1
            block = replace(block, bw_layer_in=width, layer_in=_range(into.scale, width, mode) if equal else None)
        if isinstance(op, Conv2d):
            given = used.block(op.name)
            weight = q.weight(op.name)
            width = given.bw_params or weight.bits
            scales = weight.scale if mode == "threshold" else weight.scale[:1]
            params = tuple(_range(float(scale), width, mode) for scale in scales)
            block = replace(block, bw_params=width, params=params, norm=given.norm)
        blocks.append(block)
    return Precision(mode, tuple(blocks))


def _range(scale: float, bits: int, mode: Mode) -> float:
    return scale * ((1 << (bits - 1)) - 1) if mode == "threshold" else float(round(-math.log2(scale)))
