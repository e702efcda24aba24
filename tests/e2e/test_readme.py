"""The README's Python example, run as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"


def test_python_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.S)
    assert code is not None
    assert len([line for line in code[1].splitlines() if line.strip()]) <= 18
    scope: dict[str, Any] = {}
    exec(code[1], scope)
    right = (scope["codes"].reshape(len(scope["codes"]), -1).argmax(1) == scope["digits"].y_test).mean()
    assert right > 0.85
    assert (tmp_path / "digits.mcuq").stat().st_size > 10_000
