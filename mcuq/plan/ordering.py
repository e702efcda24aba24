"""Order of branches as literals: which of two operators runs first, where the graph leaves it open.

With these, liveness at every operator is part of the bit model: a storage is live while an operator runs if its
writer came first and some reader (or the end, for outputs) comes later. Chains have no such pairs, a residual
block with a convolution on its shortcut has one per operator of its main branch.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations, product

from ortools.sat.python import cp_model
from ortools.sat.python.cp_model_helper import Literal

from mcuq.plan.problem import PlanStorage, Problem

MAX_PAIRS = 1500
"""Largest number of unordered pairs that are modelled; wider graphs keep the bytes that every order needs."""
MAX_TRIPLES = 20_000


class Ordering:
    """Literals ``before(a, b)`` for operators of ``problem``, closed under transitivity as far as sizes allow."""

    def __init__(self, model: cp_model.CpModel, problem: Problem, ancestors: Mapping[str, set[str]]) -> None:
        self.model = model
        self.ancestors = ancestors
        names = [op.name for op in problem.ops]
        open_pairs = [(a, b) for a, b in combinations(names, 2) if a not in ancestors[b]]
        self.complete = len(open_pairs) <= MAX_PAIRS
        self.pairs: dict[tuple[str, str], Literal] = {}
        if not self.complete:
            return
        for a, b in open_pairs:
            literal = model.new_bool_var(f"{a} before {b}")
            self.pairs[a, b], self.pairs[b, a] = literal, ~literal
        for a, b in self.pairs:
            for c in names:
                if b in ancestors[c] and (a, c) in self.pairs:
                    model.add_implication(self.pairs[a, b], self.pairs[a, c])
        self._triples(names)

    def _triples(self, names: list[str]) -> None:
        rivals = {name: [other for other in names if (name, other) in self.pairs] for name in names}
        count = 0
        for a in names:
            for b, c in combinations(rivals[a], 2):
                if (b, c) not in self.pairs or count > MAX_TRIPLES:
                    continue
                count += 1
                self.model.add_bool_or(~self.pairs[a, b], ~self.pairs[b, c], self.pairs[a, c])
                self.model.add_bool_or(~self.pairs[a, c], ~self.pairs[c, b], self.pairs[a, b])

    def before(self, a: str, b: str) -> Literal | bool:
        """Whether ``a`` runs before ``b``: known, or a literal."""
        if a in self.ancestors[b]:
            return True
        if a == b or b in self.ancestors[a]:
            return False
        return self.pairs[a, b]

    def live(self, storage: PlanStorage, writers: list[str], users: list[str], op: str) -> cp_model.IntVar | None:
        """Literal that is true if ``storage`` is live while ``op`` runs; None when it never can be.

        ``writers``: its users that may write it first. ``op`` is no user, and some order leaves it dead.
        """
        written = [(name, before) for name in writers if (before := self.before(name, op)) is not False]
        reads = [("", True)] if storage.persistent else [(name, self.before(op, name)) for name in users]
        later = [(name, after) for name, after in reads if after is not False]
        if not written or not later:
            return None
        literal = self.model.new_bool_var(f"{storage.name} live at {op}")
        for (writer, before), (user, after) in product(written, later):
            if writer != user:
                known = [~c for c in (before, after) if not isinstance(c, bool)]
                self.model.add_bool_or(*known, literal)
        return literal
