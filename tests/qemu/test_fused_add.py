"""Convolutions inside additions: which are fused, bytes equal to the two operators', and the arena they save."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from builders import RELU, Net
from nets import samples
from quantizers import quantize_graph

from mcuq.emit.project import emit_project
from mcuq.ir.fuse import fuse
from mcuq.ir.graph import Graph
from mcuq.ir.integer import IntegerGraph, QConv2d
from mcuq.lower import lower
from mcuq.parity import compare
from mcuq.plan.memory import plan_memory
from mcuq.reference.integer import run
from mcuq.target.board import load_board
from mcuq.target.fusion import AddFusion, fusions

Size = tuple[int, int, int]


def block(
    size: Size = (8, 8, 8), stride: int = 1, outputs: tuple[str, ...] = ("pool",), *, swapped: bool = False
) -> Graph:
    """A residual block; with a stride its shortcut is a pointwise convolution."""
    net, channels = Net(size, 3, None), 8 * stride
    same = (1, 1, 1, 1) if stride == 1 else (0, 0, 1, 1)
    net.conv("stem", "x", 8, (3, 3), padding=(1, 1, 1, 1), clamp=RELU)
    net.conv("first", "stem", channels, (3, 3), stride=(stride, stride), padding=same, clamp=RELU)
    net.conv("second", "first", channels, (3, 3), padding=(1, 1, 1, 1))
    shortcut = "stem"
    if stride > 1:
        net.conv("shortcut", "stem", channels, (1, 1), stride=(stride, stride))
        shortcut = "shortcut"
    net.add("sum", *((shortcut, "second") if swapped else ("second", shortcut)), RELU)
    net.avg_pool("pool", "sum")
    return fuse(net.graph(*outputs))


def integers(graph: Graph, weight_bits: int = 8, activation_bits: int = 8) -> IntegerGraph:
    x = np.random.default_rng(1).normal(size=(4, *graph.input.shape))
    return lower(quantize_graph(graph, x, weight_bits=weight_bits, activation_bits=activation_bits))


def test_the_convolution_with_more_taps_runs_inside_the_addition() -> None:
    assert fusions(block()) == (AddFusion("second", "sum", "stem", 1),)
    assert fusions(block(stride=2)) == (AddFusion("second", "sum", "shortcut", 1),)
    assert fusions(block(swapped=True)) == fusions(block())
    assert fusions(block((6, 3, 8))) == (AddFusion("second", "sum", "stem", 2),)  # rows of 3 pixels
    assert fusions(integers(block(stride=2))) == fusions(block(stride=2))


def test_what_is_read_elsewhere_or_kept_is_not_fused() -> None:
    assert fusions(block(outputs=("pool", "second"))) == ()
    assert fusions(block((1, 1, 8))) == ()
    net = Net((8, 8, 8), 3, None)
    net.conv("one", "x", 8, (3, 3), padding=(1, 1, 1, 1))
    net.add("twice", "one", "one")
    assert fusions(fuse(net.graph())) == ()


SHAPES = (((8, 8, 8), 1, False), ((9, 7, 8), 1, True), ((10, 12, 8), 2, True), ((6, 3, 8), 1, False))
BITS = ((8, 8), (4, 4), (2, 2), (8, 4))


def check(machine: str | None, shape: tuple[Size, int, bool], bits: tuple[int, int]) -> None:
    size, stride, swapped = shape
    graph = integers(block(size, stride, swapped=swapped), *bits)
    assert fusions(graph)
    board = load_board(machine) if machine else None
    plan = plan_memory(graph, board.core if board else "portable")
    result = compare(graph, plan, board, samples(graph, 7, 3))
    assert result.exact, (shape, bits, result.first)


@pytest.mark.parametrize("machine", [None, "mps2-an386"])
def test_bytes_are_those_of_the_two_operators(machine: str | None) -> None:
    for shape, bits in zip(SHAPES[1:3], BITS[:2], strict=True):
        check(machine, shape, bits)


@pytest.mark.slow
@pytest.mark.parametrize("machine", [None, "mps2-an385", "mps2-an386", "mps3-an547"])
def test_bytes_of_all_shapes_and_bits(machine: str | None) -> None:
    """Strides, orders of inputs, odd sizes, bands of whole groups and not."""
    for shape, bits in itertools.product(SHAPES, BITS) if machine is None else zip(SHAPES, BITS, strict=True):
        check(machine, shape, bits)


def test_the_sum_takes_the_residuals_bytes() -> None:
    graph = integers(block((16, 16, 8)))
    plan = plan_memory(graph, "cortex-m4")
    assert plan.buffer("sum").alias_of == "stem"
    assert "second" not in plan.order
    scratch = max(b.size for b in plan.buffers if b.kind == "scratch")
    assert plan.arena_bytes == plan.lower_bound == 2 * 16 * 16 * 8 + scratch
    files = {file.path: file.content.decode() for file in emit_project(graph, plan, load_board("mps2-an386"))}
    text = files["src/model.c"]
    assert "mcuq_band_start(&l3_band, &model_l3_params, l2, l1, l3);" in text
    assert "second of 16x16x8, 8 bits is computed here, 1 rows at a time" in text


def test_a_wrong_convolution_is_seen_in_the_sum() -> None:
    """The comparison can fail: one changed bias of the fused convolution changes the device's sum."""
    graph = integers(block())
    wrong = tuple(
        replace(op, bias=op.bias + 4000) if isinstance(op, QConv2d) and op.name == "second" else op for op in graph
    )
    x = samples(graph, 7, 2)
    assert (run(graph, x)["sum"] != run(IntegerGraph(wrong, graph.outputs), x)["sum"]).any()


def test_a_convolution_that_reads_the_other_input_stays_outside() -> None:
    """relu(conv(x) + x): bands added over x would change rows that the next band still reads."""
    net = Net((8, 8, 8), 3, None)
    net.conv("stem", "x", 8, (3, 3), padding=(1, 1, 1, 1), clamp=RELU)
    net.conv("only", "stem", 8, (3, 3), padding=(1, 1, 1, 1))
    net.add("sum", "only", "stem", RELU)
    net.avg_pool("pool", "sum")
    graph = integers(fuse(net.graph()))
    assert fusions(graph) == ()
    result = compare(graph, plan_memory(graph, "portable", effort=1.0), None, samples(graph, 2, 2))
    assert result.exact, result.first
