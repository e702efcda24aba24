"""Steps of weights through the commands: chosen for a file on a Cortex-M0+, edited by hand, held against the image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
from mcuq import load_integer  # noqa: E402
from mcuq.ir.integer import QConv2d  # noqa: E402

LIMITS = "10300,6000"


def exported(path: Path) -> None:
    torch.manual_seed(0)
    layers: list[Any] = []
    for inputs, outputs, kernel in ((2, 48, 1), (48, 24, 3), (24, 16, 1)):
        layers += [torch.nn.Conv2d(inputs, outputs, kernel), torch.nn.BatchNorm2d(outputs), torch.nn.ReLU()]
    net = torch.nn.Sequential(*layers, torch.nn.AvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(16, 3))
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    torch.onnx.export(net.eval(), torch.zeros(1, 2, 6, 6), str(path), dynamo=False, opset_version=17)


def samples(path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (80, 6, 6, 2), dtype=np.uint8)
    np.savez(path, x_train=x[:60], y_train=np.arange(60) % 3, x_test=x[60:], y_test=np.arange(20) % 3)


def steps(document: dict[str, Any]) -> dict[str, str]:
    """Granularity of every layer's weights."""
    return {t["layer"]: t.get("granularity", "channel") for t in document["tensors"] if t["kind"] == "weight"}


def single(run: str) -> set[str]:
    """Layers of the integer network with one multiplier."""
    graph, _ = load_integer(Path(run, "model.mcuq"))
    return {op.name for op in graph if isinstance(op, QConv2d) and op.multiplier.size == 1}


@pytest.mark.slow
def test_steps_are_chosen_edited_and_promised(mcuq: Any) -> None:
    exported(Path("net.onnx"))
    samples(Path("own.npz"))
    words = ("--model", "net.onnx", "--board", "rp2040", "--mem-constraint", LIMITS, "--json")
    auto, channel = (mcuq("solve", *words, *more).document for more in ((), ("--granularity", "channel")))
    assert set(steps(auto).values()) == {"channel", "layer"} and set(steps(channel).values()) == {"channel"}
    assert auto["objective"] < channel["objective"]
    quantize = ("quantize", *words, "--calibrate", "own.npz", "--sensitivity", "sqnr")
    found = mcuq(*quantize, "--out", "run").document
    chosen = {layer for layer, step in steps(found["plan"]).items() if step == "layer"}
    assert found["fits"] and single("run") == chosen != set()
    document = mcuq("emit", "run", "--board", "rp2040", "--json").document
    assert document["flash"]["promised"] <= found["plan"]["flash"]["used"] <= int(LIMITS.split(",")[0])
    parameters = {i["name"]: i for i in document["items"] if "code" not in i["name"] and i["name"] != "startup"}
    assert all(item["promised"] == item["measured"] for item in parameters.values())
    assert mcuq("verify", "run", "--target", "qemu:rp2040", "--json").document["mismatching_bytes"] == 0
    text = Path("run/bits.json").read_text()
    edited = [line.replace('"granularity": "layer", ', "") for line in text.splitlines()]
    Path("bits.json").write_text("\n".join(edited))
    wider = mcuq(*quantize[:3], "--calibrate", "own.npz", "--bits", "bits.json", "--json", "--board", "rp2040").document
    network, _ = load_integer(Path("run/model.mcuq"))
    saved = sum(4 * (len(op.weight) - 1) for op in network if isinstance(op, QConv2d) and op.name in chosen)
    assert wider["plan"]["flash"]["used"] == document["flash"]["promised"] + saved
    assert json.loads(Path("run/bits.json").read_text())["tensors"] == found["plan"]["tensors"]


def test_the_table_names_one_step_per_layer(mcuq: Any) -> None:
    exported(Path("net.onnx"))
    words = ("--model", "net.onnx", "--board", "rp2040", "--granularity", "layer")
    assert "8 per layer" in mcuq("solve", *words).words
    fast = mcuq("solve", *words[:2], "--board", "stm32f4", "--mem-constraint", LIMITS, "--json")
    assert "granularity" not in str(fast.document)
