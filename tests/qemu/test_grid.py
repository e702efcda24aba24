"""Every operator over every combination of bits, kernel, stride and padding, byte for byte on every target."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from cases import Case, mismatches
from convolutions import convolution_cases
from drivers import HOSTS, TARGETS, Host, Target, check_on_host, check_on_target, run_on_target, that_fit
from elementwise import elementwise_cases

SAMPLE = 5
"""The quick tests take every fifth case; 5 is prime to the lengths of the grid's loops, so all kinds stay in."""


@cache
def grid(seed: int, every: int = 1) -> list[Case]:
    convolutions = ("conv2d", "depthwise", "fully_connected")
    return [
        *(case for family in convolutions for case in convolution_cases(family, seed, every)),
        *elementwise_cases(seed, every),
    ]


@pytest.mark.parametrize("host", (HOSTS[0], HOSTS[4]), ids=lambda host: host.name)
def test_host_computes_a_sample(host: Host, tmp_path: Path) -> None:
    assert check_on_host(host, grid(1, SAMPLE), tmp_path) == []


def test_target_computes_a_sample(tmp_path: Path) -> None:
    assert check_on_target(TARGETS[0], grid(1, SAMPLE), tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)
def test_host_computes_every_byte(host: Host, tmp_path: Path) -> None:
    assert check_on_host(host, grid(1), tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_target_computes_every_byte(target: Target, tmp_path: Path) -> None:
    cases = that_fit(grid(1), target)
    assert len(cases) > 3000
    assert check_on_target(target, cases, tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS[:2], ids=lambda target: target.name)
def test_smallest_code_computes_every_byte(target: Target, tmp_path: Path) -> None:
    """What --optimize size compiles: other loops, the same bytes."""
    cases = that_fit(grid(1, 2), target)
    assert mismatches(cases, run_on_target(target, cases, tmp_path, flags=("-Os",))) == []


@pytest.mark.slow
def test_a_second_draw_of_the_grid_on_the_sanitized_host(tmp_path: Path) -> None:
    assert check_on_host(HOSTS[3], grid(2), tmp_path) == []


def test_the_grid_covers_what_it_promises() -> None:
    cases = grid(1, SAMPLE)
    convs = [case.conv for case in cases if case.conv is not None]
    assert {(c.input_bits, c.weight_bits, c.output_bits) for c in convs} == {
        (x, w, y) for x in (8, 4, 2) for w in (8, 4, 2) for y in (8, 4, 2, 32)
    }
    assert {c.weight_shape[1:3] for c in convs} >= {(1, 1), (3, 3), (5, 5), (10, 4)}
    assert {c.window.stride for c in convs} >= {(1, 1), (2, 2)}
    assert any(c.window.dilation == (2, 1) for c in convs) and any(c.window.dilation == (2, 2) for c in convs)
    assert any(c.window.padding[0] != c.window.padding[2] for c in convs)
    assert {c.input_shape[2] for c in convs} >= {*range(1, 10), 17}
    assert any(1 < c.groups < c.input_shape[2] for c in convs)
    assert {(c.asymmetric, c.per_channel) for c in convs} == {(a, p) for a in (True, False) for p in (True, False)}
    shifts = {shift for case in cases if case.conv is not None for shift in case.shifts}
    assert min(shifts) < 33 < max(shifts) and 33 in shifts and 32 in shifts
    both = {(-128 % 256), 127}
    assert any(both <= set(case.expected) for case in cases if case.conv is not None and case.conv.output_bits == 8)


@pytest.mark.slow
def test_a_wrong_byte_is_reported_with_its_case(tmp_path: Path) -> None:
    case = grid(1, SAMPLE)[100]
    wrong = replace(case, expected=bytes([case.expected[0] ^ 1, *case.expected[1:]]))
    report = check_on_host(HOSTS[0], [grid(1, SAMPLE)[0], wrong], tmp_path)
    assert len(report) == 1 and case.text in report[0] and "first at 0" in report[0]


def test_a_write_behind_the_scratch_is_reported(tmp_path: Path) -> None:
    case = next(case for case in grid(1, SAMPLE) if case.scratch >= 64)
    report = check_on_host(HOSTS[0], [replace(case, scratch=case.scratch - 8)], tmp_path)
    assert report == [f"{case.text}: wrote outside its buffers"]


def test_a_kernel_the_driver_lacks_is_reported(tmp_path: Path) -> None:
    case = replace(grid(1, SAMPLE)[0], kernel="mcuq_conv2d_w3")
    assert check_on_host(HOSTS[0], [case], tmp_path) == ["driver ended with 1: mcuq_conv2d_w3: unknown kernel\n"]
