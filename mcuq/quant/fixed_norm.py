"""Batch norms that stay behind their layer as fixed point, instead of being folded into its weights.

``y = (x - mean) * gamma_by_std + beta`` with ``gamma_by_std = gamma / sqrt(variance + epsilon)``; mean, gamma_by_std
and beta are numbers of ``bw`` bits of which ``fl`` are fractional. On the device the layer's multiplier and bias are
those of the rounded numbers: no operator is added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from mcuq.ir.graph import Conv2d, FloatArray

BITS = 16
"""Width of numbers for which the precision file says nothing."""
NORM_FIELDS = tuple(
    f"{name}_{what}"
    for name in ("batchnorm_mean", "batchnorm_variance", "scale_gamma", "scale_beta", "scale_gamma_by_std")
    for what in ("bw", "fl")
)
"""Fields of a precision block. ``scale_gamma_by_std`` is used; variance and gamma are inside it."""


def to_fixed(values: FloatArray, bits: int, fraction: int) -> FloatArray:
    """``values`` as numbers of ``bits`` bits, sign included, ``fraction`` of them fractional: half up, saturated."""
    top = 2.0 ** (bits - 1)
    return np.ldexp(np.clip(np.floor(np.ldexp(values, fraction) + 0.5), -top, top - 1), -fraction)


def widest_fraction(values: FloatArray, bits: int) -> int:
    """Most fractional bits with which no value saturates."""
    largest = float(np.abs(values).max(initial=0.0))
    return bits - 1 if largest == 0.0 else bits - 1 - math.ceil(math.log2(largest) + 1e-12)


def fixed_gain_bias(op: Conv2d, fields: Mapping[str, int]) -> tuple[FloatArray, FloatArray]:
    """(gain [O], bias [O]) of ``op``'s batch norm in fixed point, the convolution's own bias included.

    Args:
        fields: of :data:`NORM_FIELDS`; a width left out is 16 bits, a fraction the largest without saturation.
    """
    assert op.norm is not None
    gain, _ = op.norm.gain_bias()

    def fixed(name: str, values: FloatArray) -> FloatArray:
        bits = fields.get(f"{name}_bw", BITS)
        return to_fixed(values, bits, fields.get(f"{name}_fl", widest_fraction(values, bits)))

    gain = fixed("scale_gamma_by_std", gain)
    mean, beta = fixed("batchnorm_mean", op.norm.mean), fixed("scale_beta", op.norm.beta)
    bias = np.zeros(len(gain)) if op.bias is None else op.bias
    return gain, (bias - mean) * gain + beta
