"""The arena problem: operators that read and write storages of fixed size, and what may share bytes.

A *storage* is a run of arena bytes that one or more tensors name: a reshape that keeps every byte in place
writes into its input's storage. A storage lives from the step that writes it first to the last step that reads
it; one that holds a graph output lives to the end. An operator marked ``in_place`` may write its output over
an input that dies there: same address, no more bytes (runtime_c/include/mcuq/mcuq.h; ``Kernel.in_place``). One that
``spreads`` grows over it: same address, no fewer bytes. Convolutions placed in a concatenation all write its
storage (``target.placement``).
"""

from __future__ import annotations

from dataclasses import dataclass

from mcuq.ir.integer import (
    IntegerGraph,
    IntegerOp,
    QAdd,
    QArgmax,
    QAvgPool,
    QConcat,
    QConv2d,
    QCopy,
    QExtremum,
    QInput,
    QL2Normalize,
    QMaxPool,
    QMul,
    QPad,
    QPrelu,
    QResample,
    QRescale,
    QReshape,
    QSoftmax,
    QTable,
    reshape_is_alias,
)
from mcuq.numerics import row_bytes
from mcuq.target.cost import conv_case
from mcuq.target.fusion import AddFusion, PoolFusion, fusion_into, overwrites_input, reads, steps
from mcuq.target.kernels import select
from mcuq.target.placement import is_placed, spreadable, stored
from mcuq.target.runtime import step_scratch

WORD = 4
"""Addresses of tensors and scratch are multiples of 4: scratch and 32-bit tensors need it, fast kernels like it."""


def words(size: int) -> int:
    """``size`` bytes as 4-byte words, rounded up."""
    return -(-size // WORD)


@dataclass(frozen=True, slots=True)
class ArenaOp:
    """One step: reads storages, writes one, uses ``scratch`` bytes meanwhile.

    ``in_place``: storages among ``reads`` whose bytes the output may take over if this is their last step and the
    output's first; it is no larger then, or no smaller if the operator ``spreads``.
    """

    name: str
    reads: tuple[str, ...]
    writes: str
    scratch: int = 0
    in_place: tuple[str, ...] = ()
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
            tuple(dict.fromkeys(owner[name] for name in _overwritable(graph, op, core))),
            isinstance(op, QConcat),
        )
        for op in steps(graph)
    )
    return ArenaProblem(ops, storages, cuts)


def _overwritable(graph: IntegerGraph, op: IntegerOp, core: str) -> tuple[str, ...]:
    """Inputs that ``op`` may overwrite: row by row where its rows are no longer, as its kernel says, or spread."""
    fusion = fusion_into(graph, op.name)
    match op:
        case QAdd() | QMul() | QExtremum() | QTable() | QPrelu() | QRescale():
            shape = op.output.shape
            longest = row_bytes(shape[2], op.output.bits)
            inputs = (fusion.residual,) if isinstance(fusion, AddFusion) else op.inputs
            whole = (n for n in inputs if graph.tensor(n).shape == shape)  # a product repeats smaller ones
            return tuple(n for n in whole if longest <= row_bytes(shape[2], graph.tensor(n).bits))
        case QConv2d() if stored(graph, op.name) != op.name:
            return ()
        case QConv2d():
            return op.inputs if select(conv_case(graph, op), core).in_place else ()
        case QConcat() if is_placed(graph, op.name):
            return ()
        case QConcat():
            return tuple(n for n in spreadable(graph, op) if graph.tensor(n).bits <= op.output.bits)
        case QMaxPool() | QAvgPool() if isinstance(fusion, PoolFusion):
            conv = graph.op(fusion.conv)
            assert isinstance(conv, QConv2d)
            source = graph.tensor(conv.inputs[0])
            bits = (source.bits, op.output.bits)
            return conv.inputs if overwrites_input(fusion, conv, source.shape, op.output.shape, bits) else ()
        case QInput() | QMaxPool() | QAvgPool() | QPad() | QReshape():
            return ()
        case QCopy() | QResample() | QL2Normalize() | QSoftmax() | QArgmax():
            return ()
