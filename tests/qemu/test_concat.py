"""Concatenations by placement and spread in place: bytes equal to the operators' one by one, and the arena saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from builders import RELU, Net
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from nets import samples
from quantizers import quantize_graph

from mcuq.emit.project import emit_project
from mcuq.errors import CheckError
from mcuq.ir.fuse import fuse
from mcuq.ir.graph import Graph, Window
from mcuq.ir.integer import IntegerGraph, QConcat, QConv2d
from mcuq.lower import lower
from mcuq.parity import compare
from mcuq.plan.memory import plan_memory
from mcuq.plan.validate import check_memory
from mcuq.reference.integer import run
from mcuq.target.board import load_board
from mcuq.target.placement import is_placed, placements, spreadable

SAME, HALF = (1, 1, 1, 1), Window((2, 2), (2, 2))
Channels = tuple[int, int, int]
BOARDS = (None, "rp2040", "mps2-an386", "mps3-an547")


def inception(size: tuple[int, int] = (8, 8), channels: Channels = (12, 10, 8)) -> Graph:
    """Branches that end in convolutions: pointwise, 3 x 3, and pointwise behind a pool; then a convolution."""
    net = Net((*size, 3), 4, None)
    net.conv("stem", "x", 8, padding=SAME, clamp=RELU)
    net.conv("point", "stem", channels[0], (1, 1), clamp=RELU)
    net.conv("wide", net.conv("squeeze", "stem", 5, (1, 1), clamp=RELU), channels[1], padding=SAME)
    net.conv("behind", net.max_pool("pool", "stem", Window((3, 3), (1, 1), SAME)), channels[2], (1, 1), clamp=RELU)
    net.concat("join", "point", "wide", "behind")
    net.conv("last", "join", 6, padding=SAME)
    return fuse(net.graph())


def dense(size: tuple[int, int] = (8, 8), channels: Channels = (8, 4, 4)) -> Graph:
    """Every convolution reads the concatenation of all before it."""
    net = Net((*size, 3), 5, None)
    last = net.conv("stem", "x", channels[0], padding=SAME, clamp=RELU)
    for k in range(3):
        grown = net.conv(f"grow{k}", last, channels[1 + k % 2], padding=SAME, clamp=RELU)
        last = net.concat(f"join{k}", *((last, grown) if k != 1 else (grown, last)))
    net.conv("last", last, 6, (1, 1))
    return fuse(net.graph())


def unet(size: tuple[int, int] = (8, 8), channels: Channels = (8, 6, 4)) -> Graph:
    """One step down and up; the skip is also what the pool reads."""
    net = Net((*size, 3), 6, None)
    net.conv("skip", "x", channels[0], padding=SAME, clamp=RELU)
    net.conv("deep", net.max_pool("down", "skip", HALF), channels[1], padding=SAME, clamp=RELU)
    net.conv("up", net.upsample("grown", "deep"), channels[2], padding=SAME, clamp=RELU)
    net.conv("mask", net.concat("join", "skip", "up"), 2, (1, 1))
    return fuse(net.graph())


NETS: dict[str, Callable[..., Graph]] = {"inception": inception, "dense": dense, "unet": unet}


def integers(graph: Graph, weight_bits: int = 8, activation_bits: int = 8) -> IntegerGraph:
    x = np.random.default_rng(1).normal(size=(4, *graph.input.shape))
    return lower(quantize_graph(graph, x, weight_bits=weight_bits, activation_bits=activation_bits))


def check(graph: IntegerGraph, board_name: str | None, count: int = 2) -> None:
    board = load_board(board_name) if board_name else None
    plan = plan_memory(graph, board.core if board else "portable")
    result = compare(graph, plan, board, samples(graph, 7, count))
    assert result.exact, (result.first, board_name)


@pytest.mark.parametrize("board", [None, "mps2-an386"])
def test_bytes_are_those_of_the_operators(board: str | None) -> None:
    check(integers(inception((6, 5), (15, 13, 17)), 4, 4) if board else integers(dense((6, 5), (5, 3, 7)), 4, 4), board)


@pytest.mark.slow
@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("name", NETS)
def test_bytes_of_all_nets_and_bits(name: str, board: str | None) -> None:
    """Whole bytes and slices that share them; on the host also odd sizes."""
    odd = {"inception": ((9, 5), (15, 13, 17)), "dense": ((9, 5), (5, 3, 7)), "unet": ((6, 10), (5, 3, 7))}
    sizes = [((8, 8), (12, 10, 8)), odd[name]]
    for size, channels in sizes if board is None else sizes[1:]:
        for bits in (8, 4, 2) if board is None else (8, 2):
            check(integers(NETS[name](size, channels), 8, bits), board)


@st.composite
def graphs(draw: st.DrawFn) -> IntegerGraph:
    name = draw(st.sampled_from(tuple(NETS)))
    rows, columns = draw(st.integers(2, 9)), draw(st.integers(2, 9))
    size = (rows, columns) if name != "unet" else (rows + rows % 2, columns + columns % 2)
    channels = draw(st.tuples(*(st.integers(1, 40) for _ in range(3))))
    return integers(NETS[name](size, channels), draw(st.sampled_from((8, 4, 2))), draw(st.sampled_from((8, 4, 2))))


@pytest.mark.slow
@seed(0)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
@given(graphs())
def test_random_nets_on_the_host(graph: IntegerGraph) -> None:
    check(graph, None, 1)


def test_every_input_of_an_inception_block_is_placed() -> None:
    graph = integers(inception((16, 16), (16, 16, 16)))
    assert [(p.conv, p.first) for p in placements(graph)] == [("point", 0), ("wide", 16), ("behind", 32)]
    plan = plan_memory(graph, "cortex-m4")
    names = {b.name for b in plan.buffers if b.kind == "activation"}
    assert not names & {"point", "wide", "behind"}
    first = min(plan.order.index(name) for name in ("point", "wide", "behind"))
    assert plan.buffer("join").first == first
    assert plan.arena_bytes == plan.lower_bound < 2 * 16 * 16 * 48
    text = {file.path: file.content.decode() for file in emit_project(graph, plan, load_board("mps2-an386"))}
    assert "written into join, channels 16 to 31, 1 rows at a time" in text["src/model.c"]
    assert "its inputs were written where they belong: nothing to compute" in text["src/model.c"]


def test_fat_branches_with_thin_ends_are_not_placed() -> None:
    """The output would be live while the second branch is at its widest; stored, only the first one's part is."""

    def branches(inside: int, ends: int) -> Graph:
        net = Net((16, 16, 4), 3, None)
        for name in ("a", "b"):
            first = net.conv(f"{name}1", "x", inside, padding=SAME)
            net.conv(f"{name}3", net.conv(f"{name}2", first, inside, padding=SAME), ends, padding=SAME)
        net.conv("last", net.concat("join", "a3", "b3"), 2, (1, 1))
        return fuse(net.graph())

    assert placements(branches(32, 8)) == ()
    assert [p.conv for p in placements(branches(4, 32))] == ["a3", "b3"]
    for graph in (branches(32, 8), branches(4, 32)):  # dead channels and bits aside, integers agree
        assert placements(integers(graph)) == placements(graph)


def test_a_dense_chain_spreads_over_what_came_before() -> None:
    graph = integers(dense((16, 16), (8, 8, 8)))
    plan = plan_memory(graph, "cortex-m4")
    assert [plan.buffer(f"join{k}").alias_of for k in range(3)] == ["stem", "join0", "join1"]
    assert plan.arena_bytes == plan.lower_bound < (32 + 24) * 256  # copying would hold two sums at once


def test_what_is_kept_read_elsewhere_or_repeated_is_neither_placed_nor_spread() -> None:
    net = Net((8, 8, 4), 3, None)
    net.conv("a", "x", 4, padding=SAME)
    net.conv("b", "x", 4, padding=SAME)
    net.concat("twice", "a", "a")
    net.concat("join", "a", "b")
    graph = integers(fuse(net.graph("join", "twice", "b")))
    assert placements(graph) == ()
    assert spreadable(graph, graph.op("twice")) == ()
    plan = plan_memory(graph, "portable")
    assert plan.buffer("twice").alias_of == ""
    assert plan.buffer("join").alias_of in ("", "a")


def test_fewer_bits_than_an_inputs_copy() -> None:
    graph = integers(dense())
    narrow = replace(graph.op("join0").output, bits=4)
    joined = tuple(
        replace(op, output=narrow, clamp=(0, 15)) if isinstance(op, QConcat) and op.name == "join0" else op
        for op in graph
    )
    assert plan_memory(IntegerGraph(joined, graph.outputs), "portable").buffer("join0").alias_of == ""


def test_the_validator_refuses_a_slice_that_is_overwritten() -> None:
    graph = integers(inception((16, 16), (16, 16, 16)))
    plan = plan_memory(graph, "cortex-m4")
    join, stem = plan.buffer("join"), plan.buffer("stem")
    moved = tuple(replace(b, offset=join.offset) if b is stem else b for b in plan.buffers)
    with pytest.raises(CheckError, match="overlap"):
        check_memory(graph, "cortex-m4", replace(plan, buffers=moved))
    late = tuple(replace(b, first=plan.order.index("join")) if b is join else b for b in plan.buffers)
    with pytest.raises(CheckError, match="expected"):
        check_memory(graph, "cortex-m4", replace(plan, buffers=late))


def test_the_parity_check_can_fail() -> None:
    """A changed bias of a placed convolution is seen in the concatenation."""
    graph = integers(inception())
    wrong = tuple(
        replace(op, bias=op.bias + 4000) if isinstance(op, QConv2d) and op.name == "wide" else op for op in graph
    )
    assert is_placed(graph, "join")
    x = samples(graph, 7, 2)
    assert (run(graph, x)["join"] != run(IntegerGraph(wrong, graph.outputs), x)["join"]).any()
