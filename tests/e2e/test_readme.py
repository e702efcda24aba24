"""The README's Python examples, run as they stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import EXAMPLES


def test_the_whole_way_in_ten_lines(example: dict[str, Any]) -> None:
    assert len([line for line in EXAMPLES[0].splitlines() if line.strip()]) <= 10
    assert example["trained"].fits and example["trained"].accuracy["oracle"] > 0.9
    assert example["device"].mismatching_bytes == 0
    assert (example["folder"] / "digits-run" / "c-stm32f4" / "README.md").is_file()


def test_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(EXAMPLES[1], scope)
    right = (scope["codes"].reshape(len(scope["codes"]), -1).argmax(1) == scope["digits"].y_test).mean()
    assert right > 0.85
    assert (tmp_path / "digits.mcuq").stat().st_size > 10_000
