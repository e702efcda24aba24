"""From a captured module and choices to layers and quantizers: bits, overrides, which tensors share codes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from mcuq.errors import UnsupportedError, UsageError
from mcuq.frontend.torch import Capture
from mcuq.ir import graph as ir
from mcuq.ir.graph import Graph
from mcuq.ir.plans import BitPlan
from mcuq.quant import activations, weights
from mcuq.quant.activations import ActivationQuantizer
from mcuq.quant.layer import BatchNormTensors, LayerConfig, QuantLayer, constant_norm
from mcuq.quant.network import fixed_at_eight, non_negative, shares_codes

KEYS = tuple(f.name for f in fields(LayerConfig))


def layer_configs(
    graph: Graph, default: LayerConfig, overrides: Iterable[dict[str, Any]], bits: BitPlan | None
) -> dict[str, LayerConfig]:
    """Choices per layer: ``default``, then the plan, then the overrides.

    Raises:
        UsageError: an override names an unknown layer or key.
    """
    names = [op.name for op in graph.convs]
    configs = {name: replace(default, layer=name) for name in names}
    if bits is not None:
        quant_types, fold_types = dict(bits.quant_types), dict(bits.fold_types)
        for name, config in configs.items():
            config = replace(
                config,
                w_bits=_planned(bits, name, "weight", config.w_bits),
                a_bits=_planned(bits, name, "activation", config.a_bits),
                w_range=None,
                a_range=None,
                quant_type=quant_types.get(name, config.quant_type),
                fold_type=fold_types.get(name, config.fold_type),
            )
            if bits.steps_per_layer(name):
                one = config.quant_type.replace("PerChannels", "PerLayer")
                config = replace(config, quant_type=one, fold_type="folding_weights")
            configs[name] = config
    for override in overrides:
        unknown = sorted(set(override) - set(KEYS))
        if unknown or "layer" not in override:
            raise UsageError(f"a layer_config entry needs 'layer' and allows {', '.join(KEYS[1:])}; got {override}")
        name = _layer_name(names, override["layer"])
        changes = {key: value for key, value in override.items() if key != "layer"}
        for part in ("w", "a"):  # bits given for a layer win over a range given for all
            if f"{part}_bits" in changes:
                changes.setdefault(f"{part}_range", None)
        configs[name] = replace(configs[name], **changes)
    return configs


def _layer_name(names: list[str], layer: Any) -> str:
    if isinstance(layer, int) and not isinstance(layer, bool) and 0 <= layer < len(names):
        return names[layer]
    if layer in names:
        return str(layer)
    raise UsageError(
        f"layer_config names layer {layer!r}; there are {len(names)}, 0 to {len(names) - 1}: {', '.join(names)}"
    )


def _planned(bits: BitPlan, layer: str, kind: str, default: int) -> int:
    for tensor in bits.tensors:
        if tensor.layer == layer and tensor.kind == kind:
            return tensor.bits
    return default


def layers(model: nn.Module, captured: Capture, graph: Graph, configs: dict[str, LayerConfig]) -> dict[str, QuantLayer]:
    """One :class:`QuantLayer` per convolution, on the user's own tensors.

    Raises:
        UnsupportedError: two layers share one weight, or forward computes weights.
    """
    if captured.computed:
        named = ", ".join(sorted(set(captured.computed.values())))
        raise UnsupportedError(
            f"layers {named}: their weights are computed in forward (weight "
            "or spectral normalization); training with quantization needs plain parameters. Call "
            "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight') on each first"
        )
    tensors: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    tensors.update(model.named_buffers(remove_duplicate=False))
    norms = {id(op.norm): op.name for op in captured.graph if isinstance(op, ir.BatchNorm)}
    users: dict[int, str] = {}
    result: dict[str, QuantLayer] = {}
    for op in graph.convs:
        names = captured.parameters.get(op.name, {})  # none of a selection
        stored = names.get("weight", names.get("iohw"))
        weight = _constant(op) if stored is None else tensors[stored]
        if id(weight) in users:
            raise UnsupportedError(
                f"layers {users[id(weight)]!r} and {op.name!r} share one weight; training with quantization "
                "needs a weight per layer: give each its own module (copy.deepcopy)"
            )
        users[id(weight)] = op.name
        norm = None
        if op.norm is not None:
            fields = captured.parameters.get(norms[id(op.norm)])
            norm = constant_norm(op.norm) if fields is None else BatchNormTensors(model, fields, op.norm.epsilon)
        config = configs[op.name]
        quantizer = weights.make(
            config.quant_type,
            config.w_bits,
            len(op.weight),
            steps=config.w_range,
            taps=math.prod(weight.shape[2:]),
            normed=norm is not None,
        )
        config = configs[op.name] = replace(config, w_bits=quantizer.bits)
        bias = tensors[names["bias"]] if "bias" in names else None
        result[op.name] = QuantLayer(op, config, weight, bias, norm, quantizer, transposed="iohw" in names)
    return result


def slopes(model: nn.Module, captured: Capture) -> dict[str, Tensor]:
    """The user's slopes [C] or [1] by PReLU."""
    tensors: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    tensors.update(model.named_buffers(remove_duplicate=False))
    found = {op.name: captured.parameters.get(op.name, {}) for op in captured.graph if isinstance(op, ir.Prelu)}
    return {name: tensors[names["slope"]] for name, names in found.items() if names}


def _constant(op: ir.Conv2d) -> Tensor:
    """Weights that are not the user's: the ones of a batch norm that stands alone."""
    return torch.from_numpy(op.weight.transpose(0, 3, 1, 2).copy()).float()


@dataclass(frozen=True, slots=True)
class Activations:
    """How tensors are quantized where no layer and no plan says otherwise.

    Attributes:
        bits, steps: of every tensor (``steps``: levels less one, decides the bits when given); kind: "LSQ" and so on;
        branches: tensors that only an addition reads have these bits too, else 8.
    """

    bits: int
    kind: str
    steps: int | None = None
    branches: bool = True


def activation_quantizers(
    graph: Graph, configs: dict[str, LayerConfig], default: Activations, bits: BitPlan | None
) -> tuple[dict[str, str], dict[str, ActivationQuantizer]]:
    """(tensor -> tensor whose quantizer it shares, quantizer per owning tensor).

    Max pools, pads and reshapes share their input's codes when the bits agree. Softmax and argmax have none.

    Raises:
        UsageError: unknown types, bits or ranges; thresholds for an output of 8 bits.
    """
    positive = non_negative(graph)
    wanted = {op.name: _wanted(graph, op, configs, default, bits) for op in graph}
    ends = fixed_at_eight(graph)
    if not default.branches:
        ends |= _branches(graph)
    chosen: dict[str, Activations] = {}
    made: dict[str, ActivationQuantizer] = {}
    owner: dict[str, str] = {}
    for op in graph:
        if isinstance(op, ir.Softmax | ir.Argmax):
            continue
        choice = wanted[op.name] or chosen[op.inputs[0]]
        if op.name in ends:
            choice = replace(choice, bits=8, steps=None)
        chosen[op.name] = choice
        quantizer = _quantizer(graph, op, choice, positive)
        if shares_codes(op):
            source = made[owner[op.inputs[0]]]
            if (source.bits, source.steps) == (quantizer.bits, quantizer.steps):
                owner[op.name] = owner[op.inputs[0]]
                continue
        owner[op.name], made[op.name] = op.name, quantizer
    _check_thresholds(configs, {name: made[owner[name]].bits for name in configs}, ends)
    return owner, made


def _wanted(
    graph: Graph, op: ir.FloatOp, configs: dict[str, LayerConfig], default: Activations, bits: BitPlan | None
) -> Activations | None:
    """The choice for the tensor of ``op``; None where it follows its input."""
    if op.name in configs:
        config = configs[op.name]
        return replace(default, bits=config.a_bits, kind=config.act_type, steps=config.a_range)
    planned = None if bits is None else _planned(bits, op.name, "activation", 0)
    if planned:
        return replace(default, bits=planned, steps=None)
    return None if shares_codes(op) else default


def _branches(graph: Graph) -> frozenset[str]:
    """Convolutions that nothing but additions read: the outputs of branches."""
    readers = {op.name: graph.consumers(op.name) for op in graph.convs}
    return frozenset(n for n, found in readers.items() if found and all(isinstance(r, ir.Add) for r in found))


def _check_thresholds(configs: dict[str, LayerConfig], width: dict[str, int], ends: frozenset[str]) -> None:
    """Thresholds need outputs of 2 or 4 bits; layers whose output always has 8 take ICN."""
    for name, config in configs.items():
        if config.fold_type != "folding_thresholds" or width[name] != 8:
            continue
        if name not in ends:
            raise UsageError(
                f"{name}: folding_thresholds is for outputs of 2 and 4 bits (2^bits thresholds per channel), this one "
                "has 8; give it fewer bits, or fold_type ICN or folding_weights"
            )
        configs[name] = replace(config, fold_type="ICN")


def _quantizer(graph: Graph, op: ir.FloatOp, choice: Activations, positive: frozenset[str]) -> ActivationQuantizer:
    signed = op.name not in positive
    if isinstance(op, ir.Input):
        quantizer = ActivationQuantizer(8, signed=True)
        if op.normalization is not None:
            quantizer.set_range(op.normalization.scale, op.normalization.zero_point - 128)
        return quantizer
    if isinstance(op, ir.L2Normalize):
        quantizer = ActivationQuantizer(8, signed=True)
        quantizer.set_range(1 / 128, 0)
        return quantizer
    ends = set(graph.outputs)
    ends.update(name for r in graph if isinstance(r, ir.Softmax | ir.Argmax) for name in r.inputs)
    if op.name in ends or any(shares_codes(r) and r.name in ends for r in graph.consumers(op.name)):
        return activations.Observed(choice.bits, signed=signed)
    kind = choice.kind
    if kind == "PACT-floor" and not isinstance(op, ir.Conv2d):
        kind = "PACT"  # no bias to hold the half step
    return activations.make(kind, choice.bits, signed=signed, steps=choice.steps)
