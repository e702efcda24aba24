"""How often each part of a kernel runs: loop counts in closed form, from shapes and bits alone.

The counts are the features of a linear model of executed instructions (``instructions``); their names follow the
kernels' loops. Nothing here knows a cost.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from mcuq.ir.graph import Shape, Window
from mcuq.target.kernel_types import ConvCase, Kernel, is_depthwise_case
from mcuq.target.kernels_dsp import BLOCK, strips
from mcuq.target.layouts_dsp import HIGH_WORD_SHIFT, PANELS, padded_depth

Work = Mapping[str, float]
"""Counts by the name of the loop."""

RUN = 16
"""MCUQ_RUN: channels requantized together by the portable kernels."""
CHUNK = 32
"""MCUQ_CHUNK: codes handled together by the elementwise kernels."""
_MOST_BLOCKS = {16: 3, 32: 7}
"""Output blocks of one call of the DSP family's depthwise kernel of stride 1, by pitch; else 4, for stride 2 3."""


@dataclass(frozen=True, slots=True)
class Taps:
    """Taps of a window along one axis, summed over all outputs.

    ``counts`` has those inside the input for every output; ``whole`` outputs have all of them inside.
    """

    kernel: int
    counts: tuple[int, ...]

    @property
    def outputs(self) -> int:
        return len(self.counts)

    @property
    def inside(self) -> int:
        return sum(self.counts)

    @property
    def whole(self) -> int:
        return self.counts.count(self.kernel)

    @property
    def outside(self) -> int:
        return self.outputs * self.kernel - self.inside


@cache
def taps(size: int, outputs: int, window: Window, axis: int) -> Taps:
    """Taps along an axis (0 rows, 1 columns) of inputs of ``size``."""
    kernel, stride, step = window.kernel[axis], window.stride[axis], window.dilation[axis]
    spread, firsts = window.input_dilation[axis], (o * stride - window.padding[axis] for o in range(outputs))
    places = range(0, (size - 1) * spread + 1, spread)
    return Taps(kernel, tuple(sum(first + k * step in places for k in range(kernel)) for first in firsts))


def conv_work(case: ConvCase, kernel: Kernel) -> Work:
    """Loop counts of a convolution on ``kernel``."""
    if case.window.transposed:
        return _transposed(case)
    if not is_depthwise_case(case):
        return _matrix(case, kernel)
    if kernel.function.endswith("_dsp"):
        return _depthwise_planes(case, kernel) if "3x3" in kernel.function else _depthwise_blocks(case)
    return _depthwise_tiles(case) if kernel.function.endswith("_mve") else _depthwise(case)


def family(function: str) -> str:
    """``function`` without plane sizes and the mark of zero points: kernels of one family share a model."""
    return re.sub(r"_p\d+_|(?<=_w[842])z_", "_", function)


def _blocking(kernel: Kernel, case: ConvCase) -> tuple[int, int]:
    """(pixels, channels) that a matrix kernel handles at a time."""
    if kernel.function.endswith("_mve"):
        return 1 if case.output_shape[0] * case.output_shape[1] < 3 else 3, 4
    if kernel.layout in PANELS:
        wide = kernel.layout.startswith("pairs") or kernel.layout == "lanes"
        return 1 if kernel.layout.startswith("octets") else 4 if wide else 2, PANELS[kernel.layout].channels
    return 1 if "fully_connected" in kernel.function else 2, 2


def _matrix(case: ConvCase, kernel: Kernel) -> Work:
    pixels, channels = _blocking(kernel, case)
    height, width, outputs = case.output_shape
    each = outputs // case.groups
    depth = case.weight_shape[1] * case.weight_shape[2] * case.weight_shape[3]
    blocks = -(-height * width // pixels) * case.groups
    panels = blocks * -(-each // channels)
    work: Counter[str] = Counter({"call": 1, "block": blocks, "panel": panels, "code": height * width * outputs})
    if kernel.function.endswith("_mve"):
        work.update(_helium(case, kernel, blocks, panels, depth, "one " if pixels == 1 else ""))
    else:
        work["step"] = panels * (padded_depth(depth) // 4)
        work["rest"] = panels * (depth % 4)
    if kernel.layout == "rows":
        work["run"] = blocks * -(-each // RUN)
        work["pair"] = blocks * depth
    if case.asymmetric:
        work["zeroed"] = panels
        work["zeroed step"] = work["step"]
        work["summed"] = blocks * depth
    if low := _low_shifts(case):
        work["low code"] = height * width * low
        work["raised"] = blocks * depth if kernel.packs_parameters else 0
        work["raised block"] = blocks if kernel.packs_parameters else 0
    work.update(_store(case, kernel, pixels, channels))
    work.update(_gather(case, kernel, pixels))
    return work


def _transposed(case: ConvCase) -> Work:
    """Taps on pixels are gathered, and multiplied one after the other."""
    rows = taps(case.input_shape[0], case.output_shape[0], case.window, 0)
    columns = taps(case.input_shape[1], case.output_shape[1], case.window, 1)
    pixels, outputs, depth = rows.outputs * columns.outputs, case.output_shape[2], case.weight_shape[3]
    found, packed = rows.inside * columns.inside, 8 // case.weight_bits
    return {
        "call": 1,
        "base": outputs * rows.kernel * columns.kernel,
        "base code": outputs * rows.kernel * columns.kernel * depth,
        "pixel": pixels * case.groups,
        "tap row": pixels * rows.kernel * case.groups,
        "tap": rows.inside * columns.outputs * columns.kernel * case.groups,
        "inside": found * case.groups,
        f"gather {case.input_bits}": found * depth * case.groups,
        "run": pixels * case.groups * -(-outputs // case.groups // RUN),
        "code": pixels * outputs,
        "product": found * outputs,
        "byte": found * outputs * (depth // packed),
        "rest": found * outputs * (depth % packed),
        "low code": pixels * _low_shifts(case),
        f"store {case.output_bits}": pixels * outputs,
    }


def _helium(case: ConvCase, kernel: Kernel, blocks: int, panels: int, depth: int, kind: str) -> dict[str, float]:
    """Vectors of 16 weights of four channels; the last four overlap the ones before. ``kind``: for one pixel."""
    outputs = case.output_shape[2]
    panel: dict[str, float] = {
        f"{kind}panel": panels,
        f"{kind}block": blocks,
        f"{kind}overlap": blocks * (outputs % 4 > 0 and outputs > 4),
    }
    if case.weight_bits == 4:
        vectors = -(-depth // 16)
        if kind:
            return panel | {f"{kind}step": panels * vectors, f"{kind}summed": blocks * vectors}
        return panel | {"step": panels * (depth // 64), "vector": panels * -(-(depth % 64) // 16)}
    step = 16 * 8 // case.weight_bits
    rest = depth % step
    few = 0 < rest <= 16 and step > 16
    return panel | {
        f"{kind}step": panels * (depth // step),
        f"{kind}few": panels * few,
        f"{kind}rest": panels * (rest > 0 and not few),
    }


def _low_shifts(case: ConvCase) -> int:
    """Channels whose shift needs more than the product's high word, as far as the layer's facts are known."""
    if case.facts is None or case.roundings == 2:
        return 0
    pairs = zip(case.facts.shift, case.facts.idle, strict=True)
    return sum(shift < HIGH_WORD_SHIFT and not idle for shift, idle in pairs)


def _store(case: ConvCase, kernel: Kernel, pixels: int, channels: int) -> dict[str, float]:
    """Finished rows, unless the kernel stores codes at once."""
    height, width, outputs = case.output_shape
    bits = case.output_bits
    whole = outputs >= channels if kernel.function.endswith("_mve") else outputs % channels == 0
    if kernel.packs_parameters and bits == 8 and whole and height * width >= pixels:
        return {}
    count = height * width
    if kernel.packs_parameters:  # four codes at a time
        words, rest = outputs // 4, outputs % 4
        return {f"store {bits}": count * words, f"rest {bits}": count * rest, f"row {bits}": count}
    return {f"store {bits}": count * outputs, f"row {bits}": count}


def _gather(case: ConvCase, kernel: Kernel, pixels: int) -> dict[str, float]:
    """Columns of inputs, by the path that the kernel takes for them."""
    path = _path(case, kernel)
    if path == "none":
        linear = case.window.stride == (1, 1) and case.weight_shape[1:3] == (1, 1)
        return {"linear column" if linear else "column": case.output_shape[0] * case.output_shape[1]}
    rows = taps(case.input_shape[0], case.output_shape[0], case.window, 0)
    columns = taps(case.input_shape[1], case.output_shape[1], case.window, 1)
    count = rows.outputs * columns.outputs
    repeats = kernel.packs_parameters and (count >= pixels or not kernel.function.endswith("_mve"))
    again = -(-count // pixels) * pixels / count if repeats else 1.0  # the last block computes some pixels again
    share = case.input_shape[2] // case.groups * case.groups
    inside = rows.inside * columns.inside
    kind = f"{path} {case.input_bits}"
    edges = rows.inside * (columns.outputs - columns.whole) + rows.outside * columns.outputs
    counts = {
        f"column {kind}": count * case.groups,
        f"tap row {kind}": count * rows.kernel * case.groups,
        f"edge {kind}": edges * case.groups,
        f"inside {kind}": inside * share,
        f"outside {kind}": (count * rows.kernel * columns.kernel - inside) * share,
    }
    if kernel.function.endswith("_mve"):
        counts |= _vectors(case, rows, columns, kind, runs=path == "runs")
    if path in ("taps", "joined"):
        counts[f"tap {kind}"] = count * rows.kernel * columns.kernel * case.groups
    bits = share * case.input_bits
    if path == "joined":
        counts[f"half {kind}"] = count * rows.kernel * columns.kernel * ((bits - 1) // 16)
    if path in ("copies", "nines"):
        counts[f"word {kind}"] = rows.inside * sum(-(-n * bits // 32) for n in columns.counts)
    if path == "nines":  # windows that lie inside the input take a path of their own
        whole = rows.whole * columns.whole
        part = 1 - whole / count
        counts = {name: value * part for name, value in counts.items()} | {f"inner {kind}": whole}
    return {name: value * again for name, value in counts.items()}


def _vectors(case: ConvCase, rows: Taps, columns: Taps, kind: str, *, runs: bool) -> dict[str, float]:
    """Vectors of Helium's copies: 16 codes, or 16 packed bytes and then code by code."""
    channels, size = case.input_shape[2], 16 * 8 // case.input_bits
    inside = [n * channels for n in columns.counts] if runs else [channels] * columns.inside
    outside = [(columns.kernel - n) * channels for n in columns.counts] if runs else [channels] * columns.outside
    fills = rows.inside * sum(-(-n // 16) for n in outside)
    fills += rows.outside * columns.outputs * -(-columns.kernel * channels // 16)
    if case.input_bits == 8:
        return {f"vector {kind}": rows.inside * sum(-(-n // 16) for n in inside), f"fill {kind}": fills}
    return {
        f"vector {kind}": rows.inside * sum(n // size for n in inside),
        f"alone {kind}": rows.inside * sum(n % size for n in inside),
        f"fill {kind}": fills,
    }


def _path(case: ConvCase, kernel: Kernel) -> str:
    """How columns come about: none, runs of whole tap rows, single taps, copies of tap rows, or joined codes."""
    channels, bits = case.input_shape[2], case.input_bits
    window = case.window
    if kernel.packs_parameters and not kernel.function.endswith("_mve"):
        if channels * bits % 32:
            if channels * bits % 8 or window.dilation[1] > 1:
                return "joined"
            plain = (channels, bits, window.kernel, window.dilation) == (3, 8, (3, 3), (1, 1))
            return "nines" if plain and min(case.input_shape[:2]) >= 3 else "copies"
        return "runs" if window.dilation[1] == 1 else "taps"
    fully = "fully_connected" in kernel.function
    if bits == 8 and (fully or _in_place(case, kernel)):
        return "none"
    whole = channels * bits % 8 == 0 and case.groups == 1 and window.dilation[1] == 1
    return "runs" if whole and not fully else "taps"


def _in_place(case: ConvCase, kernel: Kernel) -> bool:
    """Columns are pixels of the input (Helium: whole rows of it too)."""
    window = case.window
    (height, width), (rows, columns) = case.input_shape[:2], case.output_shape[:2]
    if window.padding[:2] != (0, 0) or window.dilation != (1, 1):
        return False
    tall = window.kernel[1] == width and kernel.function.endswith("_mve")
    inside = (rows - 1) * window.stride[0] + window.kernel[0] <= height
    inside = inside and (columns - 1) * window.stride[1] + window.kernel[1] <= width
    return inside and (window.kernel == (1, 1) or tall or (window.kernel[0] == 1 and kernel.function.endswith("_mve")))


def _depthwise(case: ConvCase) -> Work:
    """The portable kernel: four channels of a pixel at a time."""
    rows = taps(case.input_shape[0], case.output_shape[0], case.window, 0)
    columns = taps(case.input_shape[1], case.output_shape[1], case.window, 1)
    pixels, channels = rows.outputs * columns.outputs, case.output_shape[2]
    every = pixels * rows.kernel * columns.kernel
    inside, bits = rows.inside * columns.inside, case.input_bits
    work: Counter[str] = Counter({"call": 1, "pixel": pixels, "inside": inside, "outside": every - inside})
    work["tap row"] = pixels * rows.kernel
    work["run"] = pixels * -(-channels // RUN)
    work["code"] = pixels * channels
    work[f"four {bits}"] = pixels * (channels // 4)
    work[f"four taps {bits}"] = every * (channels // 4)
    work[f"single {bits}"] = pixels * (channels % 4)
    work[f"single taps {bits}"] = every * (channels % 4)
    if case.asymmetric:
        work["zeroed"] = pixels * channels
        work["summed"] = every * channels
    work["low code"] = pixels * _low_shifts(case)
    work[f"store {case.output_bits}"] = pixels * channels
    return work


def _depthwise_planes(case: ConvCase, kernel: Kernel) -> Work:
    """3 x 3 by planes of int16, two channels at a time (DSP)."""
    (height, width, channels), stride = case.output_shape, case.window.stride[0]
    pitch = int(kernel.function.rpartition("_p")[2].partition("_")[0])
    strip = min(height, (max(2048 // pitch, 9) - 3) // stride + 1)
    rows = _inside_rows(case, strip)
    in_columns = min((width - 1) * stride + 3 - case.window.padding[1], case.input_shape[1])
    groups, bits, strips = -(-channels // 2), case.input_bits, len(rows)
    planes = sum((min(strip, height - k * strip) - 1) * stride + 3 for k in range(strips))
    work: Counter[str] = Counter({"call": 1, "strip": strips, "plane": planes * pitch, "channel": strips * channels})
    work[f"group {bits}"] = strips * groups
    work[f"gather row {bits}"] = sum(rows) * groups
    work[f"gather {bits}"] = sum(rows) * in_columns * groups
    work[f"gather alone {bits}"] = sum(rows) * in_columns * (channels % 2)
    blocks = width // 2 if stride == 1 else width
    passes = -(-blocks // (_MOST_BLOCKS.get(pitch, 4) if stride == 1 else 3))
    work[f"pass {stride}"] = strips * channels * passes
    work[f"row {stride}"] = height * channels * passes
    work[f"output {stride}"] = height * channels * blocks
    work["odd column"] = height * channels * (width % 2 if stride == 1 else 0)
    work["zeroed"] = strips * (channels if case.asymmetric else _low_shifts(case))
    if case.output_bits != 8:
        work[f"merge {case.output_bits}"] = height * width * groups
    return work


def _depthwise_blocks(case: ConvCase) -> Work:
    """Any kernel by planes of int16, two channels and four outputs at a time (DSP)."""
    s, channels, bits = strips(case), case.output_shape[2], case.input_bits
    (height, width), (kernel, taps_across) = s.outputs, s.kernel
    inside = _inside_rows(case, s.strip, s.axes[0])
    last = (width - 1) * s.stride[1] + taps_across - case.window.padding[s.axes[1]]
    columns, groups, count = min(last, case.input_shape[s.axes[1]]), -(-channels // 2), len(inside)
    planes = sum((min(s.strip, height - k * s.strip) - 1) * s.stride[0] + kernel for k in range(count))
    wide = max(width, BLOCK)
    blocks, passes = height * channels * -(-wide // BLOCK), 1 + (wide % BLOCK > 0)
    work = {
        "call": 1,
        "strip": count,
        "plane": planes * s.pitch,
        "channel": count * channels,
        "tap row": count * channels * kernel,
        "tap": count * channels * kernel * taps_across,
        f"group {bits}": count * groups,
        f"gather row {bits}": sum(inside) * groups,
        f"gather {bits}": sum(inside) * columns * groups,
        f"gather alone {bits}": sum(inside) * columns * (channels % 2),
        "pass": count * channels * passes,
        "row": height * channels * passes,
        "block": blocks,
        "kernel row": blocks * kernel,
        "step": blocks * kernel * s.steps,
    }
    if case.output_bits != 8:
        work[f"merge {case.output_bits}"] = height * width * groups
    elif width < BLOCK:
        work["moved"] = height * width * groups
    return work


def _inside_rows(case: ConvCase, strip: int, axis: int = 0) -> list[int]:
    """Input rows (or columns) of every strip of output rows, those outside the input left out."""
    height, stride, kernel = case.output_shape[axis], case.window.stride[axis], case.window.kernel[axis]
    starts = [first * stride - case.window.padding[axis] for first in range(0, height, strip)]
    heights = [min(strip, height - first) for first in range(0, height, strip)]
    size = case.input_shape[axis]
    ends = [min(s + (h - 1) * stride + kernel, size) for s, h in zip(starts, heights, strict=True)]
    return [max(end - max(start, 0), 0) for start, end in zip(starts, ends, strict=True)]


def _depthwise_tiles(case: ConvCase) -> Work:
    """3 x 3 by planes of bytes, one channel of a tile at a time (Helium)."""
    (height, width, channels), stride = case.output_shape, case.window.stride[0]
    columns = min(width, 82 if stride == 1 else 30)
    pitch = max(columns - 1, 1) * stride + 3
    rows = min(height, max((2048 // pitch - 3) // stride + 1 & ~1, 1))
    inside, widths = _inside_rows(case, rows), [min(columns, width - x) for x in range(0, width, columns)]
    tiles = len(inside) * len(widths)
    pairs = sum(-(-min(rows, height - y) // 2) for y in range(0, height, rows))
    gathered = [min((w - 1) * stride + 3, case.input_shape[1]) for w in widths]
    patches = pairs * sum(max(w // 2, 1) for w in widths)
    bits = case.input_bits
    packed = (
        {}
        if case.output_bits == 8
        else {
            f"merge {case.output_bits}": height * width * channels,
            f"merge channel {case.output_bits}": tiles * channels,
        }
    )
    return packed | {
        "call": 1,
        "tile": tiles,
        "plane": sum(inside) * len(widths) * pitch,
        "channel": tiles * channels,
        f"channel {bits}": tiles * channels,
        f"gather row {bits}": sum(inside) * len(widths) * channels,
        f"gather {bits}": sum(inside) * sum(gathered) * channels,
        f"gather four {bits}": sum(inside) * sum(-(-g // 4) for g in gathered) * channels,
        f"gather sixteen {bits}": sum(inside) * sum(-(-g // 16) for g in gathered) * channels,
        "pair": pairs * len(widths) * channels,
        "patch": patches * channels,
        "odd patch": pairs * sum(w % 2 for w in widths) * channels,
        "zeroed": tiles * channels * case.asymmetric,
        "zeroed patch": patches * channels * case.asymmetric,
    }


@dataclass(frozen=True, slots=True)
class Elementwise:
    """An operator without weights: (shape, bits) of inputs and output, and the window of pools and pads.

    ``kept``: int8 codes go into a concatenation as they are.
    """

    inputs: tuple[tuple[Shape, int], ...]
    output: tuple[Shape, int]
    window: Window | None = None
    kept: bool = False


def elementwise_work(case: Elementwise) -> Work:
    """Loop counts of an operator without weights."""
    (height, width, channels), bits = case.output
    pixels = height * width
    if case.kept:
        return {"kept": 1, "kept pixel": pixels, "kept code": pixels * channels}
    work: Counter[str] = Counter({"call": 1, "pixel": pixels, "code": pixels * channels})
    work["chunk"] = pixels * -(-channels // CHUNK)
    work["row"] = height
    work[f"write {bits}"] = pixels * channels
    if bits != 8:
        work["packed chunk"] = pixels * -(-channels // CHUNK)
    if len(case.inputs) > 1:
        work.update(_runs(case))
    for (rows, columns, depth), source_bits in case.inputs:
        reads, chunks = rows * columns * depth, rows * columns * -(-depth // CHUNK)
        if case.window is not None:
            down = taps(rows, height, case.window, 0)
            across = taps(columns, width, case.window, 1)
            windows = down.inside * across.inside
            reads, chunks = windows * depth, windows * -(-depth // CHUNK)
            work["axis"] += height * (down.kernel + width * across.kernel)
            if source_bits == bits < 8:
                work.update(_packed_windows(-(-depth * bits // 8), bits, windows, pixels, down.inside * width))
            work.update(_windows(case.window, depth, (down, across), columns))
        work[f"read {source_bits}"] += reads
        work["read chunk"] += chunks
        if source_bits != 8:
            work["unpacked chunk"] += chunks
    return work


def _runs(case: Elementwise) -> dict[str, float]:
    """Runs of codes that Helium's packed additions take at once: all where no pixel's row ends inside a byte."""
    (height, width, channels), bits = case.output
    every = [bits, *(b for _, b in case.inputs)]
    whole = all(channels * b % 8 == 0 for b in every)
    runs, run = (1, height * width * channels) if whole else (height * width, channels)
    chunks = runs * -(-run // 64)
    found: Counter[str] = Counter({"joined": runs, "joined chunk": chunks, "joined four": runs * -(-run // 4)})
    for b in every:
        found[f"joined chunk {b}"] += chunks
        found[f"joined vector {b}"] += runs * -(-run * b // 128)
        found[f"joined rest {b}"] += runs * (run % (128 // b))
    return {name: float(count) for name, count in found.items()}


def _packed_windows(size: int, bits: int, windows: int, pixels: int, rows: int) -> dict[str, float]:
    """Windows over pixels of ``size`` packed bytes, words of four at a time, or all of fewer."""
    kind, words = f"packed {bits}" if size >= 4 else f"packed {bits} in {size}", -(-size // 4)
    return {f"{kind} tap": windows * words, f"{kind} row": rows * words, f"{kind} word": pixels * words}


def _windows(window: Window, channels: int, axes: tuple[Taps, Taps], columns: int) -> dict[str, float]:
    """Windows of a pool: taps, tap rows and outputs of whole vectors of 4, 8 and 16 channels, and of the rest."""
    down, across = axes
    rows = down.inside * across.outputs
    merged = window.kernel[1] == columns and across.inside == across.outputs * columns  # whole rows are one run
    runs = down.outputs * across.outputs if merged else rows
    halved = (window.kernel, window.stride) == ((2, 2), (2, 2)) and channels % 4 == 0 and not across.outside
    kind = "halved" if halved else "window"
    counts = {kind: down.inside * across.inside, f"{kind} row": rows, f"{kind} run": runs}
    for lanes in (4, 8, 16):
        for name, part in ((f"by {lanes}", channels // lanes), (f"after {lanes}", channels % lanes)):
            counts[f"{kind} {name}"] = down.outputs * across.outputs * part
            counts[f"{kind} row {name}"] = rows * part
            counts[f"{kind} run {name}"] = runs * part
            counts[f"{kind} tap {name}"] = down.inside * across.inside * part
    vectors = -(-channels // 16)
    counts |= {f"{kind} vector": down.outputs * across.outputs * vectors, f"{kind} run vector": runs * vectors}
    counts[f"{kind} tap vector"] = down.inside * across.inside * vectors
    return {name: float(count) for name, count in counts.items()}
