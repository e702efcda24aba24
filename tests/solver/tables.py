"""Sensitivity tables for solver tests: no data, no weights, only a plausible shape."""

from __future__ import annotations

import random

from mcuq.ir.graph import Conv2d, Graph
from mcuq.ir.plans import Sensitivity, TensorLoss


def synthetic(graph: Graph, seed: int = 0) -> Sensitivity:
    """Quantization noise 4^-bits times a random gain per tensor over two decades, larger near the input."""
    rng = random.Random(seed)
    losses: list[TensorLoss] = []
    for depth, op in enumerate(graph):
        kinds = ("weight", "activation") if isinstance(op, Conv2d) else ("activation",)
        for kind in kinds:
            gain = 10 ** rng.uniform(-1, 1) * (1 + 4 / (1 + depth))
            losses += [TensorLoss(op.name, kind, bits, gain * 4.0**-bits) for bits in (8, 4, 2)]
    return Sensitivity("synthetic", tuple(losses))
