"""The arena problem: operators that read and write storages of fixed size, and what may share bytes.

A *storage* is a run of arena bytes that one or more tensors name: a reshape that keeps every byte in place
writes into its input's storage. A storage lives from the step that writes it first to the last step that reads
it; one that holds a graph output lives to the end. An operator marked ``in_place`` may write its output over
an input that dies there: same address, no more bytes (runtime_c/include/mcuq/mcuq.h; ``Kernel.in_place``). One that
``spreads`` grows over it: same address, no fewer bytes. Convolutions placed in a concatenation all write its
storage (``target.placement``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mcuq.ir.integer import IntegerGraph, IntegerOp, QConcat, QConv2d, QReshape, reshape_is_alias
from mcuq.target.cost import conv_case
from mcuq.target.fusion import reads, steps
from mcuq.target.kernels import select
from mcuq.target.placement import is_placed, spreadable, stored
from mcuq.target.runtime import step_scratch
from mcuq.target.sharing import Overlap, overlap

WORD = 4
"""Addresses of tensors and scratch are multiples of 4: scratch and 32-bit tensors need it, fast kernels like it."""


def words(size: int) -> int:
    """``size`` bytes as 4-byte words, rounded up."""
    return -(-size // WORD)


Distance = tuple[str, int]
"""A storage, and the fewest words from an output's first byte to its first byte."""


@dataclass(frozen=True, slots=True)
class ArenaOp:
    """One step: reads storages, writes one, uses ``scratch`` bytes meanwhile.

    ``in_place``: storages among ``reads`` whose bytes the output may take over if this is their last step and the
    output's first; it is no larger then, or no smaller if the operator ``spreads``. ``distances``: those that may
    lie, on the same condition, so many words behind the output's first byte, or more, and share bytes with it.
    """

    name: str
    reads: tuple[str, ...]
    writes: str
    scratch: int = 0
    in_place: tuple[str, ...] = ()
    distances: tuple[Distance, ...] = ()
    spreads: bool = False


@dataclass(frozen=True, slots=True)
class Storage:
    """``size`` bytes; ``tensors`` are the names it bears (one is written, the others are views or parts of it)."""

    name: str
    size: int
    tensors: tuple[str, ...]
    persistent: bool = False


@dataclass(frozen=True, slots=True)
class ArenaProblem:
    """Operators in a topological order, the storages they use.

    ``cuts``: addresses in bytes where a RAM region ends. No storage and no scratch lies on both sides of one.
    """

    ops: tuple[ArenaOp, ...]
    storages: tuple[Storage, ...]
    cuts: tuple[int, ...] = ()

    @property
    def word_cuts(self) -> tuple[int, ...]:
        return tuple(cut // WORD for cut in self.cuts)

    def storage(self, name: str) -> Storage:
        """The storage called ``name``. Raises KeyError."""
        for storage in self.storages:
            if storage.name == name:
                return storage
        raise KeyError(name)


def arena_problem(graph: IntegerGraph, core: str, cuts: tuple[int, ...] = ()) -> ArenaProblem:
    """The arena problem of an integer network with the kernels of ``core``; ``cuts`` as :class:`ArenaProblem` says."""
    owner: dict[str, str] = {}
    tensors: dict[str, list[str]] = {}
    for op in steps(graph):
        view = isinstance(op, QReshape) and reshape_is_alias(graph.tensor(op.inputs[0]), op.output)
        owner[op.name] = owner[op.inputs[0]] if view else stored(graph, op.name)
        tensors.setdefault(owner[op.name], []).append(op.name)
    kept = {owner[name] for name in graph.outputs}
    storages = tuple(
        Storage(name, graph.tensor(name).bytes, tuple(members), name in kept) for name, members in tensors.items()
    )
    ops = tuple(
        ArenaOp(
            op.name,
            tuple(dict.fromkeys(owner[name] for name in reads(graph, op))),
            owner[op.name],
            step_scratch(op, graph, core),
            *_shared(graph, op, owner, core),
            isinstance(op, QConcat),
        )
        for op in steps(graph)
    )
    return ArenaProblem(ops, storages, cuts)


def _shared(
    graph: IntegerGraph, op: IntegerOp, owner: dict[str, str], core: str
) -> tuple[tuple[str, ...], tuple[Distance, ...]]:
    """Storages that ``op`` may overwrite in place, and those that may lie behind its output's first byte."""
    if stored(graph, op.name) != op.name or is_placed(graph, op.name):
        return (), ()
    if isinstance(op, QConcat):
        spread = (n for n in spreadable(graph, op) if graph.tensor(n).bits <= op.output.bits)
        return tuple(dict.fromkeys(owner[name] for name in spread)), ()
    kernel = select(conv_case(graph, op), core) if isinstance(op, QConv2d) else None
    found: dict[str, list[Overlap | None]] = {}
    for name in reads(graph, op):
        bits = graph.tensor(name).bits, op.output.bits
        found.setdefault(owner[name], []).append(overlap(graph, op, name, bits, kernel))
    over = tuple(name for name, ways in found.items() if any(way and way.in_place for way in ways))
    far = {name: furthest(ways) for name, ways in found.items()}
    size = words(op.output.bytes)
    behind = ((name, words(least)) for name, least in far.items() if least is not None)
    return over, tuple((name, least) for name, least in behind if least < size)


def furthest(ways: Iterable[Overlap | None]) -> int | None:
    """The distance that suits all readings of a storage, in bytes; None if there is none."""
    distances = [way.distance if way else None for way in ways]
    known = [distance for distance in distances if distance is not None]
    return max(known) if len(known) == len(distances) else None
