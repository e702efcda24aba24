"""Order and addresses of fixed-size storages as one CP-SAT problem: rectangles of steps x words.

Used when first fit leaves a gap to the liveness bound. Each storage is a rectangle [first, last + 1) x
[address, address + words); an operator that overwrites an input starts its output's rectangle one step later,
at the input's address (the input's rectangle already covers the step), so that no two rectangles overlap.
"""

from __future__ import annotations

from dataclasses import dataclass

from ortools.sat.python import cp_model

from mcuq.plan.arena import ArenaProblem, words
from mcuq.plan.place import lifetimes

Step = cp_model.IntVar | int
"""A step as a variable, or a constant where the order is fixed."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Order, word offsets of storages and of scratch (by operator), hand-overs (output -> input), top in words."""

    order: tuple[str, ...]
    storages: dict[str, int]
    scratch: dict[str, int]
    overs: dict[str, str]
    top: int
    optimal: bool


def solve_addresses(
    problem: ArenaProblem,
    hint: Placement,
    lower: int,
    *,
    free_order: bool,
    effort: float = 10.0,
) -> Placement | None:
    """Lowest top between ``lower`` and ``hint.top`` words; None when nothing below ``hint.top`` was found.

    Deterministic: one worker, a fixed seed and a limit in deterministic time (about seconds).
    """
    builder = _Builder(problem, hint, lower, free_order)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    solver.parameters.max_deterministic_time = effort
    status = solver.solve(builder.model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    return builder.read(solver, optimal=status == cp_model.OPTIMAL)


class _Builder:
    def __init__(self, problem: ArenaProblem, hint: Placement, lower: int, free_order: bool) -> None:
        self.problem = problem
        self.model = cp_model.CpModel()
        self.hint = hint
        self.span = len(problem.ops)
        self.top = self.model.new_int_var(lower, hint.top, "top")
        self.start = self._starts(free_order)
        self.first: dict[str, Step] = {}
        self.end: dict[str, Step] = {}
        self.address: dict[str, cp_model.IntVar] = {}
        self.scratch: dict[str, cp_model.IntVar] = {}
        self.over: dict[tuple[str, str], cp_model.IntVar] = {}
        self._spans(free_order)
        self._rectangles()
        self.model.minimize(self.top)

    def _starts(self, free: bool) -> dict[str, Step]:
        """Step of each operator: the hint's, or a variable between its ancestors and its descendants."""
        if not free:
            return {name: k for k, name in enumerate(self.hint.order)}
        needs = predecessors(self.problem)
        before = _closure(needs)
        after = {name: sum(name in before[other] for other in before) for name in before}
        starts: dict[str, Step] = {}
        for step, name in enumerate(self.hint.order):
            var = self.model.new_int_var(len(before[name]), self.span - 1 - after[name], f"step {name}")
            self.model.add_hint(var, step)
            starts[name] = var
        self.model.add_all_different(starts.values())
        for name, sources in needs.items():
            for source in sources:
                self.model.add(starts[source] + 1 <= starts[name])
        return starts

    def _spans(self, free: bool) -> None:
        spans = lifetimes(self.problem, self.hint.order)
        for s in self.problem.storages:
            users = [op.name for op in self.problem.ops if s.name in op.reads or s.name == op.writes]
            if not free:
                self.first[s.name], self.end[s.name] = spans[s.name][0], spans[s.name][1] + 1
                continue
            writer = next(op.name for op in self.problem.ops if op.writes == s.name)
            end = self.model.new_int_var(1, self.span, f"end {s.name}")
            self.model.add_max_equality(end, [self.start[u] + 1 for u in users])
            self.first[s.name] = self.start[writer]
            self.end[s.name] = self.span if s.persistent else end

    def _rectangles(self) -> None:
        time: list[cp_model.IntervalVar] = []
        space: list[cp_model.IntervalVar] = []
        for s in self.problem.storages:
            size = words(s.size)
            address = self.model.new_int_var(0, max(self.hint.top - size, 0), f"address {s.name}")
            self.model.add_hint(address, self.hint.storages[s.name])
            self.model.add(address + size <= self.top)
            self.address[s.name] = address
        for s in self.problem.storages:
            begin = self.first[s.name]
            if literals := self._overs(s.name):
                begin = self.model.new_int_var(0, self.span, f"begin {s.name}")
                self.model.add(begin == self.first[s.name] + sum(literals))
            time.append(self._interval(begin, self.end[s.name], s.name))
            size = words(s.size)
            space.append(self.model.new_fixed_size_interval_var(self.address[s.name], size, f"bytes {s.name}"))
        for op in self.problem.ops:
            if op.scratch:
                size = words(op.scratch)
                address = self.model.new_int_var(0, self.hint.top - size, f"scratch {op.name}")
                self.model.add_hint(address, self.hint.scratch[op.name])
                self.model.add(address + size <= self.top)
                self.scratch[op.name] = address
                time.append(self.model.new_fixed_size_interval_var(self.start[op.name], 1, f"run {op.name}"))
                space.append(self.model.new_fixed_size_interval_var(address, size, f"bytes of scratch {op.name}"))
        self.model.add_no_overlap_2d(time, space)
        demands = [words(s.size) for s in self.problem.storages]
        demands += [words(op.scratch) for op in self.problem.ops if op.scratch]
        self.model.add_cumulative(time, demands, self.top)

    def _overs(self, output: str) -> list[cp_model.IntVar]:
        """One literal per input that ``output`` may overwrite: same address, and the input ends at this step."""
        literals: list[cp_model.IntVar] = []
        for op in self.problem.ops:
            if op.writes != output:
                continue
            for source in op.in_place:
                if source == output or self.problem.storage(source).persistent:
                    continue
                literal = self.model.new_bool_var(f"{output} over {source}")
                self.model.add_hint(literal, self.hint.overs.get(output) == source)
                self.model.add(self.address[output] == self.address[source]).only_enforce_if(literal)
                self.model.add(self.end[source] == self.start[op.name] + 1).only_enforce_if(literal)
                self.over[output, source] = literal
                literals.append(literal)
        if len(literals) > 1:
            self.model.add_at_most_one(literals)
        return literals

    def _interval(self, begin: Step, end: Step, name: str) -> cp_model.IntervalVar:
        size = self.model.new_int_var(0, self.span, f"steps of {name}")
        return self.model.new_interval_var(begin, size, end, f"life of {name}")

    def read(self, solver: cp_model.CpSolver, *, optimal: bool) -> Placement:
        step = {name: solver.value(start) for name, start in self.start.items()}
        return Placement(
            tuple(sorted(step, key=step.__getitem__)),
            {name: solver.value(var) for name, var in self.address.items()},
            {name: solver.value(var) for name, var in self.scratch.items()},
            {output: source for (output, source), var in self.over.items() if solver.boolean_value(var)},
            solver.value(self.top),
            optimal,
        )


def predecessors(problem: ArenaProblem) -> dict[str, set[str]]:
    """For each operator the earlier operators that write what it reads; the first operator precedes all."""
    first = problem.ops[0].name
    writers: dict[str, set[str]] = {}
    needs: dict[str, set[str]] = {}
    for op in problem.ops:
        needs[op.name] = {w for s in op.reads for w in writers.get(s, ())}
        if op.name != first:
            needs[op.name].add(first)
        writers.setdefault(op.writes, set()).add(op.name)
    return needs


def _closure(needs: dict[str, set[str]]) -> dict[str, set[str]]:
    """All ancestors of each operator (``needs`` is in topological order)."""
    before: dict[str, set[str]] = {}
    for name, sources in needs.items():
        before[name] = set(sources).union(*(before[s] for s in sources))
    return before
