"""Live progress of trainings on a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class TrainingBar:
    """Shows ``on_step`` as a bar with the remaining time and ``on_epoch`` as a line; keeps all epochs.

    Implements the callbacks of ``mcuq.quant.train`` without importing it (and torch).
    """

    def __init__(self, console: Console | None) -> None:
        self.epochs: list[Any] = []
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console or Console(stderr=True, quiet=True),
            transient=True,
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> TrainingBar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def stage(self, text: str) -> None:
        """A line above the bar: what happens now."""
        self._bar.console.print(text, markup=False, highlight=False)

    def on_step(self, step: Any) -> None:
        name = {"float": "float training", "qat": "quantization-aware training"}[step.phase]
        if step.phase not in self._tasks:
            self._tasks[step.phase] = self._bar.add_task(name, total=step.epochs * step.steps)
        text = f"{name}, epoch {step.epoch + 1}/{step.epochs}, loss {step.loss:.3f}"
        self._bar.update(self._tasks[step.phase], completed=step.epoch * step.steps + step.step + 1, description=text)

    def on_epoch(self, result: Any) -> None:
        self.epochs.append(result)
        held_out = "" if result.accuracy is None else f", held out {100 * result.accuracy:.2f} %"
        self.stage(
            f"  {result.phase} epoch {result.epoch + 1}: loss {result.loss:.4f}, "
            f"train {100 * result.train_accuracy:.2f} %{held_out}, {result.seconds:.1f} s"
        )
