"""Sensitivities from the loss itself: Hessian traces (HAWQ-V2) and the increase that one quantized tensor causes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from mcuq.errors import DataError
from mcuq.ir.graph import Graph
from mcuq.ir.plans import Sensitivity
from mcuq.quant.float_model import FloatModel, batches
from mcuq.quant.sensitivity import Key, Swaps, table

PROBES = 2
"""Random vectors of the trace estimate per batch."""


def hessian(
    graph: Graph, x: NDArray[Any], *, per_layer: Collection[str] = (), seed: int = 0, batch_size: int = 64
) -> Sensitivity:
    """Half the mean Hessian eigenvalue of each tensor times its squared quantization error (Dong et al., NeurIPS 2020).

    The trace comes from Hutchinson's estimate: E[v^T H v] over vectors v of random signs, H the Hessian of the
    cross-entropy of the network's own classes with respect to one tensor. Negative estimates count as 0.

    Args and errors as :func:`mcuq.quant.sensitivity.kl`; ``seed`` draws the vectors. Batch normalization is folded.
    """
    model = FloatModel(graph)
    swaps = Swaps(model, x, batch_size, per_layer)
    generator = torch.Generator().manual_seed(seed)
    traces: dict[tuple[str, str], float] = {}
    errors = dict.fromkeys(swaps.keys, 0.0)
    for batch in batches(x, batch_size):
        for weight in model.weights.values():
            weight.requires_grad_(True)
        values = model.run(model.inputs(batch, grad=True))
        scores = values[model.scores()].flatten(1)
        loss = cross_entropy(scores, scores.detach().argmax(1), reduction="sum")
        named = _tensors(model, values, swaps.keys)
        grads: tuple[Tensor | None, ...] = torch.autograd.grad(
            loss, list(named.values()), create_graph=True, allow_unused=True
        )
        for (key, tensor), grad in zip(named.items(), grads, strict=True):
            traces[key] = traces.get(key, 0.0) + _trace(tensor, grad, generator)
        for weight in model.weights.values():
            weight.requires_grad_(False)
        with torch.no_grad():
            for key in swaps.keys:
                if key[1] == "activation":
                    real = values[key[0]].detach()
                    errors[key] += float((swaps.quantized(key, {key[0]: real}) - real).double().square().sum())
    return table("hessian", {key: _expected(key, model, swaps, traces, errors[key], len(x)) for key in swaps.keys})


def _tensors(model: FloatModel, values: dict[str, Tensor], keys: tuple[Key, ...]) -> dict[tuple[str, str], Tensor]:
    found = {(name, kind): model.weights[name] if kind == "weight" else values[name] for name, kind, _ in keys}
    return {key: tensor for key, tensor in found.items() if tensor.requires_grad}


def _trace(tensor: Tensor, grad: Tensor | None, generator: torch.Generator) -> float:
    """Hutchinson's estimate of the trace of the Hessian with respect to ``tensor``."""
    if grad is None or not grad.requires_grad:
        return 0.0
    total = 0.0
    for _ in range(PROBES):
        signs = torch.randint(0, 2, tensor.shape, generator=generator).to(tensor) * 2 - 1
        (product,) = torch.autograd.grad(
            (grad * signs).sum(), [tensor], retain_graph=True, allow_unused=True, materialize_grads=True
        )
        total += float((product * signs).double().sum())
    return total / PROBES


def _expected(
    key: Key,
    model: FloatModel,
    swaps: Swaps,
    traces: dict[tuple[str, str], float],
    error: float,
    images: int,
) -> float:
    """Loss per image: half the mean eigenvalue times the squared error."""
    name, kind, _ = key
    trace = max(traces.get((name, kind), 0.0), 0.0) / images
    if kind == "weight":
        weight = model.weights[name]
        error = float((swaps.quantized(key, {}) - weight).double().square().sum())
        return 0.5 * trace / weight.numel() * error
    elements = max(1, int(torch.tensor(model.graph.op(name).shape).prod()))
    return 0.5 * trace / elements * error / images


def loss_increase(
    graph: Graph, x: NDArray[Any], labels: NDArray[Any], *, per_layer: Collection[str] = (), batch_size: int = 128
) -> Sensitivity:
    """Mean rise of the cross-entropy of ``labels`` when one tensor is quantized; falls count as 0.

    Args and errors as :func:`mcuq.quant.sensitivity.kl`; DataError when a label is missing (negative).
    """
    if len(labels) != len(x) or (len(labels) and int(labels.min()) < 0):
        raise DataError("the loss increase needs a label for every image; use --sensitivity kl without labels")
    model = FloatModel(graph)
    swaps = Swaps(model, x, batch_size, per_layer)
    scores, totals = model.scores(), dict.fromkeys(swaps.keys, 0.0)
    with torch.no_grad():
        for start in range(0, len(x), batch_size):
            wanted = torch.as_tensor(labels[start : start + batch_size], dtype=torch.long)
            values = model.run(model.inputs(x[start : start + batch_size]))
            before = float(cross_entropy(values[scores].flatten(1).double(), wanted, reduction="sum"))
            for key in totals:
                changed = swaps.apply(key, values)[scores].flatten(1).double()
                totals[key] += float(cross_entropy(changed, wanted, reduction="sum")) - before
    return table("loss", {key: max(total, 0.0) / len(x) for key, total in totals.items()})
