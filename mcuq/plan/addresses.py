"""Order and addresses as one CP-SAT problem: every storage is a rectangle of steps x words.

Used for windows of steps, for the whole where those leave a gap, and by the exact planner with sizes that depend on
bits. Each storage is a rectangle [first, last + 1) x [address, address + words); an operator that overwrites an input
starts its output's rectangle one step later, at the input's address (the input's rectangle already covers the step),
so that no two rectangles overlap. Where the output spreads over the input, the input's rectangle ends one step earlier
instead. Where it slides, sharing bytes with an input that lies behind its first byte, both make room for that one
step, in which a third rectangle covers the bytes of both.
"""

from __future__ import annotations

from collections.abc import Mapping

from ortools.sat.python import cp_model

from mcuq.plan.arena import ArenaOp, ArenaProblem, words
from mcuq.plan.place import Placement, lifetimes

Step = cp_model.IntVar | int
"""A step as a variable, or a constant where the order is fixed."""


def solve_addresses(
    problem: ArenaProblem,
    hint: Placement,
    lower: int,
    *,
    free_order: bool,
    effort: float = 10.0,
    fixed: Mapping[str, int] | None = None,
) -> Placement | None:
    """Lowest top between ``lower`` and ``hint.top`` words; None when the search ended without an answer.

    ``fixed``: words where these storages must lie.
    Deterministic: one worker, a fixed seed and a limit in deterministic time (about seconds).
    """
    model = cp_model.CpModel()
    top = model.new_int_var(lower, hint.top, "top")
    sizes = {s.name: words(s.size) for s in problem.storages}
    scratch = {op.name: words(op.scratch) for op in problem.ops if op.scratch}
    distances: dict[tuple[str, str], Step] = {(op.name, s): d for op in problem.ops for s, d in op.distances}
    geometry = Geometry(
        model, problem, hint.order, top, sizes, scratch, distances, capacity=hint.top, free_order=free_order
    )
    for name, address in (fixed or {}).items():
        model.add(geometry.address[name] == address)
    geometry.add_hint(hint)
    model.minimize(top)
    solver = deterministic_solver(effort)
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    return geometry.read(solver, solver.value(top), optimal=status == cp_model.OPTIMAL)


def deterministic_solver(effort: float, *, knapsack: bool = False) -> cp_model.CpSolver:
    """One worker, fixed seed, ``effort`` deterministic seconds: the same problem always gives the same answer.

    ``knapsack``: put the whole model in the linear relaxation, which closes budget problems at the root.
    """
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    solver.parameters.max_deterministic_time = effort
    if knapsack:
        solver.parameters.linearization_level = 2
    return solver


class Geometry:
    """Variables and constraints of order and addresses in ``model``, below ``top`` words.

    Sizes may be variables; ``capacity`` is the largest value ``top`` may take. ``over[output, source]`` is true when
    ``output`` overwrites ``source``; the caller may restrict it further. ``distances``: by operator and storage.
    """

    def __init__(
        self,
        model: cp_model.CpModel,
        problem: ArenaProblem,
        order: tuple[str, ...],
        top: Step,
        sizes: Mapping[str, Step],
        scratch: Mapping[str, Step],
        distances: Mapping[tuple[str, str], Step],
        *,
        capacity: int,
        free_order: bool,
    ) -> None:
        self.model, self.problem, self.order, self.top = model, problem, order, top
        self.sizes, self.scratch_sizes = sizes, scratch
        self.capacity = capacity
        self.span = len(problem.ops)
        self.start = self._starts() if free_order else {name: k for k, name in enumerate(order)}
        self.first: dict[str, Step] = {}
        self.end: dict[str, Step] = {}
        self.address = {s.name: self._address(f"address {s.name}") for s in problem.storages}
        self.scratch = {name: self._address(f"scratch {name}") for name in scratch}
        self.over: dict[tuple[str, str], cp_model.IntVar] = {}
        self.slide: dict[tuple[str, str], cp_model.IntVar] = {}
        self.distances = distances
        self._spans(free_order)
        self._rectangles()

    def _address(self, name: str) -> cp_model.IntVar:
        return self.model.new_int_var(0, self.capacity, name)

    def _starts(self) -> dict[str, Step]:
        """A step variable per operator, between its ancestors and its descendants."""
        needs = predecessors(self.problem)
        before = ancestors(needs)
        after = {name: sum(name in before[other] for other in before) for name in before}
        starts: dict[str, Step] = {}
        for name in self.order:
            low, high = len(before[name]), self.span - 1 - after[name]
            starts[name] = low if low == high else self.model.new_int_var(low, high, f"step {name}")
        self.model.add_all_different(starts.values())
        for name, sources in needs.items():
            for source in sources:
                if not (isinstance(starts[source], int) and isinstance(starts[name], int)):
                    self.model.add(starts[source] + 1 <= starts[name])
        return starts

    def _spans(self, free: bool) -> None:
        spans = lifetimes(self.problem, self.order)
        for s in self.problem.storages:
            users = [op.name for op in self.problem.ops if s.name in op.reads or s.name == op.writes]
            if not free:
                self.first[s.name], self.end[s.name] = spans[s.name][0], spans[s.name][1] + 1
                continue
            writers = [op.name for op in self.problem.ops if op.writes == s.name and s.name not in op.reads]
            end = self.model.new_int_var(1, self.span, f"end {s.name}")
            self.model.add_max_equality(end, [self.start[u] + 1 for u in users])
            self.first[s.name] = self.start[writers[0]]
            if len(writers) > 1:
                first = self.model.new_int_var(0, self.span, f"first {s.name}")
                self.model.add_min_equality(first, [self.start[w] for w in writers])
                self.first[s.name] = first
            self.end[s.name] = self.span if s.persistent else end

    def _rectangles(self) -> None:
        time: list[cp_model.IntervalVar] = []
        space: list[cp_model.IntervalVar] = []
        demands: list[Step] = []
        later: dict[str, list[cp_model.IntVar]] = {}
        earlier: dict[str, list[cp_model.IntVar]] = {}
        for op in self.problem.ops:
            self._overs(op, later, earlier)
            for literal, source in self._slides(op, later, earlier):
                size = self.model.new_int_var(0, self.capacity, f"words of {op.writes} and {source}")
                time.append(self._shared_step(op, literal))
                space.append(self._shared_bytes(op.writes, source, size, literal))
                demands.append(size)
        for s in self.problem.storages:
            begin, end = self.first[s.name], self.end[s.name]
            if s.name in later:
                begin = self._moved(begin, later[s.name], 1, f"begin {s.name}")
            if s.name in earlier:
                end = self._moved(end, earlier[s.name], -1, f"left {s.name}")
            size = self.model.new_int_var(0, self.span, f"steps of {s.name}")
            time.append(self.model.new_interval_var(begin, size, end, f"life of {s.name}"))
            space.append(self._bytes(self.address[s.name], self.sizes[s.name], s.name))
            demands.append(self.sizes[s.name])
        for name, size in self.scratch_sizes.items():
            time.append(self.model.new_fixed_size_interval_var(self.start[name], 1, f"run {name}"))
            space.append(self._bytes(self.scratch[name], size, f"scratch of {name}"))
            demands.append(size)
        self.model.add_no_overlap_2d(time, space)
        self.model.add_cumulative(time, demands, self.top)

    def _shared_step(self, op: ArenaOp, literal: cp_model.IntVar) -> cp_model.IntervalVar:
        return self.model.new_optional_fixed_size_interval_var(self.start[op.name], 1, literal, f"slide of {op.name}")

    def _shared_bytes(
        self, output: str, source: str, size: cp_model.IntVar, literal: cp_model.IntVar
    ) -> cp_model.IntervalVar:
        """From the output's first byte to the last of both."""
        begin, end = self.address[output], self.model.new_int_var(0, self.capacity, f"top of {output} and {source}")
        for name in (output, source):
            self.model.add(self.address[name] + self.sizes[name] <= end).only_enforce_if(literal)
        self.model.add(end <= self.top)
        return self.model.new_optional_interval_var(begin, size, end, literal, f"bytes of {output} and {source}")

    def _moved(self, step: Step, literals: list[cp_model.IntVar], by: int, name: str) -> cp_model.IntVar:
        """``step`` moved ``by`` where one of ``literals`` is true."""
        moved = self.model.new_int_var(0, self.span, name)
        self.model.add(moved == step + by * sum(literals))
        return moved

    def _bytes(self, address: cp_model.IntVar, size: Step, name: str) -> cp_model.IntervalVar:
        self._in_one_region(address, size, name)
        if isinstance(size, int):
            self.model.add(address + size <= self.top)
            return self.model.new_fixed_size_interval_var(address, size, f"bytes of {name}")
        end = self.model.new_int_var(0, self.capacity, f"top of {name}")
        self.model.add(end <= self.top)
        return self.model.new_interval_var(address, size, end, f"bytes of {name}")

    def _in_one_region(self, address: cp_model.IntVar, size: Step, name: str) -> None:
        """The bytes end at or before each cut, or begin there or behind it."""
        for cut in self.problem.word_cuts:
            below = self.model.new_bool_var(f"{name} below {cut}")
            self.model.add(address + size <= cut).only_enforce_if(below)
            self.model.add(address >= cut).only_enforce_if(~below)

    def _overs(
        self, op: ArenaOp, later: dict[str, list[cp_model.IntVar]], earlier: dict[str, list[cp_model.IntVar]]
    ) -> None:
        """One literal per input that the output may overwrite: same address, and the input ends at this step.

        Added to ``later`` of the output, or to ``earlier`` of the input where the output spreads.
        """
        for source in op.in_place:
            if (literal := self._ending(op, source, "over")) is not None:
                self.model.add(self.address[op.writes] == self.address[source]).only_enforce_if(literal)
                self.over[op.writes, source] = literal
                moved, name = (earlier, source) if op.spreads else (later, op.writes)
                moved.setdefault(name, []).append(literal)

    def _slides(
        self, op: ArenaOp, later: dict[str, list[cp_model.IntVar]], earlier: dict[str, list[cp_model.IntVar]]
    ) -> list[tuple[cp_model.IntVar, str]]:
        """One literal per input that may lie behind the output's first byte, added to ``later`` and ``earlier``; at
        most one input shares bytes with an output."""
        found: list[tuple[cp_model.IntVar, str]] = []
        for source, _ in op.distances:
            if (literal := self._ending(op, source, "before")) is not None:
                distance = self.distances[op.name, source]
                behind = self.address[source] >= self.address[op.writes] + distance
                self.model.add(behind).only_enforce_if(literal)
                self.slide[op.writes, source] = literal
                later.setdefault(op.writes, []).append(literal)
                earlier.setdefault(source, []).append(literal)
                found.append((literal, source))
        ways = [lit for shared in (self.over, self.slide) for (output, _), lit in shared.items() if output == op.writes]
        if len(ways) > 1:
            self.model.add_at_most_one(ways)
        return found

    def _ending(self, op: ArenaOp, source: str, how: str) -> cp_model.IntVar | None:
        """A literal whose truth makes ``op`` the last that uses ``source``; None where it cannot be."""
        if source == op.writes or self.problem.storage(source).persistent:
            return None
        literal = self.model.new_bool_var(f"{op.writes} {how} {source}")
        self.model.add(self.end[source] == self.start[op.name] + 1).only_enforce_if(literal)
        return literal

    def add_hint(self, hint: Placement) -> None:
        """Start the search at ``hint``."""
        for k, name in enumerate(hint.order):
            start = self.start[name]
            if not isinstance(start, int):
                self.model.add_hint(start, k)
        for name, offset in hint.storages.items():
            self.model.add_hint(self.address[name], offset)
        for name, offset in hint.scratch.items():
            if name in self.scratch:
                self.model.add_hint(self.scratch[name], offset)
        for (output, source), literal in self.over.items():
            self.model.add_hint(literal, hint.overs.get(output) == source)
        for (output, source), literal in self.slide.items():
            self.model.add_hint(literal, hint.slides.get(output) == source)

    def read(self, solver: cp_model.CpSolver, top: int, *, optimal: bool) -> Placement:
        """The solver's order and addresses."""
        step = {name: solver.value(start) for name, start in self.start.items()}
        return Placement(
            tuple(sorted(step, key=step.__getitem__)),
            {name: solver.value(var) for name, var in self.address.items()},
            {name: solver.value(var) for name, var in self.scratch.items()},
            {output: source for (output, source), var in self.over.items() if solver.boolean_value(var)},
            top,
            optimal,
            {output: source for (output, source), var in self.slide.items() if solver.boolean_value(var)},
        )


def predecessors(problem: ArenaProblem) -> dict[str, set[str]]:
    """For each operator the earlier operators that write what it reads; inputs precede all, in their order."""
    inputs: set[str] = set()
    writers: dict[str, set[str]] = {}
    needs: dict[str, set[str]] = {}
    for op in problem.ops:
        needs[op.name] = {w for s in op.reads for w in writers.get(s, ())} | inputs
        writers.setdefault(op.writes, set()).add(op.name)
        if not op.reads:
            inputs.add(op.name)
    return needs


def ancestors(needs: dict[str, set[str]]) -> dict[str, set[str]]:
    """All ancestors of each operator (``needs`` is in topological order)."""
    before: dict[str, set[str]] = {}
    for name, sources in needs.items():
        before[name] = set(sources).union(*(before[s] for s in sources))
    return before
