"""What each command found: a JSON document for programs, a table for people.

The documents are the public interface of ``--json``; their keys are described in docs/CLI.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mcuq.ir.bits_file import tensor_row
from mcuq.ir.plans import BitPlan
from mcuq.pipeline.settings import UNLIMITED
from mcuq.pipeline.tables import percent, say, table
from mcuq.pipeline.wishes import exceeds
from mcuq.plan.problem import choice_text

if TYPE_CHECKING:
    from mcuq.build.hotspots import Loop


SHOWN = 16
"""Instructions of the hottest loop that people see."""
WIDE = 100
COLUMNS = ("layer", "output", "w bits", "w bytes", "a bits", "a bytes")


def _used(used: int, limit: int) -> dict[str, int]:
    return {"used": used, "limit": limit}


def _of(used: int, limit: int, most: int) -> str:
    """``used`` bytes and their limit, unless that is ``most``: none was given."""
    return f"{used:,} bytes" if limit >= most else f"{used:,} of {limit:,} bytes"


def _title(plan: BitPlan) -> str:
    if plan.method == "exact":
        return "Bits, proved optimal" if plan.status == "OPTIMAL" else "Bits, best found"
    return f"Bits, {plan.method}"


@dataclass(frozen=True, slots=True)
class SolveOutcome:
    """Bits of every tensor with the certificate."""

    plan: BitPlan
    shapes: dict[str, str]
    file: str
    message: str = ""
    latency_ms: float | None = None
    """Of the predicted instructions at one per clock of the board: an estimate."""

    def document(self) -> dict[str, Any]:
        plan = self.plan
        solved = plan.status != "INFEASIBLE"
        return {
            "status": plan.status,
            "method": plan.method,
            "message": self.message,
            "objective": plan.objective if solved else None,
            "bound": plan.bound if solved else None,
            "flash": _used(plan.flash_used, plan.limits.flash),
            "ram": _used(plan.ram_used, plan.limits.ram),
            "instructions": {"used": plan.instructions or None, "limit": plan.limits.instructions},
            "latency_ms": None if self.latency_ms is None else round(self.latency_ms, 3),
            "tensors": [tensor_row(tensor) for tensor in plan.tensors],
        }

    def show(self, console: Console) -> None:
        plan = self.plan
        if plan.status == "INFEASIBLE":
            say(console, f"INFEASIBLE: {self.message}")
            return
        found = table(_title(plan), *COLUMNS, texts=COLUMNS[:2])
        rows: dict[str, list[str]] = {}
        for t in plan.tensors:
            row = rows.setdefault(t.layer, [t.layer, self.shapes.get(t.layer, ""), "", "", "", ""])
            at = 2 if t.kind == "weight" else 4
            row[at], row[at + 1] = choice_text(t.choice), f"{t.bytes:,}"
        for row in rows.values():
            found.add_row(*row)
        console.print(found)
        if plan.method == "exact":
            say(console, f"expected loss {plan.objective:.6g}; proved: at least {plan.bound:.6g}")
        flash, ram = plan.limits.flash, plan.limits.ram
        say(
            console,
            f"flash {_of(plan.flash_used, flash, UNLIMITED.flash)}, RAM {_of(plan.ram_used, ram, UNLIMITED.ram)}",
        )
        if plan.instructions:
            most = "" if plan.limits.instructions is None else f" of {plan.limits.instructions:,}"
            time = "" if self.latency_ms is None else f", {self.latency_ms:.2f} ms at one per clock"
            say(console, f"estimate: {plan.instructions:,}{most} instructions{time}")
        if self.file:
            say(console, f"bits written to {self.file}")


@dataclass(frozen=True, slots=True)
class ParetoOutcome:
    """Optimal plans along one resource, and other methods' plans in the same byte model."""

    resource: str
    points: tuple[BitPlan, ...]
    references: tuple[BitPlan, ...]
    picture: str

    def document(self) -> dict[str, Any]:
        def entry(plan: BitPlan) -> dict[str, Any]:
            return {
                "method": plan.method,
                "status": plan.status,
                "objective": plan.objective,
                "flash": plan.flash_used,
                "ram": plan.ram_used,
                "instructions": plan.instructions or None,
            }

        return {
            "over": self.resource,
            "points": [entry(plan) for plan in self.points],
            "references": [entry(plan) for plan in self.references],
            "picture": self.picture,
        }

    def show(self, console: Console) -> None:
        columns = ("method", "status", "flash", "RAM", "instructions (estimate)", "expected loss")
        found = table(f"Least expected loss over {self.resource}", *columns, texts=columns[:2])
        for plan in (*self.points, *self.references):
            counts = (f"{n:,}" for n in (plan.flash_used, plan.ram_used, plan.instructions))
            found.add_row(plan.method, plan.status, *counts, f"{plan.objective:.6g}")
        console.print(found)
        if self.picture:
            say(console, f"picture: {self.picture}")


@dataclass(frozen=True, slots=True)
class TrainOutcome:
    """Accuracies of a finished run and its plan."""

    run: str
    solve: SolveOutcome
    accuracy: dict[str, float | None]
    seconds: float
    promised: tuple[int, int, int] | None = None
    """Flash, RAM and instructions of the final integer network as the limits count them; None for the paper's bytes."""
    top5: dict[str, float | None] = field(default_factory=dict[str, float | None])
    """Of the same networks as ``accuracy``; None where there are no more than five classes."""

    @property
    def fits(self) -> bool:
        """False when retraining moved ranges so far that another kernel, larger than the limits allow, is needed."""
        limits = self.solve.plan.limits
        return self.promised is None or not exceeds(*self.promised, limits)

    def document(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "fits": self.fits,
            "accuracy": self.accuracy,
            "top5": self.top5,
            "seconds": round(self.seconds, 1),
            "plan": self.solve.document(),
        }

    def show(self, console: Console) -> None:
        self.solve.show(console)
        found = table("Accuracy on the held-out split", "network", "top-1", "top-5", texts=("network",))
        for name, value in self.accuracy.items():
            found.add_row(name, percent(value), percent(self.top5.get(name)))
        console.print(found)
        if self.promised is not None and not self.fits:
            say(
                console,
                f"the network needs {self.promised[0]:,} bytes of flash, {self.promised[1]:,} of RAM and "
                f"{self.promised[2]:,} instructions (an estimate), more than the "
                "limits: ranges moved in training; train again with limits lower by the difference",
            )
        say(console, f"run saved in {self.run}, pictures in {self.run}/report.html")
        say(console, "next: mcuq emit, mcuq verify, mcuq profile")


@dataclass(frozen=True, slots=True)
class EmitOutcome:
    """Files written, and bytes promised and measured."""

    folder: str
    board: str
    files: tuple[str, ...]
    flash: tuple[int, int | None]
    ram: tuple[int, int | None]
    stack: int | None
    items: tuple[tuple[str, int, int | None], ...]

    def document(self) -> dict[str, Any]:
        return {
            "folder": self.folder,
            "board": self.board,
            "files": list(self.files),
            "flash": {"promised": self.flash[0], "measured": self.flash[1]},
            "ram": {"promised": self.ram[0], "measured": self.ram[1]},
            "stack": {"bound": self.stack},
            "items": [{"name": n, "promised": p, "measured": m} for n, p, m in self.items],
        }

    def show(self, console: Console) -> None:
        found = table(f"Image for {self.board}, bytes", "", "promised", "measured", texts=("",))
        for name, promised, measured in (*self.items, ("flash", *self.flash), ("ram", *self.ram)):
            found.add_row(name, f"{promised:,}", "-" if measured is None else f"{measured:,}")
        console.print(found)
        if self.stack is not None:
            say(console, f"stack of one inference: at most {self.stack:,} bytes")
        say(console, f"{len(self.files)} files in {self.folder}; how to use them: {self.folder}/README.md")


@dataclass(frozen=True, slots=True)
class VerifyOutcome:
    """Bytes that differ between device and oracle, and accuracies on the samples run."""

    target: str
    samples: int
    mismatching_bytes: int
    compared_bytes: int
    accuracy: dict[str, float | None]
    top5: dict[str, float | None]
    difference: str

    def document(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "samples": self.samples,
            "mismatching_bytes": self.mismatching_bytes,
            "compared_bytes": self.compared_bytes,
            "accuracy": self.accuracy,
            "top5": self.top5,
        }

    def show(self, console: Console) -> None:
        verdict = "bit-exact" if not self.mismatching_bytes else f"DIFFERENT: {self.difference}"
        say(
            console,
            f"{self.target}: {self.samples} samples, {self.mismatching_bytes} of {self.compared_bytes:,} "
            f"output bytes differ: {verdict}",
        )
        for name, value in self.accuracy.items():
            five = self.top5.get(name)
            say(console, f"  {name:8s}{percent(value)}" + ("" if five is None else f", top-5 {percent(five)}"))


@dataclass(frozen=True, slots=True)
class ProfiledLayer:
    name: str
    kernel: str
    instructions: int
    macs: int
    bytes: int


@dataclass(frozen=True, slots=True)
class ProfileOutcome:
    """Executed instructions under QEMU: whole, per layer, by kind and by function, and the hottest innermost loops."""

    board: str
    core: str
    instructions: int
    layers: tuple[ProfiledLayer, ...]
    mix: tuple[tuple[str, int], ...] = ()
    functions: tuple[tuple[str, int], ...] = ()
    loops: tuple[Loop, ...] = ()

    def document(self) -> dict[str, Any]:
        return {
            "board": self.board,
            "core": self.core,
            "instructions": self.instructions,
            "layers": [
                {"name": x.name, "kernel": x.kernel, "instructions": x.instructions, "macs": x.macs, "bytes": x.bytes}
                for x in self.layers
            ],
            "mix": dict(self.mix),
            "functions": dict(self.functions),
            "loops": [
                {"where": x.where, "turns": x.turns, "instructions": x.instructions, "code": list(x.code)}
                for x in self.loops
            ],
        }

    def show(self, console: Console) -> None:
        self._show_layers(console)
        say(console, f"one inference: {self.instructions:,} instructions")
        if self.mix:
            shares = ", ".join(f"{kind} {self._share(count)}" for kind, count in self.mix)
            say(console, f"of them {shares}")
        if self.loops:
            self._show_loops(console)

    def _share(self, instructions: int) -> str:
        return f"{100 * instructions / max(1, self.instructions):.1f} %"

    def _show_loops(self, console: Console) -> None:
        columns = ("loop", "turns", "instructions a turn", "share")
        found = table("Hottest innermost loops", *columns, texts=columns[:1])
        for x in self.loops:
            turn = f"{x.instructions / max(1, x.turns):.1f}"
            found.add_row(x.where, f"{x.turns:,}", turn, self._share(x.instructions))
        console.print(found)
        code = self.loops[0].code
        rest = (f"... {len(code) - SHOWN} more; --json has all",) if len(code) > SHOWN else ()
        say(console, "the first of them:\n  " + "\n  ".join((*code[:SHOWN], *rest)))

    def _show_layers(self, console: Console) -> None:
        columns = ("layer", "kernel", "instructions", "share", "per MAC")
        sizes = ("MACs", "output bytes") if console.width >= WIDE else ()
        title = f"Executed instructions on {self.core} (QEMU; not cycles)"
        found = table(title, *columns, *sizes, wrapped=columns[:2])
        for x in self.layers:
            ratio = f"{x.instructions / x.macs:.2f}" if x.macs else "-"
            cells = (x.name, x.kernel.replace("mcuq_", ""), f"{x.instructions:,}", self._share(x.instructions), ratio)
            found.add_row(*cells, *(f"{n:,}" for n in (x.macs, x.bytes)[: len(sizes)]))
        console.print(found)


@dataclass(frozen=True, slots=True)
class ListOutcome:
    """A plain table: boards, models, findings of the doctor."""

    key: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    title: str
    healthy: bool = True
    spare: tuple[str, ...] = ()
    """Columns that narrow terminals do without."""

    def document(self) -> dict[str, Any]:
        return {self.key: [dict(zip(self.columns, row, strict=True)) for row in self.rows], "ok": self.healthy}

    def show(self, console: Console) -> None:
        shown = [name for name in self.columns if console.width >= WIDE or name not in self.spare]
        columns = {name: [row[self.columns.index(name)] for row in self.rows] for name in shown}
        texts = tuple(name for name in shown if all(isinstance(v, str | bool) for v in columns[name]))
        wrapped = tuple(name for name in texts[1:] if any(" " in str(v) for v in columns[name]))
        found = table(self.title, *shown, texts=texts, wrapped=wrapped)
        for row in zip(*columns.values(), strict=True):
            found.add_row(*map(_cell, row))
        console.print(found)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """Everything of one run in one table."""

    train: TrainOutcome
    emit: EmitOutcome
    verify: VerifyOutcome
    profile: ProfileOutcome
    pictures: tuple[str, ...]

    @property
    def mismatching_bytes(self) -> int:
        return self.verify.mismatching_bytes

    def document(self) -> dict[str, Any]:
        return {
            "train": self.train.document(),
            "emit": self.emit.document(),
            "verify": self.verify.document(),
            "profile": self.profile.document(),
            "pictures": list(self.pictures),
        }

    def show(self, console: Console) -> None:
        title = f"Handwritten digits on {self.emit.board} ({self.profile.core} under QEMU)"
        found = table(title, "", "value", texts=("",))
        accuracy = {**self.train.accuracy, "device": self.verify.accuracy["device"]}
        for name, value in accuracy.items():
            found.add_row(f"accuracy, {name}", percent(value))
        exact = f"{self.verify.mismatching_bytes} of {self.verify.compared_bytes:,}"
        found.add_row("output bytes that differ, device and oracle", exact)
        for name, (promised, measured) in (("flash", self.emit.flash), ("RAM", self.emit.ram)):
            found.add_row(f"{name} promised", f"{promised:,} bytes")
            found.add_row(f"{name} measured in the ELF", "-" if measured is None else f"{measured:,} bytes")
        found.add_row("stack bound", f"{self.emit.stack:,} bytes")
        found.add_row("executed instructions per inference", f"{self.profile.instructions:,}")
        limits = self.train.solve.plan.limits
        found.add_row("limits given", f"flash {limits.flash:,}, RAM {limits.ram:,} bytes")
        console.print(found)
        for picture in self.pictures:
            say(console, f"picture: {picture}")
