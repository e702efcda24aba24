"""A saved integer network is emitted, verified and profiled where torch is not installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("e2e")
RUN = (
    "import sys; sys.modules['torch'] = None; sys.modules['sklearn'] = None; sys.modules['matplotlib'] = None\n"
    "from mcuq.cli import main\n"
    "main()\n"
)


@pytest.mark.parametrize(
    "words",
    [("emit", "--board", "stm32f4", "--out", "c"), ("verify", "--samples", "20"), ("profile", "--board", "rp2040")],
)
def test_deployment_needs_no_torch(trained: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    command = [sys.executable, "-c", RUN, words[0], str(trained), *words[1:], "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document.get("mismatching_bytes", 0) == 0


def test_training_says_what_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN, "solve", "--model", "resnet8", "--mem-constraint", "60000,40000"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert "torch" in done.stderr and "pip install" in done.stderr
