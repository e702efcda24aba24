"""A float graph together with the decisions of quantization: the value between training and lowering.

The trained (or calibrated) network hands over integer weight codes and activation parameters, so that
lowering decides nothing about values and the simulation and the device share every code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcuq.ir.graph import FloatArray, Graph


@dataclass(frozen=True, slots=True)
class QuantParams:
    """Quantization of one activation tensor: bits 8 (int8), 4 or 2 (unsigned) or 32; ``scale`` > 0.

    ``codes``: lowest and highest code in use; None is all that the bits hold.
    """

    bits: int
    scale: float
    zero_point: int
    codes: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class WeightQuant:
    """Integer weights of one Conv2d and the real affine map after it.

    ``y = gain * conv(x, scale * (codes - zero_point)) + bias`` with ``gain`` = 1 for folded batch norm and
    gamma/sigma for ICN (Rusci et al., arXiv 1905.13082, section 4).

    Attributes:
        codes: int8 [O, kh, kw, I/groups]; scale: [O] or [1]; zero_point: int [O] or [1];
        gain, bias: [O]; scaling: form of the requantization factors, see ``mcuq.ir.scaling``;
        roundings: of the layer's accumulators, see ``mcuq.ir.integer.QConv2d``.
    """

    layer: str
    codes: NDArray[np.int8]
    bits: int
    scale: FloatArray
    zero_point: NDArray[Any]
    gain: FloatArray
    bias: FloatArray
    scaling: str = "exact"
    roundings: int = 1


@dataclass(frozen=True, slots=True)
class ActivationQuant:
    tensor: str
    params: QuantParams


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedGraph:
    """``graph`` is fused; one :class:`WeightQuant` per Conv2d, one :class:`ActivationQuant` per tensor."""

    graph: Graph
    weights: tuple[WeightQuant, ...]
    activations: tuple[ActivationQuant, ...]

    def weight(self, layer: str) -> WeightQuant:
        return next(w for w in self.weights if w.layer == layer)

    def params(self, tensor: str) -> QuantParams:
        return next(a.params for a in self.activations if a.tensor == tensor)
