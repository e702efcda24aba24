"""Addresses for a fixed order: first fit over several orderings, then swaps that lower the top (hill climbing).

Works on *blocks*: storages joined by in-place operators stand at one address, so a block is a list of
(first step, last step, words) that share their offset. All sizes are 4-byte words, steps are inclusive.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mcuq.plan.arena import ArenaProblem, words

Part = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Block:
    """Storages at one address: ``parts`` (first step, last step, words), one per name of ``names``."""

    names: tuple[str, ...]
    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        return max(part[2] for part in self.parts)

    @property
    def first(self) -> int:
        return self.parts[0][0]

    @property
    def last(self) -> int:
        return self.parts[-1][1]


@dataclass(frozen=True, slots=True)
class Placement:
    """Order, word offsets of storages and of scratch (by operator), hand-overs (output -> input), top in words."""

    order: tuple[str, ...]
    storages: dict[str, int]
    scratch: dict[str, int]
    overs: dict[str, str]
    top: int
    optimal: bool


SCRATCH = "scratch of "
"""Prefix of the names of scratch blocks."""


def lifetimes(problem: ArenaProblem, order: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """First and last step of every storage."""
    step = {name: k for k, name in enumerate(order)}
    spans: dict[str, tuple[int, int]] = {}
    for op in problem.ops:
        for name in (*op.reads, op.writes):
            first, last = spans.get(name, (step[op.name], step[op.name]))
            spans[name] = min(first, step[op.name]), max(last, step[op.name])
    end = len(order) - 1
    return {s.name: (spans[s.name][0], end if s.persistent else spans[s.name][1]) for s in problem.storages}


def take_overs(problem: ArenaProblem, order: tuple[str, ...]) -> dict[str, str]:
    """Output storage -> input storage it overwrites: the largest input that dies at the operator."""
    spans = lifetimes(problem, order)
    step = {name: k for k, name in enumerate(order)}
    chosen: dict[str, str] = {}
    for op in problem.ops:
        here = step[op.name]
        dying = [s for s in op.in_place if spans[s][1] == here and s != op.writes]
        dying = [s for s in dying if not problem.storage(s).persistent]
        if dying:
            chosen[op.writes] = max(dying, key=lambda s: problem.storage(s).size)
    return chosen


def blocks(problem: ArenaProblem, order: tuple[str, ...], overs: dict[str, str]) -> list[Block]:
    """Blocks of storages (joined by ``overs``) and of scratch, for ``order``."""
    spans = lifetimes(problem, order)
    chains: dict[str, list[str]] = {}
    root: dict[str, str] = {}
    for storage in sorted(problem.storages, key=lambda s: spans[s.name]):
        source = overs.get(storage.name)
        root[storage.name] = root[source] if source else storage.name
        chains.setdefault(root[storage.name], []).append(storage.name)
    found = [
        Block(tuple(names), tuple((*spans[n], words(problem.storage(n).size)) for n in names))
        for names in chains.values()
    ]
    step = {name: k for k, name in enumerate(order)}
    for op in problem.ops:
        if op.scratch:
            here = step[op.name]
            found.append(Block((SCRATCH + op.name,), ((here, here, words(op.scratch)),)))
    return found


def place(
    items: list[Block], target: int, *, rounds: int = 400, seed: int = 0, cuts: tuple[int, ...] = ()
) -> tuple[list[int], int]:
    """Offsets of ``items`` and their top, in words; stops as soon as the top is at most ``target``.

    Deterministic: every choice comes from ``seed``. No block lies on both sides of one of ``cuts``.
    """
    clashes = _clashes(items)
    keys: tuple[Callable[[int], object], ...] = (
        lambda k: (-items[k].size, items[k].first),
        lambda k: (-items[k].size * (items[k].last - items[k].first + 1), items[k].first),
        lambda k: (items[k].first, -items[k].size),
        lambda k: (-(items[k].last - items[k].first), -items[k].size),
        lambda k: (-items[k].last, -items[k].size),
    )
    best: tuple[int, list[int], list[int]] | None = None
    for key in keys:
        order = sorted(range(len(items)), key=key)  # type: ignore[arg-type]
        offsets, top = _first_fit(items, clashes, order, cuts)
        if best is None or top < best[0]:
            best = top, order, offsets
        if top <= target:
            return offsets, top
    assert best is not None
    return _climb(items, clashes, best, target, rounds, seed, cuts)


def _climb(
    items: list[Block],
    clashes: list[list[int]],
    best: tuple[int, list[int], list[int]],
    target: int,
    rounds: int,
    seed: int,
    cuts: tuple[int, ...],
) -> tuple[list[int], int]:
    """Move a block of the top, or one it rests against, earlier in the order; keep what is not worse."""
    rng = random.Random(seed)
    top, order, offsets = best
    best_top, best_offsets = top, offsets
    for _ in range(rounds):
        high = [k for k in order if offsets[k] + items[k].size == top]
        culprit = rng.choice(high)
        movable = [culprit, *clashes[culprit]]
        trial = list(order)
        moved = rng.choice(movable)
        trial.remove(moved)
        trial.insert(rng.randrange(len(trial) // 2 + 1), moved)
        new_offsets, new_top = _first_fit(items, clashes, trial, cuts)
        if new_top <= top or rng.random() < 0.02:
            top, order, offsets = new_top, trial, new_offsets
        if new_top < best_top:
            best_top, best_offsets = new_top, new_offsets
        if best_top <= target:
            break
    return best_offsets, best_top


def _clashes(items: list[Block]) -> list[list[int]]:
    """For each block, the others that live at some common step."""
    found: list[list[int]] = [[] for _ in items]
    for a in range(len(items)):
        for b in range(a):
            if items[a].first <= items[b].last and items[b].first <= items[a].last:
                found[a].append(b)
                found[b].append(a)
    return found


def _first_fit(
    items: list[Block], clashes: list[list[int]], order: Iterable[int], cuts: tuple[int, ...]
) -> tuple[list[int], int]:
    offsets = [-1] * len(items)
    top = 0
    for k in order:
        standing = (other for other in clashes[k] if offsets[other] >= 0)
        spans = [span for other in standing for span in _blocked(items, k, other, offsets)]
        taken = sorted([*spans, *((cut - items[k].size + 1, cut) for cut in cuts)])
        offset = 0
        for low, high in taken:
            if offset < high and low <= offset:
                offset = high
            elif low > offset:
                break
        offsets[k] = offset
        top = max(top, offset + items[k].size)
    return offsets, top


def _blocked(items: list[Block], k: int, other: int, offsets: list[int]) -> list[tuple[int, int]]:
    """Half-open ranges of offsets of block ``k`` that collide with ``other`` where it stands."""
    base = offsets[other]
    return [
        (base - size + 1, base + other_size)
        for first, last, size in items[k].parts
        for other_first, other_last, other_size in items[other].parts
        if first <= other_last and other_first <= last
    ]
