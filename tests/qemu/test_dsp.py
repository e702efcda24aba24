"""The kernels of cores with the DSP extension over the grid of the portable ones, byte for byte."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from bench import BASELINE, Layer, convolution_case, from_json, regressions, run
from cases import Case
from convolutions import Layer as GridLayer
from convolutions import build, convolution_cases
from drivers import HOSTS, PORTABLE, Host, Target, check_on_host, check_on_target, that_fit
from dsp import EXTRA, SOURCES, on_dsp, sources
from test_grid import grid

from mcuq.ir.graph import Window
from mcuq.numerics import code_range, weight_range
from mcuq.target.kernels import ConvCase, select

TARGETS = (
    Target("cortex-m4", "mps2-an386"),
    Target("cortex-m7", "mps2-an500"),
    Target("cortex-m33", "mps2-an505"),
    Target("cortex-m55", "mps3-an547"),
)


@cache
def dsp_grid(seed: int) -> list[Case]:
    cases = (*grid(seed), *wide(seed), *raised(seed), *classifiers(seed))
    return [moved for case in cases if (moved := on_dsp(case)) is not None]


def wide(seed: int) -> list[Case]:
    """Channels that fill words of 2- and 4-bit codes, and planes of every pitch."""
    rng = np.random.default_rng(seed)
    layers: list[GridLayer] = []
    bits = itertools.product((8, 4, 2), (8, 4, 2), (8, 4, 2))
    for (xb, wb, yb), channels, side in itertools.product(bits, (16, 48), (1, 3)):
        size, outputs = (int(rng.integers(side, 6)), int(rng.integers(side, 6)), channels), int(rng.integers(1, 10))
        layers.append(GridLayer(size, outputs, (side, side), (1, 1), (1, 1), 1, "same", xb, wb, yb, len(layers)))
    planes = [(8, 8, 8), (8, 4, 8), (8, 2, 8), (8, 8, 4), (4, 4, 8), (4, 4, 4), (2, 2, 2)]
    for width, (xb, wb, yb) in itertools.product((3, 7, 13, 29, 61, 120), planes):
        for stride in (1, 2):
            size = (int(rng.integers(3, 30)), width * stride - stride // 2, 3)
            tall = GridLayer(size, 3, (3, 3), (stride, stride), (1, 1), 3, "same", xb, wb, yb, len(layers))
            layers.append(replace(tall, shift=33))
    for width, stride in itertools.product((3, 7, 15, 31, 63), (1, 2)):  # every chain of blocks, full and one more
        size = (4, (2 * width - 1) * stride, 2)
        usual = GridLayer(size, 2, (3, 3), (stride, stride), (1, 1), 2, "same", 8, 8, 8, len(layers), usual=True)
        layers += [usual, replace(usual, input=(4, width * stride, 2))]
    return [build(layer) for layer in (*layers, *windows(rng))]


def windows(rng: np.random.Generator) -> Iterator[GridLayer]:
    """Depthwise kernels of every width, rows from one output on, one column of pixels, several strips."""
    kernels = ((5, 5), (7, 7), (1, 9), (9, 1), (10, 4), (2, 2), (3, 3), (3, 11), (4, 6), (1, 1), (5, 8))
    bits = itertools.cycle(((8, 8, 8), (4, 4, 4), (2, 2, 2), (8, 4, 8), (8, 2, 4), (4, 8, 2)))
    for (kh, kw), strides, channels in itertools.product(kernels, ((1, 1), (2, 2), (2, 1), (3, 2)), (2, 5)):
        width = 1 if kw == 1 and rng.integers(4) == 0 else kw + int(rng.integers(24))
        size, padding = (kh + int(rng.integers(24)), width, channels), str(rng.choice(("same", "valid", "torch")))
        layer = GridLayer(size, channels, (kh, kw), strides, (1, 1), channels, padding, *next(bits), 0)
        yield replace(layer, seed=int(rng.integers(2**31)), shift=int(rng.choice((33, 33, 33, 31, 29))))


def raised(seed: int) -> list[Case]:
    """Shifts 20..33 of small sums, through every combination of bits, lanes and one output pixel included."""
    rng = np.random.default_rng(seed)
    layers: list[GridLayer] = []
    bits = itertools.product((8, 4, 2), (8, 4, 2), (8, 4, 2))
    for (xb, wb, yb), shift in itertools.product(bits, sorted((*range(20, 34),) * 2)):
        channels = (32 // xb, 3, 5)[int(rng.integers(3))]
        side = int(rng.choice((1, 1, 3))) if channels < 8 else 1
        rows, outputs = int(rng.integers(1, 4)), int(rng.integers(1, 10))
        layer = GridLayer((rows, rows, channels), outputs, (side, side), (1, 1), (1, 1), 1, "same", xb, wb, yb, 0)
        layers.append(replace(layer, seed=int(rng.integers(2**31)), shift=shift))
    return [build(layer) for layer in layers]


def smallest_shift(case: Case) -> int:
    return min(case.shifts)


def test_raised_shifts_reach_every_kernel_of_matrices() -> None:
    """Which of the cases are admitted depends on their sums; every kernel and every pair of bits must be among them."""
    moved = [(case, on_dsp(case)) for case in raised(1)]
    admitted = [(case.conv, smallest_shift(case), fast.kernel) for case, fast in moved if fast is not None]
    low = {kernel for _, shift, kernel in admitted if shift < 33}
    names = itertools.product(("conv2d", "fully_connected"), ("w8", "w8z", "w4", "w4z", "w2", "w2z"))
    assert low >= {f"mcuq_{family}_{name}_dsp" for family, name in names} | {
        "mcuq_conv2d_w8c_dsp",
        "mcuq_conv2d_w2_lanes2_dsp",
        "mcuq_conv2d_w2_lanes4_dsp",
    }
    for xb, wb, yb in itertools.product((8, 4, 2), repeat=3):
        shifts = {s for c, s, _ in admitted if c and (c.input_bits, c.weight_bits, c.output_bits) == (xb, wb, yb)}
        assert shifts >= {30, 31, 32, 33}, (xb, wb, yb, shifts)
        assert min(shifts) <= {8: 27, 4: 25, 2: 25}[xb], (xb, wb, yb, shifts)


def classifiers(seed: int) -> list[Case]:
    """Fully connected layers of networks that have block kernels anyway."""
    cases = convolution_cases("fully_connected", seed, every=3)
    return [replace(c, conv=replace(c.conv, beside_blocks=True)) for c in cases if c.conv is not None]


def test_short_classifiers_run_the_kernels_of_blocks() -> None:
    """Panels of two and four channels instead of eights filled up; not where columns are long or eights are full."""
    moved = [fast.kernel for case in classifiers(1) if (fast := on_dsp(case)) is not None]
    kernels = {f"mcuq_conv2d_{name}_dsp" for name in ("w8", "w8z", "w4", "w4z", "w2", "w2z")}
    assert kernels <= set(moved) and sum("conv2d" in name for name in moved) > 50
    for shape, blocks in (((1, 1, 256), True), ((1, 1, 260), False)):
        for outputs in (2, 10, 16):
            window = Window(shape[:2])
            conv = ConvCase(shape, (1, 1, outputs), (outputs, *shape), window, 1, 8, 8, 8, beside_blocks=True)
            assert ("conv2d" in select(conv, "cortex-m4").function) == (blocks and outputs != 16)
            assert "fully_connected" in select(replace(conv, beside_blocks=False), "cortex-m4").function


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_target_computes_every_byte(target: Target, tmp_path: Path) -> None:
    cases = that_fit(dsp_grid(1), target)
    assert check_on_target(target, cases, tmp_path, kernels=(*PORTABLE, *sources(target.core)), extra=EXTRA) == []


@pytest.mark.slow
@pytest.mark.parametrize("host", (HOSTS[0], HOSTS[3]), ids=lambda host: host.name)
def test_host_model_computes_every_byte(host: Host, tmp_path: Path) -> None:
    assert check_on_host(host, dsp_grid(2), tmp_path, kernels=(*PORTABLE, *SOURCES), extra=EXTRA) == []


@pytest.mark.slow
def test_the_grid_reaches_every_kernel() -> None:
    table = EXTRA.read_text(encoding="ascii")
    named = set(re.findall(r'(?:CONVOLUTION\(|\{")(mcuq_\w+_dsp)\b', table)) - {"name"}
    pitches = re.findall(r"_p(\d+)##suffix", table)
    rows = itertools.product(("", "packed_"), (8, 4, 2), (1, 2), set(pitches))
    named |= {f"mcuq_depthwise3x3_{kind}w{bits}_s{stride}_p{pitch}_dsp" for kind, bits, stride, pitch in rows}
    reached = {case.kernel for case in dsp_grid(1)}
    assert {name for name in named if "w##" not in name and "twice" not in name} - reached <= {
        "mcuq_conv2d_w8c_dsp"  # test_sums_at_the_limit
    }


def extreme(
    depth: int, input_bits: int, weight_bits: int, bias: int, outputs: int = 4, scale: tuple[int, int] | None = None
) -> Case:
    """A pointwise layer whose every product is the largest: lowest codes times lowest weights (2 bits: highest)."""
    layer = Layer("pointwise", (2, 2, depth), outputs, bits=(input_bits, weight_bits, 8))
    codes = code_range(input_bits)
    image = np.full(layer.size, codes[0] if input_bits == 8 else codes[1])
    weights = np.full((outputs, 1, 1, depth), weight_range(weight_bits)[0])
    return convolution_case(layer, image, 0, weights, np.full(outputs, bias), scale)


# 256 * 2^23 and 4096 * 2^19 are 2^31: one less is the largest sum that the shared words admit.
LIMITS = [
    (512, 8, 8, "mcuq_conv2d_w8_dsp", "mcuq_conv2d_w8c_dsp"),
    (512, 8, 4, "mcuq_conv2d_w4_dsp", None),
]


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "input_bits", "weight_bits", "fast", "safe"), LIMITS)
def test_sums_at_the_limit(
    depth: int, input_bits: int, weight_bits: int, fast: str, safe: str | None, tmp_path: Path
) -> None:
    admitted = on_dsp(extreme(depth, input_bits, weight_bits, -1))
    refused = on_dsp(extreme(depth, input_bits, weight_bits, 0))
    assert admitted is not None and admitted.kernel == fast
    assert (refused.kernel if refused is not None else None) == safe
    cases = [case for case in (admitted, refused) if case is not None]
    assert check_on_target(TARGETS[0], cases, tmp_path, kernels=(*PORTABLE, *SOURCES), extra=EXTRA) == []


# (depth, input bits, weight bits, shift, bias): largest sum admitted times position times 2^(33 - shift) is 2^31 less
# one step; the bias one further from zero is not.
RAISED_LIMITS = [
    (256, 8, 8, 32, -1, 1, "mcuq_conv2d_w8_dsp", "mcuq_conv2d_w8c_dsp"),
    (512, 8, 8, 25, -1, 1, "mcuq_conv2d_w8c_dsp", None),
    (2, 4, 8, 22, -255, -1, "mcuq_conv2d_w8_dsp", "mcuq_conv2d_w8c_dsp"),
    (2184, 4, 4, 32, -63, -1, "mcuq_conv2d_w4_dsp", None),
    (2, 8, 4, 25, -1, 1, "mcuq_conv2d_w4_dsp", None),
    (4, 8, 2, 32, 2**24 - 1 - 1024, 1, "mcuq_conv2d_w2_dsp", None),
    (16, 2, 2, 20, 96 + 1 - 2**18, -1, "mcuq_conv2d_w2_lanes2_dsp", None),
    (8, 4, 2, 20, 240 + 1 - 2**18, -1, "mcuq_conv2d_w2_lanes4_dsp", None),
]


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "xb", "wb", "shift", "bias", "step", "fast", "safe"), RAISED_LIMITS)
def test_raised_sums_at_the_limit(
    depth: int, xb: int, wb: int, shift: int, bias: int, step: int, fast: str, safe: str | None, tmp_path: Path
) -> None:
    largest = abs(bias + depth * code_range(xb)[0 if xb == 8 else 1] * weight_range(wb)[0])
    scale = (max((50 << shift) // largest, 1), shift)
    admitted, refused = (on_dsp(extreme(depth, xb, wb, b, scale=scale)) for b in (bias, bias + step))
    assert admitted is not None and admitted.kernel == fast
    assert (refused.kernel if refused is not None else None) == safe
    cases = [case for case in (admitted, refused) if case is not None]
    assert check_on_target(TARGETS[0], cases, tmp_path, kernels=(*PORTABLE, *SOURCES), extra=EXTRA) == []


@pytest.mark.parametrize(("bits", "shift"), [(8, 25), (4, 22), (2, 20)])
def test_inputs_are_raised_as_far_as_half_words_hold(bits: int, shift: int, tmp_path: Path) -> None:
    admitted, refused = (on_dsp(extreme(1, bits, 8, 0, scale=(1 << s >> 6, s))) for s in (shift, shift - 1))
    assert admitted is not None and refused is None
    assert check_on_target(TARGETS[0], [admitted], tmp_path, kernels=(*PORTABLE, *SOURCES), extra=EXTRA) == []


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_layers_of_several_shifts_are_left_to_the_portable_kernel(bits: int) -> None:
    from dsp import parameters

    from mcuq.target.layouts import pack_weights

    case = extreme(64, 8, bits, -1)
    assert on_dsp(case) is not None and case.weights is not None
    several = replace(case, buffers=(*case.buffers[:4], (1, bytes([40, 41, 40, 40])), case.buffers[5]))
    assert on_dsp(several) is None
    with pytest.raises(ValueError, match=r"shifts 40..41; one for all is allowed"):
        pack_weights({8: "pairs8", 4: "quads4", 2: "quads2"}[bits], case.weights, bits, parameters(several))


def test_one_step_beyond_the_limit_the_shared_words_overflow(tmp_path: Path) -> None:
    """The condition is needed: the fast kernel forced on the refused layer computes wrong bytes."""
    beyond = extreme(512, 8, 8, 0)
    admitted = on_dsp(extreme(512, 8, 8, -1))
    assert admitted is not None and beyond.conv is not None and beyond.weights is not None
    from dsp import parameters

    from mcuq.target.layouts import pack_weights

    p = parameters(beyond)
    with pytest.raises(ValueError, match="32 bits"):
        pack_weights("pairs8", beyond.weights, 8, replace(p, bias=p.bias + 2**23))
    blob = pack_weights("pairs8", beyond.weights, 8, p).tobytes()
    forced = replace(admitted, buffers=(admitted.buffers[0], (4, blob)), expected=beyond.expected)
    wrong = check_on_target(TARGETS[0], [forced], tmp_path, kernels=(*PORTABLE, *SOURCES), extra=EXTRA)
    assert len(wrong) == 1 and "bytes differ" in wrong[0]


@pytest.mark.parametrize(("depth", "fast"), [(896, True), (912, False)])
def test_lanes_of_two_pixels_hold_910_products(depth: int, fast: bool, tmp_path: Path) -> None:
    layer = Layer("pointwise", (2, 2, depth), 4, Window(), (2, 2, 8))
    weights = np.full((4, 1, 1, depth), 1)  # stored as 3, the largest crumb
    case = on_dsp(convolution_case(layer, np.full(layer.size, 3), 0, weights, np.arange(4) - 2 * depth))
    assert case is not None and (case.kernel == "mcuq_conv2d_w2_lanes2_dsp") == fast
    assert check_on_target(TARGETS[0], [case], tmp_path, kernels=(*PORTABLE, *SOURCES), extra=EXTRA) == []


@pytest.mark.slow
@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55", "cortex-m0plus", "rv32imc"])
def test_counts_are_not_above_the_stored_ones(core: str) -> None:
    results = run(core)
    assert regressions(results, from_json(BASELINE.read_text(encoding="ascii"))) == []
