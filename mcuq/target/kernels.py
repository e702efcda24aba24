"""Which runtime function computes an operator on a core, with its weight layout, sources and scratch.

This is the one seam through which faster kernels come in: a core's family is searched before the portable
one. The solver, the memory planner and the emitter all ask here, so that promised scratch, packed weights and
the emitted call agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mcuq.ir.graph import Shape, Window, is_depthwise
from mcuq.ir.integer import QConv2d
from mcuq.numerics import code_range, row_bytes

WeightLayout = Literal["rows", "taps"]
"""rows: per output channel one packed row of kh*kw*(I/groups) codes. taps: kh*kw packed rows of C codes.
``layouts.pack_weights`` packs them all."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the actual weights prove of a layer; kernels with range conditions are chosen by it.

    Attributes:
        accumulator: largest |bias + sum x * (w - zw)| and |bias| + max|x| * sum |w - zw| of any channel;
        shift: smallest and largest requantization shift.
    """

    accumulator: int
    shift: tuple[int, int]


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
    facts: Facts | None = None
    """None before weights are known: kernels are then chosen as for a layer that meets every condition."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A runtime function: C symbol, source files under ``runtime_c/src``, weight layout, scratch bytes.

    ``weight_bytes`` are those of ``layouts.pack_weights``. With ``packs_parameters`` they hold bias, multiplier,
    shift and weight zero point too, and the parameter struct's pointers to those are NULL.
    """

    function: str
    sources: tuple[str, ...]
    layout: WeightLayout
    scratch_bytes: int
    weight_bytes: int
    packs_parameters: bool = False


def layer_facts(op: QConv2d, input_bits: int) -> Facts:
    """Facts of a lowered convolution (see :class:`Facts`)."""
    weight = op.weight.astype(np.int64).reshape(len(op.weight), -1)
    centred = np.abs(weight - op.weight_zero_point.astype(np.int64).reshape(-1, 1)).sum(axis=1)
    largest = max(abs(code) for code in code_range(input_bits))
    bound = np.abs(op.bias.astype(np.int64)) + largest * centred
    return Facts(int(bound.max()), (int(op.shift.min()), int(op.shift.max())))


def is_fully_connected(case: ConvCase) -> bool:
    """Kernel covers the whole input without padding, one output pixel, one group."""
    return (
        case.groups == 1
        and case.output_shape[:2] == (1, 1)
        and case.weight_shape[1:3] == case.input_shape[:2]
        and case.window.padding == (0, 0, 0, 0)
        and case.window.dilation == (1, 1)
    )


def reads_in_place(case: ConvCase) -> bool:
    """8-bit input, 1 x 1 kernel, every tap inside the input: a column is part of an input pixel's own row."""
    height, width = case.input_shape[:2]
    rows, columns = case.output_shape[:2]
    return (
        case.input_bits == 8
        and case.weight_shape[1:3] == (1, 1)
        and case.window.padding[:2] == (0, 0)
        and (rows - 1) * case.window.stride[0] < height
        and (columns - 1) * case.window.stride[1] < width
    )


def select(case: ConvCase, core: str) -> Kernel:
    """The kernel for ``case`` on ``core`` ("portable", "cortex-m4", ...)."""
    del core  # one family so far
    return _portable(case)


def _portable(case: ConvCase) -> Kernel:
    """Portable C. Scratch, as the head of each C file states it:

    depthwise.c        int32 offsets[kh * kw]
    fully_connected.c  int8 column[H * W * C]; none at 8 bits
    conv2d.c           int8 columns[min(2, output pixels)][kh * kw * C / groups]; none when read in place
    """
    bits = case.weight_bits
    channels = case.output_shape[2]
    taps = case.weight_shape[1] * case.weight_shape[2]
    if is_depthwise(case.groups, case.weight_shape, case.input_shape[2]):
        weights = taps * row_bytes(channels, bits)
        return Kernel(f"mcuq_depthwise_w{bits}", ("depthwise.c", "pack.c"), "taps", 4 * taps, weights)
    column = taps * case.weight_shape[3]
    weights = channels * row_bytes(column, bits)
    if is_fully_connected(case):
        scratch = 0 if case.input_bits == 8 else _round4(column)
        return Kernel(f"mcuq_fully_connected_w{bits}", ("fully_connected.c", "pack.c"), "rows", scratch, weights)
    columns = 0 if reads_in_place(case) else min(2, case.output_shape[0] * case.output_shape[1])
    return Kernel(f"mcuq_conv2d_w{bits}", ("conv2d.c", "pack.c"), "rows", _round4(columns * column), weights)


def _round4(size: int) -> int:
    return (size + 3) & ~3
