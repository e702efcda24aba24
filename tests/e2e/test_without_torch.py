"""A saved integer network is emitted, verified and profiled, and sizes are judged, where torch is not installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mcuq import pipeline
from mcuq.pipeline.graphs import planned_graph

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


def solved(tmp_path: Path, model: str, limits: str) -> subprocess.CompletedProcess[str]:
    """``mcuq solve`` without torch, with a cache of its own."""
    command = [sys.executable, "-c", RUN, "solve", "--model", model, "--mem-constraint", limits, "--json"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    return subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False, env=environment
    )


def test_training_says_what_is_missing(tmp_path: Path) -> None:
    done = solved(tmp_path, "resnet8", "60000,40000")
    assert done.returncode == 2
    assert "torch" in done.stderr and "pip install" in done.stderr


def onnx_file(path: Path) -> str:
    """A convolution of 3 x 3 and a pointwise one."""
    from onnx import TensorProto, helper, numpy_helper, save

    rng = np.random.default_rng(0)
    shapes = {"a": (16, 3, 3, 3), "b": (8, 16, 1, 1)}
    weights = [numpy_helper.from_array(rng.normal(size=s).astype(np.float32), n) for n, s in shapes.items()]
    nodes = [helper.make_node("Conv", ["x", "a"], ["h"], "first"), helper.make_node("Conv", ["h", "b"], ["y"], "last")]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", (1, 3, 8, 8)), ("y", (1, 8, 6, 6)))
    ]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], weights)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return str(path)


def test_a_budget_that_nothing_meets_needs_no_torch(tmp_path: Path) -> None:
    """Sizes alone decide: names and missing bytes of a model file, before anything is measured."""
    done = solved(tmp_path, onnx_file(tmp_path / "net.onnx"), "1000,100")
    assert done.returncode == 1, done.stderr
    document = json.loads(done.stdout)
    assert (
        document["status"] == "INFEASIBLE"
        and "first.weight" in document["message"]
        and "too many" in document["message"]
    )
    assert document["flash"]["used"] > 1000 and document["ram"]["used"] > 100


@pytest.mark.slow
def test_a_model_file_is_solved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = onnx_file(tmp_path / "net.onnx")
    done = solved(tmp_path, file, "60000,40000")
    assert done.returncode == 2 and "torch" in done.stderr  # its weights are to be measured
    choice = pipeline.BitChoice(mem_constraint="60000,40000", sensitivity="data-free")
    found = pipeline.solve(pipeline.ModelSpec(file), choice, tmp_path / "bits.json")
    assert found.plan.status == "OPTIMAL"
    again = solved(tmp_path, file, "60000,40000")  # the table is known now
    assert again.returncode == 0 and json.loads(again.stdout)["status"] == "OPTIMAL"


@pytest.mark.slow
def test_a_model_of_the_zoo_is_captured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = planned_graph(pipeline.ModelSpec("lenet"), 3)
    monkeypatch.setattr("mcuq.pipeline.graphs.build_module", None)
    again = planned_graph(pipeline.ModelSpec("lenet"), 3)
    assert [op.name for op in again] == [op.name for op in first]
    assert all(np.array_equal(a.weight, b.weight) for a, b in zip(again.convs, first.convs, strict=True))
    with pytest.raises(TypeError):
        planned_graph(pipeline.ModelSpec("lenet"), 4)  # another seed has other weights
