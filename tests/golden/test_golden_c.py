"""Short generated C, kept as text. MCUQ_REFRESH=1 rewrites it; the same project also compiles and runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from builders import RELU, Net
from nets import PIXELS, pixels, vectors
from quantizers import quantize_graph

from mcuq.build.image import Builder, library_sources, target_toolchain
from mcuq.build.toolchain import run_tool
from mcuq.build.write import write_files
from mcuq.emit.project import emit_project
from mcuq.ir.fuse import fuse
from mcuq.ir.integer import IntegerGraph
from mcuq.lower import lower
from mcuq.plan.memory import plan_memory
from mcuq.target.board import load_board

FOLDER = Path(__file__).parent / "tiny"


def tiny() -> IntegerGraph:
    net = Net((4, 4, 2), 9, PIXELS)
    net.conv("conv", "x", 3, padding=(1, 1, 1, 1), clamp=RELU)
    net.conv("point", "conv", 3, (1, 1))
    net.add("sum", "point", "conv", RELU)
    net.avg_pool("pool", "sum")
    net.conv("fc", "pool", 2, (1, 1))
    x = (pixels(3, 4, (4, 4, 2)).astype(float) - PIXELS.zero_point) * PIXELS.scale
    return lower(quantize_graph(fuse(net.graph()), x, weight_bits=4, activation_bits=4), logits_bits=32)


def test_golden(tmp_path: Path) -> None:
    graph = tiny()
    board = load_board("rp2040")
    files = emit_project(graph, plan_memory(graph, board.core), board, prefix="tiny", vectors=vectors(graph, count=1))
    kept = {f.path: f.content.decode() for f in files if not f.path.startswith(("mcuq/", "port/"))}
    if os.environ.get("MCUQ_REFRESH"):
        for path, text in kept.items():
            (FOLDER / path).parent.mkdir(parents=True, exist_ok=True)
            (FOLDER / path).write_text(text)
    found = {p.relative_to(FOLDER).as_posix(): p.read_text() for p in FOLDER.rglob("*") if p.is_file()}
    assert sorted(found) == sorted(kept)
    for path, text in kept.items():
        assert found[path] == text, f"{path} changed; if that is meant, run with MCUQ_REFRESH=1 and read the difference"


@pytest.mark.parametrize(("damaged", "wrong"), [("nothing", 0), ("a vector", 1), ("a weight", 3), ("a bias", 3)])
def test_the_golden_project_tests_itself(tmp_path: Path, damaged: str, wrong: int) -> None:
    """Of two vectors one differs, or the checksum says that the weights are not the emitted ones."""
    graph = tiny()
    files = emit_project(graph, plan_memory(graph, "portable"), None, prefix="tiny", vectors=vectors(graph, count=2))
    write_files(files, tmp_path)
    path = tmp_path / ("test/tiny_vectors.c" if damaged == "a vector" else "src/tiny_weights.c")
    place = {
        "a vector": "{\n        ",
        "a weight": "tiny_l4_weights[4] = {\n    ",
        "a bias": "tiny_l1_bias[3] = {\n    ",
    }
    if damaged in place:
        head, middle, tail = path.read_text().rpartition(place[damaged])
        first, rest = tail.split(",", 1)
        assert head
        path.write_text(f"{head}{middle}{int(first) ^ 1},{rest}")
    builder = Builder(target_toolchain(None), "tiny", None, tmp_path)
    objects = builder.compile([*library_sources(files), "test/selftest.c", "test/tiny_vectors.c"])
    program = builder.link(objects, "selftest")
    command = ["sh", "-c", f"{program}; echo $?"]
    assert run_tool(command, "running the self-test failed").strip() == str(wrong)
