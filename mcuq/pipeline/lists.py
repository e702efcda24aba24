"""What mcuq knows and what it finds: boards, models, the doctor."""

from __future__ import annotations

from mcuq import zoo
from mcuq.pipeline.doctor import examine
from mcuq.pipeline.outcomes import ListOutcome
from mcuq.target.board import load_boards


def boards() -> ListOutcome:
    """Every board with its limits and the QEMU machine that runs its images."""
    rows = tuple(
        (b.name, b.part, b.core, b.limits.flash, b.limits.ram, b.emulation.machine, ", ".join(b.aliases))
        for b in load_boards()
    )
    columns = ("name", "part", "core", "flash", "ram", "machine", "aliases")
    return ListOutcome(
        "boards", columns, rows, "Boards (bytes of flash and of the arena's RAM region)", spare=("part", "machine")
    )


def models() -> ListOutcome:
    """Every model of the zoo."""
    rows = tuple(
        (m.name, "x".join(map(str, m.input_shape)), m.classes, m.parameters, ", ".join(m.options), m.summary)
        for m in zoo.models()
    )
    columns = ("name", "input", "classes", "parameters", "options", "summary")
    return ListOutcome("models", columns, rows, "Models (H x W x C)", spare=("options",))


def doctor() -> ListOutcome:
    """Compilers, emulators and packages, and what to install."""
    return examine()
