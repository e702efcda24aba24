"""Why nothing fits: the smallest set of tensors that cannot, and the bytes missing per resource."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from ortools.sat.python import cp_model

from mcuq.errors import InfeasibleError
from mcuq.plan.addresses import deterministic_solver
from mcuq.plan.arena import WORD
from mcuq.plan.problem import Assignment, Cost, Problem, executed, flash_bytes
from mcuq.plan.relaxation import (
    Expr,
    Literals,
    bit_literals,
    flash_cost,
    instruction_cost,
    necessary_peaks,
    peak_limit,
    term_cost,
)


class NoPlanError(InfeasibleError):
    """No plan fits. ``tensors`` cannot be stored together; ``missing_flash``/``missing_ram`` are bytes, 0: enough.

    ``missing_instructions``: what the fastest bits execute beyond the limit; ``tensors`` has the dearest operators.
    """

    def __init__(
        self, text: str, tensors: tuple[str, ...], missing_flash: int, missing_ram: int, missing_instructions: int = 0
    ) -> None:
        super().__init__(text)
        self.missing_instructions = missing_instructions
        self.tensors = tensors
        self.missing_flash = missing_flash
        self.missing_ram = missing_ram


def refuse(problem: Problem) -> None:
    """Raise NoPlanError if flash, RAM or instructions fail alone, whatever the losses are."""
    error = explain(problem)
    if error.missing_flash or error.missing_ram or error.missing_instructions:
        raise error


def explain(problem: Problem) -> NoPlanError:
    """The error to raise for a problem that no plan solves (or none was found for).

    Flash and RAM are each minimized alone over the bits still allowed. What already fails alone is named; if neither
    does, the two together or the placement of the arena fail, and the text says so.
    """
    texts: list[str] = []
    tensors: list[str] = []
    missing_flash = missing_ram = 0
    bits = _least_flash(problem)
    used = flash_bytes(problem, bits)
    if used > problem.limits.flash:
        missing_flash = used - problem.limits.flash
        found = _smallest_set(problem.flash, bits, problem.limits.flash, problem.unit, used)
        tensors += found
        texts.append(_text("flash", problem.limits.flash, used, found))
    ram, names = _least_ram(problem)
    if ram > problem.limits.ram:
        missing_ram = ram - problem.limits.ram
        tensors += names
        texts.append(_text("RAM", problem.limits.ram, ram, names))
    if (least := _too_long(problem)) is not None:
        name, size, room = least
        missing_ram = max(missing_ram, size - room)
        tensors.append(name)
        texts.append(f"no region holds {name}: it needs {size} bytes at the fewest bits, the largest takes {room}")
    most, count = problem.limits.instructions, 0
    if most is not None:
        count, names = _least_instructions(problem)
        if count > most:
            tensors += names
            texts.append(
                f"{most} instructions (an estimate) are not enough: the fastest bits allowed take {count}, "
                f"{count - most} too many, most of them in {', '.join(names)}"
            )
    if not texts:
        texts.append(
            f"no plan was found for {problem.limits.flash} bytes of flash and {problem.limits.ram} bytes of RAM"
            f"{'' if most is None else f' and {most} instructions'}, "
            f"although each alone could be met (flash {used}, RAM {ram} bytes at the fewest bits)"
        )
    text = "; ".join(texts) + "; raise the limit, release pinned bits, or use a smaller width or resolution"
    missing = max(0, count - most) if most is not None else 0
    return NoPlanError(text, tuple(tensors), missing_flash, missing_ram, missing)


def _text(resource: str, limit: int, used: int, names: Sequence[str]) -> str:
    return (
        f"{resource} of {limit} bytes cannot hold {', '.join(names)}: at the fewest bits allowed the network needs "
        f"{used} bytes, {used - limit} too many"
    )


def _too_long(problem: Problem) -> tuple[str, int, int] | None:
    """The largest storage if no region of a cut arena holds it: name, least bytes, and what the roomiest region has."""
    if not problem.cuts:
        return None
    ends = [cut for cut in problem.cuts if cut < problem.ram_limit]
    room = max(high - low for low, high in pairwise([0, *ends, problem.ram_limit]))
    size, name = max((storage.size.least, storage.name) for storage in problem.storages)
    return (name, size, room) if size > room else None


def _least_flash(problem: Problem) -> dict[str, int]:
    model = cp_model.CpModel()
    literals = bit_literals(model, problem)
    model.minimize(flash_cost(model, problem, literals))
    return _solved(model, literals)


def least_instructions(problem: Problem) -> dict[str, int]:
    """The bits that execute fewest instructions, whatever their bytes."""
    model = cp_model.CpModel()
    literals = bit_literals(model, problem)
    model.minimize(instruction_cost(model, problem, literals))
    return _solved(model, literals)


def _least_instructions(problem: Problem) -> tuple[int, tuple[str, ...]]:
    """Fewest instructions, and the fewest operators that make up half of them."""
    bits = least_instructions(problem)
    total = executed(problem, bits)
    counts: Counter[str] = Counter()
    for cost in problem.instructions:
        counts[cost.name] += cost.term.value(bits)
    names: list[str] = []
    for name, _ in counts.most_common():
        names.append(name)
        if 2 * sum(counts[n] for n in names) >= total:
            break
    return total, tuple(names)


def _solved(model: cp_model.CpModel, literals: Literals) -> dict[str, int]:
    solver = deterministic_solver(1.0, knapsack=True)
    solver.solve(model)
    return {
        name: next(b for b, literal in row.items() if solver.boolean_value(literal)) for name, row in literals.items()
    }


def _least_ram(problem: Problem) -> tuple[int, tuple[str, ...]]:
    """Least RAM in bytes, and the smallest set of tensors of the operator that needs it."""
    peaks = necessary_peaks(problem)
    model = cp_model.CpModel()
    literals = bit_literals(model, problem)
    top = model.new_int_var(0, sum(c.term.most for p in peaks for c in p.costs), "top")
    for peak in peaks:
        total: Expr = sum(term_cost(model, literals, cost.term) for cost in peak.costs)
        model.add(total <= top)
    model.minimize(top)
    bits = _solved(model, literals)
    worst = max(peaks, key=lambda p: sum(c.term.value(bits) for c in p.costs))
    unit = 8 * WORD if problem.ops else problem.unit
    used = sum(c.term.value(bits) for c in worst.costs)
    names = _smallest_set(worst.costs, bits, peak_limit(problem) * unit // 8, unit, -(-used * unit // 8))
    return -(-used * unit // 8) + problem.ram_reserve, names


def _smallest_set(costs: Sequence[Cost], bits: Assignment, limit: int, unit: int, used: int) -> tuple[str, ...]:
    """Fewest costs that, with everything that is not a cost of ``costs``, exceed ``limit`` bytes: the largest ones."""
    sized = sorted(((c.term.value(bits), c.name) for c in costs), key=lambda pair: (-pair[0], pair[1]))
    rest = used * 8 - sum(size for size, _ in sized) * unit
    chosen: list[str] = []
    for size, name in sized:
        if rest > 8 * limit and chosen:
            break
        rest += size * unit
        chosen.append(name)
    return tuple(chosen)
