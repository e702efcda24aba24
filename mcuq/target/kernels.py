"""Which runtime function computes an operator on a core, with its weight layout, sources and scratch.

This is the one seam through which faster kernels come in: a core's family is searched before the portable
one. The solver, the memory planner and the emitter all ask here, so that promised scratch, packed weights and
the emitted call agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mcuq.ir.graph import Shape, Window, is_depthwise
from mcuq.numerics import row_bytes

WeightLayout = Literal["rows", "taps"]
"""rows: per output channel one packed row of kh*kw*(I/groups) codes. taps: kh*kw packed rows of C codes."""


@dataclass(frozen=True, slots=True)
class ConvCase:
    """All that kernel choice depends on, known before weights are."""

    input_shape: Shape
    output_shape: Shape
    weight_shape: tuple[int, int, int, int]
    window: Window
    groups: int
    input_bits: int
    weight_bits: int
    output_bits: int
    asymmetric: bool = False
    per_channel: bool = True


@dataclass(frozen=True, slots=True)
class Kernel:
    """A runtime function: C symbol, source files under ``runtime_c/src``, weight layout, scratch bytes."""

    function: str
    sources: tuple[str, ...]
    layout: WeightLayout
    scratch_bytes: int
    weight_bytes: int


def is_fully_connected(case: ConvCase) -> bool:
    """Kernel covers the whole input without padding, one output pixel, one group."""
    return (
        case.groups == 1
        and case.output_shape[:2] == (1, 1)
        and case.weight_shape[1:3] == case.input_shape[:2]
        and case.window.padding == (0, 0, 0, 0)
        and case.window.dilation == (1, 1)
    )


def is_pointwise(case: ConvCase) -> bool:
    """1 x 1 kernel, stride 1, no padding, one group: columns are the input's own rows."""
    return (
        case.weight_shape[1:3] == (1, 1)
        and case.window.stride == (1, 1)
        and case.window.padding == (0, 0, 0, 0)
        and case.groups == 1
    )


def select(case: ConvCase, core: str) -> Kernel:
    """The kernel for ``case`` on ``core`` ("portable", "cortex-m4", ...)."""
    del core  # one family so far
    return _portable(case)


def _portable(case: ConvCase) -> Kernel:
    """Portable C. Scratch: an unpacked int8 column or row, and an int8 row of outputs below 8 bits."""
    bits = case.weight_bits
    channels = case.output_shape[2]
    out_row = channels if case.output_bits in (4, 2) else 0
    taps = case.weight_shape[1] * case.weight_shape[2]
    if is_depthwise(case.groups, case.weight_shape, case.input_shape[2]):
        weights = taps * row_bytes(channels, bits)
        return Kernel(
            f"mcuq_depthwise_w{bits}", ("depthwise.c", "pack.c"), "taps", _round4(out_row + 5 * channels), weights
        )
    column = taps * case.weight_shape[3]
    weights = channels * row_bytes(column, bits)
    if is_fully_connected(case):
        unpacked = column if case.input_bits != 8 else 0
        return Kernel(
            f"mcuq_fully_connected_w{bits}",
            ("fully_connected.c", "pack.c"),
            "rows",
            _round4(unpacked) + _round4(out_row),
            weights,
        )
    direct = is_pointwise(case) and case.input_bits == 8
    return Kernel(
        f"mcuq_conv2d_w{bits}",
        ("conv2d.c", "pack.c"),
        "rows",
        (0 if direct else _round4(2 * column)) + _round4(2 * out_row),
        weights,
    )


def _round4(size: int) -> int:
    return (size + 3) & ~3
