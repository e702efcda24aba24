"""Byte formulas of Rusci, Capotondi and Benini (arXiv 1905.13082) as their published code computes them.

Layers are the convolutions (linear layers included) in execution order, and the output of layer i is the input of
layer i + 1: a model for chains, batch 1. RAM is the largest sum of one layer's input and output; there is no
scratch, no live range of a skip connection, no code, and bytes are not rounded up per tensor. mcuq's own model
(``plan.problem``) has all of these; this one exists for the rules and for comparison on equal terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

from mcuq.ir.graph import Conv2d, Graph

QuantType = Literal["PerLayerAsymPACT", "PerChannelsAsymMinMax"]
FoldType = Literal["folding_weights", "ICN"]


@dataclass(frozen=True, slots=True)
class PaperLayer:
    """Element counts of one layer: input, output and weights; ``channels`` are output channels."""

    name: str
    inputs: int
    outputs: int
    weights: int
    channels: int


@dataclass(frozen=True, slots=True)
class Choice:
    """Bits of one layer's weights, input and output, and how its scales are kept."""

    weight: int
    input: int
    output: int
    quant: QuantType
    fold: FoldType


def paper_layers(graph: Graph) -> tuple[PaperLayer, ...]:
    """Layers of a fused graph, counted as the original's forward hooks do: the tensors of the layer itself."""
    return tuple(_layer(graph, op) for op in graph.convs)


def _layer(graph: Graph, op: Conv2d) -> PaperLayer:
    source = graph.op(op.inputs[0]).shape
    return PaperLayer(op.name, prod(source), prod(op.shape), op.weight.size, op.shape[2])


def ram_bits(layer: PaperLayer, input_bits: int, output_bits: int) -> int:
    """Input and output of one layer, in bits (bytes may be fractional)."""
    return layer.inputs * input_bits + layer.outputs * output_bits


def static_bytes(channels: int, quant: QuantType, fold: FoldType, *, last: bool) -> int:
    """Static parameters of one layer.

    Per layer, folded: int32 bias per channel and five int32. Per layer, ICN: int32 bias and multiplier and int8
    shift per channel, three int32. Per channel: one more byte per channel (weight zero point), two int32. The
    last layer keeps its own forms.
    """
    if quant == "PerChannelsAsymMinMax":
        return 7 * channels + 4 if last else 10 * channels + 8
    if last or fold == "folding_weights":
        return 4 * channels + 20
    return 9 * channels + 12


def flash_bits(layers: tuple[PaperLayer, ...], choices: list[Choice]) -> int:
    """Weights and static parameters of all layers, in bits."""
    total = 0
    for k, (layer, choice) in enumerate(zip(layers, choices, strict=True)):
        total += layer.weights * choice.weight
        total += 8 * static_bytes(layer.channels, choice.quant, choice.fold, last=k == len(layers) - 1)
    return total
