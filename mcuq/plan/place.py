"""Addresses for a fixed order: first fit over several orderings, then swaps that lower the top (hill climbing).

Works on *blocks*: storages joined by in-place operators stand at one address, so a block is a list of
(first step, last step, words) that share their offset. Where an output may share bytes with an input that lies behind
its first byte (a *slide*), the two blocks keep that distance instead of staying apart. All sizes are 4-byte words,
steps are inclusive.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from mcuq.plan.arena import ArenaProblem, words

Part = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Slide:
    """An output may share bytes with ``source``, which begins ``distance`` words or more behind it, or (``in_place``)
    with it."""

    source: str
    distance: int
    in_place: bool


Slides = Mapping[str, Slide]
"""By output storage."""


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
    """Order, word offsets of storages and of scratch (by operator), hand-overs in place and slides (output -> input),
    top in words."""

    order: tuple[str, ...]
    storages: dict[str, int]
    scratch: dict[str, int]
    overs: dict[str, str]
    top: int
    optimal: bool
    slides: dict[str, str] = field(default_factory=dict[str, str])


Clashes = list[dict[int, list[tuple[int, int]]]]

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
    """Output storage -> input storage it overwrites in place: the largest input that dies at the operator."""
    dying = _dying(problem, order)
    chosen: dict[str, str] = {}
    for op in problem.ops:
        over = [s for s in op.in_place if s in dying[op.name]]
        if over:
            chosen[op.writes] = max(over, key=lambda s: problem.storage(s).size)
    return chosen


def slides_of(problem: ArenaProblem, order: tuple[str, ...], overs: Mapping[str, str]) -> Slides:
    """For outputs that take over no input: the one that may share most bytes with it, of those that die there."""
    dying = _dying(problem, order)
    size = {s.name: words(s.size) for s in problem.storages}
    chosen: dict[str, Slide] = {}
    for op in problem.ops:
        far, output = dict(op.distances), size[op.writes]
        ways = [Slide(s, far.get(s, output), s in op.in_place) for s in (*op.in_place, *far) if s in dying[op.name]]
        if ways and op.writes not in overs:
            chosen[op.writes] = min(ways, key=lambda w: (_beyond(w, size[w.source], output), -size[w.source]))
    return chosen


def _beyond(way: Slide, source: int, output: int) -> int:
    """Words that the output needs beside its input."""
    return max(output - source, 0 if way.in_place else way.distance)


def _dying(problem: ArenaProblem, order: tuple[str, ...]) -> dict[str, set[str]]:
    """For each operator the storages that it is the last to use, and does not write."""
    spans = lifetimes(problem, order)
    step = {name: k for k, name in enumerate(order)}
    kept = {s.name for s in problem.storages if s.persistent}
    return {
        op.name: {s for s in op.reads if spans[s][1] == step[op.name] and s != op.writes and s not in kept}
        for op in problem.ops
    }


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
    items: list[Block], target: int, slides: Slides, *, rounds: int = 400, seed: int = 0, cuts: tuple[int, ...] = ()
) -> tuple[list[int], int]:
    """Offsets of ``items`` and their top, in words; stops as soon as the top is at most ``target``.

    Deterministic: every choice comes from ``seed``. No block lies on both sides of one of ``cuts``.
    """
    clashes = _clashes(items, slides)
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
    clashes: Clashes,
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


def _clashes(items: list[Block], slides: Slides) -> Clashes:
    """For each block the others that live at some common step, with the offsets from them that it must not have."""
    found: Clashes = [{} for _ in items]
    for a in range(len(items)):
        for b in range(a):
            if items[a].first <= items[b].last and items[b].first <= items[a].last:
                spans = [span for one, two in _meetings(items[a], items[b]) for span in _apart(one, two, slides)]
                if spans:
                    found[a][b] = spans
                    found[b][a] = [(1 - high, 1 - low) for low, high in spans]
    return found


def _meetings(a: Block, b: Block) -> Iterable[tuple[tuple[str, int], tuple[str, int]]]:
    """Name and words of every two parts that live at some common step."""
    for name, (first, last, size) in zip(a.names, a.parts, strict=True):
        for other, (other_first, other_last, other_size) in zip(b.names, b.parts, strict=True):
            if first <= other_last and other_first <= last:
                yield (name, size), (other, other_size)


def _apart(a: tuple[str, int], b: tuple[str, int], slides: Slides) -> list[tuple[int, int]]:
    """Offsets of ``a`` less that of ``b`` at which they collide, half-open."""
    (name, size), (other, other_size) = a, b
    if name in slides and slides[name].source == other:
        return _beside(slides[name], 1 - min(slides[name].distance, size), other_size)
    if other in slides and slides[other].source == name:
        return _beside(slides[other], 1 - size, min(slides[other].distance, other_size))
    return [(1 - size, other_size)]


def _beside(slide: Slide, low: int, high: int) -> list[tuple[int, int]]:
    return [span for span in ((low, 0), (1, high)) if span[0] < span[1]] if slide.in_place else [(low, high)]


def _first_fit(
    items: list[Block], clashes: Clashes, order: Iterable[int], cuts: tuple[int, ...]
) -> tuple[list[int], int]:
    offsets = [-1] * len(items)
    top = 0
    for k in order:
        spans = [
            (offsets[other] + low, offsets[other] + high)
            for other, apart in clashes[k].items()
            if offsets[other] >= 0
            for low, high in apart
        ]
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
