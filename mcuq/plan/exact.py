"""Bits, order and addresses as one problem: the plan of least expected loss within flash and RAM, with its proof.

The problem: one choice of bits per decision, an order of the operators, an address for every storage and scratch
buffer, such that flash fits and, at every step, the storages in use lie side by side below the RAM limit; minimize
the sum of losses. It is solved in two steps that share every cost table:

1. its relaxation over bits and order (``relaxation``): flash, and for every operator the bytes that are live with
   it. If the arena planner can place the relaxation's optimum, that optimum is the problem's, with proof. This is
   the case for chains, and for nearly all branching networks;
2. otherwise the whole problem (``addresses.Geometry`` with sizes that depend on bits), started from the best plan
   known. Beyond ``MAX_FREE_ORDER`` operators the order is kept, so that the answer is FEASIBLE with its gap to
   the relaxation's bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ortools.sat.python import cp_model

from mcuq.ir.graph import Graph
from mcuq.ir.plans import BitPlan, Limits, Sensitivity
from mcuq.plan.addresses import Geometry, Step, deterministic_solver
from mcuq.plan.arena import WORD, ArenaOp, ArenaProblem, Distance, Storage, words
from mcuq.plan.decisions import Wishes
from mcuq.plan.infeasible import explain
from mcuq.plan.memory import MAX_FREE_ORDER, pack
from mcuq.plan.model import Scales, paper_problem, problem_from_graph
from mcuq.plan.place import Placement
from mcuq.plan.problem import (
    Assignment,
    ByteModel,
    PlanOp,
    Problem,
    Term,
    executed,
    flash_bytes,
    objective,
    tensor_bits,
)
from mcuq.plan.relaxation import BitModel, bit_model, in_words, term_cost
from mcuq.plan.rules import Scheme
from mcuq.plan.schedule import schedule
from mcuq.plan.validate_bits import check_plan
from mcuq.target.cost import RAM_RESERVE

Measure = Callable[[BitPlan], float]
"""True loss of a plan (for example the KL divergence on held-back images); smaller is better."""


@dataclass(frozen=True, slots=True)
class Solution:
    """An assignment with its placement (None in the paper's model) and the proved bound of its objective."""

    bits: dict[str, int]
    placement: Placement | None
    bound: float
    optimal: bool


def solve(
    graph: Graph,
    sensitivity: Sensitivity,
    limits: Limits,
    core: str = "cortex-m7",
    *,
    pins: Mapping[str, int] | None = None,
    groups: Sequence[Sequence[str]] = (),
    first_last_bits: int = 2,
    logits_bits: int = 8,
    scales: Scales | None = None,
    ram_reserve: int = RAM_RESERVE,
    cuts: tuple[int, ...] = (),
    byte_model: ByteModel = "mcuq",
    scheme: Scheme = "MixPC",
    time_limit: float = 60.0,
    best_of: int = 1,
    measure: Measure | None = None,
) -> BitPlan:
    """The plan of least expected loss of a fused ``graph`` within ``limits``.

    Args:
        pins: bits of single tensors, named as in bits.json (``layer.weight`` or ``layer``).
        groups: tensors that must share bits; max pools, pads and reshapes share their input's anyway.
        first_last_bits: fewest bits of the first and last layers' weights, where that fits; no floor otherwise. A
            floor is a price: the last layer of a wide network is a large part of its weights.
        scales, ram_reserve, cuts: parameters of mcuq's byte model, see :func:`mcuq.plan.model.problem_from_graph`.
        scheme: quantization type of the paper's byte model.
        time_limit: deterministic seconds of search (about real ones); the answer does not depend on the machine.
        best_of, measure: re-rank the ``best_of`` best plans by ``measure`` and return the best measured.

    Raises:
        NoPlanError: nothing fits; names the smallest set of tensors that cannot and the missing bytes.
        UsageError: unknown tensor names, contradicting wishes, a table that lacks a tensor.
    """

    def build(floor: int) -> Problem:
        wishes = Wishes(dict(pins or {}), tuple(tuple(g) for g in groups), floor, logits_bits)
        if byte_model == "paper":
            return paper_problem(graph, sensitivity, limits, scheme, wishes=wishes)
        return problem_from_graph(
            graph, sensitivity, limits, core, wishes=wishes, scales=scales, ram_reserve=ram_reserve, cuts=cuts
        )

    problem = build(first_last_bits)
    plans = _best_plans(problem, best_of, time_limit)
    if not plans and first_last_bits > 2:
        problem = build(2)
        plans = _best_plans(problem, best_of, time_limit)
    if not plans:
        raise explain(problem)
    return _choose(plans, measure)


def _choose(plans: list[BitPlan], measure: Measure | None) -> BitPlan:
    """The best measured plan; a plan that is not the optimum of the table is at best FEASIBLE by the table."""
    if measure is None:
        return plans[0]
    best = min(plans, key=measure)
    return best if best is plans[0] else replace(best, bound=plans[0].bound, status="FEASIBLE")


def _best_plans(problem: Problem, count: int, effort: float) -> list[BitPlan]:
    found: list[BitPlan] = []
    excluded: list[dict[str, int]] = []
    for _ in range(count):
        solution = solve_problem(problem, effort=effort, excluded=excluded)
        if solution is None:
            break
        excluded.append(solution.bits)
        found.append(plan_of(problem, solution))
    return found


def plan_of(problem: Problem, solution: Solution, method: str = "exact") -> BitPlan:
    """The solution as a validated :class:`BitPlan`."""
    value = objective(problem, solution.bits)
    plan = BitPlan(
        tensors=tensor_bits(problem, solution.bits),
        status="OPTIMAL" if solution.optimal else "FEASIBLE",
        objective=value,
        bound=value if solution.optimal else min(solution.bound, value),
        flash_used=flash_bytes(problem, solution.bits),
        ram_used=ram_bytes(problem, solution),
        limits=problem.limits,
        method=method,
        order=solution.placement.order if solution.placement else problem.order,
        instructions=executed(problem, solution.bits),
    )
    check_plan(problem, plan, solution.placement)
    return plan


def ram_bytes(problem: Problem, solution: Solution) -> int:
    """RAM of a solution: arena and reserve, or the paper's largest layer."""
    if solution.placement is not None:
        return WORD * solution.placement.top + problem.ram_reserve
    peak = max(sum(c.term.value(solution.bits) for c in peak.costs) for peak in problem.peaks)
    return -(-peak * problem.unit // 8)


def solve_problem(problem: Problem, *, effort: float = 60.0, excluded: Sequence[Assignment] = ()) -> Solution | None:
    """Best assignment with its placement; None when there is none (or none was found within ``effort``).

    ``excluded`` assignments are not returned again (for the next best plans).
    """
    relaxed = bit_model(problem)
    _exclude(relaxed, excluded)
    solver = deterministic_solver(effort, knapsack=True)
    status = solver.solve(relaxed.model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    bits = _read(solver, relaxed)
    proved = status == cp_model.OPTIMAL
    bound = _bound(problem, bits, solver, relaxed, proved=proved)
    if not problem.ops:
        return Solution(bits, None, bound, proved)
    placement, _ = pack(arena_of(problem, bits))
    if WORD * placement.top <= problem.ram_limit:
        return Solution(bits, placement, bound, proved)
    return _solve_whole(problem, bits, bound, effort, excluded)


def _solve_whole(
    problem: Problem, start: dict[str, int], bound: float, effort: float, excluded: Sequence[Assignment]
) -> Solution | None:
    """Bits, order and addresses in one CP-SAT model."""
    free = len(problem.ops) <= MAX_FREE_ORDER
    whole = bit_model(problem)
    _exclude(whole, excluded)
    arena = _largest_arena(problem)
    sizes = {s.name: _sized(whole, problem.storage(s.name).size) for s in problem.storages}
    scratch = {op.name: _at_least(whole, op.scratch) for op in problem.ops if op.scratch.most}
    distances = {
        (op.name, take.storage): _at_least(whole, take.distance)
        for op in problem.ops
        for take in op.takes
        if take.distance is not None
    }
    order = schedule(arena_of(problem, start)).order
    top = problem.ram_limit // WORD
    geometry = Geometry(whole.model, arena, order, top, sizes, scratch, distances, capacity=top, free_order=free)
    for op in problem.ops:
        for take in op.takes:
            literal = geometry.over.get((op.writes, take.storage))
            for key, allowed in take.allowed.table:
                if literal is not None and not allowed:
                    pairs = zip(take.allowed.decisions, key, strict=True)
                    whole.model.add_bool_or(~literal, *(~whole.literals[name][b] for name, b in pairs))
    _hint_least(problem, whole)
    solver = deterministic_solver(effort, knapsack=True)
    status = solver.solve(whole.model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    bits = _read(solver, whole)
    proved = status == cp_model.OPTIMAL and free
    if free:
        bound = max(bound, _bound(problem, bits, solver, whole, proved=proved))
    placement = geometry.read(solver, top, optimal=proved)
    tight, _ = pack(arena_of(problem, bits))
    proved = proved or objective(problem, bits) <= bound * (1 + 1e-12)
    return Solution(bits, tight if tight.top <= placement.top else _trimmed(problem, bits, placement), bound, proved)


def _trimmed(problem: Problem, bits: Assignment, placement: Placement) -> Placement:
    """The placement with the top it really reaches."""
    tops = [placement.storages[s.name] + words(s.size.value(bits)) for s in problem.storages]
    tops += [
        placement.scratch[op.name] + words(op.scratch.value(bits)) for op in problem.ops if op.name in placement.scratch
    ]
    return replace(placement, top=max(tops))


def arena_of(problem: Problem, bits: Assignment) -> ArenaProblem:
    """The arena problem once bits are chosen."""
    storages = tuple(Storage(s.name, s.size.value(bits), s.tensors, s.persistent) for s in problem.storages)
    ops = tuple(
        ArenaOp(
            op.name,
            op.reads,
            op.writes,
            op.scratch.value(bits),
            tuple(take.storage for take in op.takes if take.allowed.value(bits)),
            _distances(problem, op, bits),
            op.spreads,
        )
        for op in problem.ops
    )
    return ArenaProblem(ops, storages, problem.cuts)


def _distances(problem: Problem, op: PlanOp, bits: Assignment) -> tuple[Distance, ...]:
    size = words(problem.storage(op.writes).size.value(bits))
    found = ((t.storage, words(t.distance.value(bits))) for t in op.takes if t.distance is not None)
    return tuple((storage, distance) for storage, distance in found if distance < size)


def _largest_arena(problem: Problem) -> ArenaProblem:
    """Every storage and scratch at its largest, every take-over that some choice allows."""
    storages = tuple(Storage(s.name, s.size.most, s.tensors, s.persistent) for s in problem.storages)
    ops = tuple(
        ArenaOp(
            op.name,
            op.reads,
            op.writes,
            op.scratch.most,
            tuple(t.storage for t in op.takes if t.allowed.most),
            tuple((t.storage, words(t.distance.most)) for t in op.takes if t.distance is not None),
            op.spreads,
        )
        for op in problem.ops
    )
    return ArenaProblem(ops, storages, problem.cuts)


def _sized(whole: BitModel, term: Term) -> Step:
    """Words of a storage, exactly; a constant where there is no choice."""
    return _variable(whole, term, in_words(term), exact=True)


def _at_least(whole: BitModel, term: Term) -> Step:
    """Words of scratch, or of a distance, or more (which no minimal plan uses)."""
    return _variable(whole, term, in_words(term), exact=False)


def _variable(whole: BitModel, term: Term, in_unit: Term, *, exact: bool) -> Step:
    if in_unit.least == in_unit.most:
        return in_unit.least
    variable = whole.model.new_int_var(in_unit.least, in_unit.most, f"words for {'/'.join(term.decisions)}")
    cost = term_cost(whole.model, whole.literals, in_unit)
    whole.model.add(variable == cost if exact else variable >= cost)
    return variable


def _exclude(model: BitModel, excluded: Sequence[Assignment]) -> None:
    for bits in excluded:
        model.model.add_bool_or(*(~model.literals[name][b] for name, b in bits.items()))


def _hint_least(problem: Problem, whole: BitModel) -> None:
    """Start from the fewest bits everywhere."""
    for decision in problem.decisions:
        for b, literal in whole.literals[decision.name].items():
            whole.model.add_hint(literal, b == decision.least)


def _bound(problem: Problem, bits: Assignment, solver: cp_model.CpSolver, model: BitModel, *, proved: bool) -> float:
    """Proved lower bound of the objective; the optimum itself, up to the integer scaling, when ``proved``."""
    if proved:
        return objective(problem, bits)
    slack = len(problem.decisions) / 2
    return max(0.0, (solver.best_objective_bound - slack) / model.scale)


def _read(solver: cp_model.CpSolver, model: BitModel) -> dict[str, int]:
    return {
        name: next(b for b, literal in row.items() if solver.boolean_value(literal))
        for name, row in model.literals.items()
    }
