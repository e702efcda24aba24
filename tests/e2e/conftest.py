"""The command line in-process, and the run of the README's first example, shared by the tests that need one."""

from __future__ import annotations

import json
import re
import sys
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mcuq import cli

README = Path(__file__).resolve().parents[2] / "README.md"
EXAMPLES: list[str] = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)


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
def example(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the README's first example computes, run once as it stands; ``folder`` is where."""
    scope: dict[str, Any] = {}
    folder = tmp_path_factory.mktemp("readme")
    with chdir(folder):
        exec(EXAMPLES[0], scope)
    return {**scope, "folder": folder}


@pytest.fixture(scope="session")
def trained(example: dict[str, Any]) -> Path:
    """A run on the digits: few epochs, limits that force bits below 8."""
    return example["folder"] / example["run"]
