"""The folder a training leaves behind and the other commands take.

run.json          how the run was made and what came of it
float.safetensors the trained float network
bits.json         bits of every tensor, hand-editable
precision.json    ranges of every layer, hand-editable (symmetric grids)
checkpoint/       state to resume quantization-aware training from
model.mcuq        the integer network
test.npz          held-out samples: x uint8 [N, H, W, C], y int64 [N]
log.csv, scales.csv one line an epoch (and tensor)
weights.npz       histograms of the weights before and after training, and of their codes
sensitivity.json  predicted and true losses of random plans, when asked for
confusion.csv     labels by answers of the integer network
events/           event files for TensorBoard, when asked for
*.png, report.html
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import zipfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mcuq.errors import DataError, UsageError
from mcuq.ir.container import parse_json, write_atomic

RUNS = Path("runs")
LATEST = "latest"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths inside a run, and its JSON record."""

    path: Path

    @property
    def record_file(self) -> Path:
        return self.path / "run.json"

    @property
    def float_weights(self) -> Path:
        return self.path / "float.safetensors"

    @property
    def bits(self) -> Path:
        return self.path / "bits.json"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint"

    @property
    def model(self) -> Path:
        return self.path / "model.mcuq"

    @property
    def precision(self) -> Path:
        return self.path / "precision.json"

    @property
    def test(self) -> Path:
        return self.path / "test.npz"

    def record(self) -> dict[str, Any]:
        """The run's record. Raises DataError when it is missing or damaged."""
        try:
            return json.loads(self.record_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(f"{self.path} is not a run: it has no run.json; make one with 'mcuq train'") from None
        except (ValueError, UnicodeDecodeError) as error:
            raise DataError(f"{self.record_file} is damaged: {error}; train again or restore it") from error

    def write_record(self, record: dict[str, Any]) -> None:
        text = json.dumps(record, indent=2, sort_keys=True) + "\n"
        write_atomic(self.record_file, text.encode())

    def read_sensitivity(self) -> dict[str, Any]:
        """What :meth:`write_sensitivity` wrote; empty if it was not asked for. Raises ModelError: it is damaged."""
        path = self.path / "sensitivity.json"
        return cast("dict[str, Any]", parse_json(path.read_text(encoding="utf-8"), path.name)) if path.exists() else {}

    def write_sensitivity(self, document: dict[str, Any]) -> None:
        """How well the sensitivity predicts whole plans."""
        write_atomic(self.path / "sensitivity.json", (json.dumps(document, indent=1) + "\n").encode())

    def write_test(self, x: NDArray[np.uint8], y: NDArray[np.int64], float_correct: NDArray[np.bool_]) -> None:
        """Held-out samples, and on which of them the float network is right."""
        handle, name = tempfile.mkstemp(dir=self.path, suffix=".npz")
        with os.fdopen(handle, "wb") as file:
            np.savez(file, x=x, y=y, float_correct=float_correct)
        os.replace(name, self.test)

    def read_test(self) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_]]:
        """What :meth:`write_test` wrote. Raises DataError."""
        try:
            with np.load(self.test, allow_pickle=False) as data:
                return data["x"], data["y"], data["float_correct"]
        except FileNotFoundError:
            raise DataError(
                f"{self.test} is missing: the training has not finished; run it again with --resume"
            ) from None
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{self.test} is damaged: {error}; train again or restore it") from error

    @contextlib.contextmanager
    def locked(self) -> Generator[None]:
        """Hold the folder for one process. Raises UsageError when another one has it."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(
                    f"{self.path} is in use by another mcuq process; wait for it or choose another --out"
                ) from None
            yield


def remember(run: RunFolder) -> None:
    """Make ``run`` the one that commands without RUN take."""
    RUNS.mkdir(exist_ok=True)
    write_atomic(RUNS / LATEST, (str(run.path.resolve()) + "\n").encode())


def find_run(path: Path | None) -> RunFolder:
    """The run at ``path``, or the latest one trained from this folder. Raises UsageError or DataError."""
    if path is None:
        try:
            path = Path((RUNS / LATEST).read_text(encoding="utf-8").strip())
        except FileNotFoundError:
            raise UsageError(
                "no RUN given and no run was trained from this folder; name one, or start with 'mcuq train'"
            ) from None
    if not path.is_dir():
        raise UsageError(f"{path} is not a folder; give the --out folder of an 'mcuq train'")
    run = RunFolder(path)
    run.record()
    return run


def check_claim(path: Path, *, resume: bool, overwrite: bool = False) -> None:
    """Raises UsageError unless ``path`` is new or empty, or an earlier run to resume or to ``overwrite``."""
    run = RunFolder(path)
    if path.exists() and not path.is_dir():
        raise UsageError(f"--out {path} is a file; give a folder")
    occupied = path.is_dir() and any(p.name != ".lock" for p in path.iterdir())
    if resume and not run.record_file.exists():
        raise UsageError(f"--resume: {path} holds no run to resume; leave --resume out, or name its --out folder")
    if occupied and not resume and not run.record_file.exists():
        raise UsageError(f"--out {path} holds files that are not mcuq's; choose an empty or new folder")
    if occupied and not resume and not overwrite:
        raise UsageError(f"--out {path} holds a run; go on with it by --resume, or choose another folder")


def claim_run(path: Path, *, resume: bool, overwrite: bool = False) -> RunFolder:
    """The folder to write a run into, made if it is new. Raises UsageError: as :func:`check_claim`, or read-only."""
    check_claim(path, resume=resume, overwrite=overwrite)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UsageError(f"--out {path} cannot be written: {error.strerror}; choose another folder") from error
    return RunFolder(path)


def new_run_path(model: str, data: str) -> Path:
    """First free ``runs/<model>-<data>-<n>``, names reduced to safe characters."""
    stem = data.removesuffix(".npz").rstrip("/").rpartition("/")[2]
    base = "-".join("".join(c for c in part if c.isalnum() or c in "_.")[:40] for part in (model, stem))
    number = 1
    while (RUNS / f"{base}-{number}").exists():
        number += 1
    return RUNS / f"{base}-{number}"
