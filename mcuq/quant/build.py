"""From a captured module and choices to layers and quantizers: bits, overrides, which tensors share codes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
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
from mcuq.quant.layer import BatchNormTensors, LayerConfig, QuantLayer
from mcuq.quant.network import fixed_at_eight, non_negative, shares_codes

KEYS = ("layer", "w_bits", "a_bits", "quant_type", "fold_type")


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
            configs[name] = replace(
                config,
                w_bits=_planned(bits, name, "weight", config.w_bits),
                a_bits=_planned(bits, name, "activation", config.a_bits),
                quant_type=quant_types.get(name, config.quant_type),
                fold_type=fold_types.get(name, config.fold_type),
            )
    for override in overrides:
        unknown = sorted(set(override) - set(KEYS))
        if unknown or "layer" not in override:
            raise UsageError(f"a layer_config entry needs 'layer' and allows {', '.join(KEYS[1:])}; got {override}")
        name = _layer_name(names, override["layer"])
        changes = {key: value for key, value in override.items() if key != "layer"}
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
        UnsupportedError: two layers share one weight.
    """
    tensors: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    tensors.update(model.named_buffers(remove_duplicate=False))
    norms = {id(op.norm): op.name for op in captured.graph if isinstance(op, ir.BatchNorm)}
    users: dict[int, str] = {}
    result: dict[str, QuantLayer] = {}
    for op in graph.convs:
        names = captured.parameters[op.name]
        weight = tensors[names["weight"]] if "weight" in names else _constant(op)
        if id(weight) in users:
            raise UnsupportedError(
                f"layers {users[id(weight)]!r} and {op.name!r} share one weight; training with quantization "
                "needs a weight per layer: give each its own module (copy.deepcopy)"
            )
        users[id(weight)] = op.name
        norm = None
        if op.norm is not None:
            norm = BatchNormTensors(model, captured.parameters[norms[id(op.norm)]], op.norm.epsilon)
        config = configs[op.name]
        quantizer = weights.make(config.quant_type, config.w_bits, len(op.weight))
        bias = tensors[names["bias"]] if "bias" in names else None
        result[op.name] = QuantLayer(op, config, weight, bias, norm, quantizer)
    return result


def _constant(op: ir.Conv2d) -> Tensor:
    """Weights that are not the user's: the ones of a batch norm that stands alone."""
    return torch.from_numpy(op.weight.transpose(0, 3, 1, 2).copy()).float()


def activation_quantizers(
    graph: Graph, configs: dict[str, LayerConfig], act_bits: int, bits: BitPlan | None, act_type: str
) -> tuple[dict[str, str], dict[str, ActivationQuantizer]]:
    """(tensor -> tensor whose quantizer it shares, quantizer per owning tensor).

    Max pools, pads and reshapes share their input's codes when the bits agree. Softmax and argmax have none.
    """
    positive, fixed = non_negative(graph), fixed_at_eight(graph)
    width: dict[str, int] = {}
    owner: dict[str, str] = {}
    quantizers: dict[str, ActivationQuantizer] = {}
    for op in graph:
        if isinstance(op, ir.Softmax | ir.Argmax):
            continue
        wanted = 8 if op.name in fixed else _activation_bits(graph, op, configs, act_bits, bits, width)
        width[op.name] = wanted
        if shares_codes(op) and wanted == width[op.inputs[0]]:
            owner[op.name] = owner[op.inputs[0]]
            continue
        owner[op.name] = op.name
        quantizers[op.name] = _quantizer(graph, op, wanted, act_type, positive)
    return owner, quantizers


def _activation_bits(
    graph: Graph,
    op: ir.FloatOp,
    configs: dict[str, LayerConfig],
    act_bits: int,
    bits: BitPlan | None,
    width: dict[str, int],
) -> int:
    if op.name in configs:
        return configs[op.name].a_bits
    inherited = width[op.inputs[0]] if shares_codes(op) else act_bits
    return inherited if bits is None else _planned(bits, op.name, "activation", inherited)


def _quantizer(graph: Graph, op: ir.FloatOp, bits: int, act_type: str, positive: frozenset[str]) -> ActivationQuantizer:
    signed = op.name not in positive
    if isinstance(op, ir.Input):
        quantizer = ActivationQuantizer(8, signed=True)
        if op.normalization is not None:
            quantizer.set_range(op.normalization.scale, op.normalization.zero_point - 128)
        return quantizer
    ends = set(graph.outputs)
    ends.update(name for r in graph if isinstance(r, ir.Softmax | ir.Argmax) for name in r.inputs)
    if op.name in ends or any(shares_codes(r) and r.name in ends for r in graph.consumers(op.name)):
        return activations.Observed(bits, signed=signed)
    return activations.make(act_type, bits, signed=signed)
