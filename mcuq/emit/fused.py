"""Additions and pools with the convolution that runs inside them, as C (runtime_c/src/bands.c)."""

from __future__ import annotations

from mcuq.emit import literals
from mcuq.emit.calls import Call, Context, Table
from mcuq.emit.literals import Fields
from mcuq.ir.integer import QAdd, QAvgPool, QConv2d, QMaxPool
from mcuq.numerics import row_bytes
from mcuq.target.fusion import AddFusion, PoolFusion
from mcuq.target.runtime import conv_scratch, function


def in_addition(op: QAdd, fusion: AddFusion, at: Context, convolution: Fields, addition: Fields) -> Call:
    """``convolution``, ``addition``: members of both operators' parameters."""
    conv = at.graph.op(fusion.conv)
    assert isinstance(conv, QConv2d)
    second = op.inputs[1] == fusion.conv
    names = at.symbol(conv, "params"), at.symbol(op, "addition")
    fields: Fields = [
        ("convolution", names[0]),
        ("addition", names[1]),
        ("rows", literals.number(fusion.rows, "uint16_t", f"rows of layer {op.name}")),
        ("convolution_is_b", str(int(second))),
    ]
    tables = (
        Table("mcuq_conv2d_params", names[0], (literals.braces(convolution),)),
        Table("mcuq_add_params", names[1], (literals.braces(addition),)),
    )
    out = at.idents[op.name]
    band, rows = f"{out}_band", f"{out}_rows"
    pointers = f"{at.idents[conv.inputs[0]]}, {at.idents[fusion.residual]}, {out}"
    part = f"{band}.rows"
    pair = f"{band}.residual, {rows}" if second else f"{rows}, {band}.residual"
    statements = (
        "{",
        f"    uint8_t *const {rows} = {at.scratch} + {conv_scratch(conv, at.graph, at.core)[0]};",
        f"    mcuq_band {band};",
        f"    mcuq_band_start(&{band}, &{at.symbol(op, 'params')}, {pointers});",
        f"    for (; {band}.rows.bands != 0u; mcuq_band_next(&{band})) {{",
        f"        {function(conv, at.graph, at.core)}(&{part}.convolution, {part}.input, {rows}, {at.scratch});",
        f"        {function(op, at.graph, at.core)}(&{band}.addition, {pair}, {band}.output);",
        "    }",
        "}",
    )
    return Call("mcuq_band_params", fields, tables, statements)


def in_pool(
    op: QMaxPool | QAvgPool, fusion: PoolFusion, at: Context, convolution: Fields, pool: tuple[str, Fields]
) -> Call:
    """``convolution``, ``pool``: members of both operators' parameters (``pool``: with the struct's name)."""
    conv = at.graph.op(fusion.conv)
    assert isinstance(conv, QConv2d)
    kind, own = pool
    names, bands = (at.symbol(conv, "params"), at.symbol(op, "pool")), fusion.bands
    numbers = {"rows": fusion.rows, "bands": bands.count, "step": bands.step, "span": bands.span, "top": bands.top}
    band_bytes = bands.pool_rows * op.output.shape[1] * row_bytes(op.output.shape[2], op.output.bits)
    fields: Fields = [("convolution", names[0]), ("output_band", str(band_bytes))]
    fields += [(k, literals.number(value, "uint16_t", f"{k} of layer {op.name}")) for k, value in numbers.items()]
    tables = (
        Table("mcuq_conv2d_params", names[0], (literals.braces(convolution),)),
        Table(f"mcuq_{kind}_params", names[1], (literals.braces(own),)),
    )
    out = at.idents[op.name]
    band, rows, changed = f"{out}_band", f"{out}_rows", f"{out}_pool"
    part = f"{band}.part"
    pointers = f"{at.idents[conv.inputs[0]]}, {rows}, {out}"
    convolve = f"{function(conv, at.graph, at.core)}(&{part}.convolution, {part}.input, {band}.row, {at.scratch});"
    statements = (
        "{",
        f"    uint8_t *const {rows} = {at.scratch} + {conv_scratch(conv, at.graph, at.core)[0]};",
        f"    mcuq_{kind}_params {changed} = {names[1]}[0];",
        f"    mcuq_pool_band {band};",
        f"    mcuq_pool_band_start(&{band}, &{at.symbol(op, 'params')}, {pointers});",
        f"    for (; {band}.bands != 0u; mcuq_pool_band_next(&{band})) {{",
        f"        for (; {band}.done < {band}.last; mcuq_pool_band_call(&{band})) {{",
        f"            {convolve}",
        "        }",
        f"        {changed}.input.height = {band}.height;",
        f"        {changed}.window.pad_top = {band}.pad_top;",
        f"        {function(op, at.graph, at.core)}(&{changed}, {rows}, {band}.output);",
        "    }",
        "}",
    )
    return Call("mcuq_pool_band_params", fields, tables, statements)
