"""Constant arrays of a model, packed as its kernels read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcuq.ir.integer import IntegerGraph, IntegerOp, QAvgPool, QConv2d, QPrelu, QResample, QSoftmax, QTable
from mcuq.numerics import common_shift
from mcuq.target.layouts import ChannelParameters, pack_weights
from mcuq.target.runtime import conv_kernel

_BYTES_PER_LINE = 24


@dataclass(frozen=True, slots=True, eq=False)
class ConstArray:
    """``const <c_type> <prefix>_l<step>_<field>[...]``; ``role`` says what it counts as in the size table."""

    field: str
    c_type: str
    values: NDArray[Any]
    role: str

    def stored(self) -> bytes:
        """The array in little-endian memory."""
        kinds = {"uint8_t": "u1", "int8_t": "i1", "uint16_t": "<u2", "int32_t": "<i4"}
        return self.values.astype(kinds[self.c_type]).tobytes()

    def lines(self) -> Iterator[str]:
        """Initializer lines, without indentation."""
        texts = [str(value) for value in self.values.tolist()]
        step = _BYTES_PER_LINE if self.values.dtype.itemsize == 1 else 8
        for start in range(0, len(texts), step):
            yield ", ".join(texts[start : start + step]) + ","


def const_arrays(op: IntegerOp, graph: IntegerGraph, core: str) -> tuple[ConstArray, ...]:
    """The constant arrays ``op`` needs on ``core``, in the order they are written."""
    match op:
        case QConv2d():
            kernel = conv_kernel(op, graph, core)
            weights = ConstArray("weights", "uint8_t", _packed_weights(op, graph, kernel.layout), "weights")
            if kernel.packs_parameters:
                return (weights,)
            arrays = [
                weights,
                ConstArray("bias", "int32_t", op.bias, "parameters"),
                ConstArray("multipliers", "int32_t", op.multiplier, "parameters"),
            ]
            if common_shift(op.shift) is None:
                arrays.append(ConstArray("shifts", "uint8_t", op.shift, "parameters"))
            if np.any(op.weight_zero_point):
                arrays.append(ConstArray("zero_points", "int8_t", op.weight_zero_point, "parameters"))
            return tuple(arrays)
        case QAvgPool():
            return (
                ConstArray("multipliers", "int32_t", op.multiplier, "parameters"),
                ConstArray("shifts", "uint8_t", op.shift, "parameters"),
            )
        case QTable():
            return (ConstArray("entries", "int8_t", op.entries, "parameters"),)
        case QPrelu():
            return (ConstArray("slopes", "int32_t", op.multiplier, "parameters"),)
        case QResample():
            arrays = [("rows", op.row), ("columns", op.column)]
            if not op.chooses:
                arrays += [("row_weights", op.row_weight), ("column_weights", op.column_weight)]
            return tuple(ConstArray(name, "uint16_t", values, "parameters") for name, values in arrays)
        case QSoftmax():
            return (ConstArray("table", "uint16_t", op.table, "parameters"),)
        case _:
            return ()


def _packed_weights(op: QConv2d, graph: IntegerGraph, layout: str) -> NDArray[np.uint8]:
    input_bits = graph.tensor(op.inputs[0]).bits
    parameters = ChannelParameters(op.bias, op.multiplier, op.shift, op.weight_zero_point, input_bits, op.roundings)
    return pack_weights(layout, op.weight, op.weight_bits, parameters)
