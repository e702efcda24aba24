"""Bounds and placements of long networks, window by window.

Where the first k operators of every order are the same ones, no order mixes what lies before with what follows: a
*boundary*. Between two boundaries lies a window, an arena problem of its own: what is live when it begins is there from
the start, what is read after it stays to the end. Its least top is a lower bound of the whole arena, and sees what
liveness does not: the distances of several steps add up, and storages that live long have one address. Windows of a
few operators are solved exactly, over all their orders; that is how the arena of a network of hundreds is proved.
The same windows lower a placement that is above the bound, with what crosses their boundaries held where it is.
"""

from __future__ import annotations

from dataclasses import replace

from mcuq.plan.addresses import ancestors, predecessors, solve_addresses
from mcuq.plan.arena import ArenaOp, ArenaProblem, words
from mcuq.plan.place import Placement, lifetimes

WIDTHS = (12, 24, 48, 96)
"""Operators per window, at most (or what lies between two neighbouring boundaries); narrow ones are solved quickly."""

MAX_FREE = 40
"""Operators of the largest window that is solved over all its orders. Longer ones keep theirs, and prove nothing."""

HELD = "held "
"""Prefix of the names of operators that stand for the writers, before a window, of what is live when it begins."""

Span = tuple[int, int]


def tighten(problem: ArenaProblem, best: Placement, bound: int, *, effort: float) -> tuple[Placement, int]:
    """``best`` and ``bound`` (words), improved until they meet or every window short of the whole was tried.

    ``effort``: limit of each search, deterministic seconds.
    """
    edges = boundaries(problem, best.order)
    for width in WIDTHS:
        spans = _spans(edges, width)
        if (0, len(best.order)) in spans:
            break
        for span in spans:
            if span[1] - span[0] <= MAX_FREE:
                bound = _raised(problem, best, bound, span, effort)
        for span in spans:
            best = _lowered(problem, best, bound, span, effort)
        if best.top <= bound:
            break
    return best, bound


def boundaries(problem: ArenaProblem, order: tuple[str, ...]) -> list[int]:
    """Every k, ascending, such that all topological orders begin with the same k operators; 0 and all included."""
    before = ancestors(predecessors(problem))
    common = set(order)
    found = [len(order)]
    for k in reversed(range(len(order))):
        common &= before[order[k]]
        if len(common) == k:
            found.append(k)
    return found[::-1]


def window(problem: ArenaProblem, order: tuple[str, ...], span: Span) -> ArenaProblem:
    """Steps ``span`` (half-open) of ``order`` as a problem of their own."""
    begin, end = span
    lives = lifetimes(problem, order)
    live = [s for s in problem.storages if lives[s.name][0] < end and lives[s.name][1] >= begin]
    held = (ArenaOp(HELD + s.name, (), s.name) for s in live if lives[s.name][0] < begin)
    inside = set(order[begin:end])
    return ArenaProblem(
        (*held, *(op for op in problem.ops if op.name in inside)),
        tuple(replace(s, persistent=s.persistent or lives[s.name][1] >= end) for s in live),
        problem.cuts,
    )


def _spans(edges: list[int], width: int) -> list[Span]:
    """Windows from boundary to boundary, each about half over the one before; none longer than both limits."""
    spans: list[Span] = []
    k = 0
    while k < len(edges) - 1:
        begin = edges[k]
        last = max(j for j in range(k + 1, len(edges)) if j == k + 1 or edges[j] <= begin + width)
        if edges[last] - begin <= max(width, MAX_FREE):
            spans.append((begin, edges[last]))
        if last == len(edges) - 1:
            break
        k = max(k + 1, max(j for j in range(k, last) if edges[j] <= begin + width // 2))
    return spans


def _raised(problem: ArenaProblem, best: Placement, bound: int, span: Span, effort: float) -> int:
    """``bound``, or the least top of the window if that is proved to be larger."""
    part = window(problem, best.order, span)
    held = _restricted(best, part, span)
    if held.top <= bound:
        return bound
    found = solve_addresses(part, held, bound, free_order=True, effort=effort)
    return found.top if found is not None and found.optimal else bound


def _lowered(problem: ArenaProblem, best: Placement, bound: int, span: Span, effort: float) -> Placement:
    """``best`` with the steps of ``span`` placed anew between the storages that live on both sides of a boundary."""
    part = window(problem, best.order, span)
    held = _restricted(best, part, span)
    if held.top <= bound:
        return best
    writers = {op.name for op in part.ops}
    fixed = {s.name: best.storages[s.name] for s in part.storages if s.persistent or HELD + s.name in writers}
    free = span[1] - span[0] <= MAX_FREE
    found = solve_addresses(part, held, bound, free_order=free, effort=effort, fixed=fixed)
    return best if found is None or found.top >= held.top else _merged(problem, best, part, found, span)


def _restricted(best: Placement, part: ArenaProblem, span: Span) -> Placement:
    """What ``best`` says of a window."""
    held = [op for op in part.ops if op.name.startswith(HELD)]
    order = (*(op.name for op in held), *best.order[slice(*span)])
    fresh = {s.name for s in part.storages} - {op.writes for op in held}
    storages = {s.name: best.storages[s.name] for s in part.storages}
    scratch = {op.name: best.scratch[op.name] for op in part.ops if op.scratch}
    overs = {output: source for output, source in best.overs.items() if output in fresh}
    slides = {output: source for output, source in best.slides.items() if output in fresh}
    return Placement(order, storages, scratch, overs, _top(part, storages, scratch), False, slides)


def _merged(problem: ArenaProblem, best: Placement, part: ArenaProblem, found: Placement, span: Span) -> Placement:
    """``best`` with the steps of ``span`` as ``found`` has them."""
    begin, end = span
    inside = tuple(name for name in found.order if not name.startswith(HELD))
    fresh = {s.name for s in part.storages} - {op.writes for op in part.ops if op.name.startswith(HELD)}
    storages, scratch = best.storages | found.storages, best.scratch | found.scratch
    overs = {output: source for output, source in best.overs.items() if output not in fresh} | found.overs
    slides = {output: source for output, source in best.slides.items() if output not in fresh} | found.slides
    order = (*best.order[:begin], *inside, *best.order[end:])
    return Placement(order, storages, scratch, overs, _top(problem, storages, scratch), False, slides)


def _top(problem: ArenaProblem, storages: dict[str, int], scratch: dict[str, int]) -> int:
    tops = [storages[s.name] + words(s.size) for s in problem.storages]
    return max([*tops, *(scratch[op.name] + words(op.scratch) for op in problem.ops if op.scratch)])
