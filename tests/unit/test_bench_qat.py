"""``scripts/bench_qat``: what its table says of every quantizer, and the memory that a step keeps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_qat"


@pytest.mark.slow
def test_every_quantizer_has_its_overhead_and_keeps_little_memory() -> None:
    """Times are for the reader; bytes kept for the backward pass do not depend on the machine."""
    command = [sys.executable, str(SCRIPT), "--model", "resnet8", "--rounds", "1", "--together", "--json"]
    document = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    rows = document["results"]
    assert {row["quantizer"] for row in rows} == {"LSQ", "LSQ per layer", "PACT", "PACT per channel", "CG-PACT"}
    assert {row["layout"] for row in rows} == {"nchw", "channels_last"}
    assert all(row["model"] == "resnet8" and (row["weight_bits"], row["act_bits"]) == (4, 4) for row in rows)
    assert all(row["ratio_to_float"] > 0 and row["ms"] > 0 for row in rows)
    assert all(0.5 < row["memory_to_float"] <= 1.2 for row in rows), rows
    assert [row["quantizer"] for row in document["beside"]] == ["float", "float again", "float channels_last"]
