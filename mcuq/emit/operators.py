"""One operator of the integer graph as C: its parameter struct and the call in ``<prefix>_invoke``."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from mcuq.emit import fused, literals
from mcuq.emit.arrays import const_arrays
from mcuq.emit.calls import Call, Context, Table
from mcuq.emit.literals import Fields
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
)
from mcuq.ir.shapes import MAX_COPY
from mcuq.numerics import common_shift
from mcuq.target.fusion import AddFusion, Fusion, PoolFusion, fusion_into
from mcuq.target.placement import Placement, is_placed, placement_of
from mcuq.target.runtime import conv_scratch, function


def call(op: IntegerOp, at: Context) -> Call:
    """C text of ``op``."""
    name = function(op, at.graph, at.core)
    out = at.idents[op.name]
    inputs = [at.idents[i] for i in op.inputs]
    params = f"&{at.symbol(op, 'params')}"
    match op:
        case QInput():
            size = f"{at.prefix.upper()}_INPUT{at.graph.inputs.index(op) or ''}_SIZE"
            return Call("", [], (), (f"{name}({out}, {size});",) if name else ())
        case QConv2d() if (placement := placement_of(at.graph, op.name)) is not None:
            return _placed(op, placement, at)
        case QConv2d():
            text = f"{name}({params}, {inputs[0]}, {out}, {at.scratch});"
            return Call("mcuq_conv2d_params", _conv(op, at), (), (text,))
        case QAdd() | QMaxPool() | QAvgPool() if (fusion := fusion_into(at.graph, op.name)) is not None:
            return _fused(op, fusion, at)
        case QAdd():
            text = f"{name}({params}, {inputs[0]}, {inputs[1]}, {out});"
            return Call("mcuq_add_params", _add(op, at), (), (text,))
        case QMul():
            text = f"{name}({params}, {inputs[0]}, {inputs[1]}, {out});"
            return Call("mcuq_mul_params", _mul(op, at), (), (text,))
        case QExtremum():
            text = f"{name}({params}, {inputs[0]}, {inputs[1]}, {out});"
            return Call("mcuq_extremum_params", _extremum(op, at), (), (text,))
        case QConcat() if is_placed(at.graph, op.name):
            return Call("", [], (), ())
        case QConcat():
            return _copied(op, at)
        case QMaxPool() | QAvgPool() | QPad() | QRescale() | QTable() | QPrelu() | QCopy() | QResample():
            kind, fields = _one_input(op, at)
            return Call(f"mcuq_{kind}_params", fields, (), (f"{name}({params}, {inputs[0]}, {out});",))
        case QReshape():
            return Call("", [], (), () if at.aliased else (_reshape(op, at, name),))
        case QSoftmax():
            text = f"{name}({at.symbol(op, 'table')}, {_literal(op, at)}, {inputs[0]}, (int8_t *){out});"
            return Call("", [], (), (text,))
        case QL2Normalize():
            zero = at.graph.tensor(op.inputs[0]).zero_point
            text = f"{name}({_literal(op, at)}, {zero}, {inputs[0]}, (int8_t *){out});"
            return Call("", [], (), (text,))
        case QArgmax():
            return Call("", [], (), (f"{name}({_literal(op, at)}, {inputs[0]}, {out});",))
        case _:
            assert_never(op)


def _fused(op: QAdd | QMaxPool | QAvgPool, fusion: Fusion, at: Context) -> Call:
    """An addition or pool with the convolution that runs inside it."""
    conv = at.graph.op(fusion.conv)
    assert isinstance(conv, QConv2d)
    if isinstance(op, QAdd):
        assert isinstance(fusion, AddFusion)
        return fused.in_addition(op, fusion, at, _conv(conv, at), _add(op, at))
    assert isinstance(fusion, PoolFusion)
    band = replace(op.output, shape=(fusion.bands.pool_rows, *op.output.shape[1:]))
    return fused.in_pool(op, fusion, at, _conv(conv, at), _one_input(replace(op, output=band), at))


def _literal(op: IntegerOp, at: Context) -> str:
    return f"(mcuq_shape){literals.shape(at.graph.tensor(op.inputs[0]), op.name)}"


def _reshape(op: QReshape, at: Context, name: str) -> str:
    target = f"(mcuq_shape){literals.shape(op.output, op.name)}"
    return f"{name}({_literal(op, at)}, {target}, {at.idents[op.inputs[0]]}, {at.idents[op.name]});"


def _in_out(op: IntegerOp, at: Context) -> Fields:
    source = at.graph.tensor(op.inputs[0])
    return [("input", literals.shape(source, op.inputs[0])), ("output", literals.shape(op.output, op.name))]


def _conv(op: QConv2d, at: Context) -> Fields:
    source = at.graph.tensor(op.inputs[0])
    fields: Fields = []
    members = {"zero_points": "weight_zero_points"}
    for array in const_arrays(op, at.graph, at.core):
        fields.append((members.get(array.field, array.field), at.symbol(op, array.field)))
    fields += _in_out(op, at)
    shift = common_shift(op.shift)
    per_channel_zero = op.weight_zero_point.size > 1 and any(f == "weight_zero_points" for f, _ in fields)
    fields += [
        ("window", literals.window(op.window, op.name)),
        ("groups", literals.number(op.groups, "uint16_t", f"groups of layer {op.name}")),
        ("per_channel_scale", str(int(op.multiplier.size > 1))),
        ("per_channel_zero_point", str(int(per_channel_zero))),
        *([] if shift is None else [("shift", str(shift))]),
        ("input_zero_point", str(source.zero_point)),
        ("output_zero_point", str(op.output.zero_point)),
    ]
    return fields + literals.clamp(op.clamp)


def _add(op: QAdd, at: Context) -> Fields:
    a, b = (at.graph.tensor(name) for name in op.inputs)
    return [
        ("shape", literals.shape(op.output, op.name)),
        ("bits_a", str(a.bits)),
        ("bits_b", str(b.bits)),
        ("shift", str(op.affine.shift)),
        ("multiplier_a", literals.int32(op.affine.multipliers[0])),
        ("multiplier_b", literals.int32(op.affine.multipliers[1])),
        ("constant", literals.int32(op.affine.constant)),
        *literals.clamp(op.clamp),
    ]


def _mul(op: QMul, at: Context) -> Fields:
    a, b = (at.graph.tensor(name) for name in op.inputs)
    return [
        ("a", literals.shape(a, op.inputs[0])),
        ("b", literals.shape(b, op.inputs[1])),
        ("multiplier", literals.int32(int(op.multiplier[0]))),
        *literals.clamp(op.clamp),
        ("zero_point_a", str(a.zero_point)),
        ("zero_point_b", str(b.zero_point)),
        ("output_zero_point", str(op.output.zero_point)),
        ("shift", str(int(op.shift[0]))),
        ("output_bits", str(op.output.bits)),
    ]


def _extremum(op: QExtremum, at: Context) -> Fields:
    a, b = (at.graph.tensor(name) for name in op.inputs)
    return [
        ("shape", literals.shape(op.output, op.name)),
        ("bits_a", str(a.bits)),
        ("bits_b", str(b.bits)),
        ("smallest", str(int(op.smallest))),
        ("a", literals.affine(op.affines[0])),
        ("b", literals.affine(op.affines[1])),
        *literals.clamp(op.clamp),
    ]


def _concat(op: QConcat, index: int, at: Context, rows: int) -> Fields:
    """Input number ``index``, ``rows`` rows of it at a time."""
    parts = [at.graph.tensor(name) for name in op.inputs]
    height, width = rows or op.output.shape[0], op.output.shape[1]
    pair = (parts[index], op.output)
    bands = [replace(tensor, shape=(height, width, tensor.shape[2])) for tensor in pair]
    first = sum(part.shape[2] for part in parts[:index])
    return [
        ("input", literals.shape(bands[0], op.inputs[index])),
        ("output", literals.shape(bands[1], op.name)),
        ("affine", literals.affine(op.affines[index])),
        *literals.clamp(op.clamp),
        ("first", literals.number(first, "uint16_t", f"channels of layer {op.name}")),
    ]


def _copied(op: QConcat, at: Context) -> Call:
    """A concatenation that copies; an input that lies where the output begins is spread before others are written."""
    slices = at.symbol(op, "slices")
    rows = tuple(literals.braces(_concat(op, k, at, 0)) for k in range(len(op.inputs)))
    order = sorted(range(len(op.inputs)), key=lambda k: op.inputs[k] != at.overwritten)
    out, name = at.idents[op.name], function(op, at.graph, at.core)
    texts = tuple(f"{name}(&{slices}[{k}], {at.idents[op.inputs[k]]}, {out});" for k in order)
    return Call("", [], (Table("mcuq_concat_params", slices, rows),), texts)


def _placed(op: QConv2d, placement: Placement, at: Context) -> Call:
    """A convolution that writes into a concatenation, band by band."""
    concat = at.graph.op(placement.concat)
    assert isinstance(concat, QConcat)
    scratch, _ = conv_scratch(op, at.graph, at.core)
    own, params, part = at.idents[op.name], at.symbol(op, "params"), at.symbol(op, "slice")
    band, rows, to = f"{own}_band", f"{own}_rows", f"{own}_to"
    fields = literals.braces(_concat(concat, placement.index, at, placement.rows))
    start = f"mcuq_rows_start(&{rows}, &{params}, {placement.rows}u, {at.idents[op.inputs[0]]})"
    statements = (
        "{",
        f"    uint8_t *const {band} = {at.scratch} + {scratch};",
        f"    void *{to} = {at.idents[concat.name]};",
        f"    mcuq_rows {rows};",
        f"    for ({start}; {rows}.bands != 0u; mcuq_rows_next(&{rows})) {{",
        f"        {function(op, at.graph, at.core)}(&{rows}.convolution, {rows}.input, {band}, {at.scratch});",
        f"        {to} = {function(concat, at.graph, at.core)}(&{part}[0], {band}, {to});",
        "    }",
        "}",
    )
    return Call("mcuq_conv2d_params", _conv(op, at), (Table("mcuq_concat_params", part, (fields,)),), statements)


def _moving(op: QTable | QCopy | QResample, at: Context) -> tuple[str, Fields]:
    """The same of operators without a clamp."""
    fields: Fields = [(array.field, at.symbol(op, array.field)) for array in const_arrays(op, at.graph, at.core)]
    fields += _in_out(op, at)
    match op:
        case QTable():
            return "table", fields
        case QCopy():
            ones = MAX_COPY - len(op.sizes)
            sizes, strides = (1,) * ones + op.sizes, (0,) * ones + op.strides
            lists = [("sizes", sizes), ("strides", strides)]
            fields += [(name, "{" + ", ".join(map(literals.int32, values)) + "}") for name, values in lists]
            return "copy", [*fields, ("offset", literals.int32(op.offset))]
        case QResample():
            if op.chooses:
                return "choose", fields
            fields += [
                ("multiplier", literals.int32(int(op.multiplier[0]))),
                ("input_zero_point", str(at.graph.tensor(op.inputs[0]).zero_point)),
                ("output_zero_point", str(op.output.zero_point)),
                ("shift", str(int(op.shift[0]))),
                *literals.clamp(op.clamp),
            ]
            return "blend", fields


def _one_input(
    op: QMaxPool | QAvgPool | QPad | QRescale | QTable | QPrelu | QCopy | QResample, at: Context
) -> tuple[str, Fields]:
    """Name of the parameter struct (without ``mcuq_`` and ``_params``) and its members."""
    if isinstance(op, QTable | QCopy | QResample):
        return _moving(op, at)
    tail = literals.clamp(op.clamp)
    match op:
        case QMaxPool():
            window = ("window", literals.window(op.window, op.name))
            return "max_pool", [*_in_out(op, at), window, ("affine", literals.affine(op.affine)), *tail]
        case QPrelu():
            affine = ("affine", literals.affine(op.affine))
            zero = ("input_zero_point", str(at.graph.tensor(op.inputs[0]).zero_point))
            return "prelu", [("slopes", at.symbol(op, "slopes")), *_in_out(op, at), affine, *tail, zero]
        case QAvgPool():
            fields = [
                ("multipliers", at.symbol(op, "multipliers")),
                ("shifts", at.symbol(op, "shifts")),
                ("table_length", literals.number(op.multiplier.size, "uint16_t", f"taps of layer {op.name}")),
                *_in_out(op, at),
                ("window", literals.window(op.window, op.name)),
                ("input_zero_point", str(at.graph.tensor(op.inputs[0]).zero_point)),
                ("output_zero_point", str(op.output.zero_point)),
            ]
            return "avg_pool", fields + tail
        case QPad():
            fields = [
                *_in_out(op, at),
                ("pad_top", literals.number(op.padding[0], "uint8_t", f"padding of layer {op.name}")),
                ("pad_left", literals.number(op.padding[1], "uint8_t", f"padding of layer {op.name}")),
                ("border", str(op.border)),
                ("affine", literals.affine(op.affine)),
            ]
            return "pad", fields + tail
        case QRescale():
            return "rescale", [*_in_out(op, at), ("affine", literals.affine(op.affine)), *tail]
        case _:
            assert_never(op)
