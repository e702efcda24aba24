"""The kernels of cores with the DSP extension over the grid of the portable ones, byte for byte."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from bench import BASELINE, Layer, convolution_case, from_json, regressions, run
from cases import Case
from convolutions import Layer as GridLayer
from convolutions import build
from drivers import HOSTS, PORTABLE, Host, Target, check_on_host, check_on_target, that_fit
from dsp import EXTRA, SOURCES, on_dsp, sources
from test_grid import grid

from mcuq.ir.graph import Window
from mcuq.numerics import code_range, weight_range

TARGETS = (
    Target("cortex-m4", "mps2-an386"),
    Target("cortex-m7", "mps2-an500"),
    Target("cortex-m33", "mps2-an505"),
    Target("cortex-m55", "mps3-an547"),
)


@cache
def dsp_grid(seed: int) -> list[Case]:
    return [moved for case in (*grid(seed), *wide(seed)) if (moved := on_dsp(case)) is not None]


def wide(seed: int) -> list[Case]:
    """Channels that fill words of 2- and 4-bit codes, and planes of every pitch."""
    rng = np.random.default_rng(seed)
    layers: list[GridLayer] = []
    bits = itertools.product((8, 4, 2), (8, 4, 2), (8, 4, 2))
    for (xb, wb, yb), channels, side in itertools.product(bits, (16, 48), (1, 3)):
        size, outputs = (int(rng.integers(side, 6)), int(rng.integers(side, 6)), channels), int(rng.integers(1, 10))
        layers.append(GridLayer(size, outputs, (side, side), (1, 1), (1, 1), 1, "same", xb, wb, yb, len(layers)))
    for width, (xb, wb, yb) in itertools.product((13, 29, 61, 120), ((8, 8, 8), (8, 4, 4), (4, 4, 8), (2, 2, 2))):
        for stride in (1, 2):
            size = (int(rng.integers(3, 30)), width * stride - stride // 2, 3)
            layers.append(GridLayer(size, 3, (3, 3), (stride, stride), (1, 1), 3, "same", xb, wb, yb, len(layers)))
    return [build(layer) for layer in layers]


@pytest.mark.parametrize(
    "target", [pytest.param(t, id=t.name, marks=() if t is TARGETS[0] else pytest.mark.slow) for t in TARGETS]
)
def test_target_computes_every_byte(target: Target, tmp_path: Path) -> None:
    cases = that_fit(dsp_grid(1), target)
    assert check_on_target(target, cases, tmp_path, kernels=(*PORTABLE, *sources(target.core)), extra=EXTRA) == []


@pytest.mark.parametrize(
    "host", [pytest.param(h, id=h.name, marks=() if h is HOSTS[0] else pytest.mark.slow) for h in (HOSTS[0], HOSTS[3])]
)
def test_host_model_computes_every_byte(host: Host, tmp_path: Path) -> None:
    assert check_on_host(host, dsp_grid(2), tmp_path, kernels=(*PORTABLE, *SOURCES), extra=EXTRA) == []


def test_the_grid_reaches_every_kernel() -> None:
    table = EXTRA.read_text(encoding="ascii")
    named = set(re.findall(r'(?:CONVOLUTION\(|\{")(mcuq_\w+_dsp)\b', table)) - {"name"}
    pitches = re.findall(r"_p(\d+)_dsp", table)
    named |= {f"mcuq_depthwise3x3_w{bits}_p{pitch}_dsp" for bits in (8, 4, 2) for pitch in set(pitches)}
    reached = {case.kernel for case in dsp_grid(1)}
    assert {name for name in named if "w##" not in name} - reached <= {
        "mcuq_conv2d_w8c_dsp",  # test_sums_at_the_limit
        *(f"mcuq_depthwise3x3_w{bits}_p{pitch}_dsp" for bits in (4, 2) for pitch in (32, 64, 128, 256)),
    }


def extreme(depth: int, input_bits: int, weight_bits: int, bias: int, outputs: int = 4) -> Case:
    """A pointwise layer whose every product is the largest: lowest codes times lowest weights (2 bits: highest)."""
    layer = Layer("pointwise", (2, 2, depth), outputs, bits=(input_bits, weight_bits, 8))
    codes = code_range(input_bits)
    image = np.full(layer.size, codes[0] if input_bits == 8 else codes[1])
    weights = np.full((outputs, 1, 1, depth), weight_range(weight_bits)[0])
    return convolution_case(layer, image, 0, weights, np.full(outputs, bias))


# 256 * 2^23 and 4096 * 2^19 are 2^31: one less is the largest sum that the shared words admit.
LIMITS = [
    (512, 8, 8, "mcuq_conv2d_w8_dsp", "mcuq_conv2d_w8c_dsp"),
    (512, 8, 4, "mcuq_conv2d_w4_dsp", None),
]


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
@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55", "cortex-m0plus"])
def test_counts_are_not_above_the_stored_ones(core: str) -> None:
    results = run(core)
    assert regressions(results, from_json(BASELINE.read_text(encoding="ascii"))) == []
