"""The planning problem as data: bit decisions, byte costs that depend on them, operators and storages.

A decision's choices are bits; negative ones are those of weights with one step for the layer (``ir.plans.choice_of``).
Solvers, validators and reports read this; no solver is imported here. Every cost is a :class:`Term`: a small
table over the bits of at most three decisions (a convolution's input, weights and output), so that kernels whose
scratch or layout depends on all three need no special case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mcuq.errors import UsageError
from mcuq.ir.plans import BitPlan, Limits, Sensitivity, TensorBits, TensorKind, granularity_of

ByteModel = Literal["mcuq", "paper"]
Assignment = Mapping[str, int]
"""The choice of every decision, by name."""


@dataclass(frozen=True, slots=True)
class Member:
    """A tensor whose bits a decision sets, with its size table (bits, bytes)."""

    layer: str
    kind: TensorKind
    sizes: tuple[tuple[int, int], ...]

    @property
    def name(self) -> str:
        return f"{self.layer}.weight" if self.kind == "weight" else self.layer

    def choice(self, choice: int) -> int:
        """What a decision's ``choice`` means for this tensor: only weights have a granularity."""
        return choice if self.kind == "weight" else abs(choice)

    def at(self, choice: int) -> TensorBits:
        """The tensor under ``choice``. Raises KeyError for bits that are none."""
        own = self.choice(choice)
        return TensorBits(self.name, self.layer, self.kind, abs(own), dict(self.sizes)[abs(own)], granularity_of(own))


@dataclass(frozen=True, slots=True)
class Decision:
    """What is chosen for all ``members`` at once; ``losses[i]`` is the expected loss of ``choices[i]``."""

    name: str
    choices: tuple[int, ...]
    losses: tuple[float, ...]
    members: tuple[Member, ...]

    def loss(self, choice: int) -> float:
        return self.losses[self.choices.index(choice)]

    @property
    def least(self) -> int:
        """The choice of fewest bytes."""
        return min(self.choices, key=lambda choice: (abs(choice), choice))


@dataclass(frozen=True, slots=True)
class Term:
    """A cost that depends on the bits of ``decisions``: rows of (bits of each, value)."""

    decisions: tuple[str, ...]
    table: tuple[tuple[tuple[int, ...], int], ...]

    def value(self, bits: Assignment) -> int:
        """The cost under an assignment."""
        key = tuple(bits[name] for name in self.decisions)
        return next(value for row, value in self.table if row == key)

    @property
    def least(self) -> int:
        return min(value for _, value in self.table)

    @property
    def most(self) -> int:
        return max(value for _, value in self.table)


CONSTANT_ZERO = Term((), (((), 0),))


@dataclass(frozen=True, slots=True)
class Cost:
    """A term with the name of what it is for (a tensor, or an operator's scratch)."""

    name: str
    term: Term


@dataclass(frozen=True, slots=True)
class Take:
    """``storage`` may be overwritten by the operator's output where ``allowed`` is 1, or lie ``distance`` bytes or more
    behind the output's first byte (it must also die there). None: they share no bytes else."""

    storage: str
    allowed: Term
    distance: Term | None = None


@dataclass(frozen=True, slots=True)
class PlanOp:
    """One step: storages read, the storage written, scratch bytes, inputs it may overwrite (spread over, if larger)."""

    name: str
    reads: tuple[str, ...]
    writes: str
    scratch: Term = CONSTANT_ZERO
    takes: tuple[Take, ...] = ()
    spreads: bool = False


@dataclass(frozen=True, slots=True)
class PlanStorage:
    """Arena bytes that ``tensors`` name (one is written, the others are views or parts of it)."""

    name: str
    size: Term
    tensors: tuple[str, ...]
    persistent: bool = False


@dataclass(frozen=True, slots=True)
class Peak:
    """Costs whose sum must not exceed the RAM limit while operator ``name`` runs."""

    name: str
    costs: tuple[Cost, ...]


@dataclass(frozen=True, slots=True)
class Code:
    """Flash of one runtime function, paid once if any of its uses (decision, bits) happens; no uses: always."""

    function: str
    bytes: int
    uses: tuple[tuple[tuple[str, int], ...], ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """All that a plan must decide and obey.

    ``unit`` is the number of bits per unit of flash and RAM terms: 8 (bytes), or 1 (the paper's model, whose bytes
    may be fractional). RAM is either an arena (``ops``, ``storages``; plus ``ram_reserve``) or a list of ``peaks``.
    ``order`` are the operators' names as the graph has them. ``instructions``: predicted, per operator; empty where
    nothing is known of the core. ``cuts``: arena addresses in bytes where a RAM region ends, which nothing straddles.
    """

    decisions: tuple[Decision, ...]
    flash: tuple[Cost, ...]
    code: tuple[Code, ...]
    flash_constant: int
    ops: tuple[PlanOp, ...]
    storages: tuple[PlanStorage, ...]
    peaks: tuple[Peak, ...]
    ram_reserve: int
    limits: Limits
    unit: int
    tensors: tuple[tuple[str, str], ...]
    order: tuple[str, ...]
    instructions: tuple[Cost, ...] = ()
    cuts: tuple[int, ...] = ()

    def decision(self, name: str) -> Decision:
        """The decision called ``name``. Raises KeyError."""
        for decision in self.decisions:
            if decision.name == name:
                return decision
        raise KeyError(name)

    def storage(self, name: str) -> PlanStorage:
        """The storage called ``name``. Raises KeyError."""
        for storage in self.storages:
            if storage.name == name:
                return storage
        raise KeyError(name)

    @property
    def flash_limit(self) -> int:
        """Units left for terms and code."""
        return self.limits.flash * 8 // self.unit - self.flash_constant

    @property
    def ram_limit(self) -> int:
        """Units left for the arena (or for each peak)."""
        return (self.limits.ram - self.ram_reserve) * 8 // self.unit


def objective(problem: Problem, bits: Assignment) -> float:
    """Sum of expected losses."""
    return sum(decision.loss(bits[decision.name]) for decision in problem.decisions)


def flash_bytes(problem: Problem, bits: Assignment) -> int:
    """Flash of an assignment, in bytes (rounded up)."""
    total = problem.flash_constant + sum(cost.term.value(bits) for cost in problem.flash)
    for code in problem.code:
        if not code.uses or any(all(bits[name] == b for name, b in use) for use in code.uses):
            total += code.bytes
    return -(-total * problem.unit // 8)


def executed(problem: Problem, bits: Assignment) -> int:
    """Predicted instructions of one inference; 0 where nothing is known."""
    return sum(cost.term.value(bits) for cost in problem.instructions)


def tensor_bits(problem: Problem, bits: Assignment) -> tuple[TensorBits, ...]:
    """Every tensor with its bits, in the graph's order."""
    found: dict[str, TensorBits] = {}
    for decision in problem.decisions:
        chosen = bits[decision.name]
        for member in decision.members:
            found[member.name] = member.at(chosen)
    return tuple(found[name] for name, _ in problem.tensors)


def assignment_of(problem: Problem, plan: BitPlan) -> dict[str, int]:
    """The decisions that ``plan`` made.

    Raises:
        UsageError: the plan lacks a tensor, splits a group or uses bits that are no choice here.
    """
    known = {t.name: t.choice for t in plan.tensors}
    found: dict[str, int] = {}
    for decision in problem.decisions:
        members = [member for member in decision.members if member.name in known]
        fitting = [c for c in decision.choices if members and all(m.choice(c) == known[m.name] for m in members)]
        if not fitting:
            names = ", ".join(member.name for member in decision.members)
            found_bits = ", ".join(sorted({choice_text(known[member.name]) for member in members}))
            allowed = ", ".join(map(choice_text, decision.choices))
            raise UsageError(f"{names}: the plan has bits {found_bits}, allowed is one of ({allowed})")
        found[decision.name] = fitting[0]
    return found


def choice_text(choice: int) -> str:
    """A choice for people."""
    return f"{-choice} per layer" if choice < 0 else str(choice)


def merge_losses(sensitivity: Sensitivity, members: tuple[Member, ...], bits: tuple[int, ...]) -> tuple[float, ...]:
    """Summed losses of a group for each choice; a tensor the table does not list adds nothing."""
    table = {(e.layer, e.kind, e.bits): e.loss for e in sensitivity.losses}
    return tuple(sum(table.get((m.layer, m.kind, m.choice(b)), 0.0) for m in members) for b in bits)
