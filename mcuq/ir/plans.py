"""What planning decides: bits of every tensor, order of operators, addresses in the arena."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TensorKind = Literal["weight", "activation"]
Status = Literal["OPTIMAL", "FEASIBLE", "INFEASIBLE"]
Granularity = Literal["channel", "layer"]
"""Steps of weights: one per output channel, or one for the layer, whose batch norm is then folded into the weights."""


def choice_of(bits: int, granularity: Granularity = "channel") -> int:
    """Bits and granularity as one number, for tables: the bits, negated for one step per layer."""
    return -bits if granularity == "layer" else bits


def granularity_of(choice: int) -> Granularity:
    """Inverse of :func:`choice_of`; the bits are ``abs(choice)``."""
    return "layer" if choice < 0 else "channel"


@dataclass(frozen=True, slots=True)
class TensorBits:
    """Bits of one tensor. ``name`` is ``<layer>.weight`` or ``<layer>`` for the activation that ``layer`` writes."""

    name: str
    layer: str
    kind: TensorKind
    bits: int
    bytes: int
    granularity: Granularity = "channel"

    @property
    def choice(self) -> int:
        """Bits and granularity as one number (:func:`choice_of`)."""
        return choice_of(self.bits, self.granularity)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a plan, bytes: ``flash`` for weights, parameters and code, ``ram`` for arena, stack and statics.

    ``instructions``: predicted instructions of one inference (an estimate); None is no limit.
    """

    flash: int
    ram: int
    instructions: int | None = None


@dataclass(frozen=True, slots=True)
class BitPlan:
    """Bits of every weight and activation in execution order, with the solver's certificate.

    ``objective`` is expected loss (unit of the sensitivity table), ``bound`` its proved lower bound (equal when
    OPTIMAL). ``quant_types``/``fold_types`` (layer, choice) are set by the paper's rules only. ``instructions``: of one
    inference, predicted; 0 where nothing is known of the core, or in the paper's model.
    """

    tensors: tuple[TensorBits, ...]
    status: Status
    objective: float
    bound: float
    flash_used: int
    ram_used: int
    limits: Limits
    method: str
    order: tuple[str, ...] = ()
    quant_types: tuple[tuple[str, str], ...] = ()
    fold_types: tuple[tuple[str, str], ...] = ()
    instructions: int = 0

    def weight_bits(self, layer: str) -> int:
        """Bits of ``layer``'s weights. Raises KeyError."""
        return self._bits(layer, "weight")

    def steps_per_layer(self, layer: str) -> bool:
        """``layer``'s weights have one step for the whole layer."""
        return any(t.layer == layer and t.granularity == "layer" for t in self.tensors)

    def activation_bits(self, tensor: str) -> int:
        """Bits of activation ``tensor``. Raises KeyError."""
        return self._bits(tensor, "activation")

    def _bits(self, layer: str, kind: TensorKind) -> int:
        for tensor in self.tensors:
            if tensor.layer == layer and tensor.kind == kind:
                return tensor.bits
        raise KeyError(f"{kind} of {layer}")


@dataclass(frozen=True, slots=True)
class Buffer:
    """Bytes [offset, offset + size) of the arena, in use from step ``first`` to ``last`` inclusive.

    Steps index ``MemoryPlan.order``. ``kind`` scratch buffers live one step. Tensors that alias another
    tensor's bytes (reshape, in-place) have overlapping addresses and ``alias_of`` set.
    """

    name: str
    offset: int
    size: int
    first: int
    last: int
    kind: Literal["activation", "scratch"] = "activation"
    alias_of: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes [start, start + size) of the arena, in the ``region``-th of the RAM regions that hold it."""

    region: int
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Order of operators and the address of every buffer; ``lower_bound``: bytes that no plan can do without
    (liveness, or more where windows of steps prove it), so that an arena equal to it is the smallest there is.

    ``cuts``: addresses where one RAM region ends and the next begins, ascending. No buffer lies on both sides of one.
    """

    order: tuple[str, ...]
    buffers: tuple[Buffer, ...]
    arena_bytes: int
    lower_bound: int
    alignment: int = 16
    cuts: tuple[int, ...] = ()

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The arena by regions, those without a buffer left out."""
        if not self.cuts:
            return (Block(0, 0, self.arena_bytes),)
        found: list[Block] = []
        for region, start in enumerate((0, *self.cuts)):
            end = self.cuts[region] if region < len(self.cuts) else self.arena_bytes
            ends = [b.offset + b.size for b in self.buffers if start <= b.offset < end]
            if ends:
                found.append(Block(region, start, (max(ends) - start + 3) & ~3))
        return tuple(found)

    def buffer(self, name: str, kind: str = "activation") -> Buffer:
        """The buffer of tensor ``name`` (or of operator ``name``'s scratch). Raises KeyError."""
        for buffer in self.buffers:
            if buffer.name == name and buffer.kind == kind:
                return buffer
        raise KeyError(f"{kind} {name}")


@dataclass(frozen=True, slots=True)
class TensorLoss:
    """Expected loss of storing one tensor with ``bits`` bits instead of float, others untouched.

    Negative ``bits``: weights with one step for the layer (:func:`choice_of`).
    """

    layer: str
    kind: TensorKind
    bits: int
    loss: float


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Single-swap losses of every weight and activation tensor for bits in {8, 4, 2}, of weights perhaps per layer too.

    ``method`` names the measure ("kl", "fit", "sqnr", "data-free"); losses are >= 0 and sum to the objective.
    """

    method: str
    losses: tuple[TensorLoss, ...]

    def loss(self, layer: str, kind: TensorKind, bits: int) -> float:
        """Raises KeyError when the tensor was not measured."""
        for entry in self.losses:
            if (entry.layer, entry.kind, entry.bits) == (layer, kind, bits):
                return entry.loss
        raise KeyError(f"{kind} of {layer} at {bits} bits")
