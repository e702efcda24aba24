"""Kernels that write their output over their input: where selection allows it every byte is right, elsewhere not."""

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

from mcuq.ir.graph import Window
from mcuq.ir.integer import QConv2d
from mcuq.numerics import row_bytes
from mcuq.target.kernels import ConvCase, Kernel, layer_facts, select
from mcuq.target.overlap import may_overwrite


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


def on_input(case: Case) -> Case:
    """The case with its output in the input's buffer, on a word as the planner places it."""
    return replace(case, in_place=True, buffers=((4, case.buffers[0][1]), *case.buffers[1:]))


@cache
def portable_cases(every: int) -> list[Case]:
    found = [case for case in (*layers(), *grid(1, every)) if case.conv is not None]
    return [on_input(case) for case in found if case.conv and select(case.conv, "portable").in_place]


@cache
def dsp_cases(every: int) -> list[Case]:
    found: list[Case] = []
    for case in (*layers(), *grid(1, every)):
        moved = on_dsp(case) if case.conv is not None else None
        if moved is not None and moved.conv is not None and chosen(case).in_place:
            found.append(on_input(moved))
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
    assert check_on_host(HOSTS[0], cases, tmp_path) == []


def test_dsp_kernels_on_cortex_m4(tmp_path: Path) -> None:
    cases = dsp_cases(SAMPLE)
    kernels = {case.kernel for case in cases}
    assert kernels >= {f"mcuq_conv2d_{name}_dsp" for name in ("w8", "w8z", "w4", "w2", "w2_lanes2", "w2_lanes4")}
    assert any(name.startswith("mcuq_depthwise3x3_w8") for name in kernels)
    pixels = {int(np.prod(case.conv.output_shape[:2])) % 4 for case in cases if case.conv is not None}
    assert pixels == {0, 1, 2, 3}
    found = that_fit(cases, TARGETS[0])
    assert len(found) > 150
    assert check_on_target(TARGETS[0], found, tmp_path, kernels=(*PORTABLE, *SOURCES), extra=EXTRA) == []


@pytest.mark.slow
@pytest.mark.parametrize("host", (HOSTS[3],), ids=lambda host: host.name)
def test_all_kernels_on_the_sanitized_host(host: Host, tmp_path: Path) -> None:
    cases = [*portable_cases(1), *dsp_cases(1)]
    assert check_on_host(host, cases, tmp_path, kernels=(*PORTABLE, *SOURCES), extra=EXTRA) == []


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


def plays(case: ConvCase, pixels: int) -> bool:
    """Byte by byte: no group reads an input byte that an earlier one wrote, nothing is written behind the input."""
    height, width, channels = case.input_shape
    pixel, written = row_bytes(channels, case.input_bits), row_bytes(case.output_shape[2], case.output_bits)
    count = case.output_shape[0] * case.output_shape[1]
    if count * written > height * width * pixel:
        return False
    (sy, sx), (dy, dx), (top, left) = case.window.stride, case.window.dilation, case.window.padding[:2]
    gone = 0
    for first in range(0, count, pixels):
        for k in range(first, min(first + pixels, count)):
            oy, ox = divmod(k, case.output_shape[1])
            for i, j in itertools.product(range(case.window.kernel[0]), range(case.window.kernel[1])):
                y, x = oy * sy - top + i * dy, ox * sx - left + j * dx
                if 0 <= y < height and 0 <= x < width and (y * width + x) * pixel < gone:
                    return False
        gone = min(first + pixels, count) * written
    return True


def test_the_rule_is_the_play_of_bytes() -> None:
    rng, answers = np.random.default_rng(0), []
    for _ in range(600):
        size = (int(rng.integers(1, 9)), int(rng.integers(1, 9)), int(rng.choice((2, 4, 8))))
        kernel, stride, dilation = ((int(rng.integers(1, k)), int(rng.integers(1, k))) for k in (4, 4, 3))
        top, left, bottom, right = (int(n) for n in rng.integers(0, 3, 4))
        padding = (top, left, bottom, right)
        window = Window(kernel, stride, padding, dilation)
        spans = [size[i] + padding[i] + padding[i + 2] - (kernel[i] - 1) * dilation[i] for i in (0, 1)]
        if min(spans) < 1:
            continue
        outputs = (*window.output_hw(size[0], size[1]), int(rng.choice((1, 2, 4, 8, 16))))
        xb, wb, yb = (int(b) for b in rng.choice((8, 4, 2), 3))
        case = ConvCase(size, outputs, (outputs[2], *kernel, size[2]), window, 1, xb, wb, yb)
        pixels = int(rng.integers(1, 6))
        assert may_overwrite(case, pixels) == plays(case, pixels), (case, pixels)
        answers.append(may_overwrite(case, pixels))
    assert 0.1 < np.mean(answers) < 0.9
