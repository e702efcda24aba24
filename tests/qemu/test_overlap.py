"""Networks whose output shares bytes with an input that lies behind its first byte: every operator that may do so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from builders import RELU, Net
from nets import samples
from quantizers import quantize_graph

from mcuq.emit.project import emit_project
from mcuq.errors import CheckError
from mcuq.ir.fuse import fuse
from mcuq.ir.graph import Window
from mcuq.ir.integer import IntegerGraph
from mcuq.lower import lower
from mcuq.parity import compare
from mcuq.plan.memory import plan_memory
from mcuq.plan.validate import check_memory
from mcuq.target.board import load_board

SAME = (1, 1, 1, 1)


def grown(net: Net) -> None:
    net.conv("y", "x", 2 * net.shape("x")[2] + 1, (1, 1), clamp=RELU)


def kept(net: Net) -> None:
    net.conv("y", "x", net.shape("x")[2], (3, 3), padding=SAME)


def depthwise(net: Net) -> None:
    channels = net.shape("x")[2]
    net.conv("y", "x", channels, (3, 3), padding=SAME, groups=channels)


def grouped(net: Net) -> None:
    net.conv("y", "x", 2 * net.shape("x")[2], (3, 1), padding=(1, 0, 1, 0), groups=net.shape("x")[2])


def upwards(net: Net) -> None:
    shape = net.shape("x")
    net.upsample("y", "x")
    net.conv("z", "y", shape[2], (2, 2), padding=(1, 1, 0, 0))


def blended(net: Net) -> None:
    net.upsample("y", "x", linear=True)


def repeated(net: Net) -> None:
    net.upsample("y", "x")


def padded(net: Net) -> None:
    net.pad("y", "x", (1, 2, 1, 0))
    net.max_pool("z", "y", Window((2, 2)))


def largest(net: Net) -> None:
    net.max_pool("y", "x", Window((3, 3), (1, 1), SAME))


def halved(net: Net) -> None:
    net.max_pool("y", "x", Window((2, 2), (2, 2)))


def mean(net: Net) -> None:
    net.avg_pool("y", "x", Window((3, 2), (1, 1), (1, 0, 1, 1)))


def added(net: Net) -> None:
    net.conv("y", "x", net.shape("x")[2], (3, 3), padding=SAME)
    net.conv("z", "y", net.shape("x")[2], (3, 3), padding=SAME)
    net.add("sum", "z", "x")  # over y: x lives on


def pooled(net: Net) -> None:
    net.conv("y", "x", 3 * net.shape("x")[2], (3, 3), padding=SAME, clamp=RELU)
    net.max_pool("z", "y", Window((2, 2), (2, 2)))


OPERATORS: tuple[Callable[[Net], None], ...] = (
    grown, kept, depthwise, grouped, upwards, blended, repeated, padded, largest, halved, mean, added, pooled,
)  # fmt: skip


def network(operator: Callable[[Net], None], shape: tuple[int, int, int], bits: int) -> IntegerGraph:
    net = Net(shape, 3, None)
    operator(net)
    graph = fuse(net.graph("sum", "x") if operator is added else net.graph())
    x = np.random.default_rng(1).normal(size=(4, *shape))
    return lower(quantize_graph(graph, x, weight_bits=8, activation_bits=bits))


def check(operator: Callable[[Net], None], shape: tuple[int, int, int], bits: int, machine: str | None) -> bool:
    """Whether an output begins before its input and shares bytes with it; every byte is checked."""
    graph = network(operator, shape, bits)
    board = load_board(machine) if machine else None
    plan = plan_memory(graph, board.core if board else "portable")
    result = compare(graph, plan, board, samples(graph, 7, 3))
    assert result.exact, (operator.__name__, shape, bits, result.first)
    by_name = {b.name: b for b in plan.buffers if b.kind == "activation"}
    sources = [(b, by_name[b.alias_of]) for b in plan.buffers if b.alias_of]
    return any(b.offset < source.offset < b.offset + b.size for b, source in sources)


SHAPES = ((9, 7, 5), (8, 8, 8))
BITS = (8, 4, 2)


@pytest.mark.parametrize("operator", (grown, largest, repeated))
def test_bytes_on_the_host(operator: Callable[[Net], None]) -> None:
    assert check(operator, SHAPES[0], 8, None)


@pytest.mark.slow
@pytest.mark.parametrize("bits", BITS)
def test_bytes_of_every_operator_on_the_host(bits: int) -> None:
    found = [check(operator, SHAPES[(k + 1) % 2], bits, None) for k, operator in enumerate(OPERATORS)]
    assert all(found)


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["mps2-an385", "mps2-an386", "mps3-an547"])
def test_bytes_of_every_operator_on_targets(machine: str) -> None:
    found = [check(operator, SHAPES[(k + 1) % 2], BITS[k % 3], machine) for k, operator in enumerate(OPERATORS)]
    assert sum(found) >= len(OPERATORS) - 1  # a small depthwise layer is one strip, in place


def test_comment_and_planted_fault() -> None:
    """The emitted code says how far apart they are; a word less is refused, and gives wrong bytes."""
    graph = network(grown, (9, 8, 8), 8)
    plan = plan_memory(graph, "cortex-m3")
    ahead = plan.buffer("x").offset - plan.buffer("y").offset
    assert 0 < ahead < plan.buffer("y").size and plan.arena_bytes < plan.buffer("x").size + plan.buffer("y").size
    files = {file.path: file.content.decode() for file in emit_project(graph, plan, load_board("mps2-an385"))}
    assert f"shares bytes with x, which begins {ahead} bytes behind the output's first byte" in files["src/model.c"]
    nearer = plan.buffer("x").offset - 40
    moved = tuple(replace(b, offset=nearer) if b.name == "x" else b for b in plan.buffers)
    wrong = replace(plan, buffers=moved)
    with pytest.raises(CheckError, match="activation y and activation x overlap in steps and addresses"):
        check_memory(graph, "cortex-m3", wrong)
    assert not compare(graph, wrong, None, samples(graph, 7, 1)).exact
