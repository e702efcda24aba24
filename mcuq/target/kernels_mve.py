"""Kernels for cores with Helium: what they can run and what they need.

A layer that fails a condition of docs/kernels.md gets None: the DSP family, then the portable one, are asked next.
"""

from __future__ import annotations

import numpy as np

from mcuq.numerics import SHIFT_MAX
from mcuq.target.kernel_types import ConvCase, Facts, Groups, Kernel, all_bytes, is_depthwise_case
from mcuq.target.layouts_dsp import HIGH_WORD_SHIFT
from mcuq.target.layouts_mve import CHANNELS, POSITIONS, VECTOR_SHIFT, helium_bytes, nines_bytes, raised_inputs
from mcuq.target.overlap import may_overwrite

MVE_CORES = frozenset({"cortex-m55"})
"""Cores whose instructions the family uses."""

MVE_ELEMENTWISE = {
    "mcuq_add": "mcuq_add_mve",
    "mcuq_max_pool": "mcuq_max_pool_mve",
    "mcuq_avg_pool": "mcuq_avg_pool_mve",
}
"""Functions of int8 tensors that have a faster twin; pools without dilation."""

MVE_ELEMENTWISE_SOURCES = {
    "mcuq_add_mve": ("mve/add_mve.c",),
    "mcuq_add_packed_mve": ("mve/add_mve.c",),
    "mcuq_max_pool_mve": ("mve/max_pool_mve.c",),
    "mcuq_avg_pool_mve": ("mve/avg_pool_mve.c",),
}

PIXELS = 3
"""Output pixels of a block."""


def select_mve(case: ConvCase) -> Kernel | None:
    """The family's kernel for ``case``; None when another family must do."""
    if case.roundings == 2 and not all_bytes(case):
        return None
    if is_depthwise_case(case):
        return _depthwise3x3(case)
    if case.output_bits == 32 or case.groups != 1:
        return None
    if not _matrix_admitted(case):
        return None
    bits, zero_point = case.weight_bits, "z" if case.asymmetric else ""
    layout = f"helium{bits}{'one' if bits == 4 and _group(case) == 1 else ''}{zero_point}"
    depth = case.weight_shape[1] * case.weight_shape[2] * case.weight_shape[3]
    group = _group(case)
    return Kernel(
        f"mcuq_conv2d_w{bits}{zero_point}{_twice(case)}_mve",
        (f"mve/conv2d_w{bits}.c", "mve/gemm.S"),
        layout,
        _scratch(case, depth),
        helium_bytes(layout, case.output_shape[2], depth),
        packs_parameters=True,
        groups=Groups(group, holds=_in_place(case), again=group),
    )


def _twice(case: ConvCase) -> str:
    return "_twice" if case.roundings == 2 else ""


_PLANE_BYTES = 2048
_TILE_COLUMNS = {1: 82, 2: 30}
"""Most output columns of a tile, by stride: inputs of a patch are at most 255 bytes apart."""


def _depthwise3x3(case: ConvCase) -> Kernel | None:
    """3 x 3, stride 1 or 2 (depthwise3x3.c)."""
    height, width, channels = case.output_shape
    window, bits = case.window, case.weight_bits
    if window.kernel != (3, 3) or window.stride not in ((1, 1), (2, 2)) or window.dilation != (1, 1):
        return None
    if case.output_bits == 32 or 15 * channels >= 2**16:
        return None
    if not _admitted(POSITIONS[bits], case.facts):
        return None
    stride, zero_point = window.stride[0], "z" if case.asymmetric else ""
    columns = min(width, _TILE_COLUMNS[stride])
    pitch = max(columns - 1, 1) * stride + 3
    rows = min(height, (_PLANE_BYTES // pitch - 3) // stride + 1 & ~1)
    # A channel of a tile is written over its own bytes; another tile or a row computed again must find its inputs.
    packed = (case.input_bits, case.output_bits) != (8, 8)
    whole = columns == width and (rows == height or height % rows != 1)
    in_place = not packed and whole and may_overwrite(case, rows * width)
    return Kernel(
        f"mcuq_depthwise3x3_w{bits}{zero_point}_s{stride}{'p' if packed else ''}{_twice(case)}_mve",
        (f"mve/depthwise3x3_w{bits}.c", "mve/depthwise3x3_patches.S"),
        f"helium_nines{bits}{zero_point}",
        _round4(((max(rows, 2) - 1) * stride + 3) * pitch),
        nines_bytes(f"helium_nines{bits}{zero_point}", channels),
        packs_parameters=True,
        in_place=in_place,
        groups=None if packed else Groups(rows * width, holds=True, again=2 * width),
    )


_RAISE_MAX = {8: 0, 4: 3, 2: 5}
"""Most bits that inputs of 8, 4, 2 bits can be shifted left in an int8: 15 * 2^3, 3 * 2^5."""


def _matrix_admitted(case: ConvCase) -> bool:
    """Inputs can be raised so far that every shift is at least 32 at its position, and the layer is then admitted."""
    if case.facts is None:
        return True
    raised = raised_inputs(case.weight_bits, np.array(_live_shifts(case.facts)))
    return raised <= _RAISE_MAX[case.input_bits] and _admitted(POSITIONS[case.weight_bits] << raised, case.facts)


def _live_shifts(facts: Facts) -> list[int]:
    live = [shift for shift, idle in zip(facts.shift, facts.idle, strict=True) if not idle]
    return live or [HIGH_WORD_SHIFT]


def _admitted(position: int, facts: Facts | None) -> bool:
    """Shifts stay in 32..55 at the position, and position * |acc| below 2^31."""
    if facts is None:
        return True
    live = [shift + position.bit_length() - 1 for shift in _live_shifts(facts)]
    return min(live) >= VECTOR_SHIFT and max(live) <= SHIFT_MAX and position * max(facts.accumulator) < 2**31


def _scratch(case: ConvCase, depth: int) -> int:
    """int8 columns unless they lie in the input; rows of finished outputs unless stored at once."""
    group, outputs = _group(case), case.output_shape[2]
    columns = 0 if _in_place(case) else group * _round4(depth)
    stored_at_once = case.output_bits == 8 and outputs >= CHANNELS
    return columns + (0 if stored_at_once else _round4(group * max(outputs, CHANNELS)))


def _group(case: ConvCase) -> int:
    """Output pixels at a time."""
    return PIXELS if case.output_shape[0] * case.output_shape[1] >= PIXELS else 1


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
