"""Executed instructions of single layers, counted under QEMU and checked byte for byte in the same run.

Counts are those of the machine's timer under ``-icount`` (mcuq/target/core.py), less those of an empty call, so
they cover the kernel alone. They are instructions, not cycles.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from cases import Case, mismatches, write_cases
from drivers import INCLUDE, PORTABLE, ROOT
from dsp import EXTRA, on_dsp, sources
from exact import pack_bytes

from mcuq.build.qemu import run_elf
from mcuq.build.toolchain import cross_gcc, link_program, run_tool
from mcuq.ir.graph import Window
from mcuq.numerics import (
    affine,
    apply_affine,
    code_range,
    quantize_multiplier,
    quantize_multipliers,
    requantize,
    weight_range,
)
from mcuq.target.core import Core, core, machine
from mcuq.target.kernels import ConvCase, select
from mcuq.target.kernels_dsp import CORES as DSP_CORES

Ints = np.ndarray
CORES = ("cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55", "cortex-m0plus", "rv32imc")
BASELINE = Path(__file__).resolve().parents[1] / "golden" / "kernel_counts.json"
TOLERANCE = 0.01
POINT, SAME, HALVED = Window(), Window((3, 3), (1, 1), (1, 1, 1, 1)), Window((3, 3), (2, 2), (0, 0, 1, 1))


@dataclass(frozen=True)
class Layer:
    """A row of the table. ``kernel``: pointwise, conv, depthwise, fully_connected, add, max_pool or avg_pool.

    ``peer``: instructions per MAC (per input element for add and pools) of the fastest published library measured
    the same way, CMSIS-NN or CMix-NN, on Cortex-M7; ``target``: what this runtime must not exceed there.
    """

    kernel: str
    size: tuple[int, int, int]
    outputs: int
    window: Window = POINT
    bits: tuple[int, int, int] = (8, 8, 8)  # input, weights, output
    peer: float | None = None
    target: float | None = None

    @property
    def shape(self) -> str:
        return f"{'x'.join(map(str, self.size))}->{self.outputs}"


@dataclass(frozen=True)
class Result:
    """What one layer cost on one core; the fields are those of ``scripts/bench_kernels --json``."""

    core: str
    kernel: str
    shape: str
    weight_bits: int
    input_bits: int
    output_bits: int
    granularity: str
    function: str
    instructions: int
    macs: int
    text_bytes: int
    scratch_bytes: int
    exact: bool

    @property
    def key(self) -> tuple[str, str, str, int, int, int]:
        return self.core, self.kernel, self.shape, self.input_bits, self.weight_bits, self.output_bits

    @property
    def per_mac(self) -> float:
        return self.instructions / self.macs


def _pointwise() -> Iterator[Layer]:
    large, small = (14, 14, 512), (25, 5, 64)
    yield Layer("pointwise", large, 512, peer=1.49, target=0.80)
    yield Layer("pointwise", small, 64, peer=2.05, target=1.00)
    yield Layer("pointwise", large, 512, bits=(8, 4, 8), peer=2.39, target=0.85)
    yield Layer("pointwise", small, 64, bits=(8, 4, 8), peer=3.75)
    yield Layer("pointwise", large, 512, bits=(8, 2, 8), peer=2.67, target=0.90)
    yield Layer("pointwise", large, 512, bits=(4, 4, 4), peer=2.39, target=0.85)
    yield Layer("pointwise", large, 512, bits=(4, 2, 4), peer=2.67, target=0.80)
    yield Layer("pointwise", large, 512, bits=(2, 2, 2), peer=2.68, target=0.50)


LAYERS: tuple[Layer, ...] = (
    *_pointwise(),
    Layer("conv", (8, 8, 64), 64, SAME, peer=1.65, target=0.88),
    Layer("conv", (8, 8, 64), 64, SAME, (8, 4, 8), peer=2.42, target=0.92),
    Layer("conv", (32, 32, 16), 16, SAME, peer=2.31),
    Layer("conv", (96, 96, 3), 8, HALVED, peer=6.02, target=1.80),
    *(Layer("depthwise", (14, 14, 512), 512, SAME, (8, w, 8), p, 1.90) for w, p in ((8, 7.8), (4, 15.1), (2, None))),
    *(Layer("depthwise", (25, 5, 64), 64, SAME, (8, w, 8), p, 2.60) for w, p in ((8, 7.8), (4, 15.7), (2, None))),
    Layer("depthwise", (48, 48, 16), 16, HALVED, peer=8.4),
    Layer("fully_connected", (1, 1, 640), 128, peer=1.95, target=1.15),
    Layer("fully_connected", (1, 1, 640), 128, bits=(8, 4, 8), peer=4.95, target=1.15),
    Layer("add", (32, 32, 16), 16, peer=81.0, target=9.0),
    Layer("max_pool", (32, 32, 16), 16, Window((2, 2), (2, 2)), peer=10.7, target=1.5),
    Layer("avg_pool", (8, 8, 64), 64, Window((8, 8)), peer=6.5, target=1.5),
)
Figures = dict[tuple[str, str, int], tuple[float, float | None]]
M55_FIGURES: Figures = {  # (kernel, shape, weight bits): (CMSIS-NN with Helium, target)
    ("pointwise", "14x14x512->512", 8): (0.199, 0.145),
    ("pointwise", "14x14x512->512", 4): (0.312, 0.150),
    ("pointwise", "25x5x64->64", 8): (0.396, 0.26),
    ("pointwise", "25x5x64->64", 4): (0.640, 0.27),
    ("depthwise", "14x14x512->512", 8): (2.16, 0.80),
    ("depthwise", "14x14x512->512", 4): (2.64, 0.85),
    ("depthwise", "25x5x64->64", 8): (2.318, None),
    ("depthwise", "48x48x16->16", 8): (3.474, None),
    ("conv", "8x8x64->64", 8): (0.206, None),
    ("conv", "8x8x64->64", 4): (0.335, None),
    ("conv", "32x32x16->16", 8): (0.388, None),
    ("conv", "96x96x3->8", 8): (1.991, None),
    ("fully_connected", "1x1x640->128", 8): (0.490, None),
    ("fully_connected", "1x1x640->128", 4): (0.404, None),
    ("add", "32x32x16->16", 8): (13.756, None),
    ("max_pool", "32x32x16->16", 8): (2.733, None),
    ("avg_pool", "8x8x64->64", 8): (1.225, None),
}
M0_FIGURES: Figures = {("pointwise", "14x14x512->512", 8): (6.2, 4.5)}
FIGURES: dict[str, Figures] = {"cortex-m55": M55_FIGURES, "cortex-m0plus": M0_FIGURES, "rv32imc": {}}


def figures(layer: Layer, name: str) -> tuple[float | None, float | None]:
    """(best peer, target) of a layer on a core; the peers' M7 figures stand for M4 and M33 too, none for RV32."""
    if name in FIGURES:
        table = FIGURES[name]
        key = (layer.kernel, layer.shape, layer.bits[1])
        return table.get(key, (None, None)) if layer.bits[0] == 8 else (None, None)
    return layer.peer, layer.target


def convolution(layer: Layer, seed: int) -> Case:
    """A layer with bell-shaped weights, symmetric and per channel, outputs over most of their range."""
    rng = np.random.default_rng(seed)
    (xb, wb, _), channels = layer.bits, layer.size[2]
    lo, hi = code_range(xb)
    zero = 13 if xb == 8 else 3 if xb == 4 else 1
    image = rng.integers(lo, hi + 1, layer.size)
    w_lo, w_hi = weight_range(wb)
    shape = (layer.outputs, *layer.window.kernel, 1 if layer.kernel == "depthwise" else channels)
    weights = np.clip(np.rint(rng.normal(0, max(w_hi, 1.5) / 2.5, shape)), w_lo, w_hi).astype(np.int64)
    bias = rng.integers(-500, 501, layer.outputs) - zero * weights.reshape(len(weights), -1).sum(axis=1)
    return convolution_case(layer, image, zero, weights, bias)


def convolution_case(
    layer: Layer, image: Ints, zero: int, weights: Ints, bias: Ints, scale: tuple[int, int] | None = None
) -> Case:
    """The portable case of given codes; (multiplier, shift) follow the spread of the exact sums unless given."""
    (xb, wb, yb), channels = layer.bits, layer.size[2]
    depthwise = layer.kernel == "depthwise"
    sums = _sums(image, zero, weights, layer.window, depthwise) + bias
    spread = np.maximum(sums.std(axis=(0, 1)) if sums.shape[0] > 1 else sums.std(), 1.0)
    scales = np.broadcast_to((code_range(yb)[1] - code_range(yb)[0]) / 6 / spread, (layer.outputs,))
    chosen, shift = quantize_multipliers(np.minimum(scales, 0.2))
    if scale is not None:
        chosen, shift = np.full(layer.outputs, scale[0]), scale[1]
    clamp, out_zero = code_range(yb), -5 if yb == 8 else 1
    codes = requantize(sums, chosen, shift, out_zero, *clamp)
    out, kh, kw, depth = weights.shape
    groups = channels if depthwise else 1
    shape = (sums.shape[0], sums.shape[1], layer.outputs)
    conv = ConvCase(layer.size, shape, (out, kh, kw, depth), layer.window, groups, xb, wb, yb)
    portable = select(conv, "portable")
    flat = weights.reshape(len(weights), -1)
    stored = pack_bytes(flat.T if portable.layout == "taps" else flat, wb)
    window = layer.window
    scalars = (
        *layer.size, xb, *conv.output_shape, yb, *window.kernel, *window.stride, *window.dilation,
        *window.padding[:2], conv.groups, 1, 0, zero, out_zero, *clamp, shift,
    )  # fmt: skip
    buffers = (
        (1, pack_bytes(image, xb)), (1, stored), (4, pack_bytes(bias, 32)), (4, pack_bytes(chosen, 32)),
        (1, b""), (1, b""),
    )  # fmt: skip
    return Case(
        portable.function, scalars, buffers, pack_bytes(codes, yb), f"{layer.kernel} {layer.shape} {layer.bits}",
        scratch=portable.scratch_bytes, conv=conv, weights=weights,
    )  # fmt: skip


def _sums(image: Ints, zero: int, weights: Ints, window: Window, depthwise: bool) -> Ints:
    """Exact accumulators [H, W, O] in int64."""
    top, left, bottom, right = window.padding
    rows, cols = window.output_hw(*image.shape[:2])
    padded = np.pad(image, ((top, bottom), (left, right), (0, 0)), constant_values=zero)
    sums = np.zeros((rows, cols, len(weights)), np.int64)
    for i in range(window.kernel[0]):
        for j in range(window.kernel[1]):
            taps = padded[i : i + (rows - 1) * window.stride[0] + 1 : window.stride[0]]
            taps = taps[:, j : j + (cols - 1) * window.stride[1] + 1 : window.stride[1]]
            sums += taps * weights[:, i, j, 0] if depthwise else taps @ weights[:, i, j].T
    return sums


def elementwise(layer: Layer, seed: int) -> Case:
    """Add of two tensors, max pool with equal scales, average pool; all int8."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-128, 128, layer.size)
    text = f"{layer.kernel} {layer.shape}"
    if layer.kernel == "add":
        y = rng.integers(-128, 128, layer.size)
        rule = affine((0.1, 0.07), (3, -5), (8, 8), 0.12, -10)
        codes = apply_affine((x, y), rule, -128, 127)
        scalars = (*layer.size, 8, 8, 8, rule.shift, *rule.multipliers, rule.constant, -128, 127)
        return Case("mcuq_add", scalars, ((1, pack_bytes(x, 8)), (1, pack_bytes(y, 8))), pack_bytes(codes, 8), text)
    (kh, kw), (rows, cols) = layer.window.kernel, layer.window.output_hw(*layer.size[:2])
    tiles = x[: rows * kh, : cols * kw].reshape(rows, kh, cols, kw, -1)
    frame = (*layer.size, 8, rows, cols, layer.outputs, 8, kh, kw, *layer.window.stride, 1, 1, 0, 0)
    if layer.kernel == "max_pool":
        codes = tiles.max(axis=(1, 3))
        return Case("mcuq_max_pool", (*frame, 1, 0, 0, -128, 127), ((1, pack_bytes(x, 8)),), pack_bytes(codes, 8), text)
    multiplier, shift = quantize_multiplier(0.9 / (kh * kw))
    codes = requantize(tiles.sum(axis=(1, 3)) - kh * kw * 3, multiplier, shift, 5, -128, 127)
    tables = ((4, pack_bytes(np.array([multiplier]), 32)), (1, bytes([shift])))
    scalars = (*frame, 1, 3, 5, -128, 127)
    return Case("mcuq_avg_pool", scalars, ((1, pack_bytes(x, 8)), *tables), pack_bytes(codes, 8), text)


def case_for(layer: Layer, name: str) -> Case | None:
    """The layer as the compiler runs it on core ``name``; None for what only the DSP family counts."""
    plain = elementwise(layer, 1) if layer.kernel in ("add", "max_pool", "avg_pool") else convolution(layer, 1)
    if name in DSP_CORES and (moved := on_dsp(plain, name, ("_dsp", "_mve"))) is not None:
        return moved
    return replace(plain, kernel="#" + plain.kernel) if plain.conv is not None else None


def macs_of(layer: Layer) -> int:
    """Multiply-accumulates, padding taps included; input elements of add and pools."""
    if layer.kernel in ("add", "max_pool", "avg_pool"):
        return int(np.prod(layer.size))
    rows, cols = layer.window.output_hw(*layer.size[:2])
    depth = 1 if layer.kernel == "depthwise" else layer.size[2]
    return rows * cols * layer.outputs * int(np.prod(layer.window.kernel)) * depth


def run(name: str, layers: tuple[Layer, ...] = LAYERS) -> list[Result]:
    """Count ``layers`` on core ``name``."""
    chosen = [(layer, case) for layer in layers if (case := case_for(layer, name)) is not None]
    empty = replace(chosen[0][1], kernel="#nothing", expected=b"")
    cases = [empty, *(case for _, case in chosen)]
    with tempfile.TemporaryDirectory(prefix="mcuq-bench-") as folder:
        counts, wrong = _count(core(name), cases, Path(folder))
        texts = _text_bytes(core(name), sorted({case.kernel.removeprefix("#") for case in cases[1:]}), Path(folder))
    results: list[Result] = []
    for (layer, case), count in zip(chosen, counts[1:], strict=True):
        function = case.kernel.removeprefix("#")
        results.append(
            Result(
                name, layer.kernel, layer.shape, layer.bits[1], layer.bits[0], layer.bits[2], "channel", function,
                count - counts[0], macs_of(layer), texts[function], case.scratch,
                not any(line.startswith(case.text + ":") for line in wrong),
            )
        )  # fmt: skip
    return results


def _count(target: Core, cases: list[Case], folder: Path) -> tuple[list[int], list[str]]:
    board = machine(target.machine)
    tests = ROOT / "tests"
    elf = link_program(
        target, board, [*PORTABLE, *sources(target.name), tests / "grid.c", tests / "grid_arena.c", EXTRA],
        folder / "count.elf",
        include=INCLUDE, flags=("-O2", "-DGRID_COUNT", "-DGRID_ARENA_BYTES=1000000u"),
    )  # fmt: skip
    files = folder / "cases", folder / "results"
    write_cases(cases, files[0])
    done = run_elf(elf, board, [str(file) for file in files], seconds=600.0)
    ticks = [int(value) for value in re.findall(r"^ticks (\d+)$", done.stdout, re.MULTILINE)]
    if done.exit_code != 0 or len(ticks) != len(cases):
        raise RuntimeError(f"{target.name}: driver ended with {done.exit_code}: {done.stdout[-300:]}")
    return [board.instructions(value) for value in ticks], mismatches(cases, files[1].read_bytes(), len(cases))


def _text_bytes(target: Core, functions: list[str], folder: Path) -> dict[str, int]:
    """Bytes of code and constants that each function pulls into an image, library helpers included."""
    tool = cross_gcc(target)
    command = [tool.compiler, "-std=c11", *tool.flags, "-O2", f"-I{ROOT / 'include'}", f"-I{ROOT / 'src'}", "-c"]
    objects: list[str] = []
    for source in (*PORTABLE, *sources(target.name)):
        objects.append(str(folder / f"{source.parent.name}-{source.name}.o"))
        run_tool([*command, str(source), "-o", objects[-1]], f"cannot compile {source.name}")
    sizes: dict[str, int] = {}
    for function in functions:
        image = folder / "one.elf"
        link = ["-nostartfiles", f"-Wl,-e,{function}", "-Wl,--gc-sections", "-lc", "-lgcc"]
        run_tool([tool.compiler, *tool.flags, *objects, *link, "-o", str(image)], f"cannot link {function}")
        table = run_tool([target.architecture.tool("size"), "-A", str(image)], "cannot size")
        sizes[function] = sum(int(m[1]) for m in re.finditer(r"^\.(?:text|rodata)\S*\s+(\d+)", table, re.MULTILINE))
    return sizes


def to_json(results: list[Result]) -> str:
    """The results as ``scripts/bench_kernels --json`` prints them."""
    rows = ",\n".join("  " + json.dumps(asdict(result)) for result in results)
    return '{"results": [\n' + rows + "\n]}\n"


def from_json(text: str) -> list[Result]:
    return [Result(**row) for row in json.loads(text)["results"]]


def regressions(results: list[Result], baseline: list[Result]) -> list[str]:
    """What is wrong, or costs more than 1 % beyond the stored counts."""
    stored = {result.key: result for result in baseline}
    wrong = [f"{r.core} {r.kernel} {r.shape}: outputs differ" for r in results if not r.exact]
    for r in results:
        old = stored.get(r.key)
        if old is not None and r.instructions > old.instructions * (1 + TOLERANCE):
            name = f"{r.core} {r.kernel} {r.shape} w{r.weight_bits}"
            wrong.append(f"{name}: {r.instructions} instructions, stored {old.instructions}")
    return wrong
