"""Networks with several inputs: the three front ends, training, the plan, C on this computer and on emulated cores."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("flatbuffers")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from mcuq import pipeline  # noqa: E402
from mcuq.errors import CheckError, DataError, ModelError, UsageError  # noqa: E402
from mcuq.frontend.files import import_model  # noqa: E402
from mcuq.frontend.torch import capture  # noqa: E402
from mcuq.ir.fuse import fuse  # noqa: E402
from mcuq.ir.graph import Graph, Normalization  # noqa: E402
from mcuq.ir.integer import IntegerGraph  # noqa: E402
from mcuq.ir.samples import joined, sample_shape, split  # noqa: E402
from mcuq.ir.text import to_text  # noqa: E402
from mcuq.lower import lower  # noqa: E402
from mcuq.parity import compare  # noqa: E402
from mcuq.plan.memory import plan_memory  # noqa: E402
from mcuq.plan.validate import check_memory  # noqa: E402
from mcuq.quant import QuantOp  # noqa: E402
from mcuq.quant.ptq import ptq  # noqa: E402
from mcuq.reference import floating  # noqa: E402
from mcuq.reference.integer import run, run_outputs  # noqa: E402
from mcuq.target.board import load_board  # noqa: E402
from tests.tflite_writer import Net as TfliteNet  # noqa: E402

SHAPES = ((6, 6, 3), (5,), (6, 6, 4))
PIXELS = (Normalization(1 / 64, 128), Normalization(1 / 32, 100), None)


class Fusion(torch.nn.Module):
    """An image, a vector of readings and a map of a second sensor; two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.image = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.readings = torch.nn.Linear(5, 4)
        self.last = torch.nn.Linear(8, 3)

    def forward(self, image: Any, readings: Any, second: Any) -> Any:
        seen = torch.nn.functional.relu(self.image(image) + second)
        felt = torch.nn.functional.relu(self.readings(readings))
        return self.last(torch.cat([seen.mean((2, 3)), felt], 1)), felt


def fusion() -> Fusion:
    torch.manual_seed(3)
    return Fusion()


def draw(count: int, seed: int = 0) -> dict[str, Any]:
    """Real inputs [N, H, W, C] by name."""
    rng = np.random.default_rng(seed)
    shapes = {"image": (6, 6, 3), "readings": (1, 1, 5), "second": (6, 6, 4)}
    return {name: rng.normal(0, 1, (count, *shape)).astype(np.float32) for name, shape in shapes.items()}


def write_onnx(path: Path, state: dict[str, Any], unread: bool = False) -> None:
    nodes = [
        helper.make_node("Conv", ["image", "image.weight", "image.bias"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c", "second"], ["s"]),
        helper.make_node("Relu", ["s"], ["seen"]),
        helper.make_node("Gemm", ["readings", "readings.weight", "readings.bias"], ["r"], transB=1),
        helper.make_node("Relu", ["r"], ["felt"]),
        helper.make_node("GlobalAveragePool", ["seen"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Concat", ["f", "felt"], ["j"], axis=1),
        helper.make_node("Gemm", ["j", "last.weight", "last.bias"], ["y"], transB=1),
    ]
    dims = {"image": ["n", 3, 6, 6], "readings": ["n", 5], "second": ["n", 4, 6, 6]} | ({"z": [1, 2]} if unread else {})
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in dims.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", c]) for n, c in (("y", 3), ("felt", 4))],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in state.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def write_tflite(path: Path, state: dict[str, Any]) -> None:
    net = TfliteNet()

    def tensor(*shape: int, name: str = "") -> int:
        return net.tensor(shape, "float32", name=name)

    def weights(name: str, *order: int) -> list[int]:
        return [net.constant(state[f"{name}.weight"].transpose(order)), net.constant(state[f"{name}.bias"])]

    image, readings = tensor(1, 6, 6, 3, name="image"), tensor(1, 5, name="readings")
    second = tensor(1, 6, 6, 4, name="second")
    stride = {"f1": ("i32", 1), "f2": ("i32", 1)}
    c = net.op("CONV_2D", [image, *weights("image", 0, 2, 3, 1)], tensor(1, 6, 6, 4), **stride)
    seen = net.op("ADD", [c, second], tensor(1, 6, 6, 4), f0=("i8", 1))
    felt = net.op("FULLY_CONNECTED", [readings, *weights("readings", 0, 1)], tensor(1, 4), f0=("i8", 1))
    p = net.op("MEAN", [seen, net.constant(np.array([1, 2], dtype=np.int32))], tensor(1, 4))
    j = net.op("CONCATENATION", [p, felt], tensor(1, 8), f0=("i32", 1))
    y = net.op("FULLY_CONNECTED", [j, *weights("last", 0, 1)], tensor(1, 3))
    path.write_bytes(net.write([y, felt], (image, readings, second)))


def imported(tmp_path: Path, model: Fusion) -> list[Graph]:
    state = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    write_onnx(tmp_path / "net.onnx", state)
    write_tflite(tmp_path / "net.tflite", state)
    found = [capture(model, SHAPES).graph, *(import_model(tmp_path / f"net.{kind}") for kind in ("onnx", "tflite"))]
    assert all(isinstance(graph, Graph) for graph in found)
    return [fuse(graph) for graph in found]  # type: ignore[arg-type]


@cache
def integer(weight_bits: int = 8, act_bits: int = 8) -> IntegerGraph:
    """Two inputs of pixels and one of codes."""
    graph = fuse(capture(fusion(), SHAPES, PIXELS).graph)
    rng = np.random.default_rng(1)
    image, readings = (rng.integers(0, 256, (16, *s)).astype(np.uint8) for s in ((6, 6, 3), (1, 1, 5)))
    second = rng.normal(0, 1, (16, 6, 6, 4)).astype(np.float32)
    return lower(ptq(graph, (image, readings, second), (weight_bits, act_bits)))


def samples(graph: IntegerGraph, count: int) -> Any:
    rng = np.random.default_rng(2)
    ranges = [(0, 256) if op.encoding == "uint8" else (-128, 128) for op in graph.inputs]
    return joined([
        rng.integers(*r, (count, *op.output.shape)) for op, r in zip(graph.inputs, ranges, strict=True)
    ])  # fmt: skip


def test_three_front_ends_read_several_inputs(tmp_path: Path) -> None:
    model, x = fusion(), draw(4)
    graphs = imported(tmp_path, model)
    with torch.no_grad():
        tensors = [torch.tensor(v).permute(0, 3, 1, 2) for v in x.values()]
        wanted = model(tensors[0], tensors[1].flatten(1), tensors[2])
    for graph in graphs:
        assert [op.name for op in graph.inputs] == ["image", "readings", "second"]
        found = floating.run(graph, x)
        for name, value in zip(graph.outputs, wanted, strict=True):
            np.testing.assert_allclose(found[name].reshape(value.shape), value.numpy(), atol=1e-5)
    lowered = [lower(ptq(_renamed(graph), tuple(x.values()), (4, 8))) for graph in graphs]
    assert to_text(lowered[1]) == to_text(lowered[0])
    assert to_text(lowered[2]) == to_text(lowered[0])


def _renamed(graph: Graph) -> Graph:
    names = {op.name: f"t{i}" for i, op in enumerate(graph)}
    ops = (replace(op, name=names[op.name], inputs=tuple(names[i] for i in op.inputs), source="") for op in graph)
    return Graph(tuple(ops), tuple(names[name] for name in graph.outputs))


@pytest.mark.parametrize("bits", [4, pytest.param(8, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_c_equals_the_oracle_with_several_inputs(bits: int) -> None:
    graph = integer(bits, bits)
    assert [op.encoding for op in graph.inputs] == ["uint8", "uint8", "int8"]
    plan = plan_memory(graph, "portable")
    check_memory(graph, "portable", plan)
    assert plan.order[:3] == ("image", "readings", "second")
    result = compare(graph, plan, None, samples(graph, 5))
    assert result.exact, result.first


@pytest.mark.slow
@pytest.mark.parametrize("board", ["rp2040", "stm32f4", "mps3-an547", "esp32c3"])
def test_cores_equal_the_oracle_with_several_inputs(board: str) -> None:
    graph, found = integer(), load_board(board)
    result = compare(graph, plan_memory(graph, found.core), found, samples(graph, 3))
    assert result.exact, result.first


def test_quantized_files_with_several_inputs_keep_their_codes(tmp_path: Path) -> None:
    net = TfliteNet()
    shape, axes = [1, 6, 6, 3], net.constant(np.array([3], np.int32))
    a, b = net.tensor(shape, "int8", 0.02, 3, name="a"), net.tensor(shape, "uint8", 0.05, 100, name="b")
    b_codes = net.op("QUANTIZE", [b], net.tensor(shape, "int8", 0.05, -28))
    both = net.op("ADD", [a, b_codes], net.tensor(shape, "int8", 0.06, -5))
    least = net.op("REDUCE_MIN", [both, axes], net.tensor([1, 6, 6, 1], "int8", 0.06, -5), f0=("bool", True))
    (tmp_path / "net.tflite").write_bytes(net.write([least, both], (a, b)))
    imported = import_model(tmp_path / "net.tflite")
    assert not isinstance(imported, Graph)
    graph = lower(imported)
    assert [(op.name, op.encoding) for op in graph.inputs] == [("a", "int8"), ("b", "uint8")]
    rng = np.random.default_rng(0)
    x = {"a": rng.integers(-128, 128, (4, 6, 6, 3)), "b": rng.integers(0, 256, (4, 6, 6, 3))}
    found = run(graph, x)
    smallest, total = (found[name] for name in graph.outputs)
    np.testing.assert_array_equal(smallest.ravel(), total.min(axis=3).ravel())
    real = 0.02 * (x["a"] - 3) + 0.05 * (x["b"] - 100)
    assert np.abs(total - np.clip(real / 0.06 - 5, -128, 127)).max() <= 0.5001


def test_samples_by_name_in_order_and_joined_are_the_same() -> None:
    graph = integer()
    x = samples(graph, 3)
    assert x.shape[1:] == sample_shape(graph) == (1, 1, 6 * 6 * 3 + 5 + 6 * 6 * 4)
    parts = split(graph, x)
    for given in (parts, tuple(parts.values())):
        for name, value in run_outputs(graph, given).items():
            np.testing.assert_array_equal(value, run(graph, x)[name])
    with pytest.raises(DataError, match="2 arrays were given, the network takes 3: image, readings, second"):
        run(graph, tuple(parts.values())[:2])
    with pytest.raises(DataError, match=r"input readings has shape \(3, 1, 1, 4\), the network takes \(N, 1, 1, 5\)"):
        run(graph, {**parts, "readings": parts["readings"][..., :4]})
    with pytest.raises(DataError, match=r"inputs have 3, 2, 3 samples"):
        run(graph, {**parts, "readings": parts["readings"][:2]})


def test_a_plan_that_starts_without_all_inputs_is_refused() -> None:
    graph = integer()
    plan = plan_memory(graph, "portable")
    late = (*plan.order[:2], plan.order[3], plan.order[2], *plan.order[4:])
    with pytest.raises(CheckError, match="not with all of image, readings, second"):
        check_memory(graph, "portable", replace(plan, order=late))


def test_inputs_that_nothing_reads_are_named(tmp_path: Path) -> None:
    state = {name: value.detach().numpy() for name, value in fusion().state_dict().items()}
    write_onnx(tmp_path / "net.onnx", state, unread=True)
    with pytest.raises(ModelError, match="z is one of 4 inputs, but nothing reads it"):
        import_model(tmp_path / "net.onnx")


@pytest.mark.slow
def test_training_with_several_inputs_lowers_the_loss_and_deploys() -> None:
    torch.manual_seed(0)
    op = QuantOp(fusion(), weight_bits=4, act_bits=4, input_shape=SHAPES, act_type="LSQ")
    x = [torch.tensor(v).permute(0, 3, 1, 2) for v in draw(64).values()]
    labels = (x[1][:, 0, 0, 0] + x[2].mean((1, 2, 3)) > 0).long()
    optimizer = torch.optim.Adam(op.param_groups(lr=0.02))
    losses: list[float] = []
    for _ in range(30):
        optimizer.zero_grad()
        with op.quantized():
            loss = torch.nn.functional.cross_entropy(op(x[0], x[1].flatten(1), x[2])[0], labels)
            loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    with pytest.raises(UsageError, match="takes 3 inputs, 1 were given"):
        op(x[0])
    graph = lower(op.generate_deployment_model())
    result = compare(graph, plan_memory(graph, "portable"), None, samples(graph, 4))
    assert result.exact, result.first


@pytest.mark.slow
def test_quantize_emit_and_verify_a_file_with_several_inputs(tmp_path: Path) -> None:
    state = {name: value.detach().numpy() for name, value in fusion().state_dict().items()}
    write_onnx(tmp_path / "net.onnx", state)
    rng = np.random.default_rng(4)
    shapes = {"image": (6, 6, 3), "readings": (5,), "second": (6, 6, 4)}
    arrays = {name: rng.integers(0, 256, (24, *shape)).astype(np.uint8) for name, shape in shapes.items()}
    np.savez(tmp_path / "named.npz", image=arrays["image"], readings=arrays["readings"], second=arrays["second"])
    np.savez(tmp_path / "ordered.npz", x0=arrays["image"], x1=arrays["readings"], x2=arrays["second"])
    agreement: set[Any] = set()
    for kind in ("named", "ordered"):
        choice = pipeline.BitChoice(mem_constraint="64000,16000", board="stm32f4")
        settings = pipeline.QuantizeSettings(tmp_path / "net.onnx", str(tmp_path / f"{kind}.npz"), choice)
        found = pipeline.quantize(settings, tmp_path / kind)
        agreement.add(found.accuracy["agreement"])
    assert len(agreement) == 1 and min(agreement) >= 0.9
    verified = pipeline.verify(tmp_path / "named", "host")
    assert (verified.mismatching_bytes, verified.samples) == (0, 24) and verified.compared_bytes > 0
    pipeline.emit(tmp_path / "named", "stm32f4", tmp_path / "c", build=False)
    header = (tmp_path / "c" / "include" / "model.h").read_text()
    for words in ("*model_input(", "*model_input1(", "*model_input2(", "INPUT2_SIZE 144", "readings, 1x1x5, 8 bits"):
        assert words in header
    np.savez(tmp_path / "short.npz", x0=arrays["image"])
    settings = replace(settings, calibrate=str(tmp_path / "short.npz"))
    with pytest.raises(DataError, match="lacks x1, x2; give an array for each input of the model: image, readings"):
        pipeline.quantize(settings, tmp_path / "other")
