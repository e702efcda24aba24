"""The README's Python examples, run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
pytestmark = pytest.mark.xdist_group("e2e")


def run(code: str) -> dict[str, Any]:
    scope: dict[str, Any] = {}
    exec(code, scope)
    return scope


def test_the_whole_way_in_ten_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len([line for line in EXAMPLES[0].splitlines() if line.strip()]) <= 10
    scope = run(EXAMPLES[0])
    assert scope["trained"].fits and scope["trained"].accuracy["oracle"] > 0.9
    assert scope["device"].mismatching_bytes == 0
    assert (tmp_path / "digits-run" / "c-stm32f4" / "README.md").is_file()


def test_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope = run(EXAMPLES[1])
    right = (scope["codes"].reshape(len(scope["codes"]), -1).argmax(1) == scope["digits"].y_test).mean()
    assert right > 0.85
    assert (tmp_path / "digits.mcuq").stat().st_size > 10_000
