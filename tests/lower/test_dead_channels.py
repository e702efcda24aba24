"""Removal of dead channels changes no output bit; what may go goes, what may not stays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import RELU, RELU6, Net
from quantizers import quantize_graph
from sample_networks import integer, pixels

from mcuq.ir.graph import Graph, Normalization, Window
from mcuq.ir.integer import IntegerGraph, QConv2d
from mcuq.ir.verify import Level, verify
from mcuq.lower import lower
from mcuq.lower.dead_channels import remove_dead_channels
from mcuq.lower.intervals import intervals
from mcuq.reference.integer import run, run_outputs

PIXELS = Normalization(1 / 64, 120)
SHAPE = (6, 6, 3)


def inputs(count: int, seed: int = 0) -> np.ndarray:
    """Random pixels, and the extremes: all black, all white, checkerboards, single bright and dark pixels."""
    x = np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)
    board = np.indices(SHAPE).sum(axis=0) % 2 * 255
    for index, image in enumerate((0, 255, board, 255 - board)):
        x[index] = image
    for index in range(4, min(count, 4 + np.prod(SHAPE))):
        x[index] = 255 * (index % 2)
        x[index].flat[index - 4] = 255 - x[index].flat[index - 4]
    return x


def bias(graph: Graph, layer: str, **values: float) -> Graph:
    """Set biases of a layer, ``c3=-50.0`` for channel 3."""
    ops: list[Any] = []
    for op in graph:
        if op.name == layer:
            changed = op.bias.copy()  # type: ignore[union-attr]
            for channel, value in values.items():
                changed[int(channel[1:])] = value
            op = replace(op, bias=changed)  # type: ignore[call-arg]
        ops.append(op)
    return Graph(tuple(ops), graph.outputs)


def lowered(graph: Graph, **options: Any) -> IntegerGraph:
    x = np.random.default_rng(1).normal(size=(6, *SHAPE))
    return lower(quantize_graph(graph, x, **options))


def widths(graph: IntegerGraph) -> dict[str, int]:
    return {op.name: op.output.shape[2] for op in graph}


def assert_same_outputs(before: IntegerGraph, after: IntegerGraph, count: int = 300) -> None:
    verify(after, Level.INTEGER)
    assert before.outputs == after.outputs
    x = inputs(count)
    wanted, found = run_outputs(before, x, 500), run_outputs(after, x, 500)
    for name in before.outputs:
        assert before.tensor(name) == after.tensor(name)
        np.testing.assert_array_equal(found[name], wanted[name])


def chain(dead: float = -50.0) -> Graph:
    """conv (dead channels 1 and 4) -> depthwise -> pointwise -> pools -> flatten -> fully connected."""
    net = Net(SHAPE, 3, PIXELS)
    net.conv("conv", "x", 6, padding=(1, 1, 1, 1), clamp=RELU6)
    net.conv("dw", "conv", 6, groups=6, padding=(1, 1, 1, 1), clamp=RELU)
    net.conv("pw", "dw", 5, (1, 1), clamp=RELU)
    net.max_pool("max", "pw", Window((2, 2), (2, 2)))
    net.reshape("flat", "max", (1, 1, 45))
    net.conv("fc", "flat", 4, (1, 1))
    return bias(bias(net.graph(), "conv", c1=dead, c4=dead), "pw", c2=dead)


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("per_channel", [False, True])
def test_ten_thousand_inputs(bits: int, per_channel: bool) -> None:
    before = lowered(chain(), activation_bits=bits, per_channel=per_channel, asymmetric=True)
    after = remove_dead_channels(before)
    assert widths(after)["pw"] == widths(after)["max"] <= 4
    assert widths(after)["flat"] == 9 * widths(after)["pw"]
    assert widths(after)["conv"] == widths(after)["dw"] <= 4
    assert_same_outputs(before, after, 10_000 if bits == 8 else 2_000)


def test_nothing_dead_is_nothing_changed() -> None:
    before = integer()
    assert remove_dead_channels(before) is before


def test_a_second_pass_finds_nothing() -> None:
    after = remove_dead_channels(lowered(chain()))
    assert remove_dead_channels(after) is after


def constant_channel(value: float, *, padding: int, reader: str = "conv") -> IntegerGraph:
    """A convolution whose channel 1 has zero weights, hence the constant ``value``, and one reader."""
    net = Net(SHAPE, 5, PIXELS)
    net.conv("first", "x", 4)
    if reader == "pool":
        net.avg_pool("pool", "first", Window((3, 3), (1, 1), (1, 1, 1, 1)), include=padding > 0)
    source = "pool" if reader == "pool" else "first"
    net.conv("second", source, 3, padding=(padding, 0, 0, padding) if reader == "conv" else (0, 0, 0, 0))
    graph = bias(net.graph(), "first", c1=value)
    q = quantize_graph(graph, np.random.default_rng(1).normal(size=(6, *SHAPE)))
    codes = q.weight("first").codes.copy()
    codes[1] = 0
    weights = tuple(replace(w, codes=codes) if w.layer == "first" else w for w in q.weights)
    return lower(replace(q, weights=weights))


def test_a_constant_moves_into_the_bias_where_there_is_no_padding() -> None:
    before = constant_channel(0.7, padding=0)
    after = remove_dead_channels(before)
    assert widths(after)["first"] == 3
    second: Any = after.op("second")
    assert second.weight.shape == (3, 3, 3, 3)
    assert_same_outputs(before, after)


def test_behind_padding_only_the_zero_point_can_go() -> None:
    before = constant_channel(0.7, padding=1)
    assert remove_dead_channels(before) is before
    zero = constant_channel(0.0, padding=1)
    after = remove_dead_channels(zero)
    assert widths(after)["first"] == 3
    assert_same_outputs(zero, after)


def test_pools_that_count_padding_change_constants() -> None:
    """At the border an average with counted zeros differs from the one inside, so the channel stays."""
    counted = constant_channel(0.7, padding=1, reader="pool")
    assert remove_dead_channels(counted) is counted
    left_out = constant_channel(0.7, padding=0, reader="pool")
    after = remove_dead_channels(left_out)
    assert widths(after) == {"x": 3, "first": 3, "pool": 3, "second": 3}
    assert_same_outputs(left_out, after)


def test_a_constant_behind_a_padded_depthwise_window_is_not_constant() -> None:
    """Taps at the border read the zero point, so pixels there differ from those inside."""
    net = Net(SHAPE, 5, PIXELS)
    net.conv("first", "x", 4)
    net.conv("dw", "first", 4, groups=4, padding=(1, 1, 1, 1))
    net.conv("last", "dw", 3, (1, 1))
    q = quantize_graph(bias(net.graph(), "first", c1=0.7), np.random.default_rng(1).normal(size=(6, *SHAPE)))
    codes = q.weight("first").codes.copy()
    codes[1] = 0
    weights = tuple(replace(w, codes=codes) if w.layer == "first" else w for w in q.weights)
    before = lower(replace(q, weights=weights))
    found = intervals(before)
    assert found["first"].low[1] == found["first"].high[1]
    assert found["dw"].low[1] < found["dw"].high[1]
    assert remove_dead_channels(before) is before


def test_a_window_of_counted_padding_alone_gives_the_zero_point() -> None:
    net = Net(SHAPE, 5, PIXELS)
    net.conv("first", "x", 2)
    net.avg_pool("pool", "first", Window((2, 2), (1, 1), (2, 0, 0, 0)), include=True)
    graph = lowered(bias(net.graph(), "first", c1=40.0))
    codes, found = run(graph, inputs(50))["pool"][..., 1], intervals(graph)["pool"]
    assert codes.min() == graph.tensor("pool").zero_point < codes.max()
    assert found.low[1] <= codes.min() and codes.max() <= found.high[1]


def test_additions_and_concatenations() -> None:
    """A sum's channel goes when both sides' can; a concatenation's whenever its own is dead."""
    net = Net(SHAPE, 7, PIXELS)
    net.conv("a", "x", 4, (1, 1), clamp=RELU)
    net.conv("b", "x", 4, (1, 1), clamp=RELU)
    net.conv("c", "x", 3, (1, 1), clamp=RELU)
    net.add("sum", "a", "b", RELU)
    net.concat("cat", "sum", "c")
    net.pad("pad", "cat", (1, 1, 1, 1))
    net.max_pool("max", "pad", Window((2, 2), (2, 2)))
    net.conv("fc", "max", 3, (4, 4))
    graph = bias(bias(bias(net.graph(), "a", c0=-90, c1=-90), "b", c1=-90, c2=-90), "c", c2=-90)
    before = lowered(graph)
    after = remove_dead_channels(before)
    assert widths(after) == {"x": 3, "a": 3, "b": 3, "c": 2, "sum": 3, "cat": 5, "pad": 5, "max": 5, "fc": 3}
    assert_same_outputs(before, after)


def test_channels_read_by_zero_weights_only() -> None:
    """Not constant, but unused; what only fed them goes with them."""
    net = Net(SHAPE, 9, PIXELS)
    net.conv("first", "x", 5, (1, 1))
    net.conv("second", "first", 4, padding=(1, 1, 1, 1))
    net.conv("third", "second", 3, padding=(1, 1, 1, 1))
    q = quantize_graph(net.graph(), np.random.default_rng(1).normal(size=(6, *SHAPE)))
    second, third = q.weight("second").codes.copy(), q.weight("third").codes.copy()
    third[..., 2] = 0
    second[[0, 1, 3], :, :, 4] = 0  # channel 4 of first feeds channel 2 of second alone
    changed = {"second": second, "third": third}
    weights = tuple(replace(w, codes=changed.get(w.layer, w.codes)) for w in q.weights)
    before = lower(replace(q, weights=weights))
    after = remove_dead_channels(before)
    assert widths(after) == {"x": 3, "first": 4, "second": 3, "third": 3}
    assert_same_outputs(before, after)


def test_a_layer_that_is_dead_altogether_keeps_one_channel() -> None:
    net = Net(SHAPE, 11, PIXELS)
    net.conv("first", "x", 4, clamp=RELU)
    net.conv("second", "first", 3, padding=(1, 1, 1, 1))
    graph = bias(net.graph(), "first", c0=-90, c1=-90, c2=-90, c3=-90)
    before = lowered(graph)
    after = remove_dead_channels(before)
    assert widths(after)["first"] == 1
    assert_same_outputs(before, after)


def test_outputs_and_grouped_convolutions_keep_their_channels() -> None:
    net = Net(SHAPE, 13, PIXELS)
    net.conv("first", "x", 4, clamp=RELU)
    net.conv("grouped", "first", 4, (1, 1), groups=2, clamp=RELU)
    net.conv("last", "grouped", 3, (1, 1), clamp=RELU)
    graph = bias(bias(bias(net.graph(), "first", c0=-90), "grouped", c1=-90), "last", c1=-90)
    before = lowered(graph)
    assert remove_dead_channels(before) is before


def test_a_depthwise_convolution_down_to_one_channel() -> None:
    net = Net(SHAPE, 15, PIXELS)
    net.conv("first", "x", 3, clamp=RELU)
    net.conv("dw", "first", 3, groups=3, padding=(1, 1, 1, 1), clamp=RELU)
    net.conv("last", "dw", 2, (1, 1))
    before = lowered(bias(net.graph(), "first", c0=-90, c2=-90))
    after = remove_dead_channels(before)
    dw = after.op("dw")
    assert isinstance(dw, QConv2d)
    # the two channels' depthwise outputs are constant, too
    assert (dw.groups, dw.weight.shape) == (1, (1, 3, 3, 1))
    assert_same_outputs(before, after)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_intervals_hold_for_every_code(seed: int, bits: int) -> None:
    graph = integer(seed, activation_bits=bits, icn=True, asymmetric=bool(seed % 2))
    found = intervals(graph)
    x = np.concatenate([pixels(200, seed), np.full((1, 8, 8, 3), 0, np.uint8), np.full((1, 8, 8, 3), 255, np.uint8)])
    for name, codes in run(graph, x).items():
        assert np.all(codes.min(axis=(0, 1, 2)) >= found[name].low), name
        assert np.all(codes.max(axis=(0, 1, 2)) <= found[name].high), name


def test_intervals_are_reached_by_a_single_convolution() -> None:
    """For a 1x1 convolution of the input the bound is exact: some pixel reaches each end."""
    net = Net((1, 1, 3), 17, PIXELS)
    net.conv("conv", "x", 5, (1, 1))
    x = np.random.default_rng(1).normal(size=(6, 1, 1, 3))
    graph = lower(quantize_graph(net.graph(), x))
    corners = np.stack(np.meshgrid([0, 255], [0, 255], [0, 255]), axis=-1).reshape(8, 1, 1, 3)
    codes = run(graph, corners)["conv"].reshape(8, 5)
    np.testing.assert_array_equal(codes.min(axis=0), intervals(graph)["conv"].low)
    np.testing.assert_array_equal(codes.max(axis=0), intervals(graph)["conv"].high)
