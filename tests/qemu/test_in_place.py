"""Kernels that write their output over their input: where selection allows it every byte is right, elsewhere not.

The output begins at the input's first byte, or so far before it that no store reaches what is still to be read.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from cases import Case
from convolutions import Layer, build
from drivers import HOSTS, PORTABLE, Host, Target, check_on_host, check_on_target, that_fit
from dsp import EXTRA, SOURCES, on_dsp, parameters
from test_dsp import TARGETS
from test_grid import SAMPLE, grid
from transposed import transposed_cases

from mcuq.ir.graph import Window
from mcuq.ir.integer import QConv2d
from mcuq.numerics import row_bytes
from mcuq.target.kernel_types import ConvCase, Groups, Kernel
from mcuq.target.kernels import layer_facts, select
from mcuq.target.overlap import may_overwrite, window_distance

ALL = (*PORTABLE, *SOURCES)


@cache
def layers() -> list[Case]:
    """Every number of pixels beyond whole groups, rows that shrink, strides, and depthwise planes of several strips."""
    found: list[Layer] = []
    bits = ((8, 8, 8), (8, 4, 8), (4, 4, 4), (2, 2, 2), (8, 2, 4), (4, 2, 2), (8, 8, 2))
    for (xb, wb, yb), (rows, cols) in itertools.product(bits, ((1, 1), (1, 5), (2, 3), (3, 3), (5, 5), (4, 8))):
        for channels, outputs in ((16, 16), (32, 9), (5, 4)):
            size = (rows, cols, channels)
            found.append(Layer(size, outputs, (1, 1), (1, 1), (1, 1), 1, "same", xb, wb, yb, len(found)))
        found.append(Layer((rows + 2, cols + 2, 16), 12, (2, 2), (2, 2), (1, 1), 1, "valid", xb, wb, yb, len(found)))
        found.append(Layer((8, 6, 16), 16, (3, 3), (2, 2), (1, 1), 1, "same", xb, wb, yb, len(found)))
    for (xb, wb, yb), stride in itertools.product(bits, (1, 2)):
        for size in ((25, 5, 6), (9, 9, 5), (40, 60, 2)):
            strides = (stride, stride)
            found.append(Layer(size, size[2], (3, 3), strides, (1, 1), size[2], "same", xb, wb, yb, len(found)))
    return [build(layer) for layer in found]


@cache
def growing() -> list[Case]:
    """Outputs longer than inputs: more channels or bits, first layers, maps that keep their size, groups."""
    found: list[Layer] = []
    bits = ((8, 8, 8), (8, 4, 8), (4, 4, 4), (2, 2, 4), (8, 2, 4), (4, 2, 8), (2, 8, 8))
    for (xb, wb, yb), (rows, cols) in itertools.product(bits, ((1, 7), (3, 5), (4, 8), (5, 5), (9, 2))):
        for channels, outputs in ((8, 24), (16, 33), (5, 12)):
            size = (rows, cols, channels)
            found.append(Layer(size, outputs, (1, 1), (1, 1), (1, 1), 1, "same", xb, wb, yb, len(found), usual=True))
        size = (2 * rows, 2 * cols, 3)
        found.append(Layer(size, 8, (3, 3), (2, 2), (1, 1), 1, "same", xb, wb, yb, len(found), usual=True))
        found.append(Layer((rows, cols, 16), 16, (3, 3), (1, 1), (1, 1), 1, "same", xb, wb, yb, len(found), usual=True))
        found.append(Layer((rows, cols, 6), 9, (3, 1), (1, 1), (1, 1), 3, "same", xb, wb, yb, len(found), usual=True))
    return [build(layer) for layer in found]


def on_input(case: Case) -> Case:
    """The case with its output in the input's buffer, on a word as the planner places it."""
    return replace(case, in_place=True, buffers=((4, case.buffers[0][1]), *case.buffers[1:]))


def before_input(case: Case, distance: int) -> Case:
    """The case with its output beginning ``distance`` bytes, a whole number of words, before its input."""
    return replace(on_input(case), ahead=distance, text=f"{case.text} {distance} bytes before its input")


def apart(case: Case, kernel: Kernel) -> int:
    """The least distance in whole words; the output's size where nothing can be shared."""
    if case.conv is None or kernel.groups is None:
        return len(case.expected)
    c = case.conv
    pixel = row_bytes(c.input_shape[2], c.input_bits), row_bytes(c.output_shape[2], c.output_bits)
    return -(-window_distance(c.input_shape[:2], c.output_shape[:2], c.window, pixel, kernel.groups) // 4) * 4


def both_ways(case: Case, kernel: Kernel) -> list[Case]:
    """The case as far over its input as its kernel allows: in place, and before it."""
    least = apart(case, kernel)
    near = [before_input(case, least)] if least < len(case.expected) else []
    return [on_input(case), *near] if kernel.in_place else near


@cache
def portable_cases(every: int) -> list[Case]:
    upwards = list(transposed_cases(np.random.default_rng(1)))[::every]
    cases = (*layers(), *growing(), *upwards, *grid(1, every))
    found = [(case, case.conv) for case in cases if case.conv is not None]
    return [one for case, conv in found for one in both_ways(case, select(conv, "portable"))]


@cache
def dsp_cases(every: int) -> list[Case]:
    found: list[Case] = []
    for case in (*layers(), *growing(), *grid(1, every)):
        moved = on_dsp(case) if case.conv is not None else None
        if moved is not None and moved.conv is not None:
            found += both_ways(moved, chosen(case))
    return found


def chosen(case: Case, core: str = "cortex-m4") -> Kernel:
    assert case.conv is not None
    p = parameters(case)
    op = SimpleNamespace(
        weight=case.weights,
        weight_zero_point=p.weight_zero_point,
        bias=p.bias,
        multiplier=p.multiplier,
        shift=p.shift,
        roundings=case.conv.roundings,
    )
    return select(replace(case.conv, facts=layer_facts(cast(QConv2d, op), p.input_bits)), core)


def test_portable_kernels_on_the_host(tmp_path: Path) -> None:
    cases = portable_cases(SAMPLE)
    assert {case.kernel for case in cases} >= {f"mcuq_conv2d_w{bits}" for bits in (8, 4, 2)} | {"mcuq_depthwise_w8"}
    names = ("conv2d", "conv2d_transpose", "depthwise")
    assert {case.kernel for case in cases if case.ahead} >= {f"mcuq_{n}_w{b}" for n in names for b in (8, 4, 2)}
    assert check_on_host(HOSTS[0], cases, tmp_path) == []


def test_dsp_kernels_on_cortex_m4(tmp_path: Path) -> None:
    cases = dsp_cases(SAMPLE)
    kernels = {case.kernel for case in cases}
    assert kernels >= {f"mcuq_conv2d_{name}_dsp" for name in ("w8", "w8z", "w4", "w2", "w2_lanes2", "w2_lanes4")}
    assert any(name.startswith("mcuq_depthwise3x3_w8") for name in kernels)
    before = {case.kernel for case in cases if case.ahead}
    assert before >= {f"mcuq_conv2d_{name}_dsp" for name in ("w8", "w8z", "w4", "w2", "w2_lanes2", "w2_lanes4")}
    assert any(name.startswith("mcuq_depthwise3x3_w8") for name in before)
    pixels = {int(np.prod(case.conv.output_shape[:2])) % 4 for case in cases if case.conv is not None}
    assert pixels == {0, 1, 2, 3}
    found = that_fit(cases, TARGETS[0])
    assert len(found) > 150
    assert check_on_target(TARGETS[0], found, tmp_path, kernels=ALL, extra=EXTRA) == []


@pytest.mark.slow
@pytest.mark.parametrize("host", (HOSTS[3],), ids=lambda host: host.name)
def test_all_kernels_on_the_sanitized_host(host: Host, tmp_path: Path) -> None:
    cases = [*portable_cases(1), *dsp_cases(1)]
    assert check_on_host(host, cases, tmp_path, kernels=ALL, extra=EXTRA) == []


@pytest.mark.slow
@pytest.mark.parametrize("target", [Target("cortex-m0plus", "mps2-an385"), Target("cortex-m3", "mps2-an385")], ids=str)
def test_portable_kernels_on_targets(target: Target, tmp_path: Path) -> None:
    assert check_on_target(target, that_fit(portable_cases(1), target), tmp_path) == []


def test_where_selection_refuses_bytes_are_wrong(tmp_path: Path) -> None:
    """The condition is needed: a 3 x 3 layer of stride 1 loses rows it still has to read."""
    case = build(Layer((8, 8, 16), 16, (3, 3), (1, 1), (1, 1), 1, "same", 8, 8, 8, 8, usual=True))
    assert case.conv is not None and not select(case.conv, "portable").in_place
    assert not select(case.conv, "cortex-m4").in_place
    wrong = check_on_host(HOSTS[0], [on_input(case)], tmp_path)
    assert len(wrong) == 1 and "bytes differ" in wrong[0]


@pytest.mark.slow
def test_less_is_too_little(tmp_path: Path) -> None:
    """Of gathered pixels to the word; of pixels read where they lie less the few outputs that are stored last."""
    dense = Layer((4, 8, 8), 24, (1, 1), (1, 1), (1, 1), 1, "same", 8, 8, 8, 1, usual=True)
    wide = Layer((5, 5, 16), 16, (3, 3), (1, 1), (1, 1), 1, "same", 8, 8, 8, 2, usual=True)
    enough: list[Case] = []
    less: list[Case] = []
    for layer in (dense, wide):
        case = build(layer)
        fast = on_dsp(case)
        assert case.conv is not None and fast is not None
        for one, kernel in ((case, select(case.conv, "portable")), (fast, chosen(case))):
            least = apart(one, kernel)
            assert 0 < least < len(one.expected) and kernel.groups is not None
            enough.append(before_input(one, least))
            less.append(before_input(one, least - (40 if kernel.groups.holds else 4)))
    assert check_on_host(HOSTS[0], enough, tmp_path, kernels=ALL, extra=EXTRA) == []
    assert len(check_on_host(HOSTS[0], less, tmp_path, kernels=ALL, extra=EXTRA)) == len(less) == 4


def plays(case: ConvCase, groups: Groups, distance: int) -> bool:
    """Byte by byte: no group reads an input byte that an earlier one, or it itself while it holds them, wrote."""
    height, width, channels = case.input_shape
    pixel, written = row_bytes(channels, case.input_bits), row_bytes(case.output_shape[2], case.output_bits)
    count = case.output_shape[0] * case.output_shape[1]
    (sy, sx), (dy, dx), (top, left) = case.window.stride, case.window.dilation, case.window.padding[:2]
    gone = 0
    for first in range(0, count, groups.pixels):
        end = min(first + groups.pixels, count)
        gone = end * written if groups.holds else gone
        for k in range(min(first, max(0, end - groups.again)) if end == count else first, end):
            oy, ox = divmod(k, case.output_shape[1])
            for i, j in itertools.product(range(case.window.kernel[0]), range(case.window.kernel[1])):
                y, x = oy * sy - top + i * dy, ox * sx - left + j * dx
                if 0 <= y < height and 0 <= x < width and distance + (y * width + x) * pixel < gone:
                    return False
        gone = end * written
    return True


def two(rng: np.random.Generator, low: int, high: int) -> tuple[int, int]:
    return int(rng.integers(low, high)), int(rng.integers(low, high))


def test_the_distance_is_the_play_of_bytes() -> None:
    rng, in_place, shared = np.random.default_rng(0), list[bool](), list[bool]()
    for _ in range(600):
        size = (*two(rng, 1, 9), int(rng.choice((2, 4, 8))))
        kernel, stride, dilation = (two(rng, 1, k) for k in (4, 4, 3))
        padding = (*two(rng, 0, 3), *two(rng, 0, 3))
        window = Window(kernel, stride, padding, dilation)
        spans = [size[i] + padding[i] + padding[i + 2] - (kernel[i] - 1) * dilation[i] for i in (0, 1)]
        if min(spans) < 1:
            continue
        outputs = (*window.output_hw(size[0], size[1]), int(rng.choice((1, 2, 4, 8, 16))))
        bits = int(rng.choice((8, 4, 2))), 8, int(rng.choice((8, 4, 2)))
        case = ConvCase(size, outputs, (outputs[2], *kernel, size[2]), window, 1, *bits)
        groups = Groups(int(rng.integers(1, 6)), bool(rng.integers(2)), int(rng.integers(1, 6)))
        pixel = row_bytes(size[2], case.input_bits), row_bytes(outputs[2], case.output_bits)
        whole = outputs[0] * outputs[1] * pixel[1]
        least = window_distance(size[:2], outputs[:2], window, pixel, groups)
        assert least <= whole and plays(case, groups, least), (case, groups)
        assert least == 0 or not plays(case, groups, least - 1), (case, groups)
        shared.append(least < whole)
        fits = whole <= size[0] * size[1] * pixel[0] and plays(case, Groups(groups.pixels), 0)
        assert may_overwrite(case, groups.pixels) == fits, (case, groups)
        in_place.append(fits)
    assert 0.1 < np.mean(in_place) < 0.9 and 0.3 < np.mean(shared) < 0.95
