"""Live progress of trainings on a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mcuq.pipeline.tables import say

NAMES = {"float": "float training"}


class TrainingBar:
    """Shows ``on_step`` as a bar with the remaining time and ``on_epoch`` as a line; tells ``listeners`` both.

    Implements the callbacks of ``mcuq.quant.train`` without importing it (and torch).
    """

    def __init__(self, console: Console | None) -> None:
        self.listeners: tuple[Any, ...] = ()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console or Console(stderr=True, quiet=True),
            transient=True,
        )
        self._tasks: dict[str, Any] = {}
        self._epochs = 0

    def __enter__(self) -> TrainingBar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def stage(self, text: str) -> None:
        """A line above the bar: what happens now."""
        say(self._bar.console, text)

    def on_step(self, step: Any) -> None:
        self._epochs = step.epochs
        name = NAMES.get(step.phase, "quantization-aware training")
        if step.phase not in self._tasks:
            self._tasks[step.phase] = self._bar.add_task(name, total=step.epochs * step.steps)
        text = f"{name}, epoch {step.epoch + 1}/{step.epochs}, loss {step.loss:.3f}"
        self._bar.update(self._tasks[step.phase], completed=step.epoch * step.steps + step.step + 1, description=text)
        for listener in self.listeners:
            listener.on_step(step)

    def on_epoch(self, result: Any) -> None:
        held_out = "" if result.accuracy is None else f", held out {100 * result.accuracy:.2f} %"
        left = (self._epochs - result.epoch - 1) * result.seconds
        self.stage(
            f"  {result.phase} epoch {result.epoch + 1}/{self._epochs}: loss {result.loss:.4f}, "
            f"train {100 * result.train_accuracy:.2f} %{held_out}, {result.seconds:.1f} s"
            + (f", {duration(left)} left" if left > 0 else "")
        )
        for listener in self.listeners:
            listener.on_epoch(result)


def duration(seconds: float) -> str:
    """In the two largest units: 42 s, 3 min 20 s, 2 h 5 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
