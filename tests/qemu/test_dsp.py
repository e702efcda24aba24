"""The kernels of cores with the DSP extension over the grid of the portable ones, byte for byte."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from cases import Case
from drivers import HOSTS, PORTABLE, Host, Target, check_on_host, check_on_target
from dsp import EXTRA, SOURCES, on_dsp
from test_grid import grid

TARGETS = (
    Target("cortex-m4", "mps2-an386"),
    Target("cortex-m7", "mps2-an500"),
    Target("cortex-m33", "mps2-an505"),
)


@cache
def dsp_grid(seed: int) -> list[Case]:
    return [moved for case in grid(seed) if (moved := on_dsp(case)) is not None]


@pytest.mark.parametrize(
    "target", [pytest.param(t, id=t.name, marks=() if t is TARGETS[0] else pytest.mark.slow) for t in TARGETS]
)
def test_target_computes_every_byte(target: Target, tmp_path: Path) -> None:
    cases = dsp_grid(1)
    assert check_on_target(target, cases, tmp_path, kernels=(*PORTABLE, *SOURCES), extra=EXTRA) == []


@pytest.mark.parametrize(
    "host", [pytest.param(h, id=h.name, marks=() if h is HOSTS[0] else pytest.mark.slow) for h in (HOSTS[0], HOSTS[3])]
)
def test_host_model_computes_every_byte(host: Host, tmp_path: Path) -> None:
    assert check_on_host(host, dsp_grid(2), tmp_path, kernels=(*PORTABLE, *SOURCES), extra=EXTRA) == []


def test_the_grid_reaches_every_kernel() -> None:
    import re

    table = re.findall(r'(?:CONVOLUTION\(|")(mcuq_\w+_dsp)', EXTRA.read_text(encoding="ascii"))
    named = {name for name in table if "##" not in name}
    assert named <= {case.kernel for case in dsp_grid(1)} | {"mcuq_conv2d_w8c_dsp"}
