"""Steps per channel or per layer as a choice of the exact solver."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from builders import Net
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import synthetic
from test_exact import PLENTY, brute_force, small_graph

from mcuq.errors import CheckError, UsageError
from mcuq.ir.bits_file import bits_text, parse_bits
from mcuq.ir.graph import Graph
from mcuq.ir.integer import QConv2d
from mcuq.ir.plans import BitPlan, Limits, Sensitivity, TensorLoss
from mcuq.plan.decisions import Wishes
from mcuq.plan.exact import arena_of, plan_of, solve, solve_problem
from mcuq.plan.memory import pack, plan_memory
from mcuq.plan.model import Scales, layers_with_choice, problem_from_graph
from mcuq.plan.pareto import pareto
from mcuq.plan.problem import Problem, assignment_of, flash_bytes
from mcuq.plan.validate_bits import check_plan

CORE = "cortex-m0plus"
AUTO, CHANNEL, LAYER = (Scales(granularity=g) for g in ("auto", "channel", "layer"))  # type: ignore[arg-type]


def steps_table(graph: Graph, seed: int = 0, factor: float = 1.5) -> Sensitivity:
    """A synthetic table in which one step for the layer costs ``factor`` times as much."""
    table = synthetic(graph, seed)
    more = [TensorLoss(e.layer, e.kind, -e.bits, e.loss * factor) for e in table.losses if e.kind == "weight"]
    return Sensitivity(table.method, (*table.losses, *more))


def problem_of(graph: Graph, table: Sensitivity, limits: Limits, **wishes: object) -> Problem:
    wanted = Wishes(**wishes)  # type: ignore[arg-type]
    return problem_from_graph(graph, table, limits, CORE, scales=AUTO, wishes=wanted, ram_reserve=0)


def reach(graph: Graph, table: Sensitivity) -> tuple[int, int]:
    """Flash of the smallest and of the largest assignment."""
    problem = problem_of(graph, table, PLENTY)
    low, high = ({d.name: pick(d) for d in problem.decisions} for pick in (lambda d: d.least, lambda d: max(d.choices)))
    return flash_bytes(problem, low), flash_bytes(problem, high)


def wide_graph() -> Graph:
    """Weights enough for their bits to matter more than the code of kernels."""
    net = Net((8, 8, 4), 1)
    body = net.conv("b", net.conv("a", "x", 48, (1, 1)), 32, (3, 3), padding=(1, 1, 1, 1))
    net.conv("c", body, 10, (8, 8))
    return net.graph()


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6), kind=st.integers(0, 5), flash=st.floats(0, 1), factor=st.sampled_from([1.05, 1.5, 4.0])
)
def test_brute_force_agrees(seed: int, kind: int, flash: float, factor: float) -> None:
    graph = small_graph(seed, kind)
    table = steps_table(graph, seed, factor)
    low, high = reach(graph, table)
    problem = problem_of(graph, table, Limits(int(low + (high - low) * flash) - 8, 10**9))
    solution, expected = solve_problem(problem), brute_force(problem)
    assert (solution is None) == (expected is None)
    if solution is not None:
        plan = plan_of(problem, solution)
        assert plan.status == "OPTIMAL"
        assert plan.objective == pytest.approx(expected, rel=1e-9)
        assert assignment_of(problem, parse_bits(bits_text(plan))) == solution.bits


def test_a_mixed_plan_beats_both_uniform_granularities() -> None:
    """One layer of few weights and many channels, one of many weights a channel that needs its own steps."""
    net = Net((8, 8, 4), 1)
    net.conv("many", net.conv("few", "x", 48, (1, 1)), 8, (3, 3), padding=(1, 1, 1, 1))
    graph = net.graph()
    losses = {"few": (0.001, 0.1, 1.0), "many": (0.001, 0.2, 2.0)}
    costs = {"few": 1.1, "many": 20.0}
    table = [TensorLoss(o.name, "activation", b, 0.0) for o in graph for b in (8, 4, 2)]
    for name, row in losses.items():
        for bits, loss in zip((8, 4, 2), row, strict=True):
            table += [TensorLoss(name, "weight", s * bits, loss * (costs[name] if s < 0 else 1)) for s in (1, -1)]
    sensitivity = Sensitivity("by hand", tuple(table))
    open_problem = problem_of(graph, sensitivity, PLENTY)
    eight = {d.name: 8 for d in open_problem.decisions}
    limits = Limits(flash_bytes(open_problem, eight) - 4 * 47, 10**9)
    plans = {s.granularity: solve(graph, sensitivity, limits, CORE, scales=s) for s in (AUTO, CHANNEL, LAYER)}
    assert {t.name: t.choice for t in plans["auto"].tensors if t.kind == "weight"} == {
        "few.weight": -8,
        "many.weight": 8,
    }
    assert plans["auto"].objective == pytest.approx(0.001 * 1.1 + 0.001)
    assert plans["channel"].objective == pytest.approx(0.2 + 0.001)  # 4 bits save less in few
    assert plans["layer"].objective == pytest.approx(0.001 * 1.1 + 0.001 * 20)
    assert plans["auto"].flash_used == limits.flash


def solved() -> tuple[Problem, BitPlan, object]:
    graph = wide_graph()
    table = steps_table(graph, 3)
    problem = problem_of(graph, table, Limits(reach(graph, table)[1] - 100, 10**9))
    solution = solve_problem(problem)
    assert solution is not None
    plan = plan_of(problem, solution)
    assert {t.granularity for t in plan.tensors} == {"channel", "layer"}
    return problem, plan, solution.placement


def test_the_validator_knows_granularity() -> None:
    problem, plan, placed = solved()
    check_plan(problem, plan, placed)  # type: ignore[arg-type]
    place = next(k for k, t in enumerate(plan.tensors) if t.granularity == "layer")
    for index, changed in ((place, "channel"), (plan.tensors.index(activation(plan)), "layer")):
        tensors = list(plan.tensors)
        tensors[index] = replace(tensors[index], granularity=changed)  # type: ignore[arg-type]
        with pytest.raises(CheckError, match=r"objective|per layer"):
            check_plan(problem, replace(plan, tensors=tuple(tensors)), placed)  # type: ignore[arg-type]
    with pytest.raises(CheckError, match="flash of the plan"):
        check_plan(problem, replace(plan, flash_used=plan.flash_used - 4), placed)  # type: ignore[arg-type]


def activation(plan: BitPlan) -> object:
    return next(t for t in plan.tensors if t.kind == "activation")


@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55"])
def test_cores_whose_kernels_store_multipliers_anyway_have_the_same_problem(core: str) -> None:
    for kind in range(6):
        graph = small_graph(kind, kind)
        table = steps_table(graph)
        auto, channel = (problem_from_graph(graph, table, PLENTY, core, scales=s) for s in (AUTO, CHANNEL))
        assert auto == channel
        assert layers_with_choice(graph, core, AUTO) == {}


@pytest.mark.parametrize("core", ["cortex-m0", "cortex-m3", "rv32imc", "cortex-m4+size", "cortex-m55+size"])
def test_portable_kernels_leave_a_choice(core: str) -> None:
    graph = small_graph(0, 1)
    assert set(layers_with_choice(graph, core, AUTO)) == {op.name for op in graph.convs}
    assert all(steps == ("layer",) for steps in layers_with_choice(graph, core, LAYER).values())


@pytest.mark.parametrize(("core", "layers"), [("cortex-m4", {"b"}), ("cortex-m55", set()), ("cortex-m3", {"a", "b"})])
def test_depthwise_kernels_with_dsp_leave_a_choice(core: str, layers: set[str]) -> None:
    net = Net((8, 8, 8), 1)
    net.conv("b", net.conv("a", "x", 16, (1, 1)), 16, (3, 3), padding=(1, 1, 1, 1), groups=16)
    graph = net.graph()
    table = steps_table(graph, factor=1.01)
    assert set(layers_with_choice(graph, core, AUTO)) == layers
    eight = solve(graph, table, PLENTY, core, scales=CHANNEL).flash_used
    plan = solve(graph, table, Limits(eight - 4, 10**9), core, scales=AUTO, pins={"a.weight": 8})
    found = {t.layer for t in plan.tensors if t.granularity == "layer"}
    assert bool(found) == bool(layers) and found <= layers


def test_weights_that_share_bits_share_their_steps_and_pins_leave_them_open() -> None:
    graph = small_graph(0, 1)
    table = steps_table(graph)
    grouped = problem_of(graph, table, PLENTY, groups=(("a.weight", "b.weight"), ("c.weight", "c")), pins={"c": 8})
    assert grouped.decision("a.weight").choices == (8, 4, 2, -8, -4, -2)
    assert grouped.decision("c.weight").choices == (8, -8)
    least = {d.name: d.least for d in grouped.decisions}
    assert (least["a.weight"], least["c.weight"]) == (-2, -8)
    tensors = {m.name: m.at(least[d.name]) for d in grouped.decisions for m in d.members}
    assert (tensors["c"].bits, tensors["c"].granularity, tensors["c.weight"].granularity) == (8, "channel", "layer")
    assert brute_force(grouped) == pytest.approx(plan_of(grouped, found(grouped)).objective)
    with pytest.raises(UsageError, match="the plan has bits 8, allowed is one of"):
        layers = problem_from_graph(graph, table, PLENTY, CORE, scales=LAYER)
        assignment_of(layers, solve(graph, table, PLENTY, CORE))


def found(problem: Problem) -> object:
    solution = solve_problem(problem)
    assert solution is not None and pack(arena_of(problem, solution.bits))
    return solution


def test_a_table_without_losses_per_layer_is_refused() -> None:
    graph = small_graph(0, 0)
    with pytest.raises(UsageError, match=r"has no losses of a\.weight"):
        solve(graph, synthetic(graph), PLENTY, CORE, scales=AUTO)


def test_the_frontier_begins_at_the_fewest_bytes_of_any_granularity() -> None:
    graph = wide_graph()
    table = steps_table(graph)
    auto, channel = (pareto(graph, table, PLENTY, CORE, points=5, scales=s).points for s in (AUTO, CHANNEL))
    assert auto[0].flash_used == channel[0].flash_used - 4 * sum(len(op.weight) - 1 for op in graph.convs)
    assert auto[-1].objective == channel[-1].objective


@pytest.mark.parametrize("granularity", ["auto", "layer"])
def test_promised_bytes_are_the_lowered_networks(granularity: str) -> None:
    pytest.importorskip("torch")
    from mcuq.lower.lower import lower
    from mcuq.quant.data_free import data_free
    from mcuq.quant.ptq import ptq
    from mcuq.target.footprint import footprint

    graph, scales = wide_graph(), Scales(granularity=granularity)  # type: ignore[arg-type]
    table = data_free(graph, per_layer=layers_with_choice(graph, CORE, scales))
    plan = solve(graph, table, Limits(reach(graph, steps_table(graph))[1] - 100, 10**9), CORE, scales=scales)
    integer = lower(ptq(graph, np.random.default_rng(0).normal(size=(8, 8, 8, 4)), plan))
    one = {op.name for op in integer if isinstance(op, QConv2d) and op.multiplier.size == 1}
    assert one == {t.layer for t in plan.tensors if t.granularity == "layer"} != set()
    memory = plan_memory(integer, CORE)
    promise = footprint(integer, memory, CORE)
    assert (promise.flash, promise.ram) == (plan.flash_used, plan.ram_used)
