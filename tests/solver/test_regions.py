"""An arena in several RAM regions: brute force over bits and over addresses, validators, and what cannot fit."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from builders import Net
from nets import integer_net
from tables import synthetic

from mcuq.errors import CheckError
from mcuq.ir.graph import Graph
from mcuq.ir.plans import Limits, MemoryPlan
from mcuq.plan.arena import ArenaOp, ArenaProblem, Storage
from mcuq.plan.decisions import Wishes
from mcuq.plan.exact import arena_of, plan_of, solve, solve_problem
from mcuq.plan.infeasible import NoPlanError
from mcuq.plan.memory import pack, plan_memory
from mcuq.plan.model import problem_from_graph
from mcuq.plan.place import lifetimes
from mcuq.plan.problem import Problem, flash_bytes, objective
from mcuq.plan.validate import check_memory
from mcuq.plan.validate_bits import check_plan

CORE = "cortex-m4"


def chain(rng: random.Random) -> ArenaProblem:
    """Four steps of a chain, a skip over some of them, scratch: small enough to try every address."""
    names = ("x", "a", "b", "c")
    storages = tuple(Storage(name, 4 * rng.randint(1, 4), (name,)) for name in names)
    skip = rng.randint(1, 3)
    ops = tuple(
        ArenaOp(
            name,
            tuple(dict.fromkeys((*names[k - 1 : k], *(("x",) if k == skip else ())))),
            name,
            4 * rng.randint(0, 3),
        )
        for k, name in enumerate(names)
    )
    return ArenaProblem(ops, storages)


def least_top(problem: ArenaProblem) -> int:
    """The least top in words over all addresses of the one order, block by block."""
    spans = lifetimes(problem, tuple(op.name for op in problem.ops))
    rows = [(*spans[s.name], s.size // 4) for s in problem.storages]
    rows += [(k, k, op.scratch // 4) for k, op in enumerate(problem.ops) if op.scratch]
    cuts = [cut // 4 for cut in problem.cuts]
    best = sum(size for *_, size in rows) + max(cuts)

    def place(k: int, standing: list[tuple[int, int, int, int]], top: int) -> None:
        nonlocal best
        if top >= best:
            return
        if k == len(rows):
            best = top
            return
        first, last, size = rows[k]
        for low in range(best - size):
            free = all(
                end < first or begin > last or low >= high or low + size <= base for begin, end, base, high in standing
            )
            if free and not any(low < cut < low + size for cut in cuts):
                place(k + 1, [*standing, (first, last, low, low + size)], max(top, low + size))

    place(0, [], 0)
    return best


@pytest.mark.parametrize("seed", range(12))
def test_addresses_are_the_best_of_all(seed: int) -> None:
    rng = random.Random(seed)
    problem = replace(chain(rng), cuts=(4 * rng.randint(2, 6),))
    placement, bound = pack(problem)
    assert placement.top == bound == least_top(problem)


def forked(seed: int) -> Graph:
    net = Net((4, 4, 3), seed)
    one = net.conv("a", "x", 5, (3, 3), padding=(1, 1, 1, 1))
    net.concat("j", net.conv("b", one, 7, (1, 1)), net.conv("c", "x", 2, (1, 1)))
    return net.graph()


def brute_force(problem: Problem) -> float | None:
    """Least objective over every assignment whose flash fits and whose arena has a place within its regions."""
    best: float | None = None
    for choice in product(*(d.choices for d in problem.decisions)):
        bits = {d.name: b for d, b in zip(problem.decisions, choice, strict=True)}
        loss = objective(problem, bits)
        if (best is not None and loss >= best) or flash_bytes(problem, bits) > problem.limits.flash:
            continue
        placement, bound = pack(arena_of(problem, bits))
        assert placement.top == bound  # else "does not fit" would be no proof
        if 4 * placement.top + problem.ram_reserve <= problem.limits.ram:
            best = loss
    return best


@pytest.mark.slow
def test_bits_are_the_best_of_all() -> None:
    """Under limits between the smallest and the largest arena, with the cut at several places."""
    graph, found = forked(3), 0
    pins = {f"{conv.name}.weight": 8 for conv in graph.convs}
    table = synthetic(graph, 3)
    options: dict[str, Any] = {"wishes": Wishes(pins=pins), "ram_reserve": 0}
    for ram in (168, 200, 224, 248):
        for cut in (64, 112, 160):
            problem = problem_from_graph(graph, table, Limits(10**9, ram), "cortex-m0plus", cuts=(cut,), **options)
            solution, expected = solve_problem(problem), brute_force(problem)
            assert (solution is None) == (expected is None)
            if solution is not None and expected is not None:
                found += 1
                assert solution.optimal and plan_of(problem, solution).objective == pytest.approx(expected, rel=1e-9)
    assert 3 < found < 12


def test_no_buffer_of_a_plan_lies_in_two_regions() -> None:
    graph = integer_net(3)
    whole = plan_memory(graph, CORE)
    for cut in (512, 1024):
        plan = plan_memory(graph, CORE, cuts=(cut,))
        assert not any(b.offset < cut < b.offset + b.size for b in plan.buffers)
        first, second = plan.blocks
        assert first.size <= cut == second.start and second.size == plan.arena_bytes - cut
        assert first.size + second.size >= whole.lower_bound
        moved = replace(plan, cuts=(plan.buffers[0].offset + 4,))
        with pytest.raises(CheckError, match="lies on both sides of the cut"):
            check_memory(graph, CORE, moved)
    assert plan_memory(graph, CORE, cuts=(1 << 20,)).blocks[0].size == whole.arena_bytes
    empty = MemoryPlan((), tuple(replace(b, offset=b.offset + 16) for b in whole.buffers), 0, 0, cuts=(16,))
    assert [block.region for block in replace(empty, arena_bytes=whole.arena_bytes + 16).blocks] == [1]


def test_the_validator_of_bits_knows_cuts() -> None:
    graph = forked(1)
    problem = problem_from_graph(graph, synthetic(graph, 1), Limits(10**9, 10**9), CORE)
    solution = solve_problem(problem)
    assert solution is not None and solution.placement is not None
    low = 4 * max(solution.placement.storages.values())
    with pytest.raises(CheckError, match="both sides of a cut"):
        check_plan(replace(problem, cuts=(low + 4,)), plan_of(problem, solution), solution.placement)


def test_a_tensor_larger_than_every_region_is_named() -> None:
    """Both regions together would hold the network."""
    net = Net((16, 16, 3), 1)
    net.conv("b", net.conv("a", "x", 32, (1, 1)), 4, (1, 1))
    graph = net.graph()
    limits, table = Limits(10**9, 2048 + 3200), synthetic(graph, 1)
    assert solve(graph, table, limits, CORE).ram_used <= limits.ram
    with pytest.raises(NoPlanError, match=r"no region holds a: .* 2048 bytes.* the largest takes 1600") as error:
        solve(graph, table, limits, CORE, cuts=(1600,))
    assert error.value.tensors == ("a",) and error.value.missing_ram == 448
