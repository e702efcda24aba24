"""Naive check of a bit plan against its problem: tables are read row by row, bytes compared pair by pair."""

from __future__ import annotations

from mcuq.errors import CheckError
from mcuq.ir.plans import BitPlan, TensorBits
from mcuq.plan.place import Placement
from mcuq.plan.problem import PlanOp, Problem, Term


def check_plan(problem: Problem, plan: BitPlan, placed: Placement | None) -> None:
    """Raise CheckError unless ``plan`` (placed in an arena, or in the paper's model) solves ``problem``.

    Checked: one entry per tensor with allowed, shared bits and its size; objective; flash and RAM as stated and within
    the limits; order; and no two storages or scratch buffers that live at one step share a byte, except where an
    operator may write its output over an input.
    """
    bits = _check_tensors(problem, plan)
    loss = sum(d.losses[d.choices.index(bits[d.name])] for d in problem.decisions)
    if abs(loss - plan.objective) > 1e-9 * max(1.0, abs(loss)) or plan.bound > plan.objective * (1 + 1e-9) + 1e-12:
        raise CheckError(f"objective {plan.objective} (bound {plan.bound}), expected {loss}")
    _check_flash(problem, plan, bits)
    count = sum(_lookup(cost.term, bits) for cost in problem.instructions)
    most = problem.limits.instructions
    if count != plan.instructions or (most is not None and count > most):
        raise CheckError(f"the plan executes {count} instructions, stated {plan.instructions}, limit {most}")
    if placed is None:
        ram = -(-max(sum(_lookup(c.term, bits) for c in p.costs) for p in problem.peaks) * problem.unit // 8)
    else:
        ram = _arena(problem, plan, placed, bits) + problem.ram_reserve
    if ram != plan.ram_used or ram > problem.limits.ram:
        raise CheckError(f"RAM of the plan is {ram} bytes, stated {plan.ram_used}, limit {problem.limits.ram}")


def _check_tensors(problem: Problem, plan: BitPlan) -> dict[str, int]:
    expected = [name for name, _ in problem.tensors]
    if [t.name for t in plan.tensors] != expected:
        raise CheckError("the plan does not list every tensor once, in order")
    found = {t.name: t for t in plan.tensors}
    bits: dict[str, int] = {}
    for decision in problem.decisions:
        left = list(decision.choices)
        for member in decision.members:
            tensor = found[member.name]
            left = [c for c in left if _means(c, tensor)]
            if not left:
                raise CheckError(
                    f"{tensor.name} has {tensor.bits} bits per {tensor.granularity}, allowed {decision.choices} "
                    "(negative: per layer), or splits its group"
                )
            if dict(member.sizes)[tensor.bits] != tensor.bytes:
                raise CheckError(f"{tensor.name} is stated with {tensor.bytes} bytes")
        bits[decision.name] = left[0]
    return bits


def _means(choice: int, tensor: TensorBits) -> bool:
    """``tensor`` is as ``choice`` says; activations have no granularity."""
    if tensor.kind == "activation":
        return tensor.bits in (choice, -choice) and tensor.granularity == "channel"
    return tensor.bits == (choice if tensor.granularity == "channel" else -choice)


def _lookup(term: Term, bits: dict[str, int]) -> int:
    for key, value in term.table:
        if all(bits[name] == b for name, b in zip(term.decisions, key, strict=True)):
            return value
    raise CheckError(f"the bits of {', '.join(term.decisions)} are no choice of the problem")


def _check_flash(problem: Problem, plan: BitPlan, bits: dict[str, int]) -> None:
    total = problem.flash_constant
    for cost in problem.flash:
        total += _lookup(cost.term, bits)
    for code in problem.code:
        used = not code.uses
        for use in code.uses:
            used = used or all(bits[name] == b for name, b in use)
        total += code.bytes if used else 0
    stated = -(-total * problem.unit // 8)
    if stated != plan.flash_used or stated > problem.limits.flash:
        raise CheckError(f"flash of the plan is {stated} bytes, stated {plan.flash_used}, limit {problem.limits.flash}")


def _arena(problem: Problem, plan: BitPlan, placed: Placement, bits: dict[str, int]) -> int:
    """Arena bytes; checks the order and every pair of buffers."""
    if sorted(plan.order) != sorted(op.name for op in problem.ops) or plan.order != placed.order:
        raise CheckError("the order is not a permutation of the operators")
    step = {name: k for k, name in enumerate(plan.order)}
    rectangles = _rectangles(problem, placed, bits, step)
    for name, _, _, low, high in rectangles:
        if any(low < cut < high for cut in problem.cuts):
            raise CheckError(f"{name} lies on both sides of a cut between RAM regions")
    for i, (name, first, last, low, high) in enumerate(rectangles):
        for other, other_first, other_last, other_low, other_high in rectangles[:i]:
            if first <= other_last and other_first <= last and low < other_high and other_low < high:
                if first == other_last and _shared(problem, name, other, first, other_low - low, plan, bits):
                    continue
                if other_first == last and _shared(problem, other, name, last, low - other_low, plan, bits):
                    continue
                raise CheckError(f"{name} and {other} overlap in steps and addresses")
    return max(-(-high // 4) * 4 for *_, high in rectangles)


def _rectangles(
    problem: Problem, placed: Placement, bits: dict[str, int], step: dict[str, int]
) -> list[tuple[str, int, int, int, int]]:
    """(name, first step, last step, first byte, end byte) of every storage and scratch buffer."""
    found: list[tuple[str, int, int, int, int]] = []
    written: dict[str, int] = {}
    for k, op in enumerate(problem.ops):
        written[op.writes] = min(written.get(op.writes, len(step)), step[op.name])
        for source in problem.ops[:k]:
            if source.writes in op.reads and step[source.name] > step[op.name]:
                raise CheckError(f"{op.name} reads {source.writes} before {source.name} writes it")
    for storage in problem.storages:
        users = [step[op.name] for op in problem.ops if storage.name in op.reads or op.writes == storage.name]
        last = len(step) - 1 if storage.persistent else max(users)
        low = 4 * placed.storages[storage.name]
        found.append((storage.name, written[storage.name], last, low, low + _lookup(storage.size, bits)))
    for op in problem.ops:
        size = _lookup(op.scratch, bits)
        if size:
            low = 4 * placed.scratch[op.name]
            found.append((f"scratch of {op.name}", step[op.name], step[op.name], low, low + size))
    return found


def _shared(problem: Problem, output: str, source: str, at: int, gap: int, plan: BitPlan, bits: dict[str, int]) -> bool:
    """The operator at step ``at`` writes ``output`` over ``source``, ``gap`` bytes behind it, and may do so."""
    op: PlanOp = next(o for o in problem.ops if o.name == plan.order[at])
    if op.writes != output:
        return False
    for take in op.takes:
        if take.storage != source:
            continue
        if gap == 0 and _lookup(take.allowed, bits):
            return True
        if take.distance is not None and gap >= _lookup(take.distance, bits):
            return True
    return False
