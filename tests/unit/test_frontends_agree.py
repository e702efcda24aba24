"""One network through PyTorch, ONNX and TFLite: the same float graph and the same integer graph but for names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("flatbuffers")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from mcuq.frontend.files import import_model  # noqa: E402
from mcuq.frontend.torch import capture  # noqa: E402
from mcuq.ir.fuse import fuse  # noqa: E402
from mcuq.ir.graph import Graph  # noqa: E402
from mcuq.ir.text import to_text  # noqa: E402
from mcuq.lower.lower import lower  # noqa: E402
from mcuq.quant.ptq import ptq  # noqa: E402
from tests.tflite_writer import Net as TfliteNet  # noqa: E402


class Model(torch.nn.Module):
    """Convolution, depthwise, residual addition, pool, concatenation, global mean, linear, softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.deep = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.wide = torch.nn.Conv2d(8, 4, 1)
        self.last = torch.nn.Linear(12, 5)

    def forward(self, x: Any) -> Any:
        a = torch.nn.functional.relu6(self.first(x))
        b = torch.nn.functional.relu(self.deep(a) + a)
        b = torch.nn.functional.max_pool2d(b, 2)
        c = torch.cat([b, self.wide(b)], 1)
        return torch.softmax(self.last(c.mean((2, 3))), 1)


def parameters() -> tuple[Model, dict[str, Any]]:
    torch.manual_seed(1)
    model = Model()
    return model, {name: value.detach().numpy() for name, value in model.state_dict().items()}


def write_onnx(path: Path, state: dict[str, Any]) -> None:
    def node(kind: str, inputs: str, output: str, **attributes: Any) -> Any:
        return helper.make_node(kind, inputs.split(), [output], **attributes)

    nodes = [
        node("Conv", "x first.weight first.bias", "p", pads=[1, 1, 1, 1]),
        node("Clip", "p low high", "a"),
        node("Conv", "a deep.weight deep.bias", "q", pads=[1, 1, 1, 1], group=8),
        node("Add", "q a", "r"),
        node("Relu", "r", "s"),
        node("MaxPool", "s", "b", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "b wide.weight wide.bias", "t"),
        node("Concat", "b t", "c", axis=1),
        node("ReduceMean", "c axes", "m", keepdims=0),
        node("Gemm", "m last.weight last.bias", "l", transB=1),
        node("Softmax", "l", "y", axis=1),
    ]
    arrays = {**state, "low": np.float32(0), "high": np.float32(6), "axes": np.array([2, 3])}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def write_tflite(path: Path, state: dict[str, Any]) -> None:
    net = TfliteNet()

    def tensor(*shape: int) -> int:
        return net.tensor(shape, "float32")

    def weights(name: str, order: tuple[int, ...]) -> list[int]:
        return [net.constant(state[f"{name}.weight"].transpose(order)), net.constant(state[f"{name}.bias"])]

    stride = {"f1": ("i32", 1), "f2": ("i32", 1)}
    x = tensor(1, 8, 8, 3)
    a = net.op("CONV_2D", [x, *weights("first", (0, 2, 3, 1))], tensor(1, 8, 8, 8), **stride, f3=("i8", 3))
    deep = {**stride, "f3": ("i32", 1)}
    q = net.op("DEPTHWISE_CONV_2D", [a, *weights("deep", (1, 2, 3, 0))], tensor(1, 8, 8, 8), **deep)
    s = net.op("ADD", [q, a], tensor(1, 8, 8, 8), f0=("i8", 1))
    b = net.op("MAX_POOL_2D", [s], tensor(1, 4, 4, 8), f0=("i8", 1), **{f"f{i}": ("i32", 2) for i in (1, 2, 3, 4)})
    t = net.op("CONV_2D", [b, *weights("wide", (0, 2, 3, 1))], tensor(1, 4, 4, 4), **stride)
    c = net.op("CONCATENATION", [b, t], tensor(1, 4, 4, 12), f0=("i32", 3))
    m = net.op("MEAN", [c, net.constant(np.array([1, 2], dtype=np.int32))], tensor(1, 12))
    last = net.op("FULLY_CONNECTED", [m, *weights("last", (0, 1))], tensor(1, 5))
    net.op("SOFTMAX", [last], tensor(1, 5), f0=("f32", 1.0))
    path.write_bytes(net.write())


def renamed(graph: Graph) -> Graph:
    """``graph`` with positions as names and without places in the source."""
    names = {op.name: f"t{i}" for i, op in enumerate(graph)}
    ops = (replace(op, name=names[op.name], inputs=tuple(names[i] for i in op.inputs), source="") for op in graph)
    return Graph(tuple(ops), tuple(names[name] for name in graph.outputs))


def test_three_front_ends_one_network(tmp_path: Path) -> None:
    model, state = parameters()
    write_onnx(tmp_path / "net.onnx", state)
    write_tflite(tmp_path / "net.tflite", state)
    imported = [import_model(tmp_path / name) for name in ("net.onnx", "net.tflite")]
    assert all(isinstance(graph, Graph) for graph in imported)
    graphs = [renamed(fuse(graph)) for graph in (capture(model, (8, 8, 3)).graph, *imported)]  # type: ignore[arg-type]
    assert to_text(graphs[1]) == to_text(graphs[0])
    assert to_text(graphs[2]) == to_text(graphs[0])
    x = np.random.default_rng(0).normal(0, 1, (16, 8, 8, 3))
    lowered = [lower(ptq(graph, x, (4, 8))) for graph in graphs]
    for other in lowered[1:]:
        assert to_text(other) == to_text(lowered[0])
        for ours, theirs in zip(other, lowered[0], strict=True):
            for field in ("weight", "bias", "multiplier", "shift", "table"):
                if hasattr(ours, field):
                    np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field))
