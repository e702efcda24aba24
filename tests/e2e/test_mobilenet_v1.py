"""MobileNetV1 1.0 at 224 in 2,048,000 bytes of flash and 512,000 of RAM: the paper's hardest case, whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mcuq.build.sizes import measure
from mcuq.emit.project import emit_project
from mcuq.parity import built, compare_image
from mcuq.pipeline import BitChoice, ModelSpec, TrainSettings, train
from mcuq.pipeline.deploy import load
from mcuq.plan.memory import plan_memory
from mcuq.target.board import load_board


@pytest.mark.slow
def test_the_papers_network_on_its_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bits as arXiv 1905.13082's rule gives them; weights are untrained, ranges calibrated on random images."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (10, 14, 14, 3), dtype=np.uint8)
    images = blocks.repeat(16, axis=1).repeat(16, axis=2)
    np.savez("images.npz", x_train=images[:8], y_train=np.arange(8), x_test=images[8:], y_test=np.arange(2))
    choice = BitChoice(mem_constraint="2048000,512000", board="stm32h7", mixed="MixPL")
    spec = ModelSpec("mobilenet_v1", 1.0, 224, classes=1000)
    outcome = train(TrainSettings(spec, "images.npz", choice, float_epochs=0, epochs=0), Path("run"))
    tensors = outcome.solve.plan.tensors
    assert "".join(str(t.bits) for t in tensors if t.kind == "weight") == "8888888888888848484848884822"
    graph = load(Path("run")).graph
    board = load_board("stm32h7")
    plan = plan_memory(graph, board.core)
    sizes = measure(emit_project(graph, plan, board), graph, plan, board)
    assert sizes.flash[1] <= 2 << 20
    assert plan.arena_bytes == plan.lower_bound <= 512 << 10
    with built(graph, plan, board) as image:
        result = compare_image(image, images[8:9])
    assert result.exact, result.first
    assert result.compared_bytes > 3_000_000
