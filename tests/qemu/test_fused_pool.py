"""Convolutions inside pools: which are fused, bytes equal to the two operators', and the arena they save."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from builders import RELU, Net
from nets import samples
from quantizers import quantize_graph

from mcuq.emit.project import emit_project
from mcuq.errors import CheckError
from mcuq.ir.fuse import fuse
from mcuq.ir.graph import Graph, Window
from mcuq.ir.integer import IntegerGraph, QConv2d
from mcuq.lower import lower
from mcuq.numerics import row_bytes
from mcuq.parity import compare
from mcuq.plan.memory import plan_memory
from mcuq.plan.validate import check_memory
from mcuq.reference.integer import run
from mcuq.target.board import load_board
from mcuq.target.fusion import PoolFusion, fusions
from mcuq.target.overlap import pool_may_overwrite
from mcuq.target.pool_bands import Bands, bands_of

HALVES = Window((2, 2), (2, 2))
Size = tuple[int, int, int]


def pooled(
    size: Size = (16, 16, 3), pool: Window = HALVES, channels: int = 8, kind: str = "max", outputs: tuple[str, ...] = ()
) -> Graph:
    net = Net(size, 3, None)
    net.conv("conv", "x", channels, (3, 3), padding=(1, 1, 1, 1), clamp=RELU)
    if kind == "max":
        net.max_pool("pool", "conv", pool)
    else:
        net.avg_pool("pool", "conv", pool, include=kind == "counted")
    net.conv("head", "pool", 5, (1, 1))
    return fuse(net.graph(*outputs))


def integers(graph: Graph, weight_bits: int = 8, activation_bits: int = 8) -> IntegerGraph:
    x = np.random.default_rng(1).normal(size=(4, *graph.input.shape))
    return lower(quantize_graph(graph, x, weight_bits=weight_bits, activation_bits=activation_bits))


def rows_and_held(graph: Graph) -> tuple[int, int, int]:
    (fusion,) = fusions(graph)
    assert isinstance(fusion, PoolFusion)
    return fusion.rows, fusion.bands.count, fusion.bands.held


def test_which_rows_come_at_once() -> None:
    assert rows_and_held(pooled()) == (2, 8, 2)
    assert rows_and_held(pooled((14, 7, 3))) == (2, 7, 2)  # seven bands do not halve: no whole groups of four pixels
    assert rows_and_held(pooled((16, 7, 3))) == (4, 4, 4)
    assert rows_and_held(pooled((15, 16, 3))) == (2, 7, 2)  # the last row is never computed
    assert rows_and_held(pooled((16, 16, 3), Window((3, 3), (2, 2), (1, 1, 1, 1)))) == (2, 8, 3)
    assert rows_and_held(pooled((17, 16, 3), Window((3, 3), (2, 2)))) == (1, 8, 3)
    assert rows_and_held(pooled((17, 16, 3), Window((2, 2), (3, 3)))) == (2, 6, 2)  # rows between windows neither
    assert fusions(integers(pooled())) == fusions(pooled())


def test_what_is_read_elsewhere_or_saves_nothing_is_not_fused() -> None:
    assert fusions(pooled(outputs=("head", "conv"))) == ()
    assert fusions(pooled(pool=Window((16, 16)), kind="average")) == ()  # one band
    net = Net((4, 4, 8), 3, None)  # the convolution overwrites its input by itself, half of its output is more
    net.conv("conv", "x", 8, (1, 1))
    net.max_pool("pool", "conv", HALVES)
    assert fusions(fuse(net.graph())) == ()
    net = Net((16, 16, 3), 3, None)
    net.max_pool("max", "x", HALVES)
    net.clip("clip", "max", (-1.0, 1.0))
    net.avg_pool("pool", "clip", HALVES)
    assert fusions(fuse(net.graph())) == ()


def test_bands_cover_every_row_that_a_window_reads() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        kernel, stride, dilation, top = (int(n) for n in rng.integers((1, 1, 1, 0), (5, 5, 3, 3)))
        height = int(rng.integers((kernel - 1) * dilation + 1, 30))
        window = Window((kernel, 1), (stride, 1), (min(top, kernel // 2), 0, min(top, kernel // 2), 0), (dilation, 1))
        count = window.output_hw(height, 1)[0]
        for bands in bands_of(window, height, count):
            seen: list[int] = []
            for band in range(bands.count):
                seen += bands.computed(band)
                assert len(bands.computed(band)) % bands.rows == 0
                for row, tap in itertools.product(range(bands.pool_rows), range(kernel)):
                    at = (band * bands.pool_rows + row) * stride - window.padding[0] + tap * dilation
                    assert not 0 <= at < height or bands.first(band) <= at < bands.end(band)
                    assert not 0 <= at < height or at in seen
            assert len(seen) == len(set(seen)) and seen == sorted(seen)


POOLS = (
    HALVES,
    Window((3, 3), (2, 2), (1, 1, 1, 1)),
    Window((3, 2), (2, 3)),
    Window((2, 2), (3, 1), (1, 0, 1, 1)),
    Window((3, 3), (1, 1), (1, 1, 1, 1)),
    Window((2, 1), (2, 1), (0, 0, 0, 0), (2, 1)),
    Window((3, 3), (3, 3), (1, 1, 0, 0)),
)
SIZES: tuple[Size, ...] = ((16, 16, 3), (14, 7, 4), (9, 11, 5), (13, 8, 16))
KINDS = ("max", "average", "counted")
BITS = ((8, 8), (4, 4), (2, 2), (8, 4), (2, 8), (4, 8), (8, 2))


def grid() -> list[tuple[Size, Window, int, str]]:
    """All fused networks of the tables; channels that do and do not fill bytes."""
    found = itertools.product(SIZES, POOLS, (8, 13), KINDS)
    return [one for one in found if any(isinstance(f, PoolFusion) for f in fusions(pooled(*one)))]


def check(machine: str | None, case: tuple[Size, Window, int, str], bits: tuple[int, int]) -> None:
    graph = integers(pooled(*case), *bits)
    assert fusions(graph)
    board = load_board(machine) if machine else None
    plan = plan_memory(graph, board.core if board else "portable")
    result = compare(graph, plan, board, samples(graph, 7, 3))
    assert result.exact, (case, bits, result.first)


@pytest.mark.parametrize(
    ("machine", "case"),
    [(None, ((9, 11, 5), POOLS[1], 13, "max")), ("mps2-an386", ((16, 16, 3), HALVES, 8, "average"))],
)
def test_bytes_are_those_of_the_two_operators(machine: str | None, case: tuple[Size, Window, int, str]) -> None:
    check(machine, case, (8, 4))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("machine", "every"), [(None, 5), ("rp2040", 17), ("mps2-an385", 11), ("mps2-an386", 11), ("mps3-an547", 11)]
)
def test_bytes_of_all_pools_shapes_and_bits(machine: str | None, every: int) -> None:
    cases = grid()
    assert len(cases) > 150
    for k, case in enumerate(cases[::every]):  # none divides the number of kinds or bits
        check(machine, case, BITS[k % len(BITS)])


def network() -> IntegerGraph:
    """Two convolutions with pools and a classifier, rows of 28 pixels."""
    net = Net((28, 28, 1), 3, None)
    net.conv("c1", "x", 6, (5, 5), padding=(2, 2, 2, 2), clamp=RELU)
    net.max_pool("p1", "c1", HALVES)
    net.conv("c2", "p1", 16, (5, 5), clamp=RELU)
    net.max_pool("p2", "c2", HALVES)
    net.conv("head", "p2", 10, (5, 5))
    return integers(fuse(net.graph()))


def test_pooled_rows_stand_beside_the_input_or_over_it() -> None:
    graph = network()
    plan = plan_memory(graph, "cortex-m4")
    assert plan.order == ("x", "p1", "p2", "head")
    assert plan.buffer("p2").alias_of == "p1"  # 5 x 5 taps: rows already read are longer than rows written
    scratch = [plan.buffer(name, "scratch").size for name in ("p1", "p2")]
    assert plan.arena_bytes == plan.lower_bound == 14 * 14 * 6 + max(28 * 28 + scratch[0], scratch[1])
    files = {file.path: file.content.decode() for file in emit_project(graph, plan, load_board("mps2-an386"))}
    assert "mcuq_pool_band_start(&l1_band, &model_l1_params, l0, l1_rows, l1);" in files["src/model.c"]
    assert "c1 of 28x28x1, 8 bits is computed here, 2 rows at a time" in files["src/model.c"]


def test_a_pool_that_would_overwrite_rows_still_read_is_refused() -> None:
    """The condition is needed: moved over its input, p1's output destroys what later rows of c1 read."""
    graph = network()
    plan = plan_memory(graph, "portable")
    place = plan.buffer("x").offset
    assert plan.buffer("p1").alias_of == "x" and plan.buffer("p1").offset < place
    moved = tuple(replace(b, offset=place) if (b.name, b.kind) == ("p1", "activation") else b for b in plan.buffers)
    wrong = replace(plan, buffers=moved, arena_bytes=4000)
    with pytest.raises(CheckError, match="overlap"):
        check_memory(graph, "portable", wrong)
    assert not compare(graph, wrong, None, samples(graph, 7, 1)).exact


def test_the_rule_is_the_play_of_bytes() -> None:
    """Rows of the convolution in turn: none reads an input byte that a band before has written."""
    rng, answers = np.random.default_rng(0), []
    for _ in range(400):
        kernel, stride, top = (int(n) for n in rng.integers((1, 1, 0), (4, 3, 2)))
        size = (int(rng.integers(6, 14)), int(rng.integers(3, 7)), int(rng.choice((1, 2, 4))))
        window = Window((kernel, kernel), (stride, stride), (top, top, top, top))
        pool = Window((int(rng.integers(1, 4)), 2), (int(rng.integers(1, 4)), int(rng.integers(1, 3))))
        shape = (*window.output_hw(*size[:2]), 4)
        if min(shape) < 4:
            continue
        out = (*pool.output_hw(*shape[:2]), int(rng.choice((1, 2, 4, 8))))
        bits = tuple(int(b) for b in rng.choice((8, 4, 2), 2))
        for bands in bands_of(pool, shape[0], out[0])[:2]:
            found = pool_may_overwrite(size, bits[0], window, shape, out, bits[1], bands)
            assert found == plays(size, bits, window, shape, out, bands)
            answers.append(found)
    assert 0.1 < np.mean(answers) < 0.9


def plays(size: Size, bits: tuple[int, ...], window: Window, shape: Size, out: Size, bands: Bands) -> bool:
    pixel, written = row_bytes(size[2], bits[0]), row_bytes(out[2], bits[1])
    if out[0] * out[1] * written > size[0] * size[1] * pixel:
        return False
    gone = 0
    for band in range(bands.count):
        for row, column in itertools.product(bands.computed(band), range(shape[1])):
            for i, j in itertools.product(*map(range, window.kernel)):
                y = row * window.stride[0] - window.padding[0] + i
                x = column * window.stride[1] - window.padding[1] + j
                if 0 <= y < size[0] and 0 <= x < size[1] and (y * size[1] + x) * pixel < gone:
                    return False
        gone = (band + 1) * bands.pool_rows * out[1] * written
    return True


def test_a_wrong_convolution_is_seen_in_the_pool() -> None:
    """The comparison can fail: one changed bias of the fused convolution changes the device's output."""
    graph = network()
    wrong = tuple(
        replace(op, bias=op.bias + 4000) if isinstance(op, QConv2d) and op.name == "c2" else op for op in graph
    )
    x = samples(graph, 7, 2)
    assert (run(graph, x)["p2"] != run(IntegerGraph(wrong, graph.outputs), x)["p2"]).any()
