"""Quantization without training on a trained network, with everything N2D2's export offers; imports of known nets."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
from mcuq import data, zoo  # noqa: E402
from mcuq.errors import UnsupportedError  # noqa: E402
from mcuq.frontend.files import import_model  # noqa: E402
from mcuq.frontend.torch import capture  # noqa: E402
from mcuq.ir.fuse import fuse  # noqa: E402
from mcuq.ir.graph import Graph  # noqa: E402
from mcuq.ir.integer import QConv2d  # noqa: E402
from mcuq.ir.plans import BitPlan, Limits, TensorBits  # noqa: E402
from mcuq.lower.lower import lower  # noqa: E402
from mcuq.quant.ptq import PtqOptions, ptq  # noqa: E402
from mcuq.reference import floating, integer  # noqa: E402


@pytest.fixture(scope="module")
def digits(trained: Path) -> tuple[Graph, Any]:
    """A small ResNet trained in float, and its data."""
    from safetensors.torch import load_file

    found = data.load("digits")
    net = zoo.build("resnet_tiny", classes=10, channels=1)
    net.load_state_dict(load_file(str(trained / "float.safetensors")))
    return fuse(capture(net.eval(), found.input_shape, found.normalization).graph), found


def accuracy(graph: Graph, found: Any, options: PtqOptions) -> float:
    lowered = lower(ptq(graph, found.x_train[:200], (8, 8), options))
    scores = integer.run_outputs(lowered, found.x_test)[lowered.outputs[0]].reshape(len(found.y_test), -1)
    return float((scores.argmax(axis=1) == found.y_test).mean())


@pytest.mark.parametrize(
    "options",
    [
        PtqOptions(activations="absmax"),
        PtqOptions(activations="mse"),
        PtqOptions(activations="kl"),
        PtqOptions(activations="percentile", percentile=0.9999),
        PtqOptions(scaling="fixed16"),
        PtqOptions(scaling="fixed32"),
        PtqOptions(scaling="double-shift"),
        PtqOptions(scaling="single-shift"),
        PtqOptions(equalize=True),
        PtqOptions(activations="kl", scaling="fixed16", equalize=True),
    ],
    ids=lambda o: f"{o.activations}-{o.scaling}{'-equalized' if o.equalize else ''}",
)
def test_n26_eight_bits_without_training(digits: tuple[Graph, Any], options: PtqOptions) -> None:
    """Clipping none, MSE, KL, quantile; every form of scaling; equalization: within 2 points of float."""
    graph, found = digits
    real = (found.x_test.astype(float) - graph.input.normalization.zero_point) * graph.input.normalization.scale  # type: ignore[union-attr]
    scores = floating.run(graph, real)[graph.outputs[0]].reshape(len(real), -1)
    wanted = float((scores.argmax(axis=1) == found.y_test).mean())
    assert wanted > 0.9
    assert accuracy(graph, found, options) > wanted - 0.02


def test_n26_a_form_of_scaling_changes_the_factors(digits: tuple[Graph, Any]) -> None:
    graph, found = digits
    for form, check in (("single-shift", lambda m: m & (m - 1) == 0), ("exact", lambda m: m != 1 << 30)):
        lowered = lower(ptq(graph, found.x_train[:50], (8, 8), PtqOptions(scaling=form)))
        assert all(np.all(check(np.abs(op.multiplier.astype(np.int64)))) for op in lowered if isinstance(op, QConv2d))


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no host compiler: install gcc")
def test_n27_every_layers_map_equals_the_devices(digits: tuple[Graph, Any]) -> None:
    """The oracle keeps each layer's integer map; the compiled program's are compared byte for byte."""
    from mcuq.parity import compare
    from mcuq.plan.memory import plan_memory

    graph, found = digits
    lowered = lower(ptq(graph, found.x_train[:50], (4, 4)))
    maps = integer.run(lowered, found.x_test[:3])
    assert list(maps) == [op.name for op in lowered]
    result = compare(lowered, plan_memory(lowered, "portable", effort=1.0), None, found.x_test[:3])
    assert result.exact, result.first
    assert result.compared_bytes >= 3 * sum(op.output.bytes for op in lowered if op.name in lowered.outputs)


NETS: dict[str, dict[str, Any]] = {
    "lenet": {"classes": 10},
    "mobilenet_v1": {"width": 0.25, "resolution": 128, "classes": 10},
    "resnet18": {"classes": 10},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_n20_nets_exported_from_torch(tmp_path: Path, name: str) -> None:
    """The import computes what the module does, and a layer's bits can be set by its name."""
    options = NETS[name]
    torch.manual_seed(0)
    module = zoo.build(name, **options).eval()
    height, width, channels = zoo.input_shape(name, options.get("resolution"), None)
    if name == "resnet18":
        height = width = 64
    x = torch.randn(1, channels, height, width)
    path = tmp_path / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (x,), str(path), dynamo=False)
    found = import_model(path)
    assert isinstance(found, Graph)
    graph = fuse(found)
    expected = module(x).detach().numpy().ravel()
    images = x.numpy().astype(np.float64).transpose(0, 2, 3, 1)
    actual = floating.run(graph, images)[graph.outputs[0]].ravel()
    np.testing.assert_allclose(actual, expected, atol=1e-3 * max(1.0, float(np.abs(expected).max())))
    chosen = graph.convs[1].name
    tensors = tuple(
        TensorBits(f"{op.name}.weight", op.name, "weight", 2 if op.name == chosen else 8, 0) for op in graph.convs
    )
    plan = BitPlan(tensors, "FEASIBLE", 0.0, 0.0, 0, 0, Limits(0, 0), "by hand")
    q = ptq(graph, images, plan, PtqOptions(activations="absmax", rounding="nearest"))
    assert {w.layer: w.bits for w in q.weights} == {op.name: 2 if op.name == chosen else 8 for op in graph.convs}


def test_n20_unsupported_operators_are_named(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    node = helper.make_node("NonMaxSuppression", ["b", "x"], ["y"], name="suppress")
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("b", [1, 4, 4]), ("x", [1, 1, 4]))]
    out = [helper.make_tensor_value_info("y", TensorProto.INT64, ["n", 3])]
    boxes = helper.make_tensor("b", TensorProto.FLOAT, [1, 4, 4], [0.0] * 16)
    graph = helper.make_graph([node], "net", infos[1:], out, [boxes])
    path = tmp_path / "net.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]).SerializeToString())
    with pytest.raises(UnsupportedError, match="NonMaxSuppression at 'suppress'"):
        import_model(path)
