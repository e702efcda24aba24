"""Lowering of operators without weights: sums, products, tables, padding, resampling (equations: docs/NUMERICS.md)."""

from __future__ import annotations

import numpy as np

from mcuq.errors import ModelError
from mcuq.ir.functions import Function, real_values
from mcuq.ir.graph import Activation, Add, Blend, Extremum, Mul, Op, Pad, Prelu, Resample
from mcuq.ir.integer import IntegerOp, QAdd, QExtremum, QMul, QPad, QPrelu, QResample, QTable, QTensor
from mcuq.lower.parameters import rescaling
from mcuq.numerics import BLEND_BITS, INT32_MAX, Affine, IntArray, code_range, dequantize, quantize, quantize_multiplier

Sources = tuple[QTensor, ...]
Clamp = tuple[int, int]
"""Lowest and highest code to write."""


def lowered(
    op: Add | Mul | Extremum | Activation | Prelu | Pad, sources: Sources, output: QTensor, clamp: Clamp
) -> IntegerOp:
    """The integer operator of ``op``. Raises ModelError: 32-bit sources, or scales too far apart."""
    match op:
        case Add():
            return add(op, sources, output, clamp)
        case Mul():
            return mul(op, sources, output, clamp)
        case Extremum():
            return extremum(op, sources, output, clamp)
        case Activation():
            return activation(op, sources[0], output, clamp)
        case Prelu():
            return prelu(op, sources[0], output, clamp)
        case Pad():
            return pad(op, sources[0], output, clamp)


def add(op: Add, sources: Sources, output: QTensor, clamp: Clamp) -> QAdd:
    signs = (1, -1) if op.subtract else (1, 1)
    rescale = rescaling(op.name, sources, output, signs)
    return QAdd(name=op.name, inputs=op.inputs, output=output, affine=rescale, clamp=clamp)


def mul(op: Mul, sources: Sources, output: QTensor, clamp: Clamp) -> QMul:
    multiplier, shift = _factor(op, sources, sources[0].scale * sources[1].scale / output.scale)
    return QMul(name=op.name, inputs=op.inputs, output=output, multiplier=multiplier, shift=shift, clamp=clamp)


def extremum(op: Extremum, sources: Sources, output: QTensor, clamp: Clamp) -> QExtremum:
    rescales = tuple(rescaling(op.name, (source,), output) for source in sources)
    return QExtremum(
        name=op.name,
        inputs=op.inputs,
        output=output,
        affines=rescales,
        smallest=op.smallest,
        clamp=clamp,
    )


def activation(op: Activation, source: QTensor, output: QTensor, clamp: Clamp) -> QTable:
    _narrow(op, (source,))
    entries = np.clip(table(op.function, source, output), *clamp).astype(np.int8)
    return QTable(name=op.name, inputs=op.inputs, output=output, entries=entries)


def table(function: Function, source: QTensor, output: QTensor) -> IntArray:
    """Code of ``function`` for every code of ``source``."""
    lo, hi = code_range(source.bits)
    real = real_values(function, dequantize(np.arange(lo, hi + 1), source.scale, source.zero_point))
    bounded = np.clip(real, -1e9 * output.scale, 1e9 * output.scale)
    return quantize(bounded, output.scale, output.zero_point, output.bits)


def prelu(op: Prelu, source: QTensor, output: QTensor, clamp: Clamp) -> QPrelu:
    """One shift for all factors, the largest for which no product or sum leaves int32."""
    _narrow(op, (source,))
    ratios = np.append(op.slope, 1.0) * source.scale / output.scale
    distance = max(abs(code - source.zero_point) for code in code_range(source.bits))
    for shift in range(24, 0, -1):
        factors = np.floor(np.ldexp(ratios, shift) + 0.5)
        constant = (output.zero_point << shift) + (1 << (shift - 1))
        if abs(constant) + np.abs(factors).max() * distance <= INT32_MAX:
            break
    else:
        raise ModelError(f"{op.name}: slopes up to {np.abs(op.slope).max():g} are too large to rescale in int32")
    return QPrelu(
        name=op.name,
        inputs=op.inputs,
        output=output,
        affine=Affine((int(factors[-1]),), constant, shift),
        multiplier=factors[:-1].astype(np.int32),
        clamp=clamp,
    )


def pad(op: Pad, source: QTensor, output: QTensor, clamp: Clamp) -> QPad:
    border = int(quantize(np.array(op.value), output.scale, output.zero_point, output.bits))
    return QPad(
        name=op.name,
        inputs=op.inputs,
        output=output,
        padding=op.padding,
        border=min(max(border, clamp[0]), clamp[1]),
        affine=rescaling(op.name, (source,), output),
        clamp=clamp,
    )


def resample(op: Resample, inputs: tuple[str, ...], source: QTensor, output: QTensor, clamp: Clamp) -> QResample:
    """``inputs``: the tensor read, rescaled before it is chosen from where parameters differ."""
    multiplier, shift = _factor(op, (source,), source.scale / output.scale / (1 << 2 * BLEND_BITS))
    return QResample(
        name=op.name,
        inputs=inputs,
        output=output,
        row=np.asarray(op.rows.first, dtype=np.uint16),
        column=np.asarray(op.columns.first, dtype=np.uint16),
        row_weight=_weights(op.rows),
        column_weight=_weights(op.columns),
        multiplier=multiplier,
        shift=shift,
        clamp=clamp,
    )


def _weights(blend: Blend) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
    return np.asarray(blend.weights or (0,) * len(blend.first), dtype=np.uint16)


def _factor(op: Op, sources: Sources, factor: float) -> tuple[np.ndarray, np.ndarray]:
    _narrow(op, sources)
    try:
        multiplier, shift = quantize_multiplier(factor)
    except ValueError as error:
        raise ModelError(f"{op.name}: input scale / output scale is too large ({error})") from error
    return np.array([multiplier], dtype=np.int32), np.array([shift], dtype=np.uint8)


def _narrow(op: Op, sources: Sources) -> None:
    if any(source.bits == 32 for source in sources):
        raise ModelError(f"{op.name}: reads a 32-bit tensor; only argmax and reshape can")
