"""The arena planner: validated plans, minimal peaks, brute force, planted faults."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import arena_networks as networks
import pytest

from mcuq.errors import CheckError
from mcuq.ir.integer import IntegerGraph, QConv2d
from mcuq.ir.plans import MemoryPlan
from mcuq.plan.addresses import solve_addresses
from mcuq.plan.arena import arena_problem, words
from mcuq.plan.memory import pack, plan_memory
from mcuq.plan.schedule import schedule
from mcuq.plan.validate import check_memory
from mcuq.target.cost import conv_case
from mcuq.target.fusion import reads, steps
from mcuq.target.kernels import select

CORE = "cortex-m3"


def least_peak(graph: IntegerGraph) -> int:
    """Smallest peak of live words over every topological order, written apart from the planner's own search."""
    problem = arena_problem(graph, CORE)
    size = {s.name: words(s.size) for s in problem.storages}
    needs = {op.name: set(reads(graph, op)) for op in steps(graph)}
    best = 1 << 60
    rest = [op for op in problem.ops if op.name != "x"]
    for tail in permutations(rest):
        order = [problem.ops[0], *tail]
        names = [op.name for op in order]
        if any(names.index(i) > names.index(n) for n in names for i in needs[n]):
            continue
        last = {s.name: len(order) for s in problem.storages if s.persistent}
        for k, op in enumerate(order):
            for s in {*op.reads, op.writes}:
                last[s] = max(last.get(s, 0), k)
        born: dict[str, int] = {}
        peak = 0
        for k, op in enumerate(order):
            fresh = op.writes not in born
            born.setdefault(op.writes, k)
            live = sum(size[s] for s in born if last[s] >= k) + words(op.scratch)
            if fresh:
                dying = {s for s in op.reads if last[s] == k and s != op.writes}
                out = size[op.writes]
                ways = [max(0, out - size[s]) for s in op.in_place if s in dying]
                ways += [max(out - size[s], distance) for s, distance in op.distances if s in dying]
                live -= out - min([out, *ways])
            peak = max(peak, live)
        best = min(best, peak)
    return best


@pytest.mark.parametrize("family", networks.FAMILIES)
@pytest.mark.parametrize("seed", range(6))
def test_small_networks_reach_the_brute_force_optimum(family: str, seed: int) -> None:
    graph = networks.FAMILIES[family](seed, 6)
    if len(graph.ops) > 9:
        pytest.skip("the family's smallest network is too large for all permutations")
    plan = plan_memory(graph, CORE)
    assert schedule(arena_problem(graph, CORE)).bound == least_peak(graph)
    assert plan.arena_bytes == plan.lower_bound >= 4 * least_peak(graph)


@pytest.mark.parametrize("family", networks.FAMILIES)
@pytest.mark.parametrize("size", [12, pytest.param(30, marks=pytest.mark.slow)])
def test_arena_equals_the_liveness_bound(family: str, size: int) -> None:
    for seed in range(4):
        plan = plan_memory(networks.FAMILIES[family](seed, size), CORE)
        assert plan.arena_bytes == plan.lower_bound, (family, size, seed)


@pytest.mark.parametrize("free_order", [False, True])
def test_solver_finds_what_first_fit_found(free_order: bool) -> None:
    """The rectangles of CP-SAT admit a known placement, and tighten a wasteful one to the bound."""
    problem = arena_problem(networks.residual(0, 14), CORE)
    best, bound = pack(problem)
    assert best.top == bound
    found = solve_addresses(problem, replace(best, top=best.top + 50), 0, free_order=free_order)
    assert found is not None
    assert found.top == bound


def test_same_graph_gives_the_same_plan() -> None:
    graph = networks.wild(3, 40)
    assert plan_memory(graph, CORE) == plan_memory(graph, CORE)


def test_addition_overwrites_an_input_that_dies() -> None:
    b = networks.Builder(0, (4, 4, 8))
    left = b.conv("x", 8, bits=8, kernel=1)
    right = b.conv(left, 8, bits=8, kernel=3)
    total = b.add(right, left, bits=8)
    plan = plan_memory(b.graph(), CORE)
    scratch = next(buffer.size for buffer in plan.buffers if (buffer.name, buffer.kind) == (right, "scratch"))
    assert plan.arena_bytes == 2 * 4 * 4 * 8 + scratch  # both inputs, and what the 3 x 3 convolution needs to run
    assert plan.buffer(total).alias_of in (left, right)


def test_addition_with_a_pointwise_convolution_inside_needs_no_tensor_for_it() -> None:
    b = networks.Builder(0, (4, 4, 8))
    left = b.conv("x", 8, bits=8, kernel=1)
    total = b.add(b.conv(left, 8, bits=8, kernel=1), left, bits=8)
    plan = plan_memory(b.graph(), CORE)
    assert plan.buffer(total).alias_of == left
    assert plan.arena_bytes < 2 * 4 * 4 * 8


def test_addition_with_longer_rows_gets_bytes_of_its_own() -> None:
    b = networks.Builder(0, (4, 4, 8))
    left = b.conv("x", 8, bits=4, kernel=1)
    right = b.conv(left, 8, bits=4, kernel=3)
    total = b.add(right, left, bits=8)
    plan = plan_memory(b.graph(), CORE)
    assert plan.buffer(total).alias_of == ""
    assert plan.arena_bytes >= 4 * 4 * (4 + 4 + 8)


def test_reshape_is_a_view_only_when_packed_rows_agree() -> None:
    b = networks.Builder(0, (2, 2, 8))
    source = b.conv("x", 3, bits=4, kernel=1)
    copy = b.reshape(source, (1, 1, 12))
    plan = plan_memory(b.graph(), CORE)
    assert plan.buffer(copy).alias_of == ""
    b = networks.Builder(0, (2, 2, 8))
    source = b.conv("x", 4, bits=4, kernel=1)
    view = b.reshape(source, (1, 1, 16))
    plan = plan_memory(b.graph(), CORE)
    assert plan.buffer(view).alias_of == source
    assert plan.buffer(view).offset == plan.buffer(source).offset


def test_outputs_live_to_the_end() -> None:
    b = networks.Builder(0)
    first = b.conv("x", 4)
    second = b.conv(b.conv(first), 4)
    plan = plan_memory(b.graph(first, second), CORE)
    assert plan.buffer(first).last == len(plan.order) - 1


def _planned(seed: int = 1) -> tuple[IntegerGraph, MemoryPlan]:
    graph = networks.residual(seed, 10)
    return graph, plan_memory(graph, CORE)


def test_validator_refuses_overlap() -> None:
    graph, plan = _planned()
    convs = [op for op in graph if isinstance(op, QConv2d)]
    op = next(op for op in convs if not select(conv_case(graph, op), CORE).in_place)
    victim, reader = plan.buffer(op.inputs[0]), plan.buffer(op.name)
    moved = tuple(replace(b, offset=victim.offset) if b is reader else b for b in plan.buffers)
    with pytest.raises(CheckError, match="overlap"):
        check_memory(graph, CORE, replace(plan, buffers=moved))


def test_convolution_overwrites_its_input_as_its_kernel_says() -> None:
    b = networks.Builder(0, (6, 6, 16))
    narrow = b.conv("x", 8, bits=8, kernel=1)
    wide = b.conv(narrow, 8, bits=8, kernel=3)
    plan = plan_memory(b.graph(), CORE)
    assert plan.buffer(narrow).alias_of == "x" and plan.buffer(narrow).offset == plan.buffer("x").offset
    assert plan.buffer(wide).alias_of == narrow and plan.buffer(wide).offset < plan.buffer(narrow).offset
    assert plan.buffer(narrow).offset == (6 + 1) * 8  # the second convolution begins a row and a pixel before it
    assert plan.arena_bytes == plan.lower_bound == (6 + 1) * 8 + 6 * 6 * 16
    kept = b.graph("x", wide)
    assert plan_memory(kept, CORE).buffer(narrow).alias_of == ""


def test_validator_refuses_a_wrong_order_size_alignment_or_limit() -> None:
    graph, plan = _planned()
    with pytest.raises(CheckError, match="starts with"):
        check_memory(graph, CORE, replace(plan, order=(*plan.order[1:], plan.order[0])))
    swapped = (plan.order[0], plan.order[2], plan.order[1], *plan.order[3:])
    with pytest.raises(CheckError, match="before its input"):
        check_memory(graph, CORE, replace(plan, order=swapped))
    smaller = tuple(replace(b, size=b.size - 1) if b.name == "x" else b for b in plan.buffers)
    with pytest.raises(CheckError, match="expected"):
        check_memory(graph, CORE, replace(plan, buffers=smaller))
    odd = tuple(replace(b, offset=b.offset + 1) if b.name == "x" else b for b in plan.buffers)
    with pytest.raises(CheckError, match="4 bytes"):
        check_memory(graph, CORE, replace(plan, buffers=odd, arena_bytes=plan.arena_bytes + 4))
    with pytest.raises(CheckError, match="limit"):
        check_memory(graph, CORE, plan, ram=plan.arena_bytes - 1)


def test_validator_refuses_a_missing_scratch_buffer() -> None:
    graph, plan = _planned()
    without = tuple(b for b in plan.buffers if b.kind == "activation")
    assert len(without) < len(plan.buffers)
    with pytest.raises(CheckError, match="scratch"):
        check_memory(graph, CORE, replace(plan, buffers=without))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["chain", "residual", "inception", "unet", "dense"])
def test_long_networks_reach_the_bound(family: str) -> None:
    """The arena is proved to be the smallest; where distances of several steps add up, it is above liveness."""
    plans = [plan_memory(networks.FAMILIES[family](seed, size), CORE) for size in (60, 120, 200) for seed in range(12)]
    exact = sum(plan.arena_bytes == plan.lower_bound for plan in plans)
    assert exact >= 0.99 * len(plans)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_gap_of_a_random_graph_is_reported(seed: int) -> None:
    """Random graphs with many open outputs exhaust the search: the plan is valid and states its bound."""
    plan = plan_memory(networks.wild(seed, 120), CORE)
    assert 0 < plan.lower_bound <= plan.arena_bytes
