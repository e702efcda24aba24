"""The ONNX front end: whole graphs, idioms of exporters, shapes, names and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
from onnx import TensorProto, helper

from mcuq.errors import ModelError, UnsupportedError, UsageError
from mcuq.frontend.onnx import import_onnx
from mcuq.ir.fuse import fuse
from mcuq.ir.graph import Conv2d, Graph, Normalization
from mcuq.ir.text import to_text
from mcuq.reference import floating
from tests.onnx_models import check, draw, ints, model, node, save


def test_convolution_over_time(tmp_path: Path) -> None:
    """Against sums written out: the onnx evaluator mistakes padded one-dimensional convolutions."""
    weight, bias = draw(6, 4, 5), draw(6)
    nodes = [node("Conv", "x w b", pads=[2, 1], strides=[2], dilations=[1])]
    graph = fuse(import_onnx(save(tmp_path, model(nodes, [1, 4, 12], {"w": weight, "b": bias}))))
    x = draw(1, 4, 12).astype(np.float64)
    padded = np.pad(x[0], ((0, 0), (2, 1)))
    wanted = [[(padded[:, 2 * i : 2 * i + 5] * weight[o]).sum() + bias[o] for o in range(6)] for i in range(6)]
    actual = floating.run(graph, x.transpose(0, 2, 1)[:, None])[graph.outputs[0]]
    np.testing.assert_allclose(actual[0, 0], wanted, atol=1e-5)


def test_argmax(tmp_path: Path) -> None:
    proto = model([node("ArgMax", "x", axis=1, keepdims=0)], [1, 6], {})
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.INT64, [1]))
    check(tmp_path, proto, (1, 6))


def test_constants_after_layers_become_biases(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "c"),
        node("Add", "c k", "d"),
        node("Relu", "d", "r"),
        node("Mul", "r s", "m"),
        node("Add", "m s"),
    ]
    graph = check(
        tmp_path,
        model(nodes, [1, 4, 6, 6], {"w": draw(6, 4, 3, 3), "k": draw(6, 1, 1), "s": draw(6, 1, 1)}),
        (1, 4, 6, 6),
    )
    kinds = [type(op).__name__ for op in graph]
    assert kinds == ["Input", "Conv2d", "Clip", "BatchNorm"]
    assert isinstance(graph.ops[1], Conv2d) and graph.ops[1].bias is not None


def test_padding_spread_over_many_nodes(tmp_path: Path) -> None:
    """Older exporters compute one padding by a chain of constants."""
    nodes = [
        node("ConstantOfShape", "four", "zeros", value=helper.make_tensor("v", TensorProto.INT64, [1], [0])),
        node("Concat", "given zeros", "all", axis=0),
        node("Reshape", "all two", "pairs"),
        node("Slice", "pairs start end axis minus", "reversed"),
        node("Transpose", "reversed", "turned", perm=[1, 0]),
        node("Reshape", "turned flat", "line"),
        node("Cast", "line", "pads", to=TensorProto.INT64),
        node("Pad", "x pads -", "p", mode="constant"),
        node("Conv", "p w"),
    ]
    constants = {
        "four": ints(4), "given": ints(1, 2, 3, 0), "two": ints(-1, 2), "start": ints(-1), "end": ints(-(2**63) + 1),
        "axis": ints(0), "minus": ints(-1), "flat": ints(-1), "w": draw(6, 4, 3, 3),
    }  # fmt: skip
    graph = check(tmp_path, model(nodes, [1, 4, 5, 5], constants, opset=17), (1, 4, 5, 5))
    assert [type(op).__name__ for op in fuse(graph)] == ["Input", "Conv2d"]


def test_detector_heads_joined_as_boxes(tmp_path: Path) -> None:
    nodes = [node("Conv", f"x w{i}", f"c{i}", strides=[i, i], pads=[1, 1, 1, 1]) for i in (1, 2)]
    for i in (1, 2):
        nodes += [node("Transpose", f"c{i}", f"t{i}", perm=[0, 2, 3, 1]), node("Shape", f"t{i}", f"s{i}")]
        nodes += [node("Gather", f"s{i} zero", f"g{i}"), node("Unsqueeze", f"g{i} zero0", f"u{i}")]
        nodes += [node("Concat", f"u{i} rest", f"r{i}", axis=0), node("Reshape", f"t{i} r{i}", f"h{i}")]
    nodes += [node("Concat", "h1 h2", "boxes", axis=1), node("Softmax", "boxes", "scores", axis=2)]
    constants = {
        "w1": draw(6, 4, 3, 3),
        "w2": draw(6, 4, 3, 3),
        "zero": np.int64(0),
        "zero0": ints(0),
        "rest": ints(-1, 2),
    }
    graph = check(tmp_path, model(nodes, [1, 4, 6, 6], constants, outputs=("scores", "boxes")), (1, 4, 6, 6))
    assert [graph.op(name).shape for name in graph.outputs] == [(1, 135, 2), (1, 135, 2)]


def test_a_clip_may_have_infinite_bounds(tmp_path: Path) -> None:
    clip, bounds = [node("Clip", "x low high")], {"low": np.float32(0), "high": np.float32(np.inf)}
    graph = import_onnx(save(tmp_path, model(clip, [1, 4, 3, 3], bounds)))
    assert isinstance(graph, Graph) and "clamp 0.." in to_text(graph)
    with pytest.raises(ModelError, match="NaN or infinity"):
        import_onnx(save(tmp_path, model(clip, [1, 4, 3, 3], {**bounds, "low": np.float32("nan")})))


def test_unsupported_operators_are_listed_together(tmp_path: Path) -> None:
    nodes = [node("LRN", "x", "s", size=3), node("Det", "x", "t"), node("Add", "s s", "m"), node("Tan", "x")]
    nodes[0].name, nodes[3].name = "gate", "tangent"
    nodes.insert(3, node("LpPool", "m", "behind", kernel_shape=[1, 1]))
    with pytest.raises(UnsupportedError) as caught:
        import_onnx(save(tmp_path, model(nodes, [1, 4, 3, 3], {})))
    text = str(caught.value)
    assert text.startswith("4 operators have no counterpart") and "LpPool" in text
    assert "LRN at 'gate'" in text and "Det at 't'" in text and "Tan at 'tangent'" in text


@pytest.mark.parametrize(
    ("nodes", "constants", "words"),
    [
        ([node("Max", "x k")], {"k": draw(1, 1, 8, 8)}, "one constant number"),
        ([node("Concat", "x x", axis=0)], {}, "along the batch"),
        ([node("ArgMax", "x", "i", axis=0), node("Cast", "i", to=1)], {}, "not over the batch"),
        ([node("Softmax", "x", axis=0)], {}, "over the batch"),
        ([node("LpNormalization", "x", axis=0)], {}, "over the batch"),
        ([node("Pad", "x p v")], {"p": ints(0, 1, 0, 1, 0, 1, 0, 1), "v": np.float32(1)}, "only padding with zeros"),
        ([node("Pow", "x y2")], {"y2": draw(4, 1, 1)}, "one number"),
        ([node("Resize", "x - s", mode="cubic")], {"s": np.array([1, 1, 2, 2], np.float32)}, "nearest and linear"),
    ],
)  # fmt: skip
def test_refusals_say_why(tmp_path: Path, nodes: list[Any], constants: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        import_onnx(save(tmp_path, model(nodes, [1, 4, 8, 8], constants)))


def test_dynamic_input_needs_a_shape(tmp_path: Path) -> None:
    path = save(tmp_path, model([node("Relu", "x")], ["batch", 4, "height", "width"], {}))
    with pytest.raises(UsageError, match="give --input-shape"):
        import_onnx(path)
    assert import_onnx(path, (5, 7, 4)).input.shape == (5, 7, 4)
    with pytest.raises(UsageError, match="does not fit"):
        import_onnx(path, (5, 7, 3))


def test_dynamic_batch_is_one(tmp_path: Path) -> None:
    path = save(tmp_path, model([node("Relu", "x")], ["batch", 4, 5, 6], {}))
    assert import_onnx(path).input.shape == (5, 6, 4)


def test_normalization_stays_in_the_input(tmp_path: Path) -> None:
    path = save(tmp_path, model([node("Relu", "x")], [1, 4, 5, 6], {}))
    assert import_onnx(path, normalization=Normalization(0.5, 3)).input.normalization == Normalization(0.5, 3)


def test_names_are_data(tmp_path: Path) -> None:
    names = ['*/ system("x"); /*', "a\nb", "??/", "\u202eevil", "x" * 500, "a\nb", "main"]
    nodes = [node("Relu", "x" if i == 0 else f"t{i - 1}", f"t{i}", name=n) for i, n in enumerate(names)]
    nodes[-1].output[0] = "y"
    graph = import_onnx(save(tmp_path, model(nodes, [1, 4, 5, 6], {})))
    for op in graph:
        assert len(op.name) <= 124 and op.name.isascii() and not set(op.name) & set(' \n"*?;()\\')
    assert len({op.name for op in graph}) == len(names) + 1


def test_same_graph_as_through_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from mcuq.frontend.torch import capture

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(4, 6, 3, 2, 1)
            self.deep = torch.nn.Conv2d(6, 6, 3, padding=1, groups=6)
            self.fc = torch.nn.Linear(6 * 2 * 2, 5)

        def forward(self, x: Any) -> Any:
            x = torch.nn.functional.relu6(self.conv(x))
            x = torch.nn.functional.relu(self.deep(x) + x)
            return self.fc(torch.nn.functional.max_pool2d(x, 2).flatten(1))

    net = Net()
    state = {k: v.detach().numpy() for k, v in net.state_dict().items()}
    nodes = [
        node("Conv", "x conv.weight conv.bias", "a", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Clip", "a lo hi", "b"),
        node("Conv", "b deep.weight deep.bias", "c", pads=[1, 1, 1, 1], group=6),
        node("Add", "c b", "d"),
        node("Relu", "d", "e"),
        node("MaxPool", "e", "f", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", "f", "g"),
        node("Gemm", "g fc.weight fc.bias", transB=1),
    ]
    constants = {**state, "lo": np.float32(0), "hi": np.float32(6)}
    graph = check(tmp_path, model(nodes, [1, 4, 8, 8], constants), (1, 4, 8, 8))
    captured = capture(net, (8, 8, 4)).graph
    assert numbered(graph) == numbered(captured)
    for ours, theirs in zip(graph.convs, captured.convs, strict=True):
        np.testing.assert_array_equal(ours.weight, theirs.weight)


def numbered(graph: Graph) -> str:
    """The graph's text with names replaced by positions."""
    from dataclasses import replace

    names = {op.name: f"t{i}" for i, op in enumerate(graph)}
    ops = tuple(replace(op, name=names[op.name], inputs=tuple(names[i] for i in op.inputs)) for op in graph)
    return to_text(Graph(ops, tuple(names[name] for name in graph.outputs)))
