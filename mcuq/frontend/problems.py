"""What a model uses and mcuq has not: collected, and told all at once."""

from __future__ import annotations

from dataclasses import dataclass

MAX_LISTED = 50
"""Problems listed in one error."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What has no counterpart, where it stands in the model, what could replace it."""

    what: str
    where: str
    advice: str


def problem_text(problems: list[Problem]) -> str:
    """All problems, one per line; names from files lose what does not print."""
    lines = [f"  {p.what}" + (f" at {p.where}" if p.where else "") + f" -> {p.advice}" for p in problems[:MAX_LISTED]]
    lines = ["".join(c if c.isprintable() else "?" for c in line) for line in lines]
    if len(problems) > MAX_LISTED:
        lines.append(f"  and {len(problems) - MAX_LISTED} more")
    plural = "operator has" if len(problems) == 1 else "operators have"
    return f"{len(problems)} {plural} no counterpart in mcuq:\n" + "\n".join(lines)
