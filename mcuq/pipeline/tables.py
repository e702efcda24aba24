"""Tables and lines for people."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table


def table(title: str, *columns: str, texts: tuple[str, ...] = (), wrapped: tuple[str, ...] = ()) -> Table:
    """A table without rows: numbers stand right, ``texts`` left; only ``wrapped`` columns break in narrow terminals."""
    found = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True)
    for name in columns:
        left = name in texts or name in wrapped
        found.add_column(name, justify="left" if left else "right", no_wrap=name not in wrapped, overflow="fold")
    return found


def say(console: Console, text: str) -> None:
    """A line as it is: names in brackets are no markup, and the terminal breaks it, so that paths can be copied."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def percent(value: float | None) -> str:
    """A share as 12.34 %, a dash for None."""
    return "-" if value is None else f"{100 * value:.2f} %"
