"""The memory-driven rules of Rusci et al. (arXiv 1905.13082): cut activations until RAM fits, then weights.

Both procedures follow the authors' published code decision by decision, ties included, with two differences. Where
the code never returns on limits that activations cannot meet, an :class:`InfeasibleError` names layer, tensors and
missing bytes. And a layer with sub-byte weights or output always takes ICN: the code assigns fold types only
from the second evaluation of the flash size on, so that a network whose weights fit at once would keep folded
batch norms under 4-bit activations, which the paper itself shows to fail. ``original_fold_types`` restores that.

A graph that is no chain is cut as if the layers followed each other, as the original does; operators without
weights store their result with the bits of the layer before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mcuq.errors import InfeasibleError, UsageError
from mcuq.ir.graph import Argmax, Conv2d, Graph, Input, Softmax
from mcuq.ir.plans import BitPlan, Limits, Sensitivity, TensorBits
from mcuq.plan.paper import Choice, FoldType, PaperLayer, QuantType, flash_bits, paper_layers, ram_bits

Scheme = Literal["MixPL", "MixPC"]
MIN_BITS = 2
DELTA = 0.05
"""Layers whose share of the weight bytes is within ``DELTA`` of the largest share count as equally large."""


@dataclass(frozen=True, slots=True)
class Cut:
    """One step of the weight rule: ``layer`` now has ``bits``."""

    layer: str
    bits: int


def mixed(
    graph: Graph,
    limits: Limits,
    scheme: Scheme,
    *,
    sensitivity: Sensitivity | None = None,
    delta: float = DELTA,
    original_fold_types: bool = False,
) -> BitPlan:
    """Bits of a fused ``graph`` by the paper's rules, in the paper's byte model.

    Args:
        sensitivity: table that ``objective`` is summed from (0 without one; the rules ignore it).
        original_fold_types: keep the published code's fold types (see above).

    Raises:
        InfeasibleError: the limits cannot be met; the text names layer or tensors and the missing bytes.
        UsageError: the graph has no layers with weights, or ``scheme`` is unknown.
    """
    if scheme not in ("MixPL", "MixPC"):
        raise UsageError(f"unknown rule {scheme!r}; use MixPL or MixPC")
    layers = paper_layers(graph)
    if not layers:
        raise UsageError("the rules need at least one convolution or linear layer; this network has none")
    outputs = cut_activations(layers, limits.ram)
    choices, _ = cut_weights(
        layers, outputs, limits.flash, scheme, delta=delta, original_fold_types=original_fold_types
    )
    return rule_plan(graph, limits, scheme, choices, sensitivity)


def cut_activations(layers: Sequence[PaperLayer], ram: int) -> tuple[int, ...]:
    """Output bits of every layer (Algorithm 1): alternate forward and backward sweeps until all layers fit.

    A forward sweep halves outputs, a backward sweep inputs; what a layer has to halve is the tensor of more bits,
    and of equal bits the larger one (the output on a tie). The network's input and last output stay at 8 bits.

    Raises:
        InfeasibleError: a layer does not fit with both tensors at their fewest bits.
    """
    bits = [8] * (len(layers) + 1)  # bits[i]: input of layer i, output of layer i - 1
    forward, settled = True, False
    while True:
        for i in range(len(layers)) if forward else reversed(range(len(layers))):
            deferred = False
            while ram_bits(layers[i], bits[i], bits[i + 1]) > 8 * ram and not deferred:
                target = _tensor_to_cut(layers, bits, i, ram)
                if (target == i + 1) == forward:
                    bits[target] //= 2
                else:
                    deferred = True
            settled = settled and not deferred
        if settled:
            return tuple(bits[1:])
        forward, settled = not forward, True


def _tensor_to_cut(layers: Sequence[PaperLayer], bits: list[int], i: int, ram: int) -> int:
    """Index into ``bits`` of the tensor that layer ``i`` has to halve."""
    source, result = bits[i], bits[i + 1]
    free_in, free_out = i > 0 and source > MIN_BITS, i < len(layers) - 1 and result > MIN_BITS
    if i == 0 or i == len(layers) - 1:
        possible, target = (free_out, 1) if i == 0 else (free_in, i)
    else:
        possible = free_in or free_out
        larger_input = layers[i].inputs * source > layers[i].outputs * result
        target = i if source > result or (source == result and larger_input) else i + 1
    if possible:
        return target
    missing = -(-ram_bits(layers[i], source, result) // 8) - ram
    raise InfeasibleError(
        f"layer {layers[i].name} does not fit {ram} bytes of RAM: its input ({source} bits) and output "
        f"({result} bits) need {missing} bytes more, and the rule cannot cut them further; "
        "raise the RAM limit, or use a smaller width or resolution"
    )


def cut_weights(
    layers: tuple[PaperLayer, ...],
    outputs: Sequence[int],
    flash: int,
    scheme: Scheme,
    *,
    delta: float = DELTA,
    original_fold_types: bool = False,
) -> tuple[list[Choice], tuple[Cut, ...]]:
    """Weight bits and types of every layer (Algorithm 2), and the cuts in the order they were made.

    While flash does not fit: among the layers that still have more than 2 bits and whose share of all weight
    bytes exceeds the largest such share less ``delta``, halve the one nearest the input.

    Raises:
        InfeasibleError: all weights are at 2 bits and flash still does not fit.
    """
    quant: QuantType = "PerLayerAsymPACT" if scheme == "MixPL" else "PerChannelsAsymMinMax"
    fold: FoldType = "folding_weights" if scheme == "MixPL" else "ICN"
    inputs = (8, *outputs[:-1])
    choices = [Choice(8, x, y, quant, fold) for x, y in zip(inputs, outputs, strict=True)]
    if not original_fold_types:
        choices = _with_icn(choices)
    cuts: list[Cut] = []
    while (size := flash_bits(layers, choices)) > 8 * flash:
        k = _layer_to_cut(layers, choices, delta)
        if k is None:
            raise InfeasibleError(_flash_text(layers, -(-size // 8), flash))
        choices[k] = replace(choices[k], weight=choices[k].weight // 2)
        cuts.append(Cut(layers[k].name, choices[k].weight))
        choices = _with_icn(choices)
    return choices, tuple(cuts)


def _layer_to_cut(layers: Sequence[PaperLayer], choices: Sequence[Choice], delta: float) -> int | None:
    sizes = [layer.weights * choice.weight for layer, choice in zip(layers, choices, strict=True)]
    total = sum(sizes)
    shares = {k: size / total for k, size in enumerate(sizes) if choices[k].weight > MIN_BITS}
    if not shares:
        return None
    largest = max(shares.values())
    return next(k for k, share in shares.items() if share > largest - delta or share == largest)


def _with_icn(choices: list[Choice]) -> list[Choice]:
    return [replace(c, fold="ICN") if c.weight < 8 or c.output < 8 else c for c in choices]


def _flash_text(layers: Sequence[PaperLayer], size: int, flash: int) -> str:
    largest = sorted(layers, key=lambda layer: -layer.weights)[:3]
    names = ", ".join(f"{layer.name} ({layer.weights * MIN_BITS // 8} bytes)" for layer in largest)
    return (
        f"weights do not fit {flash} bytes of flash: with every layer at 2 bits they need {size} bytes, "
        f"{size - flash} too many; the largest are {names}; raise the flash limit or use a smaller width"
    )


def rule_plan(
    graph: Graph, limits: Limits, method: str, choices: Sequence[Choice], sensitivity: Sensitivity | None = None
) -> BitPlan:
    """A :class:`BitPlan` of per-layer ``choices`` in the paper's byte model (rules and uniform settings)."""
    layers = paper_layers(graph)
    tensors = _tensors(graph, layers, choices)
    objective = plan_loss(tensors, sensitivity) if sensitivity else 0.0
    ram = max(ram_bits(layer, c.input, c.output) for layer, c in zip(layers, choices, strict=True))
    return BitPlan(
        tensors=tensors,
        status="FEASIBLE",
        objective=objective,
        bound=0.0,
        flash_used=-(-flash_bits(layers, list(choices)) // 8),
        ram_used=-(-ram // 8),
        limits=limits,
        method=method,
        order=tuple(op.name for op in graph),
        quant_types=tuple((layer.name, c.quant) for layer, c in zip(layers, choices, strict=True)),
        fold_types=tuple((layer.name, c.fold) for layer, c in zip(layers, choices, strict=True)),
    )


def _tensors(graph: Graph, layers: Sequence[PaperLayer], choices: Sequence[Choice]) -> tuple[TensorBits, ...]:
    """Weights and activations in execution order; what has no weights keeps the bits of the layer before it."""
    by_name = {layer.name: (layer, choice) for layer, choice in zip(layers, choices, strict=True)}
    found: list[TensorBits] = []
    current = 8
    for op in graph:
        bits = current
        match op:
            case Conv2d():
                layer, choice = by_name[op.name]
                size = -(-layer.weights * choice.weight // 8)
                found.append(TensorBits(f"{op.name}.weight", op.name, "weight", choice.weight, size))
                bits = current = choice.output
            case Input() | Softmax():
                bits = 8
            case Argmax():
                bits = 32
            case _:
                pass
        height, width, channels = op.shape
        found.append(TensorBits(op.name, op.name, "activation", bits, -(-height * width * channels * bits // 8)))
    return tuple(found)


def plan_loss(tensors: Sequence[TensorBits], sensitivity: Sensitivity) -> float:
    """Expected loss of a plan: the table's entries of its tensors (a tensor the table lacks counts nothing)."""
    table = {(e.layer, e.kind, e.bits): e.loss for e in sensitivity.losses}
    return sum(table.get((t.layer, t.kind, t.bits), 0.0) for t in tensors)
