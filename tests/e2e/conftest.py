"""The command line in-process, and one small trained run shared by the tests that need one."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mcuq import cli


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def words(self) -> str:
        """Standard error with line breaks of the terminal's width taken out."""
        return " ".join(self.err.split())


def call(capsys: Any, *arguments: str) -> Result:
    argv, sys.argv = sys.argv, ["mcuq", *arguments]
    code: Any = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.argv = argv
    captured = capsys.readouterr()
    return Result(int(code), captured.out, captured.err)


@pytest.fixture
def mcuq(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``mcuq("solve", ...)`` in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: call(capsys, *arguments)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the digits, made once: few epochs, limits that force bits below 8."""
    from mcuq.pipeline import BitChoice, ModelSpec, TrainSettings, train

    folder = tmp_path_factory.mktemp("run") / "digits"
    choice = BitChoice(mem_constraint="60000,6200", board="stm32f4", sensitivity="sqnr")
    settings = TrainSettings(ModelSpec("resnet_tiny"), "digits", choice, float_epochs=8, epochs=2)
    here = Path.cwd()
    import os

    os.chdir(folder.parent)
    try:
        train(settings, folder)
    finally:
        os.chdir(here)
    return folder
