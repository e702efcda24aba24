"""Operator order with the smallest liveness peak: best-first search over sets of executed operators.

The state of a schedule is the set of operators done; what is live follows from the set alone, so that two
orders of one set are one state and the search is over down-sets of the graph (Liberis and Lane, arXiv
1910.05110, search the same space by dynamic programming). Two rules keep it small:

* a state is expanded in order of the peak reached so far, never below the bound that some single operator needs
  in any order, so that the first complete schedule popped is optimal;
* an operator (or a run of them) that can run now without raising the peak, and that leaves no more bytes live than
  before, runs at once: moving it forward in any other completion never raises a peak, because what it frees stays
  freed.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection
from dataclasses import dataclass

from mcuq.plan.arena import ArenaProblem, words


@dataclass(frozen=True, slots=True)
class Schedule:
    """Operator names in order, peak live words of that order, and a proved lower bound over all orders."""

    order: tuple[str, ...]
    peak: int
    bound: int


Move = tuple[tuple[int, ...], int, int, int]
"""Operators run, set of operators done after them, words live then, peak so far."""

BEAM = 64


class Liveness:
    """Live words before, during and after operators, for sets of executed operators as bit masks."""

    def __init__(self, problem: ArenaProblem) -> None:
        self.problem = problem
        index = {s.name: k for k, s in enumerate(problem.storages)}
        self.size = [words(s.size) for s in problem.storages]
        self.persistent = [s.persistent for s in problem.storages]
        self.readers = [0] * len(index)
        self.writers = [0] * len(index)
        self.reads = [[index[s] for s in op.reads] for op in problem.ops]
        self.writes = [index[op.writes] for op in problem.ops]
        self.scratch = [words(op.scratch) for op in problem.ops]
        self.in_place = [[index[s] for s in op.in_place] for op in problem.ops]
        self.distances = [[(index[s], distance) for s, distance in op.distances] for op in problem.ops]
        self.needs = [0] * len(problem.ops)
        for k, op in enumerate(problem.ops):
            for name in op.reads:
                self.readers[index[name]] |= 1 << k
            self.writers[self.writes[k]] |= 1 << k
        self._link()

    def _link(self) -> None:
        """Predecessors of each operator: the writers of what it reads that come before it.

        The network's inputs, which read nothing, come first: the caller fills all of them before it runs the network.
        A view's readers wait for the view itself; they read the storage, whose writers are its first operator
        and its views, and a view never waits for itself or for a later view.
        """
        inputs = 0
        for k in range(len(self.problem.ops)):
            self.needs[k] |= inputs
            if not self.reads[k]:
                inputs |= 1 << k
            for storage in self.reads[k]:
                self.needs[k] |= self.writers[storage] & ((1 << k) - 1)

    def cost(self, done: int, live: int, op: int) -> tuple[int, int]:
        """(words live while ``op`` runs after set ``done`` with ``live`` words, words live after it)."""
        target = self.writes[op]
        after = done | 1 << op
        dead = [s for s in self.reads[op] if self._dead(s, after) and s != target]
        fresh = 0 if self.writers[target] & done else self.size[target]
        during = live + self.scratch[op] + (self.beside(op, dead) if fresh else 0)
        live = live + fresh - sum(self.size[s] for s in dead)
        if self._dead(target, after):
            live -= self.size[target]
        return during, live

    def beside(self, op: int, dead: Collection[int]) -> int:
        """Words that the output of ``op`` needs besides its inputs, where it may share bytes with one of ``dead``."""
        size = self.size[self.writes[op]]
        ways = [size - self.size[s] for s in self.in_place[op] if s in dead]
        ways += [max(size - self.size[s], distance) for s, distance in self.distances[op] if s in dead]
        return max(0, min(ways, default=size))

    def _dead(self, storage: int, done: int) -> bool:
        users = self.readers[storage] | self.writers[storage]
        return not self.persistent[storage] and not users & ~done

    def peak(self, order: tuple[int, ...]) -> int:
        """Liveness peak of an order, in words."""
        done, live, peak = 0, 0, 0
        for op in order:
            during, live = self.cost(done, live, op)
            done |= 1 << op
            peak = max(peak, during)
        return peak


def schedule(problem: ArenaProblem, *, max_states: int = 80_000) -> Schedule:
    """The order of least liveness peak; exact when the search ends before ``max_states`` states.

    Beyond that a beam search finds the order, and ``bound`` is the least peak any open state could still reach:
    every schedule passes through one of them.
    """
    live = Liveness(problem)
    search = _Search(live, max_states)
    order, bound = search.run()
    names = tuple(problem.ops[k].name for k in order)
    return Schedule(names, live.peak(order), bound)


class _Search:
    def __init__(self, liveness: Liveness, max_states: int) -> None:
        self.l = liveness
        self.count = len(liveness.problem.ops)
        self.full = (1 << self.count) - 1
        self.before = self._ancestors()
        self.floor = max(self._least(k) for k in range(self.count))
        self.max_states = max_states

    def _ancestors(self) -> list[int]:
        before: list[int] = []
        for needs in self.l.needs:
            total = needs
            for k, earlier in enumerate(before):
                if needs >> k & 1:
                    total |= earlier
            before.append(total)
        return before

    def _least(self, op: int) -> int:
        """Words that ``op`` needs in any order: what it uses, and what its ancestors write for its descendants."""
        after = sum(1 << k for k in range(self.count) if self.before[k] >> op & 1)
        used = {*self.l.reads[op], self.l.writes[op]}
        for s, size in enumerate(self.l.size):
            needed = self.l.persistent[s] or self.l.readers[s] & after
            if size and needed and self.l.writers[s] & self.before[op]:
                used.add(s)
        total = self.l.scratch[op] + sum(self.l.size[s] for s in used)
        target = self.l.writes[op]
        if target in self.l.reads[op]:
            return total
        dying = [s for s in self.l.reads[op] if not (self.l.persistent[s] or self.l.readers[s] & after)]
        return total - self.l.size[target] + self.l.beside(op, dying)

    def run(self) -> tuple[tuple[int, ...], int]:
        """(order, lower bound)."""
        came: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, ())}
        heap = [(self.floor, 0, 0, 0)]  # peak, operators left, done, live
        best: dict[int, int] = {0: self.floor}
        while heap:
            peak, _, done, live = heapq.heappop(heap)
            if done == self.full:
                return self._trace(came), peak
            if peak > best[done]:
                continue
            if len(best) > self.max_states:
                return min(self._beam(), tuple(range(self.count)), key=self.l.peak), peak
            for moves, after, new_live, new_peak in self._successors(done, live, peak):
                if new_peak < best.get(after, new_peak + 1):
                    best[after] = new_peak
                    came[after] = (done, moves)
                    heapq.heappush(heap, (new_peak, self.count - after.bit_count(), after, new_live))
        raise AssertionError("a topologically ordered graph always has a schedule")

    def _ready(self, done: int) -> list[int]:
        return [k for k in range(self.count) if not done >> k & 1 and not self.l.needs[k] & ~done]

    def _successors(self, done: int, live: int, peak: int) -> list[Move]:
        """(operators run, set after, live after, peak) of each move; a free move stands alone."""
        found: list[Move] = []
        ready = self._ready(done)
        for op in ready:
            during, after = self.l.cost(done, live, op)
            move = ((op,), done | 1 << op, after, max(peak, during))
            if during <= peak and after <= live:
                return [move]
            found.append(move)
        for op in ready:
            if (free := self._free_run(done, live, peak, op)) is not None:
                return [free]
        return found

    def _free_run(self, done: int, live: int, peak: int, op: int) -> Move | None:
        """A run of operators from ``op``, each enabled by the one before, that ends with no more live than it began.

        It may run at once for the same reason as a single free operator, provided that no shorter part of it
        leaves fewer bytes live: whatever part of it another order has done by then, the rest only frees bytes.
        """
        run: list[int] = []
        least, current = live, live
        while True:
            during, current = self.l.cost(done, current, op)
            if during > peak:
                return None
            run.append(op)
            done |= 1 << op
            if current <= least:
                return tuple(run), done, current, peak
            follow = [k for k in range(op + 1, self.count) if self.l.needs[k] >> op & 1 and not self.l.needs[k] & ~done]
            if len(follow) != 1:
                return None
            op = follow[0]

    def _beam(self) -> tuple[int, ...]:
        """A good order of a graph too wide to search: the best ``BEAM`` states of every number of operators done."""
        layers: dict[int, dict[int, tuple[int, int, tuple[int, ...]]]] = {0: {0: (self.floor, 0, ())}}
        for level in range(self.count):
            states = layers.pop(level, {})
            kept = heapq.nsmallest(BEAM, states.items(), key=lambda item: item[1][:2])
            for done, (peak, live, order) in kept:
                for moves, after, new_live, new_peak in self._successors(done, live, peak):
                    target = layers.setdefault(after.bit_count(), {})
                    found = (new_peak, new_live, order + moves)
                    if after not in target or found < target[after]:
                        target[after] = found
        return layers[self.count][self.full][2]

    def _trace(self, came: dict[int, tuple[int, tuple[int, ...]]]) -> tuple[int, ...]:
        parts: list[tuple[int, ...]] = []
        state = self.full
        while state:
            state, moves = came[state]
            parts.append(moves)
        return tuple(op for moves in reversed(parts) for op in moves)
