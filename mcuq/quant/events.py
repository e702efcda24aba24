"""Event files for TensorBoard, where that package is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mcuq.quant.settings import EpochResult, Step

EVERY = 20
"""Steps between two points of the loss."""


class Events:
    """Writes loss and rate every few steps; accuracies and step sizes every epoch.

    Raises:
        ImportError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder))

    def on_step(self, step: Step) -> None:
        number = step.epoch * step.steps + step.step
        if number % EVERY == 0:
            self._writer.add_scalar(f"{step.phase}/loss", step.loss, number)
            self._writer.add_scalar(f"{step.phase}/lr", step.lr, number)

    def on_epoch(self, result: EpochResult) -> None:
        self._writer.add_scalar(f"{result.phase}/train_accuracy", result.train_accuracy, result.epoch)
        if result.accuracy is not None:
            self._writer.add_scalar(f"{result.phase}/accuracy", result.accuracy, result.epoch)
        for tensor, scale in result.scales.items():
            self._writer.add_scalar(f"scales/{tensor}", scale, result.epoch)
        self._writer.flush()
