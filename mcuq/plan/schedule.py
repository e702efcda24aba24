"""Operator order with the smallest liveness peak: best-first search over sets of executed operators.

The state of a schedule is the set of operators done; what is live follows from the set alone, so that two
orders of one set are one state and the search is over down-sets of the graph (Liberis and Lane, arXiv
1910.05110, search the same space by dynamic programming). Two rules keep it small:

* a state is expanded in order of the peak reached so far, never below the bound that some single operator needs
  in any order, so that the first complete schedule popped is optimal;
* an operator that can run now without raising the peak, and that leaves no more bytes live than before, runs at
  once: moving it forward in any other completion never raises a peak, because what it frees stays freed.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from mcuq.plan.arena import ArenaProblem, words


@dataclass(frozen=True, slots=True)
class Schedule:
    """Operator names in order, peak live words of that order, and a proved lower bound over all orders."""

    order: tuple[str, ...]
    peak: int
    bound: int


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
        self.needs = [0] * len(problem.ops)
        position: dict[str, int] = {}
        for k, op in enumerate(problem.ops):
            for name in op.reads:
                self.readers[index[name]] |= 1 << k
            self.writers[self.writes[k]] |= 1 << k
            position[op.name] = k
        self._link(index, position)

    def _link(self, index: dict[str, int], position: dict[str, int]) -> None:
        """Predecessors of each operator: the writers of what it reads that come before it.

        A view's readers wait for the view itself; they read the storage, whose writers are its first operator
        and its views, and a view never waits for itself or for a later view.
        """
        del position
        for k in range(len(self.problem.ops)):
            for storage in self.reads[k]:
                self.needs[k] |= self.writers[storage] & ((1 << k) - 1)

    def cost(self, done: int, live: int, op: int) -> tuple[int, int]:
        """(words live while ``op`` runs after set ``done`` with ``live`` words, words live after it)."""
        target = self.writes[op]
        after = done | 1 << op
        dead = [s for s in self.reads[op] if self._dead(s, after) and s != target]
        fresh = 0 if self.writers[target] & done else self.size[target]
        takes_over = fresh and any(s in dead for s in self.in_place[op])
        during = live + self.scratch[op] + (0 if takes_over else fresh)
        live = live + fresh - sum(self.size[s] for s in dead)
        if self._dead(target, after):
            live -= self.size[target]
        return during, live

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


def schedule(problem: ArenaProblem, *, max_states: int = 60_000) -> Schedule:
    """The order of least liveness peak; exact when the search ends before ``max_states`` states.

    Beyond that the rest is completed greedily, and ``bound`` is the least peak any open state could still reach:
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
        self.floor = max(self._alone(k) for k in range(self.count))
        self.max_states = max_states

    def _alone(self, op: int) -> int:
        """Words that ``op`` needs in any order: what it reads, what it writes, its scratch."""
        used = {*self.l.reads[op], self.l.writes[op]}
        total = self.l.scratch[op] + sum(self.l.size[s] for s in used)
        if self.l.in_place[op] and self.l.writes[op] not in self.l.reads[op]:
            total -= self.l.size[self.l.writes[op]]
        return total

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
                tail = self._greedy(done, live)
                came[self.full] = (done, tail)
                return self._trace(came), peak
            for moves, after, new_live, new_peak in self._successors(done, live, peak):
                if new_peak < best.get(after, new_peak + 1):
                    best[after] = new_peak
                    came[after] = (done, moves)
                    heapq.heappush(heap, (new_peak, self.count - after.bit_count(), after, new_live))
        raise AssertionError("a topologically ordered graph always has a schedule")

    def _ready(self, done: int) -> list[int]:
        return [k for k in range(self.count) if not done >> k & 1 and not self.l.needs[k] & ~done]

    def _successors(self, done: int, live: int, peak: int) -> list[tuple[tuple[int, ...], int, int, int]]:
        """(operators run, set after, live after, peak) of each move; a free move stands alone."""
        found: list[tuple[tuple[int, ...], int, int, int]] = []
        for op in self._ready(done):
            during, after = self.l.cost(done, live, op)
            move = ((op,), done | 1 << op, after, max(peak, during))
            if during <= peak and after <= live:
                return [move]
            found.append(move)
        return found

    def _greedy(self, done: int, live: int) -> tuple[int, ...]:
        """Completion that takes the operator with the least peak, then the fewest live words, each time."""
        order: list[int] = []
        while done != self.full:
            costs = [(*self.l.cost(done, live, op), op) for op in self._ready(done)]
            _, live, op = min(costs)
            order.append(op)
            done |= 1 << op
        return tuple(order)

    def _trace(self, came: dict[int, tuple[int, tuple[int, ...]]]) -> tuple[int, ...]:
        parts: list[tuple[int, ...]] = []
        state = self.full
        while state:
            state, moves = came[state]
            parts.append(moves)
        return tuple(op for moves in reversed(parts) for op in moves)
