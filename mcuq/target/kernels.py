"""Which runtime function computes an operator on a core, with its weight layout, sources and scratch.

This is the one seam through which faster kernels come in: a core's family is searched before the portable
one. The solver, the memory planner and the emitter all ask here, so that promised scratch, packed weights and
the emitted call agree.
"""

from __future__ import annotations

from dataclasses import replace
from math import gcd

import numpy as np

from mcuq.ir.integer import QConv2d
from mcuq.numerics import row_bytes
from mcuq.target.kernel_types import (
    ConvCase,
    Facts,
    Groups,
    Kernel,
    WeightLayout,
    is_depthwise_case,
    is_fully_connected,
)
from mcuq.target.kernels_dsp import CORES, select_dsp
from mcuq.target.kernels_mve import MVE_CORES, select_mve
from mcuq.target.layouts import largest_accumulator
from mcuq.target.layouts_dsp import normalized_scales
from mcuq.target.overlap import may_overwrite

__all__ = ["ConvCase", "Facts", "Kernel", "WeightLayout", "is_fully_connected", "layer_facts", "select"]


def layer_facts(op: QConv2d, input_bits: int) -> Facts:
    """Facts of a lowered convolution (see :class:`Facts`)."""
    channels = len(op.weight)
    zero, bias, multiplier, shift = (
        np.broadcast_to(np.asarray(a, np.int64), (channels,))
        for a in (op.weight_zero_point, op.bias, op.multiplier, op.shift)
    )
    bound = largest_accumulator(op.weight.astype(np.int64).reshape(channels, -1), zero, bias, input_bits)
    factor, _ = normalized_scales(bound, multiplier, shift, op.roundings)
    negative = bool((multiplier < 0).any())
    return Facts(tuple(bound.tolist()), tuple(shift.tolist()), tuple((factor == 0).tolist()), negative)


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
    if case.window.transposed:
        return _transposed(case)
    fastest = select_mve(case) if core in MVE_CORES else None
    fast = fastest or (select_dsp(case) if core in CORES else None)
    return fast or (_portable_twice(case) if case.roundings == 2 else _portable(case))


def _portable_twice(case: ConvCase) -> Kernel:
    """The portable kernel compiled once more with another epilogue."""
    kernel = _portable(case)
    file = kernel.sources[0].replace(".c", "_twice.c")
    return replace(kernel, function=f"{kernel.function}_twice", sources=(file, "epilogue_twice.c", *kernel.sources[1:]))


def _transposed(case: ConvCase) -> Kernel:
    """conv2d_transpose.c: int32 base[O], uint16 numbers[kh * kw], int16 column[taps on pixels * C / groups]."""
    bits, depth, window = case.weight_bits, case.weight_shape[3], case.window
    taps = window.kernel[0] * window.kernel[1]
    on_pixels = 1
    for kernel, stride, dilation in zip(window.kernel, window.input_dilation, window.dilation, strict=True):
        on_pixels *= -(-kernel // (stride // gcd(stride, dilation)))
    channels = case.output_shape[2]
    scratch = _round4(4 * channels + 2 * taps + 2 * on_pixels * depth)
    sources = ("conv2d_transpose.c", "epilogue.c", "pack.c")
    weights = channels * taps * row_bytes(depth, bits)
    groups = Groups(1, holds=case.groups > 1)
    return Kernel(f"mcuq_conv2d_transpose_w{bits}", sources, "segments", scratch, weights, groups=groups)


def _portable(case: ConvCase) -> Kernel:
    """Portable C. Scratch, as the head of each C file states it:

    depthwise.c        int32 offsets[kh * kw]
    fully_connected.c  int8 column[H * W * C]; none at 8 bits
    conv2d.c           int32 pairs[kh * kw * C / groups] for 4- and 2-bit weights, then
                       int8 columns[min(2, output pixels)][kh * kw * C / groups] unless they are read where they
                       lie and the output cannot take their place
    """
    bits = case.weight_bits
    channels = case.output_shape[2]
    taps = case.weight_shape[1] * case.weight_shape[2]
    if is_depthwise_case(case):
        weights, sources = taps * row_bytes(channels, bits), ("depthwise.c", "epilogue.c", "pack.c")
        # A run of channels writes the bytes of those channels alone: no other run of the pixel reads them.
        over = case.input_bits == case.output_bits and may_overwrite(case, 1)
        groups = Groups(1, holds=True)
        return Kernel(f"mcuq_depthwise_w{bits}", sources, "taps", 4 * taps, weights, in_place=over, groups=groups)
    column = taps * case.weight_shape[3]
    weights = channels * row_bytes(column, bits)
    if is_fully_connected(case) and case.roundings == 1:
        scratch = 0 if case.input_bits == 8 else _round4(column)
        return Kernel(
            f"mcuq_fully_connected_w{bits}",
            ("fully_connected.c", "dot.c", "epilogue.c", "pack.c"),
            "rows",
            scratch,
            weights,
        )
    pairs = 0 if bits == 8 else 4 * column
    over = case.groups == 1 and may_overwrite(case, 2)
    columns = 0 if reads_in_place(case) and not over else min(2, case.output_shape[0] * case.output_shape[1])
    sources, scratch = ("conv2d.c", "dot.c", "epilogue.c", "pack.c"), pairs + _round4(columns * column)
    groups = Groups(2, holds=reads_in_place(case) or case.groups > 1)
    return Kernel(f"mcuq_conv2d_w{bits}", sources, "rows", scratch, weights, in_place=over, groups=groups)


def _round4(size: int) -> int:
    return (size + 3) & ~3
