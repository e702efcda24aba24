"""Bytes that a deployed operator costs in flash, on a 32-bit core: the one place these formulas stand.

The solver promises with them and the emitter lays out its arrays and structs accordingly. Sizes of structs are
those of ``runtime_c/include/mcuq/mcuq.h`` under the 32-bit Arm ABI (pointers 4 bytes, natural alignment).
"""

from __future__ import annotations

from mcuq.ir.graph import AvgPool, Concat, Conv2d, FloatOp, Graph, Prelu, Resample, Shape
from mcuq.ir.integer import (
    IntegerGraph,
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
)
from mcuq.numerics import common_shift
from mcuq.target.fusion import AddFusion, Fusion
from mcuq.target.kernels import ConvCase, Kernel, layer_facts
from mcuq.target.placement import rows_at_a_time

CONV_STRUCT = 60
ADD_STRUCT = 32
ADD_BAND_STRUCT = 12
POOL_BAND_STRUCT = 20
RESCALE_STRUCT = 36
PAD_STRUCT = 40
CONCAT_STRUCT = 40
MAX_POOL_STRUCT = 44
AVG_POOL_STRUCT = 48
SOFTMAX_TABLE = 512
MUL_STRUCT = 36
EXTREMUM_STRUCT = 44
TABLE_STRUCT = 20
PRELU_STRUCT = 44
COPY_STRUCT = 68
CHOOSE_STRUCT = 24
BLEND_STRUCT = 52


def conv_case(graph: IntegerGraph, op: QConv2d) -> ConvCase:
    """What kernel choice for ``op`` depends on; in another operator its output is some rows."""
    source = graph.tensor(op.inputs[0])
    return ConvCase(
        source.shape,
        _computed(graph, op.name, op.output.shape),
        _weight_shape(op.weight.shape),
        op.window,
        op.groups,
        source.bits,
        op.weight_bits,
        op.output.bits,
        asymmetric=bool(op.weight_zero_point.any()),
        per_channel=op.multiplier.size > 1,
        roundings=op.roundings,
        beside_blocks=_has_blocks(graph, op.roundings),
        facts=layer_facts(op, source.bits),
    )


def float_case(
    graph: Graph,
    op: Conv2d,
    bits: tuple[int, int, int],
    *,
    asymmetric: bool = False,
) -> ConvCase:
    """The same for a float convolution once its (input, weight, output) ``bits`` are chosen.

    Negative bits of weights: one step for the layer (``ir.plans.choice_of``).
    """
    source, weight, output = bits
    return ConvCase(
        graph.op(op.inputs[0]).shape,
        _computed(graph, op.name, op.shape),
        _weight_shape(op.weight.shape),
        op.window,
        op.groups,
        source,
        abs(weight),
        output,
        asymmetric=asymmetric,
        per_channel=weight > 0,
        beside_blocks=_has_blocks(graph),
    )


def _has_blocks(graph: IntegerGraph | Graph, roundings: int = 1) -> bool:
    """Some convolution of one group, with as many ``roundings``, has several output pixels."""
    shapes = (
        op.output.shape if isinstance(op, QConv2d) else op.shape
        for op in graph
        if isinstance(op, QConv2d | Conv2d) and op.groups == 1 and not op.window.transposed
        if not isinstance(op, QConv2d) or op.roundings == roundings
    )
    return any(shape[:2] != (1, 1) for shape in shapes)


def _computed(graph: IntegerGraph | Graph, conv: str, shape: Shape) -> Shape:
    """The part of a convolution's output that one call of its kernel computes."""
    return (rows_at_a_time(graph, conv) or shape[0], *shape[1:])


def band_struct(fusion: Fusion) -> int:
    """Bytes of the struct that a fusion has besides both operators' own."""
    return ADD_BAND_STRUCT if isinstance(fusion, AddFusion) else POOL_BAND_STRUCT


def _weight_shape(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    out, height, width, depth = shape
    return out, height, width, depth


def conv_parameter_bytes(channels: int, scales: int, shifts: int = 0, zero_points: int = 0) -> int:
    """Constant arrays of a convolution besides its weights, each rounded up to 4 bytes.

    bias int32 per channel; ``scales`` entries of multiplier int32; ``shifts`` of uint8; ``zero_points`` of int8.
    """
    return 4 * channels + 4 * scales + _round4(shifts) + _round4(zero_points)


def conv_flash_bytes(case: ConvCase, kernel: Kernel) -> int:
    """Flash of one convolution apart from code: packed weights, parameter arrays and the struct."""
    channels = case.output_shape[2]
    scales = channels if case.per_channel else 1
    shifts = 0 if case.facts is None or common_shift(case.facts.shift) is not None else channels
    parameters = conv_parameter_bytes(channels, scales, shifts, scales if case.asymmetric else 0)
    return _round4(kernel.weight_bytes) + (0 if kernel.packs_parameters else parameters) + CONV_STRUCT


def float_struct_bytes(op: FloatOp) -> int:
    """Constant bytes of ``op`` besides convolution arrays and tables of functions: parameter struct and tables."""
    if isinstance(op, AvgPool):
        varies = any(op.window.padding) and not op.count_include_pad
        return AVG_POOL_STRUCT + _pool_table(op.window.kernel[0] * op.window.kernel[1] if varies else 1)
    if isinstance(op, Concat):
        return CONCAT_STRUCT * len(op.inputs)
    if isinstance(op, Prelu):
        return PRELU_STRUCT + 4 * op.shape[2]
    if isinstance(op, Resample):
        return _resample_bytes(op.shape[0], op.shape[1], chooses=op.chooses)
    return _STRUCTS.get(type(op).__name__, 0)


def struct_bytes(op: IntegerOp) -> int:
    """The same of an integer operator."""
    match op:
        case QConv2d():
            return CONV_STRUCT
        case QConcat():
            return CONCAT_STRUCT * len(op.inputs)
        case QAvgPool():
            return AVG_POOL_STRUCT + _pool_table(op.multiplier.size)
        case QTable():
            return TABLE_STRUCT + op.entries.size
        case QPrelu():
            return PRELU_STRUCT + 4 * op.multiplier.size
        case QResample():
            return _resample_bytes(op.row.size, op.column.size, chooses=op.chooses)
        case QAdd() | QMul() | QExtremum() | QMaxPool() | QPad() | QRescale() | QCopy() | QSoftmax():
            return _STRUCTS[type(op).__name__.removeprefix("Q")]
        case QInput() | QReshape() | QL2Normalize() | QArgmax():
            return 0


_STRUCTS = {
    "Add": ADD_STRUCT,
    "Mul": MUL_STRUCT,
    "Extremum": EXTREMUM_STRUCT,
    "Activation": TABLE_STRUCT,
    "Copy": COPY_STRUCT,
    "MaxPool": MAX_POOL_STRUCT,
    "Pad": PAD_STRUCT,
    "Clip": RESCALE_STRUCT,
    "Rescale": RESCALE_STRUCT,
    "Softmax": SOFTMAX_TABLE,
}


def _resample_bytes(rows: int, columns: int, *, chooses: bool) -> int:
    """Struct and uint16 arrays, each rounded up to a word."""
    positions = _round4(2 * rows) + _round4(2 * columns)
    return CHOOSE_STRUCT + positions if chooses else BLEND_STRUCT + 2 * positions


def _pool_table(entries: int) -> int:
    return 4 * entries + _round4(entries)


def _round4(size: int) -> int:
    return (size + 3) & ~3


FUNCTIONS = {
    "Input": "mcuq_pixels_to_int8",
    "Add": "mcuq_add",
    "Mul": "mcuq_mul",
    "Extremum": "mcuq_extremum",
    "Activation": "mcuq_table",
    "Prelu": "mcuq_prelu",
    "Copy": "mcuq_copy",
    "L2Normalize": "mcuq_l2_normalize",
    "Concat": "mcuq_concat",
    "MaxPool": "mcuq_max_pool",
    "AvgPool": "mcuq_avg_pool",
    "Pad": "mcuq_pad",
    "Clip": "mcuq_rescale_copy",
    "Rescale": "mcuq_rescale_copy",
    "Reshape": "mcuq_reshape",
    "Softmax": "mcuq_softmax",
    "Argmax": "mcuq_argmax",
}
"""Portable runtime function of every float operator that has only one, by its type name."""
RESAMPLE = {True: "mcuq_choose", False: "mcuq_blend"}
"""Function of a resampling, by whether it only chooses."""

RAM_RESERVE = 2048
"""RAM besides the arena: the stack a linker script sets aside (the build proves that it suffices); no statics."""
