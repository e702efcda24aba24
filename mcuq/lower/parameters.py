"""Quantization parameters as lowering takes them: checked, and turned into codes and rescalings."""

from __future__ import annotations

import math

import numpy as np

from mcuq.errors import ModelError
from mcuq.ir.graph import Clamp, Conv2d, FloatArray, Shape
from mcuq.ir.integer import QTensor
from mcuq.ir.quantized import QuantParams, WeightQuant
from mcuq.numerics import Affine, IntArray, affine, code_range, weight_range


def tensor_of(shape: Shape, params: QuantParams) -> QTensor:
    """A stored tensor of ``shape`` with ``params``."""
    return QTensor(shape, params.bits, params.scale, params.zero_point)


def checked(name: str, params: QuantParams) -> QuantParams:
    """``params`` of tensor ``name``. Raises ModelError when bits, scale or zero point cannot be stored."""
    if params.bits not in (8, 4, 2, 32):
        raise ModelError(f"{name}: activations of {params.bits} bits; 8, 4 and 2 are allowed")
    if not (math.isfinite(params.scale) and params.scale > 0):
        raise ModelError(f"{name}: scale {params.scale}; it must be finite and above 0")
    lo, hi = code_range(params.bits)
    if not lo <= params.zero_point <= hi:
        raise ModelError(f"{name}: zero point {params.zero_point} is outside {lo}..{hi}")
    first, last = params.codes or (lo, hi)
    if not lo <= first <= params.zero_point <= last <= hi:
        raise ModelError(f"{name}: codes {first}..{last} have to lie in {lo}..{hi} and hold {params.zero_point}, zero")
    return params


def clamp_codes(clamp: Clamp, output: QTensor, used: tuple[int, int] | None = None) -> tuple[int, int]:
    """The code range (only the ``used`` codes when given), narrowed by the codes of a real clamp."""
    lo, hi = code_range(output.bits) if used is None or output.bits == 32 else used

    def code(bound: float) -> int:
        real = min(max(bound / output.scale + output.zero_point, lo - 1.0), hi + 1.0)
        return min(max(math.floor(real + 0.5), lo), hi)

    low, high = clamp
    return lo if low is None else code(low), hi if high is None else code(high)


def rescaling(name: str, sources: tuple[QTensor, ...], output: QTensor, signs: tuple[int, ...] = (1, 1)) -> Affine:
    """Integer parameters that bring ``sources`` to the output's grid, each times its sign. Raises ModelError."""
    for source in sources:
        if source.bits == 32:
            raise ModelError(f"{name}: reads a 32-bit tensor; only argmax and reshape can")
    try:
        return affine(
            tuple(sign * s.scale for sign, s in zip(signs, sources, strict=False)),
            tuple(s.zero_point for s in sources),
            tuple(s.bits for s in sources),
            output.scale,
            output.zero_point,
        )
    except ValueError as error:
        raise ModelError(f"{name}: {error}") from error


def weight_codes(op: Conv2d, weights: WeightQuant) -> tuple[IntArray, IntArray]:
    """(codes int64 [O, kh, kw, I/groups], zero points int64 [O]), checked against the layer and the bits."""
    if weights.bits not in (8, 4, 2):
        raise ModelError(f"{op.name}: weights of {weights.bits} bits; 8, 4 and 2 are allowed")
    if weights.codes.shape != op.weight.shape:
        raise ModelError(f"{op.name}: weight codes {weights.codes.shape}, the layer's weights are {op.weight.shape}")
    lo, hi = weight_range(weights.bits)
    codes = weights.codes.astype(np.int64)
    zero_point = per_channel(op.name, "weight zero point", weights.zero_point, len(codes)).astype(np.int64)
    for what, values in (("codes", codes), ("zero points", zero_point)):
        if values.size and (values.min() < lo or values.max() > hi):
            found = f"{values.min()}..{values.max()}"
            raise ModelError(f"{op.name}: weight {what} {found} are outside {lo}..{hi} ({weights.bits} bits)")
    return codes, zero_point


def per_channel(name: str, what: str, values: object, channels: int) -> FloatArray:
    """``values`` ([1] or [channels]) as float64 [channels]. Raises ModelError for any other count."""
    array = np.asarray(values, dtype=np.float64).reshape(-1)
    if array.size not in (1, channels):
        raise ModelError(f"{name}: {array.size} entries of {what} for {channels} output channels; 1 or {channels}")
    return np.broadcast_to(array, (channels,))
