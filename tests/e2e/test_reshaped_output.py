"""An output that only renames bytes: no statement of the emitted C names it, and it still compiles and agrees."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

pytest.importorskip("torch")
from mcuq.lower.lower import lower
from mcuq.parity import compare
from mcuq.plan.memory import plan_memory
from mcuq.quant.ptq import ptq
from tests.builders import RELU, Net


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no host compiler: install gcc")
def test_boxes_as_rows() -> None:
    net = Net((6, 5, 2))
    net.conv("boxes", "x", 8, clamp=RELU)
    net.reshape("rows", "boxes", (1, 24, 4))
    net.softmax("scores", "rows")
    graph = lower(ptq(net.graph("rows", "scores"), np.random.default_rng(0).normal(0, 1, (8, 6, 5, 2)), (8, 8)))
    codes = np.random.default_rng(1).integers(-128, 128, (4, 6, 5, 2))
    result = compare(graph, plan_memory(graph, "portable", effort=0.5), None, codes)
    assert result.exact, result.first


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no host compiler: install gcc")
def test_the_only_reader_of_a_tensor_renames_it() -> None:
    net = Net((4, 4, 2))
    net.conv("a", "x", 4, (1, 1))
    net.reshape("b", "a", (1, 16, 4))
    net.reshape("c", "b", (2, 8, 4))
    graph = lower(ptq(net.graph(), np.random.default_rng(0).normal(0, 1, (8, 4, 4, 2)), (8, 8)))
    codes = np.random.default_rng(1).integers(-128, 128, (4, 4, 4, 2))
    assert compare(graph, plan_memory(graph, "portable", effort=0.5), None, codes).exact
