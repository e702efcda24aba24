"""Rules of integer operators: codes, parameters and the proof that nothing leaves int32 (see ``ir.verify``)."""

from __future__ import annotations

import math
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from mcuq.errors import OverflowProofError
from mcuq.ir.integer import (
    IntegerOp,
    QAdd,
    QArgmax,
    QAvgPool,
    QConcat,
    QConv2d,
    QCopy,
    QExtremum,
    QInput,
    QL2Normalize,
    QMaxPool,
    QMul,
    QPad,
    QPrelu,
    QResample,
    QRescale,
    QReshape,
    QSoftmax,
    QTable,
    QTensor,
    arrays,
)
from mcuq.ir.rules import fail
from mcuq.numerics import (
    INT32_MAX,
    SHIFT_MAX,
    SHIFT_MIN,
    SOFTMAX_ONE,
    Affine,
    accumulator_bound,
    code_range,
    weight_range,
)

DTYPES = {
    "weight": np.dtype(np.int8),
    "weight_zero_point": np.dtype(np.int8),
    "bias": np.dtype(np.int32),
    "multiplier": np.dtype(np.int32),
    "shift": np.dtype(np.uint8),
    "table": np.dtype(np.uint16),
    "entries": np.dtype(np.int8),
    "row": np.dtype(np.uint16),
    "column": np.dtype(np.uint16),
    "row_weight": np.dtype(np.uint16),
    "column_weight": np.dtype(np.uint16),
}
"""Element type of every array an operator holds."""
LARGEST_AFFINE_SHIFT = 24


def check_integer_arrays(op: IntegerOp) -> None:
    """Dtypes and dimensions of an operator's arrays. Raises CheckError."""
    for what, array in arrays(op).items():
        if array.dtype != DTYPES[what]:
            fail("arrays", f"{op.name}: {what} holds {array.dtype}, {DTYPES[what]} is needed")
        dimensions = 4 if what == "weight" else 1
        if array.ndim != dimensions or array.size == 0:
            fail(
                "arrays", f"{op.name}: {what} has shape {array.shape}; {dimensions} dimensions, none empty, are needed"
            )


def check_integer_op(op: IntegerOp, inputs: tuple[QTensor, ...]) -> None:
    """Every integer rule of one operator that reads ``inputs``.

    Raises:
        CheckError: the text quotes the rule.
        OverflowProofError: an accumulator could leave int32.
    """
    _check_tensor(op)
    if any(tensor.bits == 32 for tensor in inputs) and not isinstance(op, QReshape | QArgmax):
        fail("bits", f"{op.name} reads a 32-bit tensor; only argmax and reshape can")
    clamp = getattr(op, "clamp", None)
    if clamp is not None:
        _check_clamp(op.name, clamp, op.output)
    match op:
        case QInput():
            if op.encoding not in ("int8", "uint8") or (op.encoding == "uint8" and op.output.bits != 8):
                fail("bits", f"{op.name}: encoding {op.encoding} with {op.output.bits} bits; raw pixels take 8")
        case QConv2d():
            _check_conv(op, inputs[0])
        case QAdd() | QMaxPool() | QRescale():
            _check_affine(op.name, op.affine, inputs)
        case QPad():
            _check_affine(op.name, op.affine, inputs)
            _check_clamp(op.name, (op.border, op.border), op.output)
        case QMul():
            _check_multiplier(op.name, op.multiplier, op.shift, (1,))
        case QTable():
            _check_length(op.name, "entries", op.entries, (1 << inputs[0].bits,))
            _check_range(op.name, "entries", op.entries, *code_range(op.output.bits))
        case QPrelu():
            _check_prelu(op, inputs[0])
        case QConcat() | QExtremum():
            if len(op.affines) != len(inputs):
                fail("affine", f"{op.name} has {len(op.affines)} rescalings for {len(inputs)} inputs")
            for affine, tensor in zip(op.affines, inputs, strict=True):
                _check_affine(op.name, affine, (tensor,))
        case QAvgPool():
            _check_avg_pool(op, inputs[0])
        case QReshape() | QCopy():
            _check_kept(op, inputs[0])
        case QResample():
            _check_multiplier(op.name, op.multiplier, op.shift, (1,))
            if op.chooses:
                _check_kept(op, inputs[0])
        case QL2Normalize():
            if (op.output.bits, op.output.scale, op.output.zero_point) != (8, 1 / 128, 0):
                fail("l2-normalize", f"{op.name}: normalized values have 8 bits, scale 1/128 and zero point 0")
        case QSoftmax():
            _check_softmax(op)
        case QArgmax():
            if (op.output.bits, op.output.zero_point) != (32, 0):
                fail("bits", f"{op.name}: an argmax has 32 bits and zero point 0")
        case _:
            assert_never(op)


def _check_tensor(op: IntegerOp) -> None:
    tensor = op.output
    if tensor.bits not in (8, 4, 2, 32):
        fail("bits", f"{op.name} has {tensor.bits} bits; 8, 4 and 2 are allowed, and 32 for logits")
    if tensor.bits == 32 and not isinstance(op, QConv2d | QReshape | QArgmax):
        fail("bits", f"{op.name} has 32 bits; only logits and argmax can")
    if not (math.isfinite(tensor.scale) and tensor.scale > 0):
        fail("scale", f"{op.name} has scale {tensor.scale}; it must be finite and above 0")
    lo, hi = code_range(tensor.bits) if tensor.bits != 32 else (0, 0)
    if not lo <= tensor.zero_point <= hi:
        fail("zero-point", f"{op.name} has zero point {tensor.zero_point}; {lo}..{hi} is allowed")


def _check_clamp(name: str, clamp: tuple[int, int], tensor: QTensor) -> None:
    lo, hi = code_range(tensor.bits)
    if not lo <= clamp[0] <= clamp[1] <= hi:
        fail("codes", f"{name} clamps to {clamp[0]}..{clamp[1]}; its codes are {lo}..{hi}")


def _check_conv(op: QConv2d, source: QTensor) -> None:
    channels = len(op.weight)
    if op.weight_bits not in (8, 4, 2):
        fail("bits", f"{op.name} has weights of {op.weight_bits} bits; 8, 4 and 2 are allowed")
    lo, hi = weight_range(op.weight_bits)
    _check_range(op.name, "weight", op.weight, lo, hi)
    _check_range(op.name, "weight_zero_point", op.weight_zero_point, lo, hi)
    _check_length(op.name, "bias", op.bias, (channels,))
    _check_length(op.name, "weight_zero_point", op.weight_zero_point, (1, channels))
    _check_multiplier(op.name, op.multiplier, op.shift, (1, channels))
    if op.roundings != 1 and (op.roundings != 2 or op.output.bits != 8 or op.window.transposed):
        fail(
            "roundings", f"{op.name}: {op.roundings} roundings; 1, or 2 of convolutions with 8-bit outputs are allowed"
        )
    bounds = accumulator_bound(op.weight, op.weight_zero_point, op.bias, source.bits)
    worst = int(bounds.argmax())
    if bounds[worst] > INT32_MAX:
        raise OverflowProofError(
            f"rule 'accumulator': {op.name}: channel {worst} may reach {bounds[worst]}, int32 holds {INT32_MAX}"
        )


def _check_range(name: str, what: str, values: NDArray[Any], lo: int, hi: int) -> None:
    if int(values.min()) < lo or int(values.max()) > hi:
        fail("codes", f"{name}: {what} holds {values.min()}..{values.max()}; {lo}..{hi} is allowed")


def _check_length(name: str, what: str, values: NDArray[Any], allowed: tuple[int, ...]) -> None:
    if len(values) not in allowed:
        choices = " or ".join(map(str, sorted(set(allowed))))
        fail("arrays", f"{name}: {what} has {len(values)} entries; {choices} needed")


def _check_multiplier(name: str, multiplier: NDArray[Any], shift: NDArray[Any], allowed: tuple[int, ...]) -> None:
    _check_length(name, "multiplier", multiplier, allowed)
    _check_length(name, "shift", shift, (len(multiplier),))
    if int(shift.min()) < SHIFT_MIN or int(shift.max()) > SHIFT_MAX:
        fail("multiplier", f"{name}: shifts {shift.min()}..{shift.max()}; {SHIFT_MIN}..{SHIFT_MAX} is allowed")
    if int(multiplier.min()) < -INT32_MAX:
        fail("multiplier", f"{name}: multiplier {multiplier.min()}; magnitudes below 2^31 are allowed")


def _check_affine(name: str, affine: Affine, inputs: tuple[QTensor, ...]) -> None:
    """Any sum of any of the terms stays in int32, so do the products."""
    if len(affine.multipliers) != len(inputs):
        fail("affine", f"{name} has {len(affine.multipliers)} multipliers for {len(inputs)} inputs")
    if not 0 <= affine.shift <= LARGEST_AFFINE_SHIFT:
        fail("affine", f"{name} shifts by {affine.shift}; 0..{LARGEST_AFFINE_SHIFT} is allowed")
    bound = abs(affine.constant)
    for multiplier, tensor in zip(affine.multipliers, inputs, strict=True):
        bound += abs(multiplier) * max(abs(code) for code in code_range(tensor.bits))
    if bound > INT32_MAX:
        fail("affine", f"{name} may reach {bound}, int32 holds {INT32_MAX}")


def _check_kept(op: IntegerOp, source: QTensor) -> None:
    stored = op.output
    if (stored.bits, stored.scale, stored.zero_point) != (source.bits, source.scale, source.zero_point):
        fail("codes", f"{op.name} changes bits, scale or zero point; it only moves its input's codes")


def _check_prelu(op: QPrelu, source: QTensor) -> None:
    """Every product and sum stays in int32."""
    _check_length(op.name, "multiplier", op.multiplier, (source.shape[2],))
    largest = max(abs(int(m)) for m in (op.multiplier.min(), op.multiplier.max(), op.affine.multipliers[0]))
    distance = max(abs(code - source.zero_point) for code in code_range(source.bits))
    if not 0 <= op.affine.shift <= LARGEST_AFFINE_SHIFT or abs(op.affine.constant) + largest * distance > INT32_MAX:
        fail("affine", f"{op.name} may reach {abs(op.affine.constant) + largest * distance}, int32 holds {INT32_MAX}")


def _check_avg_pool(op: QAvgPool, source: QTensor) -> None:
    area = op.window.kernel[0] * op.window.kernel[1]
    _check_multiplier(op.name, op.multiplier, op.shift, (1, area))
    bound = area * max(abs(code - source.zero_point) for code in code_range(source.bits))
    if bound > INT32_MAX:
        raise OverflowProofError(f"rule 'accumulator': {op.name} may reach {bound}, int32 holds {INT32_MAX}")


def _check_softmax(op: QSoftmax) -> None:
    if (op.output.bits, op.output.scale, op.output.zero_point) != (8, 1 / 256, -128):
        fail("softmax", f"{op.name}: a softmax has 8 bits, scale 1/256 and zero point -128")
    _check_length(op.name, "table", op.table, (256,))
    if op.table[0] != SOFTMAX_ONE or int(op.table.max()) > SOFTMAX_ONE:
        fail("softmax", f"{op.name}: the table starts with {op.table[0]} and reaches {op.table.max()}; 2^15 is needed")
