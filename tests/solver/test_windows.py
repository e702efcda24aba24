"""Windows of steps: bounds hold for every order and address, and small problems reach the brute-force optimum."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import combinations

import arena_networks as networks
import pytest

from mcuq.plan import windows
from mcuq.plan.arena import ArenaOp, ArenaProblem, Storage, arena_problem
from mcuq.plan.memory import greedy, pack
from mcuq.plan.place import Placement, lifetimes
from mcuq.plan.schedule import schedule
from mcuq.plan.windows import boundaries, tighten, window

Box = tuple[int, int]
"""First and last word but one."""


def tiny(seed: int) -> ArenaProblem:
    """Four to six operators over few words, whose outputs may share bytes with inputs in every way there is."""
    rng = random.Random(seed)
    sizes = {"x": rng.randint(1, 4)}
    ops = [ArenaOp("x", (), "x")]
    for k in range(rng.randint(3, 5)):
        recent = list(sizes)[-rng.choice((1, 1, 2, 3)) :]
        inputs = tuple(rng.sample(recent, min(len(recent), rng.choice((1, 1, 2)))))
        name, size, spreads = f"op{k}", rng.randint(1, 4), rng.random() < 0.15
        sizes[name] = size
        fitting = (s for s in inputs if (sizes[s] <= size if spreads else sizes[s] >= size))
        over = tuple(s for s in fitting if rng.random() < 0.4)
        far = () if spreads else tuple((s, rng.randrange(size)) for s in inputs if rng.random() < 0.6)
        ops.append(ArenaOp(name, inputs, name, 4 * rng.choice((0, 0, 1)), over, far, spreads))
    read = {s for op in ops for s in op.reads}
    return ArenaProblem(tuple(ops), tuple(Storage(n, 4 * s, (n,), n not in read) for n, s in sizes.items()))


def orders(problem: ArenaProblem, done: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every topological order; an operator of ``tiny`` has the name of what it writes."""
    if len(done) == len(problem.ops):
        yield done
    for op in problem.ops:
        if op.name not in done and set(op.reads) <= set(done):
            yield from orders(problem, (*done, op.name))


class Checker:
    """Whether addresses are sound for one order, pair by pair and step by step."""

    def __init__(self, problem: ArenaProblem, order: tuple[str, ...]) -> None:
        self.problem, self.order, self.lives = problem, order, lifetimes(problem, order)
        self.size = {s.name: s.size // 4 for s in problem.storages}
        self.ops = {op.name: op for op in problem.ops}
        self.kept = {s.name for s in problem.storages if s.persistent}

    def shares(self, output: str, source: str, gap: int) -> bool:
        """``source`` dies where ``output`` is written, and lies ``gap`` words behind it as the operator allows."""
        op, dies = self.ops[output], self.lives[source][1] == self.lives[output][0]
        if source not in op.reads or source in self.kept or not dies:
            return False
        return (source in op.in_place and gap == 0) or any(s == source and gap >= least for s, least in op.distances)

    def sound(self, at: dict[str, int], scratch: dict[str, Box]) -> bool:
        """No byte has two owners at any step; an output shares bytes with at most one input."""
        box = {name: (begin, begin + self.size[name]) for name, begin in at.items()}
        sharing: list[str] = []
        for a, b in combinations(sorted(at, key=self.lives.__getitem__), 2):
            if self.lives[b][0] <= self.lives[a][1] and meet(box[a], box[b]):
                if not self.shares(b, a, at[a] - at[b]):
                    return False
                sharing.append(b)
        step = {name: k for k, name in enumerate(self.order)}
        live = ((s, op) for op in scratch for s in at if self.lives[s][0] <= step[op] <= self.lives[s][1])
        return len(sharing) == len(set(sharing)) and not any(meet(box[s], scratch[op]) for s, op in live)

    def fits(self, top: int, at: dict[str, int]) -> bool:
        """Some addresses of the storages not yet in ``at`` and of all scratch lie below ``top``."""
        if not self.sound(at, {}):
            return False
        rest = [name for name in self.order if name not in at]
        if rest:
            return any(self.fits(top, at | {rest[0]: begin}) for begin in range(top - self.size[rest[0]] + 1))
        needs = [(op.name, op.scratch // 4) for op in self.problem.ops if op.scratch]
        return all(any(self.sound(at, {op: (k, k + n)}) for k in range(top - n + 1)) for op, n in needs)


def meet(a: Box, b: Box) -> bool:
    return a[0] < b[1] and b[0] < a[1]


def top_of(problem: ArenaProblem, placement: Placement) -> int:
    """The top of a placement, found sound first."""
    scratch = {op.name: (placement.scratch[op.name], op.scratch // 4) for op in problem.ops if op.scratch}
    boxes = {name: (begin, begin + size) for name, (begin, size) in scratch.items()}
    assert Checker(problem, placement.order).sound(placement.storages, boxes)
    ends = [begin + problem.storage(name).size // 4 for name, begin in placement.storages.items()]
    return max([*ends, *(end for _, end in boxes.values())])


@pytest.mark.parametrize("seed", range(120))
def test_plan_and_bound_equal_the_optimum_over_all_orders_and_addresses(seed: int) -> None:
    problem = tiny(seed)
    placement, bound = pack(problem)
    assert top_of(problem, placement) == placement.top == bound
    assert not any(Checker(problem, order).fits(bound - 1, {}) for order in orders(problem))


def test_windows_bound_what_liveness_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds of narrow windows never exceed the optimum, and exceed that of liveness where distances add up."""
    monkeypatch.setattr(windows, "WIDTHS", (2, 3))
    raised = 0
    for seed in range(400):
        problem = tiny(seed)
        ordered = schedule(problem)
        first = greedy(problem, ordered.order, ordered.bound)
        best, bound = tighten(problem, first, ordered.bound, effort=1.0)
        assert ordered.bound <= bound <= pack(problem)[0].top <= top_of(problem, best) <= first.top
        raised += bound > ordered.bound
    assert raised


@pytest.mark.parametrize("seed", range(40))
def test_boundaries_are_where_all_orders_begin_alike(seed: int) -> None:
    problem = tiny(seed)
    every = list(orders(problem))
    alike = [k for k in range(len(problem.ops) + 1) if len({frozenset(order[:k]) for order in every}) == 1]
    assert boundaries(problem, every[0]) == alike


def test_a_window_keeps_what_crosses_it() -> None:
    b = networks.Builder(0)
    first = b.conv("x", 4)
    second = b.conv(first, 4)
    last = b.concat(b.conv(b.conv(second, 4), 4), first)
    problem = arena_problem(b.graph(last), "cortex-m3")
    order = tuple(op.name for op in problem.ops)
    part = window(problem, order, (3, 4))
    assert [op.reads for op in part.ops] == [(), (), (second,)]
    assert {s.name: s.persistent for s in part.storages} == {first: True, second: False, order[3]: True}


def test_windows_lower_a_poor_placement() -> None:
    """One storage of a long chain lies far above the rest: the windows around it bring it down, nothing else moves."""
    problem = arena_problem(networks.chain(10, 120), "cortex-m3")
    good, bound = pack(problem)
    middle = good.order[60]
    assert middle in good.storages
    overs = {k: v for k, v in good.overs.items() if middle not in (k, v)}
    slides = {k: v for k, v in good.slides.items() if middle not in (k, v)}
    poor = Placement(
        good.order, good.storages | {middle: good.top}, good.scratch, overs, 2 * good.top, optimal=False, slides=slides
    )
    best, proved = tighten(problem, poor, schedule(problem).bound, effort=2.0)
    assert (best.top, proved) == (good.top, bound)
