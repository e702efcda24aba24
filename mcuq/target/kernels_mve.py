"""Kernels for cores with Helium: what they can run and what they need.

A layer that fails a condition of docs/kernels.md gets None: the DSP family, then the portable one, are asked next.
"""

from __future__ import annotations

from mcuq.numerics import SHIFT_MAX, row_bytes
from mcuq.target.kernel_types import ConvCase, Facts, Kernel, is_depthwise_case
from mcuq.target.layouts_dsp import HIGH_WORD_SHIFT
from mcuq.target.layouts_mve import POSITIONS, helium_bytes

MVE_CORES = frozenset({"cortex-m55"})
"""Cores whose instructions the family uses."""

PIXELS = 3
"""Output pixels of a block."""


def select_mve(case: ConvCase) -> Kernel | None:
    """The family's kernel for ``case``; None when another family must do."""
    if is_depthwise_case(case):
        return _depthwise3x3(case)
    if case.output_bits == 32 or case.groups != 1:
        return None
    if not _admitted(POSITIONS[case.weight_bits], case.facts):
        return None
    name = f"{case.weight_bits}{'z' if case.asymmetric else ''}"
    depth = case.weight_shape[1] * case.weight_shape[2] * case.weight_shape[3]
    return Kernel(
        f"mcuq_conv2d_w{name}_mve",
        (f"mve/conv2d_w{case.weight_bits}.c", "mve/gemm.S", "armv7em/finish.c"),
        f"helium{name}",
        _scratch(case, depth),
        helium_bytes(f"helium{name}", case.output_shape[2], depth),
        packs_parameters=True,
    )


_PITCHES = (16, 32, 64, 112)
_PLANE_BYTES = 2048


def _depthwise3x3(case: ConvCase) -> Kernel | None:
    """3 x 3, stride 1, int8 in and out, rows of 4 .. 110 outputs (depthwise3x3.c).

    Shifts below 33 are raised by scaling weights and bias by 2^k; sums may wrap, the last one stays below 2^31.
    """
    height, width, channels = case.output_shape
    window = case.window
    if (window.kernel, window.stride, window.dilation) != ((3, 3), (1, 1), (1, 1)):
        return None
    pitch = next((p for p in _PITCHES if width + 2 <= p), None)
    if case.input_bits != 8 or case.output_bits != 8 or width < 4 or pitch is None or 15 * channels >= 2**16:
        return None
    if max(window.padding[:2]) > 2:
        return None
    if (facts := case.facts) is not None:
        scale = max(0, HIGH_WORD_SHIFT - min(facts.shift))
        if max(facts.accumulator) << scale >= 2**31 or scale > 22:
            return None
    rows = min(height, _PLANE_BYTES // pitch - 2)
    bits = case.weight_bits
    return Kernel(
        f"mcuq_depthwise3x3_w{bits}_p{pitch}_mve",
        (f"mve/depthwise3x3_w{bits}.c", "mve/depthwise3x3_rows.S", "armv7em/finish.c"),
        "nines",
        (rows + 2) * pitch,
        channels * row_bytes(9, bits),
    )


def _admitted(position: int, facts: Facts | None) -> bool:
    """Shifts stay in 33..55 at the position, and position * |acc| below 2^31."""
    if facts is None:
        return True
    live = [shift for shift, idle in zip(facts.shift, facts.idle, strict=True) if not idle]
    return (
        min(facts.shift) >= HIGH_WORD_SHIFT
        and max(live, default=HIGH_WORD_SHIFT) + position.bit_length() - 1 <= SHIFT_MAX
        and position * max(facts.accumulator) < 2**31
    )


def _scratch(case: ConvCase, depth: int) -> int:
    """int8 columns unless they lie in the input; rows of finished outputs unless stored at once."""
    height, width, outputs = case.output_shape
    columns = 0 if _in_place(case) else min(PIXELS, height * width) * _round4(depth)
    stored_at_once = case.output_bits == 8 and outputs % 2 == 0 and height * width >= PIXELS
    return columns + (0 if stored_at_once else _round4(PIXELS * (outputs + outputs % 2)))


def _in_place(case: ConvCase) -> bool:
    """Every column is a run of bytes of the input."""
    window = case.window
    (height, width), (rows, columns) = case.input_shape[:2], case.output_shape[:2]
    return (
        case.input_bits == 8
        and window.dilation == (1, 1)
        and (window.kernel[0] == 1 or window.kernel[1] == width)
        and window.padding[:2] == (0, 0)
        and (rows - 1) * window.stride[0] + window.kernel[0] <= height
        and (columns - 1) * window.stride[1] + window.kernel[1] <= width
    )


def _round4(size: int) -> int:
    return (size + 3) & ~3
