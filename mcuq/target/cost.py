"""Bytes that a deployed operator costs in flash, on a 32-bit core: the one place these formulas stand.

The solver promises with them and the emitter lays out its arrays and structs accordingly. Sizes of structs are
those of ``runtime_c/include/mcuq/mcuq.h`` under the 32-bit Arm ABI (pointers 4 bytes, natural alignment).
"""

from __future__ import annotations

from mcuq.ir.graph import Conv2d, Graph
from mcuq.ir.integer import (
    IntegerGraph,
    IntegerOp,
    QAdd,
    QArgmax,
    QAvgPool,
    QConcat,
    QConv2d,
    QInput,
    QMaxPool,
    QPad,
    QRescale,
    QReshape,
    QSoftmax,
)
from mcuq.target.kernels import ConvCase, layer_facts

SHAPE_BYTES = 8
AFFINE_BYTES = 12
CONV_STRUCT = 60
ADD_STRUCT = 32
RESCALE_STRUCT = 36
PAD_STRUCT = 40
CONCAT_STRUCT = 28
MAX_POOL_STRUCT = 44
AVG_POOL_STRUCT = 48
SOFTMAX_TABLE = 512


def conv_case(graph: IntegerGraph, op: QConv2d) -> ConvCase:
    """What kernel choice for ``op`` depends on."""
    source = graph.tensor(op.inputs[0])
    return ConvCase(
        source.shape,
        op.output.shape,
        _weight_shape(op.weight.shape),
        op.window,
        op.groups,
        source.bits,
        op.weight_bits,
        op.output.bits,
        asymmetric=bool(op.weight_zero_point.any()),
        per_channel=op.multiplier.size > 1,
        facts=layer_facts(op, source.bits),
    )


def float_case(
    graph: Graph,
    op: Conv2d,
    bits: tuple[int, int, int],
    *,
    asymmetric: bool = False,
    per_channel: bool = True,
) -> ConvCase:
    """The same for a float convolution once its (input, weight, output) ``bits`` are chosen."""
    return ConvCase(
        graph.op(op.inputs[0]).shape,
        op.shape,
        _weight_shape(op.weight.shape),
        op.window,
        op.groups,
        *bits,
        asymmetric=asymmetric,
        per_channel=per_channel,
    )


def _weight_shape(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    out, height, width, depth = shape
    return out, height, width, depth


def conv_parameter_bytes(channels: int, *, asymmetric: bool = False, per_channel: bool = True) -> int:
    """Constant arrays of a convolution besides its weights, each aligned to its element.

    bias int32 per channel; multiplier int32 and shift uint8 per channel or once; weight zero point int8 per
    channel or once, absent when symmetric.
    """
    scales = channels if per_channel else 1
    return 4 * channels + 4 * scales + scales + (scales if asymmetric else 0)


def struct_bytes(op: IntegerOp) -> int:
    """Constant bytes of ``op`` besides convolution arrays: parameter struct and tables."""
    match op:
        case QConv2d():
            return CONV_STRUCT
        case QAdd():
            return ADD_STRUCT
        case QConcat():
            return CONCAT_STRUCT + len(op.inputs) * (SHAPE_BYTES + AFFINE_BYTES)
        case QMaxPool():
            return MAX_POOL_STRUCT
        case QAvgPool():
            return AVG_POOL_STRUCT + 5 * op.multiplier.size
        case QPad():
            return PAD_STRUCT
        case QRescale():
            return RESCALE_STRUCT
        case QSoftmax():
            return SOFTMAX_TABLE
        case QInput() | QReshape() | QArgmax():
            return 0
