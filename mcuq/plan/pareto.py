"""The frontier of expected loss over flash, RAM or predicted instructions, with the paper's rule and uniform bits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from mcuq.errors import InfeasibleError, UsageError
from mcuq.ir.graph import Graph
from mcuq.ir.plans import BitPlan, Limits, Sensitivity
from mcuq.plan.exact import Solution, arena_of, plan_of, solve
from mcuq.plan.infeasible import least_instructions
from mcuq.plan.memory import pack
from mcuq.plan.model import problem_from_graph
from mcuq.plan.problem import Problem
from mcuq.plan.rules import mixed

Resource = Literal["flash", "ram", "instructions"]
UNLIMITED = 1 << 40


@dataclass(frozen=True, slots=True)
class Frontier:
    """``points``: optimal plans by rising use of ``resource``, none dominated. ``references``: other methods' plans.

    Byte counts of all plans are mcuq's own. A reference's limits are those it was made for; it may exceed them.
    """

    resource: Resource
    points: tuple[BitPlan, ...]
    references: tuple[BitPlan, ...]


def pareto(
    graph: Graph,
    sensitivity: Sensitivity,
    limits: Limits,
    core: str = "cortex-m7",
    *,
    resource: Resource = "flash",
    points: int = 12,
    **options: Any,
) -> Frontier:
    """Sweep the limit of ``resource`` from the least that fits to what 8 bits everywhere need.

    Args:
        limits: the other resource keeps its limit; ``resource``'s own limit only matters for the references.
        points: number of limits tried, evenly spaced; what the references use is tried too, so that none lies below
            the frontier unseen. options: as for :func:`mcuq.plan.exact.solve`.

    Raises:
        NoPlanError: even the fewest bits exceed the other resource's limit.
        UsageError: fewer than 2 points, or an unknown resource.
    """
    if points < 2 or resource not in get_args(Resource):
        allowed = " or ".join(get_args(Resource))
        raise UsageError(f"a frontier needs at least 2 points of {allowed}, got {points} of {resource!r}")
    open_limits = replace(limits, **{resource: UNLIMITED})
    problem = problem_from_graph(graph, sensitivity, open_limits, core, scales=options.get("scales"))
    fewest = {d.name: d.least for d in problem.decisions}
    cheapest = least_instructions(problem) if resource == "instructions" else fewest
    low = _used(fixed_plan(problem, "least", cheapest), resource)
    high = _used(solve(graph, sensitivity, open_limits, core, **options), resource)
    others = references(graph, sensitivity, limits, core)
    swept = {low + (max(high, low) - low) * k // (points - 1) for k in range(points)}
    found: list[BitPlan] = []
    for amount in sorted(swept | {_used(plan, resource) for plan in others if _used(plan, resource) >= low}):
        budget = replace(limits, **{resource: amount})
        try:
            plan = solve(graph, sensitivity, budget, core, **options)
        except InfeasibleError:
            continue  # the fewest bits need scratch that more bits do not: the least RAM may lie higher
        if not found or plan.objective < found[-1].objective:
            found.append(plan)
    return Frontier(resource, tuple(found), others)


def references(graph: Graph, sensitivity: Sensitivity, limits: Limits, core: str) -> tuple[BitPlan, ...]:
    """Uniform 8, 4 and 2 bits and the paper's rules for ``limits``, counted in mcuq's byte model.

    Rules that do not fit are left out; tensors without a choice keep their bits, and a tensor that shares bits
    takes those of the first of its group.
    """
    problem = problem_from_graph(graph, sensitivity, limits, core)
    found = [
        fixed_plan(problem, f"uniform {b}", {d.name: b if b in d.choices else d.choices[0] for d in problem.decisions})
        for b in (8, 4, 2)
    ]
    for scheme in ("MixPL", "MixPC"):
        try:
            plan = mixed(graph, limits, scheme, sensitivity=sensitivity)
        except InfeasibleError:
            continue
        known = {t.name: t.bits for t in plan.tensors}
        bits = {d.name: known[d.name] if known[d.name] in d.choices else d.choices[0] for d in problem.decisions}
        found.append(fixed_plan(problem, scheme, bits))
    return tuple(found)


def fixed_plan(problem: Problem, method: str, bits: dict[str, int]) -> BitPlan:
    """The plan of given bits with its bytes and its objective, whether it fits or not (status FEASIBLE)."""
    open_problem = replace(problem, limits=Limits(UNLIMITED, UNLIMITED))
    placement = pack(arena_of(problem, bits))[0] if problem.ops else None
    plan = plan_of(open_problem, Solution(bits, placement, 0.0, optimal=False), method)
    return replace(plan, limits=problem.limits)


def _used(plan: BitPlan, resource: Resource) -> int:
    return {"flash": plan.flash_used, "ram": plan.ram_used, "instructions": plan.instructions}[resource]
