"""Which tensors of a fused float graph get bits of their own, which share, and which have no choice."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from mcuq.errors import UsageError
from mcuq.ir.graph import Argmax, Conv2d, Copy, Graph, L2Normalize, MaxPool, Pad, Resample, Reshape, Softmax
from mcuq.ir.plans import Granularity, Sensitivity, choice_of
from mcuq.plan.problem import Decision, Member, merge_losses

BITS = (8, 4, 2)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user fixes. Tensors are named as in bits.json: ``layer`` (activation), ``layer.weight``.

    Attributes:
        pins: bits of single tensors; groups: tensors that must share bits;
        first_last_bits: fewest bits of the first and last layers' weights;
        logits_bits: bits of the network's scores, 8 or 32.
    """

    pins: Mapping[str, int] = field(default_factory=dict[str, int])
    groups: tuple[tuple[str, ...], ...] = ()
    first_last_bits: int = 2
    logits_bits: int = 8


def decide(
    graph: Graph,
    members: Mapping[str, Member],
    sensitivity: Sensitivity,
    wishes: Wishes,
    shared: Iterable[tuple[str, str]],
    *,
    fixed: Mapping[str, tuple[int, ...]],
    steps: Mapping[str, Collection[Granularity]] | None = None,
) -> tuple[tuple[Decision, ...], dict[str, str]]:
    """Decisions, and the decision of every tensor.

    Args:
        members: every tensor by name, in the graph's order. shared: pairs that always share bits.
        fixed: the choices of tensors that have fewer than three. steps: granularities that weights may have, if other
            than one step per channel; weights that share bits share them, too.

    Raises:
        UsageError: an unknown tensor is named, wishes contradict, or the table lacks a tensor that has a choice.
    """
    known = set(members)
    _check_names(known, wishes)
    leader = {name: name for name in members}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    pairs = [*shared, *((group[0], other) for group in wishes.groups for other in group[1:])]
    for a, b in pairs:
        first, second = sorted((find(a), find(b)), key=list(members).index)
        leader[second] = first
    groups: dict[str, list[Member]] = {}
    for name, member in members.items():
        groups.setdefault(find(name), []).append(member)
    limits = _least_weight_bits(graph, wishes.first_last_bits)
    decisions: list[Decision] = []
    for name, group in groups.items():
        bits = _bits(group, wishes.pins, fixed, limits)
        decisions.append(_decision(name, tuple(group), sensitivity, _with_steps(group, bits, steps or {})))
    return tuple(decisions), {name: find(name) for name in members}


def _check_names(known: set[str], wishes: Wishes) -> None:
    named = [*wishes.pins, *(name for group in wishes.groups for name in group)]
    unknown = [name for name in named if name not in known]
    if unknown:
        raise UsageError(
            f"no tensor is called {unknown[0]}; activations are named after their layer, weights <layer>.weight"
        )


def _least_weight_bits(graph: Graph, least: int) -> dict[str, int]:
    convs = graph.convs
    return {f"{op.name}.weight": least for op in (convs[0], convs[-1])} if convs else {}


def _bits(
    group: list[Member], pins: Mapping[str, int], fixed: Mapping[str, tuple[int, ...]], least: Mapping[str, int]
) -> tuple[int, ...]:
    """Bits that all of ``group`` may have. Raises UsageError for none."""
    bits: tuple[int, ...] = BITS
    if any(member.name in fixed for member in group):
        bits = (*BITS, 32)
    for member in group:
        allowed = fixed.get(member.name, BITS)
        bits = tuple(b for b in bits if b in allowed)
    free = bits
    for member in group:
        pinned = pins.get(member.name)
        if pinned is not None:
            bits = tuple(b for b in bits if b == pinned)
        elif not any(m.name in pins for m in group):
            bits = tuple(b for b in bits if b >= least.get(member.name, 0)) or bits
    if not bits:
        names = ", ".join(member.name for member in group)
        wanted = ", ".join(f"{m.name}: {pins[m.name]}" for m in group if m.name in pins) or "nothing"
        raise UsageError(f"{names} share bits and may have one of {free}; {wanted} was asked for")
    return bits


def _with_steps(
    group: list[Member], bits: tuple[int, ...], steps: Mapping[str, Collection[Granularity]]
) -> tuple[int, ...]:
    """Choices: ``bits`` with every granularity that all weights of ``group`` may have."""
    weights = [set(steps.get(member.name, ("channel",))) for member in group if member.kind == "weight"]
    common = set.intersection(*weights) if weights else {"channel"}
    return tuple(choice_of(b, step) for step in ("channel", "layer") if step in common for b in bits)


def _decision(name: str, group: tuple[Member, ...], sensitivity: Sensitivity, choices: tuple[int, ...]) -> Decision:
    losses = merge_losses(sensitivity, group, choices)
    measured = {(e.layer, e.kind, e.bits) for e in sensitivity.losses}
    if len(choices) > 1 and not any(all((m.layer, m.kind, m.choice(c)) in measured for c in choices) for m in group):
        raise UsageError(f"the {sensitivity.method} table has no losses of {group[0].name} at {choices} bits")
    return Decision(name, choices, losses, group)


def fixed_bits(graph: Graph, logits_bits: int) -> dict[str, tuple[int, ...]]:
    """Tensors without a choice: inputs, outputs and what softmax and argmax read.

    With ``logits_bits`` 32 the scores (a final convolution, also under reshapes and argmax) take 32 bits.
    """
    fixed: dict[str, tuple[int, ...]] = {op.name: (8,) for op in graph.inputs}
    wide: set[str] = set()
    for op in reversed(graph.ops):
        readers = graph.consumers(op.name)
        ends = all(isinstance(r, Argmax) or (isinstance(r, Reshape) and r.name in wide) for r in readers)
        if isinstance(op, Conv2d | Reshape) and ends and (readers or op.name in graph.outputs):
            wide.add(op.name)
        read_at_8 = any(isinstance(r, Softmax | Argmax) for r in readers)
        if isinstance(op, Argmax) or (op.name in wide and logits_bits == 32):
            fixed[op.name] = (32,)
        elif op.name in graph.outputs or read_at_8 or isinstance(op, Softmax | L2Normalize):
            fixed[op.name] = (8,)
    return fixed


def sharing(graph: Graph) -> list[tuple[str, str]]:
    """Tensors that store their input's codes unchanged: what moves codes must share bits, pools and pads had better."""
    moving = (op for op in graph if isinstance(op, Reshape | Copy | MaxPool | Pad))
    chosen = (op for op in graph if isinstance(op, Resample) and op.chooses)
    return [(op.inputs[0], op.name) for op in (*moving, *chosen)]
