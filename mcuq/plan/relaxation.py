"""Bits under flash and necessary RAM conditions as a CP-SAT problem over Booleans.

One row per operator: what is live while it runs must fit. Some storages are live in ANY order: what the operator
reads and writes, and what an ancestor writes and a descendant reads. For the others, literals say which of two
unordered operators comes first (``ordering``). Left open are addresses (and, in very wide graphs, the order), so
that the bound holds for the whole problem, and the optimum is the whole problem's as soon as it can be placed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, pairwise, product

from ortools.sat.python import cp_model

from mcuq.plan.arena import WORD, words
from mcuq.plan.ordering import Ordering
from mcuq.plan.problem import Cost, Peak, PlanOp, Problem, Take, Term

RESOLUTION = 1 << 36
"""Losses are scaled to integers so that their largest possible sum is about 2^36: 7e10 steps."""

Expr = cp_model.LinearExpr | int
Literals = Mapping[str, Mapping[int, cp_model.IntVar]]


@dataclass(frozen=True, slots=True)
class BitModel:
    """A CP-SAT model with one literal per decision and width, its integer objective and its scale."""

    model: cp_model.CpModel
    literals: Literals
    objective: Expr
    scale: float


def bit_model(problem: Problem) -> BitModel:
    """Decisions, flash, necessary RAM rows and the objective (minimized)."""
    model = cp_model.CpModel()
    literals = bit_literals(model, problem)
    model.add(flash_cost(model, problem, literals) <= problem.flash_limit)
    limit = peak_limit(problem)
    for total in peak_costs(model, problem, literals):
        model.add(total <= limit)
    if problem.limits.instructions is not None:
        model.add(instruction_cost(model, problem, literals) <= problem.limits.instructions)
    scale = RESOLUTION / max(sum(max(d.losses) for d in problem.decisions), 1e-300)
    weights = [
        (round(loss * scale), literals[d.name][b])
        for d in problem.decisions
        for b, loss in zip(d.choices, d.losses, strict=True)
    ]
    total = sum(weight * literal for weight, literal in weights if weight)
    model.minimize(total)
    return BitModel(model, literals, total, scale)


def peak_costs(model: cp_model.CpModel, problem: Problem, literals: Literals) -> list[Expr]:
    """For each operator an expression of the memory in use while it runs, at its least over the orders chosen."""
    peaks = necessary_peaks(problem)
    totals: list[Expr] = [sum(term_cost(model, literals, c.term) for c in peak.costs) for peak in peaks]
    if not problem.ops:
        return totals
    ordering = Ordering(model, problem, ancestors(problem))
    users, writers = storage_users(problem), storage_writers(problem)
    if ordering.complete:
        for k, (op, peak) in enumerate(zip(problem.ops, peaks, strict=True)):
            counted = {cost.name for cost in peak.costs}
            for storage in problem.storages:
                if storage.name in counted:
                    continue
                live = ordering.live(storage, writers[storage.name], users[storage.name], op.name)
                if live is not None:
                    totals[k] = totals[k] + _cost_if(model, literals, in_words(storage.size), live)
    return totals


def _cost_if(model: cp_model.CpModel, literals: Literals, size: Term, live: cp_model.IntVar) -> Expr:
    """At least ``size`` if ``live`` (a term of at most one decision)."""
    total: Expr = size.least * live
    for key, value in size.table:
        if value > size.least:
            literal = model.new_bool_var("")
            model.add_bool_or(~live, ~literals[size.decisions[0]][key[0]], literal)
            total = total + (value - size.least) * literal
    return total


def storage_users(problem: Problem) -> dict[str, list[str]]:
    """Operators that read or write each storage, its first writer first."""
    return {s.name: [o.name for o in problem.ops if s.name in o.reads or o.writes == s.name] for s in problem.storages}


def storage_writers(problem: Problem) -> dict[str, list[str]]:
    """Operators that may be the first to write each storage: several for a concatenation by placement."""
    return {
        s.name: [o.name for o in problem.ops if o.writes == s.name and s.name not in o.reads] for s in problem.storages
    }


def peak_limit(problem: Problem) -> int:
    """RAM limit in the unit of the peaks: words of the arena, or the problem's own unit."""
    return problem.ram_limit // WORD if problem.ops else problem.ram_limit


def bit_literals(model: cp_model.CpModel, problem: Problem) -> Literals:
    """One literal per decision and width, exactly one of them true."""
    literals: dict[str, dict[int, cp_model.IntVar]] = {}
    for decision in problem.decisions:
        row = {b: model.new_bool_var(f"{decision.name} at {b}") for b in decision.choices}
        model.add_exactly_one(row.values())
        literals[decision.name] = row
    return literals


def flash_cost(model: cp_model.CpModel, problem: Problem, literals: Literals) -> Expr:
    """Flash of terms and code (without the constant), in the problem's unit."""
    total: Expr = sum(term_cost(model, literals, cost.term) for cost in problem.flash)
    for code in problem.code:
        if not code.uses:
            total = total + code.bytes
            continue
        used = model.new_bool_var(f"code {code.function}")
        for use in code.uses:
            model.add_bool_or(*(~literals[name][b] for name, b in use), used)
        total = total + code.bytes * used
    return total


def instruction_cost(model: cp_model.CpModel, problem: Problem, literals: Literals) -> Expr:
    """Predicted instructions of one inference."""
    return sum(term_cost(model, literals, cost.term) for cost in problem.instructions)


def term_cost(model: cp_model.CpModel, literals: Literals, term: Term) -> Expr:
    """An expression that is at least the term's value (equal in every minimal solution).

    One decision: the exact linear sum. Several: the least value plus a step for each larger value, whose literal
    is forced by the smallest sets of choices that all reach the value.
    """
    if not term.decisions:
        return term.least
    if len(term.decisions) == 1:
        return sum(value * literals[term.decisions[0]][key[0]] for key, value in term.table if value)
    values = sorted({value for _, value in term.table})
    total: Expr = values[0]
    for low, high in pairwise(values):
        step = model.new_bool_var(f"{'/'.join(term.decisions)} reaches {high}")
        for choice in forcing_sets(term, high):
            model.add_bool_or(*(~literals[name][b] for name, b in choice), step)
        total = total + (high - low) * step
    return total


def forcing_sets(term: Term, least: int) -> list[tuple[tuple[str, int], ...]]:
    """Smallest sets of (decision, bits) under which the term is at least ``least`` whatever the others are."""
    pattern = tuple((key, value >= least) for key, value in term.table)
    return [tuple((term.decisions[k], b) for k, b in choice) for choice in _forcing(pattern)]


@cache
def _forcing(rows: tuple[tuple[tuple[int, ...], bool], ...]) -> list[tuple[tuple[int, int], ...]]:
    """The same by position: rows are (bits of each decision, reached)."""
    found: list[frozenset[tuple[int, int]]] = []
    width = len(rows[0][0])
    for size in range(1, width + 1):
        candidates = {frozenset(c) for key, _ in rows for c in combinations(enumerate(key), size)}
        for chosen in sorted(candidates, key=sorted):
            if any(smaller <= chosen for smaller in found):
                continue
            if all(reached for key, reached in rows if chosen <= set(enumerate(key))):
                found.append(chosen)
    return [tuple(sorted(chosen)) for chosen in found]


def necessary_peaks(problem: Problem) -> tuple[Peak, ...]:
    """For each operator the terms (4-byte words) of what is live while it runs, in any order.

    An output that may share bytes with some input counts only as far as it exceeds that input. In the paper's model
    the peaks are the problem's own.
    """
    if not problem.ops:
        return problem.peaks
    before = ancestors(problem)
    users, writers = storage_users(problem), storage_writers(problem)
    peaks: list[Peak] = []
    for op in problem.ops:
        live = {*op.reads, op.writes, *_spanning(problem, op, before, users, writers)}
        costs = [Cost(f"scratch of {op.name}", in_words(op.scratch))]
        for storage in problem.storages:
            if storage.name in live:
                fresh = storage.name == op.writes and storage.name not in op.reads
                takes = _possible(problem, op, before) if fresh else ()
                costs.append(Cost(storage.name, _unless_taken(problem, in_words(storage.size), takes)))
        peaks.append(Peak(op.name, tuple(costs)))
    return tuple(peaks)


def ancestors(problem: Problem) -> dict[str, set[str]]:
    """Operators that run before each operator in every order (inputs come before all, in their order)."""
    inputs: set[str] = set()
    writers: dict[str, set[str]] = {}
    before: dict[str, set[str]] = {}
    for op in problem.ops:
        direct = {w for s in op.reads for w in writers.get(s, ())} | inputs
        before[op.name] = direct.union(*(before[d] for d in direct))
        writers.setdefault(op.writes, set()).add(op.name)
        if not op.reads:
            inputs.add(op.name)
    return before


def _spanning(
    problem: Problem,
    op: PlanOp,
    before: Mapping[str, set[str]],
    users: Mapping[str, list[str]],
    writers: Mapping[str, list[str]],
) -> Iterable[str]:
    """Storages written by an ancestor of ``op`` and still needed by one of its descendants, or kept to the end."""
    for storage in problem.storages:
        written = any(name in before[op.name] for name in writers[storage.name])
        if written and (storage.persistent or any(op.name in before[user] for user in users[storage.name])):
            yield storage.name


def _possible(problem: Problem, op: PlanOp, before: Mapping[str, set[str]]) -> tuple[Take, ...]:
    """Take-overs of inputs that no descendant of ``op`` reads."""
    late = {name for name in before if op.name in before[name]}
    read_late = {s for o in problem.ops if o.name in late for s in (*o.reads, o.writes)}
    return tuple(t for t in op.takes if t.storage not in read_late and not problem.storage(t.storage).persistent)


def _unless_taken(problem: Problem, size: Term, takes: tuple[Take, ...]) -> Term:
    """``size`` in words, or what the output needs beside the input that it shares most bytes with."""
    term = size
    for take in takes:
        taken = in_words(problem.storage(take.storage).size)
        parts = (size, term, take.allowed, taken, size if take.distance is None else in_words(take.distance))
        names, rows = _joined(parts)
        term = Term(names, tuple((key, min(row[1], _beside(row[0], *row[2:]))) for key, row in rows))
    return term


def _beside(whole: int, allowed: int, taken: int, distance: int) -> int:
    """Words of an output beside those of an input that it may share bytes with."""
    return max(0, whole - taken) if allowed else max(whole - taken, distance)


def _joined(parts: Sequence[Term]) -> tuple[tuple[str, ...], list[tuple[tuple[int, ...], list[int]]]]:
    """All decisions of ``parts``, and for every choice of their bits the values of all."""
    domains: dict[str, dict[int, None]] = {}
    for part in parts:
        for k, name in enumerate(part.decisions):
            domains.setdefault(name, dict.fromkeys(key[k] for key, _ in part.table))
    tables = [(part.decisions, dict(part.table)) for part in parts]
    rows: list[tuple[tuple[int, ...], list[int]]] = []
    for key in product(*domains.values()):
        chosen = dict(zip(domains, key, strict=True))
        rows.append((key, [table[tuple(chosen[n] for n in names)] for names, table in tables]))
    return tuple(domains), rows


def in_words(term: Term) -> Term:
    """The term in 4-byte words, rounded up."""
    return Term(term.decisions, tuple((key, words(value)) for key, value in term.table))
