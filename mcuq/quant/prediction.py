"""How well the sum of a sensitivity table predicts whole plans: true divergences, and their rank correlation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcuq.ir.graph import Graph
from mcuq.ir.plans import BitPlan, Sensitivity, TensorKind
from mcuq.quant.float_model import FloatModel, batches
from mcuq.quant.sensitivity import Swaps, measured_activations

Widths = Mapping[tuple[str, TensorKind], int]
"""Choices of tensors (``ir.plans.choice_of``) by (layer, kind); others stay in float."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted and true losses of random assignments; ``spearman`` is the correlation of their ranks."""

    predicted: tuple[float, ...]
    measured: tuple[float, ...]
    spearman: float


def divergences(graph: Graph, x: NDArray[Any], plans: Sequence[Widths], *, batch_size: int = 128) -> list[float]:
    """Mean Kullback-Leibler divergence (nats) of the scores with all tensors of a plan quantized at once.

    Args:
        graph: float graph. x: images [N, H, W, C], best ones that the table was not measured on.
    """
    model = FloatModel(graph)
    per_layer = {layer for plan in plans for (layer, _), choice in plan.items() if choice < 0}
    swaps, scores = Swaps(model, x, batch_size, per_layer), model.scores()
    known = set(swaps.keys)
    totals = [0.0] * len(plans)
    with torch.no_grad():
        for batch in batches(x, batch_size):
            inputs = model.inputs(batch)
            reference = torch.log_softmax(model.run(inputs)[scores].flatten(1).double(), 1)
            for k, plan in enumerate(plans):
                weights = {n: swaps.quantized((n, "weight", plan[n, "weight"]), {}) for n in model.weights}

                def stored(name: str, value: Tensor, plan: Widths = plan) -> Tensor:
                    bits = plan.get((name, "activation"), 32)
                    key = (name, "activation", bits)
                    return swaps.quantized(key, {name: value}) if key in known else value

                found = model.run(inputs, weights=weights, stored=stored)[scores]
                trial = torch.log_softmax(found.flatten(1).double(), 1)
                totals[k] += max(float((reference.exp() * (reference - trial)).sum()), 0.0)
    return [total / len(x) for total in totals]


def widths_of(plan: BitPlan) -> dict[tuple[str, TensorKind], int]:
    """The choices of a plan's tensors."""
    return {(t.layer, t.kind): t.choice for t in plan.tensors}


def check(graph: Graph, table: Sensitivity, x: NDArray[Any], plans: int, *, seed: int = 0) -> Prediction:
    """Hold the table's sums against the truth on ``plans`` random assignments of widths.

    Args:
        x: images as in :func:`divergences`. seed: draws the assignments.
    """
    model = FloatModel(graph)
    choices: dict[tuple[str, TensorKind], tuple[int, ...]] = {(n, "weight"): (8, 4, 2) for n in model.weights}
    choices |= {(n, "activation"): allowed for n, allowed in measured_activations(model.graph).items()}
    losses = {(e.layer, e.kind, e.bits): e.loss for e in table.losses}
    rng = np.random.default_rng(seed)
    drawn: list[dict[tuple[str, TensorKind], int]] = []
    for _ in range(plans):
        odds = rng.dirichlet(np.ones(3))  # from plans of mostly wide tensors to plans of mostly narrow ones
        drawn.append(
            {key: int(rng.choice(allowed, p=odds if len(allowed) == 3 else None)) for key, allowed in choices.items()}
        )
    predicted = [sum(losses.get((*key, bits), 0.0) for key, bits in plan.items()) for plan in drawn]
    measured = divergences(graph, x, drawn)
    return Prediction(tuple(predicted), tuple(measured), spearman(predicted, measured))


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Correlation of ranks, ties sharing their mean; 0 where one side is constant."""
    ranks = [_ranks(np.asarray(values, np.float64)) for values in (a, b)]
    first, second = (r - r.mean() for r in ranks)
    power = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / power if power > 0 else 0.0


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    order = np.argsort(values, kind="stable")
    ranks = np.empty(len(values))
    ranks[order] = np.arange(len(values))
    for value in np.unique(values):
        same = values == value
        ranks[same] = ranks[same].mean()
    return ranks
