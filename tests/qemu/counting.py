"""Executed instructions of many shapes under QEMU, and the linear models of mcuq/target/instructions.py fitted to them.

Only counts are taken: outputs are not compared here (the grid does that), so that no shape needs exact sums.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from cases import Case, ticks, write_cases
from drivers import INCLUDE, PORTABLE, ROOT
from dsp import EXTRA, sources
from exact import pack_bytes

from mcuq.build.qemu import run_elf
from mcuq.build.toolchain import link_program
from mcuq.ir.graph import Window
from mcuq.ir.integer import QConv2d
from mcuq.numerics import code_range, quantize_multiplier, weight_range
from mcuq.target.core import CORES as PROCESSORS
from mcuq.target.core import SIZE, core, machine, optimize_flag
from mcuq.target.kernels import ConvCase, layer_facts, select
from mcuq.target.layouts import ChannelParameters, pack_weights
from mcuq.target.runtime import elementwise
from mcuq.target.work import Elementwise, Work, conv_work, elementwise_work, family

CORES = tuple(processor.name + goal for processor in PROCESSORS for goal in ("", SIZE))
BITS = (8, 4, 2)
OTHERS = (
    "add", "max_pool", "avg_pool", "pad", "rescale_copy", "concat", "reshape", "softmax", "argmax", "pixels_to_int8",
    "table", "prelu", "mul", "extremum", "copy", "choose", "blend", "l2_normalize",
)  # fmt: skip
CHANNELS = (1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128)
LARGEST = 300_000
"""Multiply-accumulates of one shape."""
SMALLEST = 300
"""Instructions of a call below which its driver matters too much."""


@dataclass(frozen=True, eq=False)
class Shape:
    """One call to count: the driver's case, the kernel family whose model it belongs to, and its loop counts."""

    case: Case
    family: str
    work: Work
    text: str
    usual: bool = True


def padded(kernel: tuple[int, int], size: tuple[int, int], stride: int, same: bool) -> Window:
    """TensorFlow's SAME, or VALID."""
    pads = [max((-(-n // stride) - 1) * stride + k - n, 0) if same else 0 for k, n in zip(kernel, size, strict=True)]
    lead = [p // 2 for p in pads]
    return Window(kernel, (stride, stride), (lead[0], lead[1], pads[0] - lead[0], pads[1] - lead[1]))


def conv_shape(
    conv: ConvCase, target: str, rng: np.random.Generator, shift: int | None = None, *, far: bool = False
) -> Shape:
    """A convolution of random weights with scales that spread its outputs over their range.

    Another ``shift`` makes the compiler choose kernels without range conditions (48) or raise shifts (31); biases
    ``far`` from zero, kernels without range conditions that round twice.
    """
    out, kh, kw, depth = conv.weight_shape
    column = kh * kw * depth
    lo, hi = weight_range(conv.weight_bits)
    weights = np.clip(np.rint(rng.normal(0, max(hi, 1.5) / 2.5, conv.weight_shape)), lo, hi).astype(np.int64)
    x_lo, x_hi = code_range(conv.input_bits)
    image = rng.integers(x_lo, x_hi + 1, conv.input_shape)
    spread = np.sqrt(column) * max(hi, 1.5) / 2.5 * (x_hi - x_lo + 1) / 3.5
    y_lo, y_hi = code_range(conv.output_bits)
    multiplier, usual = quantize_multiplier(min(0.2, (y_hi - y_lo) / 6 / spread) if conv.output_bits < 32 else 0.2)
    centre = (x_lo + x_hi + 1) // 2
    shift = usual if shift is None else shift
    bias = -centre * weights.reshape(out, -1).sum(axis=1) + (far << 23)
    zeros = np.full(out if conv.asymmetric else 1, int(conv.asymmetric), np.int8)
    columns = np.full(out, multiplier, np.int32), np.full(out, shift, np.uint8)
    p = ChannelParameters(bias.astype(np.int32), *columns, zeros, conv.input_bits, conv.roundings)
    op = SimpleNamespace(
        weight=weights, weight_zero_point=zeros, bias=bias, multiplier=columns[0], shift=columns[1],
        roundings=conv.roundings,
    )  # fmt: skip
    conv = replace(conv, facts=layer_facts(cast(QConv2d, op), conv.input_bits))
    kernel = select(conv, target)
    blob = pack_weights(kernel.layout, weights, conv.weight_bits, p).tobytes()
    window = conv.window
    scalars = (
        *conv.input_shape, conv.input_bits, *conv.output_shape, conv.output_bits, *window.kernel,
        *(window.input_dilation if window.transposed else window.stride),
        *window.dilation, *window.padding[:2], conv.groups, 1, int(conv.asymmetric), centre,
        (y_lo + y_hi + 1) // 2 if conv.output_bits < 32 else 0, y_lo, y_hi, shift,
    )  # fmt: skip
    buffers = ((1, pack_bytes(image, conv.input_bits)), (4, blob))
    if not kernel.packs_parameters:
        buffers = (
            *buffers, (4, pack_bytes(bias, 32)), (4, pack_bytes(columns[0].astype(np.int64), 32)), (1, b""),
            (1, pack_bytes(zeros.astype(np.int64), 8) if conv.asymmetric else b""),
        )  # fmt: skip
    name = kernel.function if kernel.function.endswith(("_dsp", "_mve")) else "#" + kernel.function
    size = int(np.prod(conv.output_shape[:2])) * -(-conv.output_shape[2] * conv.output_bits // 8)
    text = f"{kernel.function} {conv.input_shape} {conv.window} -> {conv.output_shape} bits {_bits(conv)}"
    case = Case(name, scalars, buffers, bytes(size), text, kernel.scratch_bytes, 4 if conv.output_bits == 32 else 1)
    return Shape(case, family(kernel.function), conv_work(conv, kernel), text, shift == usual)


def _bits(conv: ConvCase) -> tuple[int, int, int]:
    return conv.input_bits, conv.weight_bits, conv.output_bits


def conv_cases(rng: np.random.Generator, count: int, widths: tuple[int, ...] = BITS) -> Iterator[ConvCase]:
    """``count`` random cases of every kind and every width of weights."""
    for weight_bits in widths:
        for kind in ("matrix", "depthwise", "fully connected", "depthwise 3 x 3"):
            for number in range(2 * count if kind == "matrix" else count):
                yield _draw(rng, kind, weight_bits, asymmetric=number % 6 == 5)


def _draw(rng: np.random.Generator, kind: str, weight_bits: int, *, asymmetric: bool) -> ConvCase:
    while True:
        bits = int(rng.choice(BITS)), weight_bits, int(rng.choice((*BITS, 8)))
        channels, outputs = int(rng.choice(CHANNELS)), int(rng.choice(CHANNELS))
        size = int(rng.integers(2, 24)), int(rng.integers(2, 24))
        kernel, stride, groups = (1, 1), int(rng.choice((1, 1, 2))), 1
        match kind:
            case "matrix":
                kernel = ((1, 1), (3, 3), (3, 3), (5, 5), (10, 4), (1, 3))[int(rng.integers(6))]
                kernel = (1, 1) if rng.integers(3) == 0 else kernel
                groups = 2 if rng.integers(8) == 0 and channels % 2 == outputs % 2 == 0 and channels > 2 else 1
            case "fully connected":
                size, channels = (1, 1), int(rng.integers(2, 90)) * int(rng.choice((1, 4, 8)))
                bits = (bits[0], weight_bits, int(rng.choice((8, 8, 32))))
            case _:
                other = ((5, 5), (3, 1), (2, 2), (7, 7), (1, 9))[int(rng.integers(5))]
                kernel = (3, 3) if kind == "depthwise 3 x 3" or rng.integers(2) else other
                stride = 3 if kind == "depthwise" and rng.integers(4) == 0 else stride  # which few kernels do
                groups, outputs = channels, channels
                bits = (8, weight_bits, 8) if rng.integers(2) else bits
        window = padded(kernel, size, stride, bool(rng.integers(4)))
        if any(n < k for n, k in zip(size, kernel, strict=True)):
            continue
        rows, columns = window.output_hw(*size)
        work = rows * columns * outputs * kernel[0] * kernel[1] * channels // groups
        if (kind.startswith("depthwise") and channels == 1) or not 2_000 <= work <= LARGEST:
            continue
        shape = (outputs, kernel[0], kernel[1], channels // groups)
        return ConvCase((*size, channels), (rows, columns, outputs), shape, window, groups, *bits, asymmetric)


def transposed_cases(rng: np.random.Generator, count: int) -> Iterator[ConvCase]:
    """``count`` random transposed convolutions of every width of weights."""
    for weight_bits in BITS:
        found = 0
        while found < count:
            size, channels = (int(rng.integers(2, 9)), int(rng.integers(2, 9))), int(rng.choice(CHANNELS))
            kernel = ((2, 2), (3, 3), (4, 4), (4, 3))[int(rng.integers(4))]
            stride, outputs = (2, 2) if rng.integers(3) else (1 + int(rng.integers(3)), 2), int(rng.choice(CHANNELS))
            top, left = (k - 1 - int(rng.integers(2)) for k in kernel)
            window = Window(kernel, (1, 1), (top, left, top, left), (1, 1), stride)
            rows, columns = window.output_hw(*size)
            groups = 2 if rng.integers(6) == 0 and channels % 2 == outputs % 2 == 0 else 1
            if not 2_000 <= rows * columns * outputs * kernel[0] * kernel[1] * channels // groups <= LARGEST:
                continue
            found += 1
            bits = int(rng.choice(BITS)), weight_bits, int(rng.choice((*BITS, 8)))
            shape = (outputs, kernel[0], kernel[1], channels // groups)
            yield ConvCase((*size, channels), (rows, columns, outputs), shape, window, groups, *bits, found % 6 == 5)


def twice_shapes(rng: np.random.Generator, target: str, count: int) -> Iterator[Shape]:
    """Convolutions that round twice, most of them of 8 bits everywhere, some of those with large sums."""
    for k, conv in enumerate((*conv_cases(rng, -(-count // 3), (8,)), *conv_cases(rng, -(-count // 8), (4, 2)))):
        own = replace(conv, roundings=2, output_bits=8, input_bits=8 if k % 3 else conv.input_bits)
        yield conv_shape(own, target, rng, far=k % 4 == 1)


def elementwise_shapes(rng: np.random.Generator, target: str, count: int) -> Iterator[Shape]:
    """``count`` random shapes of every operator without weights, and of its faster twin."""
    for kind in OTHERS:
        for number in range(count):
            yield _element(rng, kind, target, int8=number % 3 == 0)


def _element(rng: np.random.Generator, kind: str, target: str, *, int8: bool) -> Shape:
    channels = int(rng.choice(CHANNELS))
    size = int(rng.integers(2, 20)), int(rng.integers(2, 20))
    if kind in ("softmax", "argmax"):
        size, channels = (1, 1), int(rng.integers(2, 60))
    x, y, z = (8, 8, 8) if int8 else (int(b) for b in rng.choice(BITS, 3))
    if kind == "max_pool" and rng.integers(2):
        x = y
    lo, hi = code_range(y)
    shape, affine = (*size, channels), (1 << 20, (lo + hi + 1) << 20, 21)
    image = (1, pack_bytes(rng.integers(*_ends(x), shape), x))
    window: Window | None = None
    kept = False
    inputs: tuple[tuple[tuple[int, int, int], int], ...] = ((shape, x),)
    output, name, extra = (shape, y), f"mcuq_{kind}", ()
    buffers: tuple[tuple[int, bytes], ...] = (image,)
    match kind:
        case "add":
            inputs = ((shape, x), (shape, z))
            buffers = (image, (1, pack_bytes(rng.integers(*_ends(z), shape), z)))
            scalars: tuple[int, ...] = (*shape, y, x, z, 21, 1 << 19, 1 << 19, (lo + hi + 1) << 20, lo, hi)
        case "max_pool" | "avg_pool":
            kernel = ((2, 2), (3, 3), size)[int(rng.integers(3))]
            window = padded(kernel, size, 2 if kernel != size else 1, kernel == (3, 3))
            output = ((*window.output_hw(*size), channels), y)
            frame = (*shape, x, *output[0], y, *window.kernel, *window.stride, 1, 1, *window.padding[:2])
            multiplier, shift = quantize_multiplier(0.5 / (kernel[0] * kernel[1]))
            extra = ((4, pack_bytes(np.array([multiplier]), 32)), (1, bytes([shift]))) if kind == "avg_pool" else ()
            scalars = (*frame, *((1, 3, 0) if kind == "avg_pool" else (1, 0, 0) if x == y else affine), lo, hi)
        case "pad":
            edge = int(rng.integers(1, 3))
            output = ((size[0] + 2 * edge, size[1] + 2 * edge, channels), y)
            scalars = (*shape, x, *output[0], y, edge, edge, 0, *affine, lo, hi)
        case "rescale_copy":
            scalars = (*shape, x, *shape, y, *affine, lo, hi)
        case "concat":
            kept, more = int8 and bool(rng.integers(2)), int(rng.choice(CHANNELS))
            output = ((*size, channels + more), y)
            own = (channels, x, *((1, 0, 0) if kept else affine), more if rng.integers(2) else 0)
            scalars = (*output[0], y, lo, hi, 1, *own)
        case "reshape":
            output = ((1, 1, size[0] * size[1] * channels), x)
            scalars = (*shape, x, *output[0], x)
        case "softmax":
            extra = ((4, np.arange(32768, 0, -128, dtype="<u2").tobytes()),)
            output, scalars = (shape, 8), (*shape, x)
        case "table":
            extra = ((1, pack_bytes(rng.integers(lo, hi + 1, 256), 8)),)
            scalars = (*shape, x, *shape, y)
        case "prelu":
            extra = ((4, pack_bytes(np.full(channels, 1 << 18), 32)),)
            scalars = (*shape, x, *shape, y, *affine, lo, hi, 1)
        case "mul":
            inputs = ((shape, x), (shape, z))
            buffers = (image, (1, pack_bytes(rng.integers(*_ends(z), shape), z)))
            scalars = (*shape, x, *shape, z, 1 << 30, lo, hi, 1, 1, 1, 36, y)
        case "extremum":
            inputs = ((shape, x), (shape, z))
            buffers = (image, (1, pack_bytes(rng.integers(*_ends(z), shape), z)))
            scalars = (*shape, y, x, z, 0, *affine, *affine, lo, hi)
        case "copy":
            output = (shape, x)
            strides = (0, 0, 0, size[1] * channels, channels, 1)
            scalars = (*shape, x, *shape, x, 1, 1, 1, *shape, *strides, 0)
        case "choose" | "blend":
            output = ((2 * size[0], 2 * size[1], channels), x if kind == "choose" else y)
            places = [np.minimum(np.arange(2 * n) // 2, n - 2).astype("<u2").tobytes() for n in size]
            shares = [np.full(2 * n, 512, "<u2").tobytes() for n in size]
            extra = tuple((4, t) for t in (places if kind == "choose" else (*places, *shares)))
            scalars = (*shape, x, *output[0], output[1], 1 << 30, 0, 0, 52, lo, hi)
        case "l2_normalize":
            output, scalars = (shape, 8), (*shape, x, 0)
        case "argmax":
            output, scalars = ((1, 1, 1), 32), (*shape, x)
        case _:
            inputs = output_pair = ((shape, 8),)
            image = (1, pack_bytes(rng.integers(-128, 128, shape), 8))
            output, scalars, buffers = output_pair[0], (size[0] * size[1] * channels,), (image,)
    case = Elementwise(inputs, (shape, y) if kind == "concat" else output, window, kept)
    if kind in ("add", "max_pool", "avg_pool"):
        name = elementwise(name, target, [b for _, b in (*inputs, output)], dilated=False)
    length = output[0][0] * output[0][1] * -(-output[0][2] * output[1] // 8)
    driver = Case(name, tuple(int(s) for s in scalars), (*buffers, *extra), bytes(length), f"{name} {case}", 0,
                  4 if output[1] == 32 else 1, in_place=kind == "pixels_to_int8")  # fmt: skip
    return Shape(driver, name, elementwise_work(case), driver.text)


def _ends(bits: int) -> tuple[int, int]:
    low, high = code_range(bits)
    return low, high + 1


def shapes(target: str, seed: int, count: int) -> list[Shape]:
    """Shapes of every kernel family that the compiler chooses on a core."""
    rng = np.random.default_rng(seed)
    found: list[Shape] = []
    for k, conv in enumerate(conv_cases(rng, count)):
        high = k % 8 in ((3, 5, 7) if conv.weight_bits == 8 else (7,))
        found.append(conv_shape(conv, target, rng, 48 if high else 31 if k % 8 == 6 else None))
    found += elementwise_shapes(rng, target, count)
    found += (conv_shape(conv, target, rng) for conv in transposed_cases(rng, count))
    return [*found, *twice_shapes(rng, target, count)]


def counted(target: str, chosen: Iterable[Shape]) -> list[int]:
    """Executed instructions of every shape on a core."""
    calls = [shape.case for shape in chosen]
    empty = Case("#nothing", (1,) * 17, ((1, b"\0"), (4, b"\0\0\0\0")), b"", "nothing")
    processor = core(target)
    board, tests = machine(processor.machine), ROOT / "tests"
    with tempfile.TemporaryDirectory(prefix="mcuq-count-") as folder:
        files = Path(folder, "cases"), Path(folder, "results")
        flags = (optimize_flag(target), "-DGRID_COUNT", "-DGRID_ARENA_BYTES=1000000u")
        elf = link_program(
            processor, board, [*PORTABLE, *sources(processor.name), tests / "grid.c", tests / "grid_arena.c", EXTRA],
            Path(folder, "count.elf"), include=INCLUDE, flags=flags,
        )  # fmt: skip
        write_cases([empty, *calls], files[0])
        done = run_elf(elf, board, [str(file) for file in files], seconds=900.0)
        if done.exit_code != 0:
            raise RuntimeError(f"{target}: driver ended with {done.exit_code}: {done.stdout[-300:]}")
        whole = ticks([empty, *calls], files[1].read_bytes())
    printed = iter(int(value) for value in re.findall(r"^ticks (\d+)$", done.stdout, re.MULTILINE))
    nothing = board.instructions(next(printed))
    return [
        board.instructions(next(printed)) - nothing if _prints(call) else board.instructions(tick) - DRIVER
        for call, tick in zip(calls, whole[1:], strict=True)
    ]


DRIVER = 20
"""Instructions of the driver's own call of a portable operator without weights, about."""


def _prints(call: Case) -> bool:
    return call.kernel.startswith("#") or call.kernel.endswith(("_dsp", "_mve"))


def fit(chosen: list[Shape], counts: list[int]) -> dict[str, dict[str, float]]:
    """Per family the costs, none negative, of least squared relative error; large and usual layers weigh more."""
    from scipy.optimize import nnls  # half a second, for this alone

    models: dict[str, dict[str, float]] = {}
    for name in sorted({shape.family for shape in chosen}):
        pairs = zip(chosen, counts, strict=True)
        rows = [(shape, n) for shape, n in pairs if shape.family == name and n >= SMALLEST]
        parts = sorted({part for shape, _ in rows for part, value in shape.work.items() if value})
        weight = np.array([n**0.25 * (1.0 if shape.usual else 0.2) for shape, n in rows])
        matrix = np.array([[shape.work.get(part, 0.0) / n for part in parts] for shape, n in rows]) * weight[:, None]
        scale = np.maximum(np.abs(matrix).max(axis=0), 1e-12)
        costs, _ = nnls(matrix / scale, weight)
        models[name] = {p: float(f"{c / s:.5g}") for p, c, s in zip(parts, costs, scale, strict=True) if c > 0}
    return models


def predicted(shape: Shape, models: dict[str, dict[str, float]]) -> float:
    model: dict[str, Any] = models[shape.family]
    return sum(model.get(part, 0.0) * value for part, value in shape.work.items())
