"""Order and addresses of an integer network's buffers: the arena as small as it can be, with its certificate.

Four steps; the search ends once the arena equals the proved lower bound:

1. the order of least liveness peak (``schedule``; exact unless the graph is very wide), the first bound: the least,
   over all orders, of the largest sum of bytes in use at one step;
2. first fit and hill climbing on that order (``place``);
3. windows of steps, solved over all their orders and addresses: they raise the bound and lower the arena (``windows``);
4. CP-SAT on the whole with the order fixed, then free for up to ``MAX_FREE_ORDER`` operators (``addresses``).

What may share bytes: a reshape that moves no byte is a view of its input; elementwise operators overwrite an
input that dies there and whose rows are not shorter, convolutions where their kernel reads ahead of what it writes,
the network's input included (a caller who wants to read the input again after a run keeps a copy). Beyond that an
output may share bytes with an input that dies there and begins far enough behind it (``target.sharing``): a layer
whose rows grow reads the end of what it fills. Convolutions that only a concatenation reads write into it; any other
concatenation spreads over an input that dies and copies the rest. Scratch lives one step.
An arena in several RAM regions is one address space with cuts, which nothing straddles; its least top uses the first
region before the second.
"""

from __future__ import annotations

from mcuq.ir.integer import IntegerGraph
from mcuq.ir.plans import Buffer, MemoryPlan
from mcuq.plan.addresses import solve_addresses
from mcuq.plan.arena import WORD, ArenaProblem, arena_problem, words
from mcuq.plan.place import SCRATCH, Placement, blocks, place, slides_of, take_overs
from mcuq.plan.schedule import schedule
from mcuq.plan.validate import check_memory
from mcuq.plan.windows import tighten
from mcuq.target.fusion import readers, reads
from mcuq.target.placement import stored

MAX_FREE_ORDER = 60
"""Largest number of operators for which CP-SAT may also move operators. Longer graphs keep the order of least
liveness peak, which is already optimal for the bound; ``MemoryPlan`` shows any gap that is left."""


def plan_memory(
    graph: IntegerGraph, core: str, *, alignment: int = 16, effort: float = 4.0, cuts: tuple[int, ...] = ()
) -> MemoryPlan:
    """Plan the arena of ``graph`` with the kernels of ``core``.

    Args:
        alignment: alignment that the arena itself will have; offsets inside are multiples of 4.
        effort: limit of each CP-SAT search, deterministic seconds.
        cuts: addresses where one RAM region ends and the next begins (``Board.cuts``).

    Returns:
        Plan with ``arena_bytes >= lower_bound``; equal means proved minimal. Validated before it is returned.

    Raises:
        CheckError: the validator found a fault in the plan (a defect of the planner).
    """
    problem = arena_problem(graph, core, cuts)
    placement, bound = pack(problem, effort=effort)
    plan = MemoryPlan(
        placement.order,
        _buffers(graph, problem, placement),
        WORD * placement.top,
        WORD * bound,
        alignment,
        cuts,
    )
    check_memory(graph, core, plan)
    return plan


def pack(problem: ArenaProblem, *, effort: float = 4.0) -> tuple[Placement, int]:
    """Best placement found and the proved lower bound of its top, both in words."""
    ordered = schedule(problem)
    best = greedy(problem, ordered.order, ordered.bound)
    bound = ordered.bound
    if best.top > bound:
        best, bound = tighten(problem, best, bound, effort=effort / 2)
    free = len(problem.ops) <= MAX_FREE_ORDER
    for free_order in (False, True):
        if best.top <= bound or (free_order and not free):
            break
        found = solve_addresses(problem, best, bound, free_order=free_order, effort=effort)
        if found is not None and found.top < best.top:
            best = found
        if found is not None and found.optimal and free_order:
            bound = max(bound, found.top)
    return best, bound


def greedy(problem: ArenaProblem, order: tuple[str, ...], target: int) -> Placement:
    """Addresses for ``order`` by first fit and hill climbing, ending at ``target`` words.

    First every input that may be overwritten in place is; then it need not be, and may also lie apart.
    """
    best = _fitted(problem, order, take_overs(problem, order), target)
    if best.top > target and any(op.distances for op in problem.ops):
        best = min(best, _fitted(problem, order, {}, target), key=lambda placement: placement.top)
    return best


def _fitted(problem: ArenaProblem, order: tuple[str, ...], overs: dict[str, str], target: int) -> Placement:
    items, slides = blocks(problem, order, overs), slides_of(problem, order, overs)
    offsets, top = place(items, target, slides, cuts=problem.word_cuts)
    storages: dict[str, int] = {}
    scratch: dict[str, int] = {}
    for item, offset in zip(items, offsets, strict=True):
        for name in item.names:
            if name.startswith(SCRATCH):
                scratch[name.removeprefix(SCRATCH)] = offset
            else:
                storages[name] = offset
    same = {out: s.source for out, s in slides.items() if s.in_place and storages[out] == storages[s.source]}
    shared = {out: s.source for out, s in slides.items() if out not in same and _meet(problem, storages, out, s.source)}
    return Placement(order, storages, scratch, overs | same, top, top <= target, shared)


def _meet(problem: ArenaProblem, at: dict[str, int], a: str, b: str) -> bool:
    """Two storages have common bytes."""
    sizes = words(problem.storage(a).size), words(problem.storage(b).size)
    return at[a] < at[b] + sizes[1] and at[b] < at[a] + sizes[0]


def _buffers(graph: IntegerGraph, problem: ArenaProblem, placement: Placement) -> tuple[Buffer, ...]:
    """Buffers in execution order, each operator's scratch after its output."""
    step = {name: k for k, name in enumerate(placement.order)}
    owner = {tensor: s.name for s in problem.storages for tensor in s.tensors}
    found: list[Buffer] = []
    starts: dict[str, int] = {}
    for name in placement.order:
        starts.setdefault(stored(graph, name), step[name])
    for name in placement.order:
        op = graph.op(name)
        last = max([step[name], *(step[c.name] for c in readers(graph, name))])
        if name in graph.outputs:
            last = len(placement.order) - 1
        storage = owner[name]
        view = storage != name
        alias = op.inputs[0] if view else _overwritten(graph, owner, placement, name)
        offset = WORD * placement.storages[storage]
        if stored(graph, name) == name:
            found.append(Buffer(name, offset, op.output.bytes, starts[name], last, alias_of=alias))
        if name in placement.scratch:
            size = next(o.scratch for o in problem.ops if o.name == name)
            found.append(Buffer(name, WORD * placement.scratch[name], size, step[name], step[name], "scratch"))
    return tuple(found)


def _overwritten(graph: IntegerGraph, owner: dict[str, str], placement: Placement, name: str) -> str:
    """Input with which ``name`` shares bytes, or ""."""
    source = placement.overs.get(name) or placement.slides.get(name)
    return next((i for i in reads(graph, graph.op(name)) if owner[i] == source), "") if source else ""
