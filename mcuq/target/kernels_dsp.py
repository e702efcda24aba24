"""Kernels for cores with the DSP extension (ARMv7E-M, ARMv8-M Mainline): what they can run and what they need.

Every range condition of docs/kernels.md is checked here from the layer's facts; a layer that fails one gets a
kernel without it, or the portable family (None).
"""

from __future__ import annotations

from dataclasses import dataclass

from mcuq.numerics import SHIFT_MAX, common_shift, row_bytes
from mcuq.target.kernel_types import (
    ConvCase,
    Facts,
    Groups,
    Kernel,
    all_bytes,
    is_depthwise_case,
    is_fully_connected,
)
from mcuq.target.layouts_dsp import (
    HIGH_WORD_SHIFT,
    PANELS,
    RECORD_BYTES,
    TWICE_SHIFT,
    largest_shift,
    padded_depth,
    panel_words,
    raised_bits,
)
from mcuq.target.overlap import may_overwrite

CORES = frozenset({"cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55"})
"""Cores whose instructions the family uses."""

ELEMENTWISE = {
    "mcuq_add": "mcuq_add_dsp",
    "mcuq_max_pool": "mcuq_max_pool_dsp",
    "mcuq_avg_pool": "mcuq_avg_pool_dsp",
}
"""Functions of int8 tensors that have a faster twin; pools without dilation."""

PACKED_ELEMENTWISE = {"mcuq_max_pool": "mcuq_max_pool_packed_dsp"}
"""The same where all tensors have 4, or all 2 bits."""

ELEMENTWISE_SOURCES = {
    "mcuq_max_pool_packed_dsp": ("armv7em/max_pool_packed_dsp.c",),
    "mcuq_add_dsp": ("armv7em/add_dsp.c", "armv7em/finish.c"),
    "mcuq_max_pool_dsp": ("armv7em/max_pool_dsp.c", "armv7em/finish.c"),
    "mcuq_avg_pool_dsp": ("armv7em/avg_pool_dsp.c",),
}

_FINISH = "armv7em/finish.c"


def select_dsp(case: ConvCase) -> Kernel | None:
    """The family's kernel for ``case``; None when the portable one must do."""
    if case.output_bits == 32 or (case.roundings == 2 and not all_bytes(case)):
        return None
    if is_depthwise_case(case):
        planes = _depthwise3x3(case)
        return planes if planes or case.roundings == 2 else _depthwise(case)
    if case.groups != 1:
        return None
    return _matrix(case) if case.roundings == 1 else _matrix_twice(case)


def _matrix(case: ConvCase) -> Kernel | None:
    """Convolution as a matrix product over columns (conv2d_driver.h)."""
    depth = case.weight_shape[1] * case.weight_shape[2] * case.weight_shape[3]
    if case.output_shape[:2] == (1, 1) and not _short_panels(case, depth):
        return _one_pixel(case, depth) or _blocks(case, depth)
    return _blocks(case, depth)


SHORT_COLUMN = 256
"""Inputs of a column that may be computed several times."""


def _short_panels(case: ConvCase, depth: int) -> bool:
    """Few instructions at stake, as in most classifiers: eights of channels, filled up with zeros, and code for them
    are not worth their flash beside kernels that take two or four."""
    return case.beside_blocks and depth <= SHORT_COLUMN and case.output_shape[2] % 8 != 0


def _one_pixel(case: ConvCase, depth: int) -> Kernel | None:
    """Eight channels of one output pixel at a time."""
    layout = f"{case.weight_bits}{'z' if case.asymmetric else ''}"
    if is_fully_connected(case) and (direct := _direct(case, f"direct{layout}", depth)) is not None:
        return direct
    return _octets(case, f"octets{layout}", depth) if _admitted(case, f"octets{layout}") else None


def _blocks(case: ConvCase, depth: int) -> Kernel | None:
    """Several output pixels at a time."""
    bits, suffix = case.weight_bits, "z" if case.asymmetric else ""
    if (lanes := _lanes(case, depth)) is not None:
        return lanes
    layout = {8: "pairs8", 4: "quads4", 2: "quads2"}[bits] + suffix
    name = f"w{bits}{suffix}"
    if not _admitted(case, layout):
        if bits != 8 or not _admitted(case, "pairs8c"):
            return None
        layout, name = "pairs8c", "w8c"
    driver = "armv7em/conv2d_w8_dsp.c" if bits == 8 else "armv7em/conv2d_w42_dsp.c"
    channels = PANELS[layout].channels
    panels = -(-case.output_shape[2] // channels)
    pixels = 4 if bits == 8 else 2
    return Kernel(
        f"mcuq_conv2d_{name}_dsp",
        (driver, f"armv7em/gemm_w{bits}.S", "armv7em/gemm_model.c", _FINISH),
        layout,
        _matrix_scratch(case, depth, channels, pixels),
        4 * panels * panel_words(layout, depth),
        packs_parameters=True,
        in_place=may_overwrite(case, pixels),
        groups=Groups(pixels, again=pixels),
    )


def _matrix_twice(case: ConvCase) -> Kernel | None:
    """8-bit weights with two roundings (conv2d_w8_twice_dsp.c)."""
    depth = case.weight_shape[1] * case.weight_shape[2] * case.weight_shape[3]
    layout = "pairs8ct" if case.asymmetric or not _twice_admitted(case, "pairs8t") else "pairs8t"
    if not _twice_admitted(case, layout):
        return None
    return Kernel(
        f"mcuq_conv2d_w8{'c' if layout == 'pairs8ct' else ''}_twice_dsp",
        ("armv7em/conv2d_w8_twice_dsp.c", "armv7em/gemm_w8.S", "armv7em/gemm_model.c", _FINISH),
        layout,
        _matrix_scratch(case, depth, 2, pixels=4),
        4 * -(-case.output_shape[2] // 2) * panel_words(layout, depth),
        packs_parameters=True,
        in_place=may_overwrite(case, 4),
        groups=Groups(4, again=4),
    )


def _twice_admitted(case: ConvCase, layout: str) -> bool:
    """Sums at their position, or twice, stay below 2^31; see ``_rounds_twice``. Idle channels have no condition."""
    facts, form = case.facts, PANELS[layout]
    if facts is None:
        return True
    positions = (max(2, form.positions[c % form.channels]) for c in range(len(facts.shift)))
    channels = zip(positions, facts.accumulator, facts.idle, strict=True)
    return _rounds_twice(facts) and all(idle or position * bound < 2**31 for position, bound, idle in channels)


def _rounds_twice(facts: Facts) -> bool:
    """No multiplier is below zero; doubled sums move shifts up by one, to 33..55."""
    live = (shift for shift, idle in zip(facts.shift, facts.idle, strict=True) if not idle)
    return not facts.negative and all(TWICE_SHIFT <= shift < SHIFT_MAX for shift in live)


def _lanes(case: ConvCase, depth: int) -> Kernel | None:
    """Symmetric 2-bit weights on 2- or 4-bit inputs, two pixels a lane (gemm_lanes.S).

    A lane of 13 bits holds 910 products of 3 * 3; the 4-bit kernel empties its lanes itself.
    """
    bits = case.input_bits
    if case.weight_bits != 2 or case.asymmetric or bits == 8 or case.input_shape[2] * bits % 32 != 0:
        return None
    if (bits == 2 and 9 * depth >= 1 << 13) or not _admitted(case, "lanes"):
        return None
    panels = -(-case.output_shape[2] // 2)
    return Kernel(
        f"mcuq_conv2d_w2_lanes{bits}_dsp",
        (f"armv7em/conv2d_lanes{bits}_dsp.c", "armv7em/gemm_lanes.S", "armv7em/gemm_model.c", _FINISH),
        "lanes",
        _matrix_scratch(case, depth, 2, pixels=4) - 4 * depth,
        4 * panels * panel_words("lanes", depth),
        packs_parameters=True,
        in_place=may_overwrite(case, 4),
        groups=Groups(4, again=4),
    )


def _octets(case: ConvCase, layout: str, depth: int) -> Kernel:
    """Eight channels of one pixel at a time: fully connected layers (fully_connected_dsp.c)."""
    panels = -(-case.output_shape[2] // 8)
    return Kernel(
        f"mcuq_fully_connected_w{layout.removeprefix('octets')}_dsp",
        ("armv7em/fully_connected_dsp.c", "armv7em/gemm_octets.S", "armv7em/gemm_model.c", _FINISH),
        layout,
        _matrix_scratch(case, depth, 8, pixels=1),
        4 * panels * panel_words(layout, depth),
        packs_parameters=True,
        in_place=may_overwrite(case, 1),
        groups=Groups(1),
    )


def _direct(case: ConvCase, layout: str, depth: int) -> Kernel | None:
    """The same for int8 inputs in whole words, read where they lie: no columns (fully_connected_direct.c)."""
    if case.input_bits != 8 or depth % 4 != 0 or not _admitted(case, layout):
        return None
    outputs = case.output_shape[2]
    panels = -(-outputs // 8)
    records = RECORD_BYTES * (panels if case.per_channel else 1)
    stored_at_once = case.output_bits == 8 and outputs % 8 == 0
    return Kernel(
        f"mcuq_fully_connected_w{layout.removeprefix('direct')}_direct_dsp",
        ("armv7em/fully_connected_direct.c", "armv7em/gemm_direct.S", "armv7em/gemm_model.c", _FINISH),
        layout,
        0 if stored_at_once else 8 * panels,
        4 * panels * panel_words(layout, depth) + records,
        packs_parameters=True,
    )


_PLANE_SOURCES = (
    "armv7em/depthwise3x3.S",
    "armv7em/depthwise3x3_model.c",
    "armv7em/depthwise_packed.c",
    _FINISH,
)
_PITCHES = (16, 32, 64, 128, 256)
_PLANE_BYTES = 2048


def _depthwise3x3(case: ConvCase) -> Kernel | None:
    """3 x 3 depthwise, stride 1 or 2, planes of at most 256 bytes a row (depthwise3x3_dsp.c).

    A channel's shift below 33 is raised by scaling its weights by 2^k; they stay int16 and 9 products below 2^31:
    9 * 128 * 2^15 < 2^26, and the scaled bias and sum are bounded by the facts. With two roundings k is 1.
    """
    height, width, channels = case.output_shape
    stride = case.window.stride[0]
    if case.window.kernel != (3, 3) or case.window.stride not in ((1, 1), (2, 2)) or case.window.dilation != (1, 1):
        return None
    pairs = -(-width // 2) if stride == 1 else width
    columns = 2 * pairs + 2
    pitch = next((p for p in _PITCHES if 2 * columns <= p), None)
    if pitch is None or not _depthwise_admitted(case):
        return None
    strip = min(height, (max(_PLANE_BYTES // pitch, 9) - 3) // stride + 1)
    plane = ((strip - 1) * stride + 3) * pitch
    merged = 0 if case.output_bits == 8 else _round4(2 * strip * width)
    twice = "_twice" if case.roundings == 2 else ""
    kind = "" if case.input_bits == case.output_bits == 8 else "packed_"
    return Kernel(
        f"mcuq_depthwise3x3_{kind}w{case.weight_bits}_s{stride}_p{pitch}{twice}_dsp",
        (f"armv7em/depthwise3x3{twice}_dsp.c", *_PLANE_SOURCES),
        "nines",
        2 * plane + merged,
        channels * row_bytes(9, case.weight_bits),
        in_place=_strips_in_place(case, strip * width),
        groups=Groups(strip * width, holds=True),
    )


_STEPS, BLOCK, _SPARE_ROWS, _SMALL_PLANE_BYTES, _LARGEST_PLANE = 6, 4, 3, 1024, 8192


@dataclass(frozen=True, slots=True)
class Strips:
    """How depthwise_dsp.c cuts a layer: axes 0 (down) and 1 (across) are swapped for a layer of one column, which is
    computed as one of one row.

    Attributes:
        axes: the layer's axis that is taken as down, and as across.
        outputs, kernel, stride: along them.
        steps: of a kernel row. pitch: bytes of a plane row. strip: output rows of a strip.
    """

    axes: tuple[int, int]
    outputs: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    steps: int
    pitch: int
    strip: int

    @property
    def plane_bytes(self) -> int:
        return ((self.strip - 1) * self.stride[0] + self.kernel[0]) * self.pitch


def strips(case: ConvCase) -> Strips:
    """The strips of a depthwise layer of stride 1 or 2 across."""
    window = case.window
    turned = case.input_shape[1] == case.output_shape[1] == window.kernel[1] == 1
    down, across = axes = (1, 0) if turned else (0, 1)
    kernel, stride = (window.kernel[down], window.kernel[across]), (window.stride[down], window.stride[across])
    rows, columns = case.output_shape[down], case.output_shape[across]
    steps = kernel[1] // 2 + 1 if stride[1] == 1 else -(-kernel[1] // 2)
    wide = max(columns, BLOCK)
    pitch = 4 * (-(-wide // 2) + steps - 1 if stride[1] == 1 else wide - 1 + steps)
    fitting = max(_SMALL_PLANE_BYTES // pitch, kernel[0] + _SPARE_ROWS)
    strip = min(rows, (fitting - kernel[0]) // stride[0] + 1)
    return Strips(axes, (rows, columns), kernel, stride, steps, pitch, strip)


def _depthwise(case: ConvCase) -> Kernel | None:
    """Depthwise of any kernel, stride 1 or 2 along rows, four outputs at a time (depthwise_dsp.c)."""
    s = strips(case)
    if s.stride[1] not in (1, 2) or s.steps > _STEPS or s.plane_bytes > _LARGEST_PLANE:
        return None
    if case.window.dilation != (1, 1) or not _depthwise_admitted(case):
        return None
    columns = s.outputs[1]
    weights = (8 if s.stride[1] == 1 else 4) * s.kernel[0] * s.steps
    pairs = 0 if case.output_bits == 8 and columns >= BLOCK else _round4(2 * s.strip * max(columns, BLOCK))
    return Kernel(
        f"mcuq_depthwise_w{case.weight_bits}_s{s.stride[1]}_dsp",
        ("armv7em/depthwise_dsp.c", "armv7em/depthwise_blocks.S", "armv7em/depthwise_blocks_model.c", *_PLANE_SOURCES),
        "rows",
        2 * s.plane_bytes + weights + pairs,
        case.output_shape[2] * row_bytes(s.kernel[0] * s.kernel[1], case.weight_bits),
        in_place=_strips_in_place(case, s.strip * columns),
    )


def _strips_in_place(case: ConvCase, pixels: int) -> bool:
    """A channel pair of a strip is written over its own bytes, once the strip's inputs of that pair are gathered; what
    later strips read must lie behind. A byte holds channels of one pair only at 8 and 4 bits."""
    if case.input_bits != case.output_bits or case.input_bits == 2:
        return False
    return may_overwrite(case, pixels)


def _depthwise_admitted(case: ConvCase) -> bool:
    if case.facts is None:
        return True
    if case.roundings == 2:
        in_range = all(shift >= TWICE_SHIFT for shift in case.facts.shift)
        return _rounds_twice(case.facts) and in_range and all(2 * bound < 2**31 for bound in case.facts.accumulator)
    largest = (1 << (case.weight_bits - 1)) * (2 if case.asymmetric else 1)
    scales = [max(0, HIGH_WORD_SHIFT - shift) for shift in case.facts.shift]
    sums = zip(case.facts.accumulator, scales, strict=True)
    return largest << max(scales) <= 2**15 - 1 and all(bound << scale < 2**31 for bound, scale in sums)


_RAISE_MAX = {8: 8, 4: 11, 2: 13}
"""Most bits that inputs of 8, 4, 2 bits can be shifted left in an int16: -128 * 2^8, 15 * 2^11, 3 * 2^13."""


def _admitted(case: ConvCase, layout: str) -> bool:
    """One shift; raised by k bits it stays in 33..55 at every position, and position * 2^k * |acc| below 2^31."""
    facts, form = case.facts, PANELS[layout]
    if facts is None:
        return True
    shift = common_shift(facts.shift)
    if shift is None or largest_shift(layout, shift) > SHIFT_MAX:
        return False
    shared = form.direct and not case.per_channel  # one multiplier: idle channels have none of their own
    idles = (False,) * len(facts.idle) if shared else facts.idle
    raised = raised_bits(shift)
    if form.direct and raised:
        return False
    if not form.lanes and raised > _RAISE_MAX[case.input_bits]:  # lanes multiply sums, not inputs
        return False
    positions = (form.positions[c % form.channels] << raised for c in range(len(facts.shift)))
    channels = zip(positions, facts.accumulator, idles, strict=True)
    return all(idle or position * bound < 2**31 for position, bound, idle in channels)


def _matrix_scratch(case: ConvCase, depth: int, channels: int, pixels: int) -> int:
    """Columns of int16 pairs; then, in one place, a column's packed codes and rows of outputs not stored at once."""
    height, width, outputs = case.output_shape
    stored_at_once = case.output_bits == 8 and outputs % channels == 0 and height * width >= pixels
    rows = 0 if stored_at_once else pixels * _round4(-(-outputs // channels) * channels)
    joined = case.input_shape[2] * case.input_bits % 32 != 0
    packed = _round4(row_bytes(depth, case.input_bits)) + 4 if joined else 0
    return 2 * padded_depth(depth) * pixels + max(rows, packed)


def _round4(size: int) -> int:
    return (size + 3) & ~3
