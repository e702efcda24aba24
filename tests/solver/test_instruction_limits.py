"""Predicted instructions as a limit and as an axis: brute force, infeasibility, frontier, validator."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from builders import Net
from tables import synthetic

from mcuq.errors import CheckError, UsageError
from mcuq.ir.graph import Graph, Window
from mcuq.ir.plans import Limits
from mcuq.plan.exact import solve, solve_problem
from mcuq.plan.infeasible import NoPlanError, least_instructions
from mcuq.plan.model import problem_from_graph
from mcuq.plan.pareto import pareto
from mcuq.plan.problem import executed, objective
from mcuq.plan.validate_bits import check_plan

PLENTY = Limits(10**9, 10**9)


def network() -> Graph:
    """Convolution, pool, addition, concatenation of three and a reshape, so that every kind of cost occurs."""
    net = Net((6, 6, 4), 3)
    net.conv("a", "x", 8, (3, 3), padding=(1, 1, 1, 1))
    net.max_pool("p", "a", Window((2, 2), (2, 2)))
    net.conv("b", "p", 8, (1, 1))
    net.add("s", "b", "p")
    net.concat("j", "s", "b", "p")
    net.conv("c", net.reshape("r", "j", (1, 1, 216)), 3, (1, 1))
    return net.graph()


@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m55", "cortex-m4+size"])
def test_brute_force_agrees_under_a_limit_of_instructions(core: str) -> None:
    graph = network()
    table = synthetic(graph, 5)
    problem = problem_from_graph(graph, table, PLENTY, core, ram_reserve=0)
    every = [
        dict(zip((d.name for d in problem.decisions), choice, strict=True))
        for choice in product(*(d.choices for d in problem.decisions))
    ]
    counts = [executed(problem, bits) for bits in every]
    low, high = min(counts), max(counts)
    assert executed(problem, least_instructions(problem)) == low < high
    for share in (0.0, 0.1, 0.35, 0.7):
        limit = low + int(share * (high - low))
        limited = replace(problem, limits=replace(PLENTY, instructions=limit))
        solution = solve_problem(limited)
        assert solution is not None
        best = min(objective(problem, bits) for bits, n in zip(every, counts, strict=True) if n <= limit)
        assert objective(problem, solution.bits) == pytest.approx(best, rel=1e-9)
        assert executed(problem, solution.bits) <= limit
    plan = solve(graph, table, replace(PLENTY, instructions=low), core)
    assert plan.instructions == low
    with pytest.raises(NoPlanError, match=rf"take {low}, 1 too many, most of them in a") as found:
        solve(graph, table, replace(PLENTY, instructions=low - 1), core)
    assert found.value.missing_instructions == 1


def test_frontier_over_instructions() -> None:
    graph = network()
    found = pareto(graph, synthetic(graph, 2), PLENTY, "cortex-m0plus", resource="instructions", points=8)
    used, losses = [p.instructions for p in found.points], [p.objective for p in found.points]
    assert len(used) > 1
    assert used == sorted(used)
    assert losses == sorted(losses, reverse=True)
    assert all(plan.instructions > 0 for plan in found.references)


def test_validator_counts_instructions() -> None:
    graph = network()
    problem = problem_from_graph(graph, synthetic(graph), PLENTY, "cortex-m4")
    solution = solve_problem(problem)
    assert solution is not None
    plan = solve(graph, synthetic(graph), PLENTY, "cortex-m4")
    with pytest.raises(CheckError, match="instructions"):
        check_plan(problem, replace(plan, instructions=plan.instructions - 1), solution.placement)


def test_a_core_without_measurements_has_no_instructions_to_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = network()
    monkeypatch.setattr("mcuq.target.instructions._table", lambda: {"cores": {"z80": {}}})
    assert solve(graph, synthetic(graph), PLENTY, "cortex-m7").instructions == 0
    with pytest.raises(UsageError, match="known for z80, not for core cortex-m7; run scripts/measure_instructions"):
        solve(graph, synthetic(graph), replace(PLENTY, instructions=10**9), "cortex-m7")
