"""Clamps that cannot act are let go, rescalings that change nothing are taken out, and no output bit changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import RELU, Net
from quantizers import quantize_graph
from test_dead_channels import PIXELS, SHAPE, assert_same_outputs, inputs

from mcuq.ir.graph import Graph, Window
from mcuq.ir.integer import IntegerGraph
from mcuq.ir.quantized import QuantParams
from mcuq.lower import lower, simplified
from mcuq.lower.idle_clamps import drop_idle_clamps
from mcuq.numerics import code_range
from mcuq.reference.integer import run_outputs


def rectified_twice(clamp: Any = RELU) -> Graph:
    """Sums, pools and a concatenation of rectified tensors, rectified again; ``clamp`` is the first branch's."""
    net = Net(SHAPE, 7, PIXELS)
    net.conv("a", "x", 4, (1, 1), clamp=clamp)
    net.conv("b", "x", 4, (1, 1), clamp=RELU)
    net.add("sum", "a", "b", RELU)
    net.max_pool("max", "sum", Window((2, 2), (2, 2)))
    net.clip("again", "max", RELU)
    net.concat("cat", "max", "again")
    net.clip("third", "cat", RELU)
    net.conv("fc", "third", 3, (3, 3))
    return net.graph()


def symmetric(graph: Graph, bits: int = 8) -> IntegerGraph:
    """Zero at one code of all tensors but the input, so that a rectifier is a clamp; pools and clips keep scales."""
    q = quantize_graph(graph, np.random.default_rng(1).normal(size=(6, *SHAPE)), activation_bits=bits)
    middle = sum(code_range(bits)) // 2 + 1
    common = QuantParams(bits, 0.05 * 2 ** (8 - bits), middle)
    same = {"sum", "max", "again", "cat", "third"}
    params = {a.tensor: common if a.tensor in same else replace(a.params, zero_point=middle) for a in q.activations}
    params["x"] = q.params("x")
    return lower(replace(q, activations=tuple(replace(a, params=params[a.tensor]) for a in q.activations)))


def clamps(graph: IntegerGraph) -> dict[str, tuple[int, int]]:
    return {op.name: clamp for op in graph if (clamp := getattr(op, "clamp", None)) is not None}


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_idle_clamps_and_rescalings_go(bits: int) -> None:
    before = symmetric(rectified_twice(), bits)
    after = drop_idle_clamps(before)
    least, most = code_range(bits)
    middle = (least + most) // 2 + 1
    assert clamps(before)["sum"] == clamps(before)["again"] == (middle, most)
    assert clamps(after)["a"] == clamps(after)["b"] == (middle, most)  # products of any sign
    assert clamps(after)["sum"] == (least, most)
    assert {op.name for op in before} - {op.name for op in after} == {"again", "third"}
    assert after.op("cat").inputs == ("max", "max") and after.op("fc").inputs == ("cat",)
    assert_same_outputs(before, after, 10_000 if bits == 8 else 1_000)


def test_a_clamp_that_acts_stays() -> None:
    before = symmetric(rectified_twice(clamp=(None, None)))
    after = drop_idle_clamps(before)
    assert clamps(after)["sum"] == clamps(before)["sum"]  # of any sign on one side
    assert {"again", "third"} & {op.name for op in after} == set()  # the sum is rectified
    assert_same_outputs(before, after, 1_000)
    wrong = tuple(replace(op, clamp=(-128, 127)) if op.name == "sum" else op for op in after)  # type: ignore[call-arg]
    x = inputs(1_000)
    found = run_outputs(IntegerGraph(wrong, after.outputs), x)["fc"]
    assert (found != run_outputs(before, x)["fc"]).any()


def test_bounds_are_judged_one_by_one() -> None:
    net = Net(SHAPE, 7, PIXELS)
    net.conv("a", "x", 4, (1, 1), clamp=RELU)
    net.add("sum", "a", "a", (0.0, 0.5))
    net.conv("fc", "sum", 3, (6, 6))
    before = symmetric(net.graph())
    after = drop_idle_clamps(before)
    high = clamps(before)["sum"][1]
    assert high < 127 and clamps(before)["sum"][0] == 0 and clamps(after)["sum"] == (-128, high)
    assert_same_outputs(before, after, 1_000)


def test_outputs_keep_their_operators_and_a_second_pass_finds_nothing() -> None:
    net = Net(SHAPE, 7, PIXELS)
    net.conv("a", "x", 4, (1, 1), clamp=RELU)
    net.add("sum", "a", "a")
    net.max_pool("max", "sum", Window((2, 2), (2, 2)))
    net.clip("again", "max", RELU)
    before = symmetric(net.graph())
    after = drop_idle_clamps(before)
    assert after.outputs == ("again",) and clamps(after)["again"] == (-128, 127)
    assert drop_idle_clamps(after) is after
    assert simplified(after) is after
    assert_same_outputs(before, after)
