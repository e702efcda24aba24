"""What a training wrote epoch by epoch: ``log.csv`` and ``scales.csv``, and reading them back for pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mcuq.ir.container import write_atomic
from mcuq.report import EpochPoint

LOG_COLUMNS = ("phase", "epoch", "loss", "train_accuracy", "accuracy", "lr", "seconds")
SCALE_COLUMNS = ("phase", "epoch", "tensor", "scale")
STAGES = {"float": "float", "qat": "quantized", "qat-8": "8 bits", "qat-4": "4 bits"}
"""What pictures call the phases of a training."""


class RunLog:
    """Appends each epoch as it ends; an epoch that is trained again after a crash replaces its line.

    Implements the callbacks of ``mcuq.quant.train`` without importing it (and torch).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_step(self, step: Any) -> None:
        """Steps are not logged."""

    def on_epoch(self, result: Any) -> None:
        def earlier(row: dict[str, str]) -> bool:
            return row["phase"] != result.phase or int(row["epoch"]) < result.epoch

        values = {name: getattr(result, name) for name in LOG_COLUMNS}
        _rewrite(self._folder / "log.csv", LOG_COLUMNS, earlier, [values])
        scales = [
            {"phase": result.phase, "epoch": result.epoch, "tensor": tensor, "scale": scale}
            for tensor, scale in result.scales.items()
        ]
        if scales:
            _rewrite(self._folder / "scales.csv", SCALE_COLUMNS, earlier, scales)


def _rewrite(
    path: Path, columns: Sequence[str], keep: Callable[[dict[str, str]], bool], rows: list[dict[str, Any]]
) -> None:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows([*filter(keep, read(path)), *rows])
    write_atomic(path, stream.getvalue().encode())


def read(path: Path) -> list[dict[str, str]]:
    """Rows of one of the two files; none where it is missing."""
    if not path.exists():
        return []
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def epochs(folder: Path) -> list[EpochPoint]:
    """All epochs of a run, also those before an interruption."""
    return [
        EpochPoint(
            STAGES.get(row["phase"], row["phase"]),
            float(row["loss"]),
            float(row["train_accuracy"]),
            float(row["accuracy"]) if row["accuracy"] else None,
        )
        for row in read(folder / "log.csv")
    ]


def scales(folder: Path) -> dict[str, list[float]]:
    """Step sizes by tensor over the epochs of the last phase, the one with the bits that are deployed."""
    rows = read(folder / "scales.csv")
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["phase"] == rows[-1]["phase"]:
            found.setdefault(row["tensor"], []).append(float(row["scale"]))
    return found
