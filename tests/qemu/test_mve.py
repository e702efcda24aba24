"""The Helium kernels over the grid of the portable ones, byte for byte."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from bench import Layer, convolution_case, elementwise
from cases import Case, renamed
from convolutions import Layer as GridLayer
from convolutions import build
from drivers import PORTABLE, Target, check_on_target, that_fit
from dsp import EXTRA, on_dsp, sources
from test_dsp import extreme, raised, smallest_shift, wide
from test_grid import grid
from test_in_place import both_ways, chosen, growing

from mcuq.ir.graph import Window

TARGET = Target("cortex-m55", "mps3-an547")
KERNELS = (*PORTABLE, *sources(TARGET.core))


def on_mve(case: Case) -> Case | None:
    """``case`` as the compiler would run it; None when not by a Helium kernel."""
    if case.kernel == "mcuq_add" and case.scalars[3:6] != (8, 8, 8):
        return renamed(case, "mcuq_add_packed_mve")
    return on_dsp(case, TARGET.core, ("_mve",))


DEPTHS = (1, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 66, 67, 96, 127, 128, 129)


def deep(seed: int) -> list[Case]:
    """Depths around whole blocks of 16 bytes, and every remainder behind one: 4- and 2-bit weights, odd channels."""
    rng = np.random.default_rng(seed)
    layers: list[GridLayer] = []
    for wb, yb, xb in itertools.product((8, 4, 2), (8, 4, 2), (8, 4, 2)):
        for depth in (*DEPTHS, int(rng.integers(130, 200))):
            size, outputs = (1, int(rng.integers(1, 6)), depth), int(rng.integers(1, 6))
            layers.append(GridLayer(size, outputs, (1, 1), (1, 1), (1, 1), 1, "same", xb, wb, yb, len(layers)))
    return [build(layer) for layer in layers]


def pairs(seed: int) -> list[Case]:
    """4-bit weights, two channels in a byte: one, two and many pixels, odd depths and channels, raised inputs too."""
    rng, layers = np.random.default_rng(seed), list[GridLayer]()
    for depth, xb in itertools.product((*DEPTHS, int(rng.integers(130, 200))), (8, 4, 2)):
        size, outputs = (int(rng.integers(1, 3)), int(rng.integers(1, 4)), depth), 4 + int(rng.integers(8))
        yb, shift = (8, 4, 2)[int(rng.integers(3))], (None, None, 29, 27)[int(rng.integers(4))]
        found = [GridLayer(size, outputs, (1, 1), (1, 1), (1, 1), 1, "same", xb, 4, yb, len(layers), shift=shift)]
        if depth < 40:
            found.append(replace(found[0], input=(4, 5, depth), kernel=(3, 3), stride=(1, 2)))
        layers += [replace(layer, usual=bool(rng.integers(3))) for layer in found]
    return [build(layer) for layer in layers]


def planes(seed: int) -> list[Case]:
    """Depthwise layers: single output rows and columns, odd ones, tiles and strips that leave one over."""
    rng = np.random.default_rng(seed)
    layers: list[GridLayer] = []
    for wb, stride, width in itertools.product((8, 4, 2), (1, 2), (1, 2, 3, 8, 9, 17, 31, 62, 83)):
        for height in (1, 2, 3, 5, int(rng.integers(6, 60))):
            c, padding = int(rng.integers(1, 6)), ("same", "same", "torch")[int(rng.integers(3))]
            size = (height, width, c)
            xb, yb = ((8, 8), (8, 8), (8, 8), (4, 4), (2, 2), (4, 8), (8, 2))[int(rng.integers(7))]
            layers.append(GridLayer(size, c, (3, 3), (stride, stride), (1, 1), c, padding, xb, wb, yb, len(layers)))
    return [build(layer) for layer in layers]


@cache
def mve_grid(seed: int) -> list[Case]:
    return [
        moved
        for case in (*grid(seed), *wide(seed), *deep(seed), *pairs(seed), *planes(seed), *raised(seed)[::3])
        if (moved := on_mve(case)) is not None
    ]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_target_computes_every_byte(seed: int, tmp_path: Path) -> None:
    cases = that_fit(mve_grid(seed), TARGET)
    assert check_on_target(TARGET, cases, tmp_path, kernels=KERNELS, extra=EXTRA) == []


def test_the_grid_reaches_every_kernel() -> None:
    named = set(re.findall(r'(?:CONVOLUTION\(|\{")(mcuq_\w+_mve)\b', EXTRA.read_text(encoding="ascii")))
    kinds = itertools.product((8, 4, 2), ("", "z"), (1, 2), ("", "p"))
    named |= {f"mcuq_depthwise3x3_w{bits}{zero}_s{stride}{packed}_mve" for bits, zero, stride, packed in kinds}
    named = {name for name in named if "##" not in name and "twice" not in name}
    reached = {case.kernel for case in mve_grid(1)}
    assert len(named) == 34 and named == reached


@pytest.mark.slow
def test_every_two_codes_of_a_byte(tmp_path: Path) -> None:
    """All 256 pairs of 4-bit codes of two channels, in whole vectors and in a tail, over one pixel and over several."""
    rng, cases = np.random.default_rng(0), list[Case]()
    codes = np.arange(256)
    for pixels, moved in itertools.product((1, 4), (0, 3)):
        weights = np.stack([codes % 16 - 8, codes // 16 - 8] * 3 + [7 - codes % 16])[:, None, None, moved:]
        layer = Layer("pointwise", (1, pixels, 256 - moved), 7, bits=(8, 4, 8))
        image = rng.integers(-128, 128, layer.size)
        fast = on_mve(convolution_case(layer, image, 0, weights, rng.integers(-999, 999, 7)))
        assert fast is not None
        cases.append(fast)
    assert check_on_target(TARGET, cases, tmp_path, kernels=KERNELS, extra=EXTRA) == []


@pytest.mark.slow
def test_outputs_over_their_inputs(tmp_path: Path) -> None:
    """In place and before the input, strips included, wherever selection allows it."""
    cases: list[Case] = []
    for case in (*planes(5), *growing()):
        moved = on_mve(case)
        if moved is not None and moved.conv is not None:
            cases += both_ways(moved, chosen(case, TARGET.core))
    in_place, before = ({case.kernel for case in cases if bool(case.ahead) == ahead} for ahead in (False, True))
    assert {name[-7:-4] for name in in_place if "depthwise" in name} == {"_s1", "_s2"}
    assert {f"mcuq_conv2d_w{bits}_mve" for bits in (8, 4, 2)} <= before and any("depthwise" in n for n in before)
    assert any(len(case.expected) > 2048 for case in cases)
    assert check_on_target(TARGET, that_fit(cases, TARGET), tmp_path, kernels=KERNELS, extra=EXTRA) == []


SMALLEST_SHIFT = {(8, 8): 32, (8, 4): 28, (8, 2): 26, (4, 8): 29, (4, 4): 25, (2, 8): 27, (2, 2): 21}
"""By (input bits, weight bits): 32, less the position of the weights, less the bits that inputs can be raised."""


@pytest.mark.slow
def test_inputs_are_raised_as_far_as_bytes_hold(tmp_path: Path) -> None:
    cases: list[Case] = []
    for bits, shift in SMALLEST_SHIFT.items():
        admitted, refused = (on_mve(extreme(1, *bits, 0, scale=(1 << s >> 3, s))) for s in (shift, shift - 1))
        assert admitted is not None and refused is None, bits
        cases.append(admitted)
    assert check_on_target(TARGET, cases, tmp_path, kernels=KERNELS, extra=EXTRA) == []


def test_the_grid_has_raised_layers() -> None:
    low = {fast.kernel for case in raised(1)[::3] if smallest_shift(case) < 28 and (fast := on_mve(case)) is not None}
    assert low >= {f"mcuq_conv2d_w{bits}{zero}_mve" for bits in (4, 2) for zero in ("", "z")}


def test_average_of_more_taps_than_a_lane_holds(tmp_path: Path) -> None:
    sizes = ((20, 17, 21), (3, 255, 8), (17, 16, 3))
    cases = [elementwise(Layer("avg_pool", size, size[2], Window(size[:2])), 1) for size in sizes]
    moved = [fast for case in cases if (fast := on_mve(case)) is not None]
    assert len(moved) == 3
    assert check_on_target(TARGET, moved, tmp_path, kernels=KERNELS, extra=EXTRA) == []


# 16 * 2^27 and 64 * 2^25 are 2^31: one less is the largest sum that the scaled accumulators admit.
LIMITS = [(4, 2**27 - 1 - 512 * 128 * 8), (2, 2**25 - 1 - 512 * 128 * 2)]


@pytest.mark.parametrize(("weight_bits", "bias"), LIMITS)
def test_sums_at_the_limit(weight_bits: int, bias: int, tmp_path: Path) -> None:
    """Over several pixels, and over one, where sums of 4-bit weights with 8 added wrap on their way."""
    admitted, refused = on_mve(extreme(512, 8, weight_bits, bias)), on_mve(extreme(512, 8, weight_bits, bias + 1))
    assert admitted is not None and admitted.kernel == f"mcuq_conv2d_w{weight_bits}_mve"
    assert refused is None
    layer = Layer("pointwise", (1, 1, 512), 4, bits=(8, weight_bits, 8))
    weights = np.full((4, 1, 1, 512), -(1 << weight_bits - 1))
    one = on_mve(convolution_case(layer, np.full((1, 1, 512), -128), 0, weights, np.full(4, bias)))
    assert one is not None and one.kernel == admitted.kernel
    assert check_on_target(TARGET, [admitted, one], tmp_path, kernels=KERNELS, extra=EXTRA) == []


@pytest.mark.parametrize("weight_bits", [8, 4, 2])
def test_fewer_pixels_than_a_block(weight_bits: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(weight_bits)
    high = 1 << (weight_bits - 1)
    cases: list[Case] = []
    for pixels, depth, outputs in itertools.product((1, 2, 3, 4), (5, 33, 70), (1, 2, 7)):
        layer = Layer("pointwise", (1, pixels, depth), outputs, bits=(8, weight_bits, 8))
        image, weights = rng.integers(-128, 128, layer.size), rng.integers(-high, high, (outputs, 1, 1, depth))
        case = on_mve(convolution_case(layer, image, 3, weights, rng.integers(-99, 99, outputs)))
        assert case is not None
        cases.append(case)
    assert check_on_target(TARGET, cases, tmp_path, kernels=KERNELS, extra=EXTRA) == []
