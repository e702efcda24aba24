"""Fusion, text in and text out, and the same function before and after."""

from __future__ import annotations

import numpy as np
import pytest
from builders import RELU, RELU6, Net

from mcuq.ir.fuse import fuse, intersect
from mcuq.ir.graph import Conv2d, Graph, Window
from mcuq.ir.text import to_text
from mcuq.reference.floating import run


def assert_fuses(graph: Graph, before: str, after: str) -> None:
    """Texts as given, same values on the outputs, and nothing left to fuse."""
    assert to_text(graph).split("\n") == _lines(before)
    fused = fuse(graph)
    assert to_text(fused).split("\n") == _lines(after)
    assert to_text(fuse(fused)) == to_text(fused)
    x = np.random.default_rng(0).normal(size=(3, *graph.input.shape))
    old, new = run(graph, x), run(fused, x)
    for name, renamed in zip(graph.outputs, fused.outputs, strict=True):
        np.testing.assert_allclose(new[renamed], old[name], rtol=1e-12, atol=1e-12)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().split("\n")] + [""]


def test_conv_batch_norm_clip_becomes_one_convolution() -> None:
    net = Net((5, 5, 2))
    net.conv("conv", "x", 4, bias=False)
    net.batch_norm("bn", "conv")
    net.clip("relu", "bn", RELU6)
    assert_fuses(
        net.graph(),
        """x = input() : 5x5x2
           conv = conv2d(x) 3x3 w4x3x3x2 : 3x3x4
           bn = batch_norm(conv) : 3x3x4
           relu = clip(bn) clamp 0..6 : 3x3x4
           return relu""",
        """x = input() : 5x5x2
           conv = conv2d(x) 3x3 w4x3x3x2 norm clamp 0..6 : 3x3x4
           return conv""",
    )


def test_addition_takes_its_clip_and_readers_are_renamed() -> None:
    net = Net((4, 4, 2))
    net.conv("a", "x", 2, (1, 1))
    net.clip("a_relu", "a")
    net.add("sum", "a_relu", "x")
    net.clip("relu", "sum")
    net.avg_pool("pool", "relu")
    assert_fuses(
        net.graph(),
        """x = input() : 4x4x2
           a = conv2d(x) 1x1 w2x1x1x2 bias : 4x4x2
           a_relu = clip(a) clamp 0.. : 4x4x2
           sum = add(a_relu, x) : 4x4x2
           relu = clip(sum) clamp 0.. : 4x4x2
           pool = avg_pool(relu) 4x4 : 1x1x2
           return pool""",
        """x = input() : 4x4x2
           a = conv2d(x) 1x1 w2x1x1x2 bias clamp 0.. : 4x4x2
           sum = add(a, x) clamp 0.. : 4x4x2
           pool = avg_pool(sum) 4x4 : 1x1x2
           return pool""",
    )


def test_a_tensor_with_two_readers_is_kept() -> None:
    net = Net((4, 4, 2))
    net.conv("conv", "x", 2, (1, 1))
    net.clip("relu", "conv")
    net.add("sum", "conv", "relu")
    text = to_text(net.graph())
    assert "relu = clip(conv)" in text
    assert to_text(fuse(net.graph())) == text


def test_a_tensor_that_is_an_output_is_kept() -> None:
    net = Net((4, 4, 2))
    net.conv("conv", "x", 2, (1, 1))
    net.clip("relu", "conv")
    assert to_text(fuse(net.graph("conv", "relu"))) == to_text(net.graph("conv", "relu"))


def test_lone_batch_norm_becomes_a_depthwise_convolution() -> None:
    net = Net((4, 4, 3))
    net.max_pool("pool", "x", Window((2, 2), (2, 2)))
    net.batch_norm("bn", "pool")
    net.clip("relu", "bn")
    assert_fuses(
        net.graph(),
        """x = input() : 4x4x3
           pool = max_pool(x) 2x2 stride 2,2 : 2x2x3
           bn = batch_norm(pool) : 2x2x3
           relu = clip(bn) clamp 0.. : 2x2x3
           return relu""",
        """x = input() : 4x4x3
           pool = max_pool(x) 2x2 stride 2,2 : 2x2x3
           bn = conv2d(pool) 1x1 groups 3 w3x1x1x1 norm clamp 0.. : 2x2x3
           return bn""",
    )
    assert isinstance(fuse(net.graph()).op("bn"), Conv2d)


def test_batch_norm_after_a_clamped_convolution_stays_apart() -> None:
    net = Net((4, 4, 2))
    net.conv("conv", "x", 2, (1, 1))
    net.clip("relu", "conv")
    net.batch_norm("bn", "relu")
    assert to_text(fuse(net.graph())) == (
        "x = input() : 4x4x2\n"
        "conv = conv2d(x) 1x1 w2x1x1x2 bias clamp 0.. : 4x4x2\n"
        "bn = conv2d(conv) 1x1 groups 2 w2x1x1x1 norm : 4x4x2\n"
        "return bn\n"
    )


def test_lone_clip_stays_and_disjoint_clips_do_not_merge() -> None:
    net = Net((4, 4, 2))
    net.clip("first", "x", RELU)
    net.conv("conv", "first", 2, (1, 1))
    net.clip("low", "conv", (0.0, 1.0))
    net.clip("high", "low", (2.0, 3.0))
    net.clip("again", "high", (None, 2.5))
    x = np.random.default_rng(1).normal(size=(2, 4, 4, 2))
    fused = fuse(net.graph())
    assert to_text(fused) == (
        "x = input() : 4x4x2\n"
        "first = clip(x) clamp 0.. : 4x4x2\n"
        "conv = conv2d(first) 1x1 w2x1x1x2 bias clamp 0..1 : 4x4x2\n"
        "high = clip(conv) clamp 2..3 : 4x4x2\n"
        "again = clip(high) clamp ..2.5 : 4x4x2\n"
        "return again\n"
    )
    np.testing.assert_array_equal(run(fused, x)["again"], run(net.graph(), x)["again"])


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        ((None, None), (0.0, None), (0.0, None)),
        ((0.0, None), (None, 6.0), (0.0, 6.0)),
        ((0.0, 6.0), (1.0, 4.0), (1.0, 4.0)),
        ((0.0, 1.0), (1.0, 2.0), (1.0, 1.0)),
        ((0.0, 1.0), (2.0, 3.0), None),
    ],
)
def test_intersection_of_clamps(first: tuple, second: tuple, both: tuple | None) -> None:
    assert intersect(first, second) == both


def test_pads_fold_into_windows() -> None:
    net = Net((6, 6, 2))
    net.pad("outer", "x", (1, 0, 0, 1))
    net.pad("inner", "outer", (0, 1, 1, 0))
    net.conv("a", "inner", 3, padding=(1, 1, 1, 1))
    net.conv("b", "inner", 3, (1, 1), stride=(2, 2))
    net.avg_pool("p", "inner", Window((2, 2), (2, 2)))
    assert_fuses(
        net.graph("a", "b", "p"),
        """x = input() : 6x6x2
           outer = pad(x) 1,0,0,1 : 7x7x2
           inner = pad(outer) 0,1,1,0 : 8x8x2
           a = conv2d(inner) 3x3 pad 1,1,1,1 w3x3x3x2 bias : 8x8x3
           b = conv2d(inner) 1x1 stride 2,2 w3x1x1x2 bias : 4x4x3
           p = avg_pool(inner) 2x2 stride 2,2 : 4x4x2
           return a, b, p""",
        """x = input() : 6x6x2
           a = conv2d(x) 3x3 pad 2,2,2,2 w3x3x3x2 bias : 8x8x3
           b = conv2d(x) 1x1 stride 2,2 pad 1,1,1,1 w3x1x1x2 bias : 4x4x3
           p = avg_pool(x) 2x2 stride 2,2 pad 1,1,1,1 count_include_pad : 4x4x2
           return a, b, p""",
    )


def test_a_pad_with_another_reader_is_kept() -> None:
    net = Net((6, 6, 2))
    net.pad("pad", "x", (1, 1, 1, 1))
    net.conv("a", "pad", 3)
    net.max_pool("m", "pad", Window((2, 2)))
    net.avg_pool("p", "x", Window((3, 3), padding=(1, 1, 1, 1)))
    graph = net.graph("a", "m", "p")
    assert to_text(fuse(graph)) == to_text(graph)


def test_a_pad_before_a_pool_that_leaves_out_its_own_padding_is_kept() -> None:
    net = Net((6, 6, 2))
    net.pad("pad", "x", (1, 1, 1, 1))
    net.avg_pool("p", "pad", Window((3, 3), padding=(1, 1, 1, 1)))
    assert to_text(fuse(net.graph())) == to_text(net.graph())
