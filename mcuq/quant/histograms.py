"""Histograms of weights in units of the quantization step, before training, after it, and quantized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcuq.quant.quant_op import QuantOp

FINE_BITS = 4
"""Up to these bits a step is divided into bins, above it a bin takes several steps."""
BINS_PER_STEP = 8
STEPS_PER_BIN = 8


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """One layer: ``before`` and ``after`` count real weights per bin of ``edges``, ``counts`` weights per code.

    ``levels``: codes that the quantizer can tell apart.
    """

    bits: int
    levels: int
    edges: NDArray[np.float64]
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    codes: NDArray[np.int64]
    counts: NDArray[np.int64]


def real_weights(op: QuantOp) -> dict[str, Tensor]:
    """Copies of all real weights, to compare with later."""
    return {name: layer.real_weight().clone() for name, layer in op.layers.items()}


def weight_histograms(op: QuantOp, before: dict[str, Tensor]) -> dict[str, Histogram]:
    """By layer, in steps of the present quantizers, as stored; codes are relative to the zero point."""
    found: dict[str, Histogram] = {}
    for name, layer in op.layers.items():
        quantizer = layer.quantizer
        stored, scale, zero = quantizer.export(layer.effective(layer.real_weight()))
        codes = quantizer.rows(stored.long()) - zero.unsqueeze(1)
        seen = [quantizer.real(layer.effective(w)) for w in (before[name], layer.real_weight())]
        steps = [quantizer.rows(w) / scale.to(w).unsqueeze(1) for w in seen]
        used, counts = np.unique(codes.cpu().numpy(), return_counts=True)
        edges = _edges(int(used[0]), int(used[-1]), quantizer.bits)
        first, second = (_counts(values, edges) for values in steps)
        found[name] = Histogram(
            quantizer.bits, quantizer.levels + 1, edges, first, second, used, counts.astype(np.int64)
        )
    return found


def _edges(low: int, high: int, bits: int) -> NDArray[np.float64]:
    if bits <= FINE_BITS:
        return np.linspace(low - 1.5, high + 1.5, (high - low + 3) * BINS_PER_STEP + 1)
    return low - 0.5 + STEPS_PER_BIN * np.arange(-(-(high - low + 1) // STEPS_PER_BIN) + 1, dtype=np.float64)


def _counts(values: Tensor, edges: NDArray[np.float64]) -> NDArray[np.int64]:
    flat: Any = torch.nan_to_num(values.detach().double().reshape(-1)).cpu().numpy()
    return np.histogram(np.clip(flat, edges[0], edges[-1]), edges)[0].astype(np.int64)
