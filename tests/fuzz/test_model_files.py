"""Damaged and hostile model files: a readable error or a sound graph, soon and in little memory; never a crash."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("flatbuffers")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from mcuq.errors import McuqError, ModelError, UnsupportedError  # noqa: E402
from mcuq.frontend.files import import_model  # noqa: E402
from mcuq.frontend.onnx import import_onnx  # noqa: E402
from tests.fuzz.mutations import mutate  # noqa: E402
from tests.unit.test_frontend_qdq import constants, residual  # noqa: E402
from tests.unit.test_frontend_qdq import save as save_qdq  # noqa: E402
from tests.unit.test_frontend_qonnx import network as qonnx_network  # noqa: E402
from tests.unit.test_frontend_tflite import one_convolution, quantized_net  # noqa: E402

SECONDS, BYTES = 5.0, 2 << 30


def float_model() -> Any:
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(0, 1, (4, 3, 3, 3)), "b": rng.normal(0, 1, 4), "s": np.array([1, -1]),
        "f": rng.normal(0, 1, (5, 100)),
        "start": np.array([0, 1]), "end": np.array([2**40, -1]), "axes": np.array([2, 3]), "step": np.array([1, 1]),
        "pads": np.array([0, 0, 0, 1, 0, 0, 0, 1]),
    }  # fmt: skip
    arrays = {k: v.astype(np.float32 if v.dtype.kind == "f" else np.int64) for k, v in weights.items()}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2], name="first"),
        helper.make_node("Relu", ["c"], ["r"], name="second"),
        helper.make_node("Slice", ["r", "start", "end", "axes", "step"], ["l"]),
        helper.make_node("Pad", ["l", "pads"], ["p"]),
        helper.make_node("Add", ["p", "r"], ["a"]),
        helper.make_node("Reshape", ["a", "s"], ["flat"]),
        helper.make_node("Gemm", ["flat", "f"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 10, 10])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])],
        [numpy_helper.from_array(v, k) for k, v in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def seeds(tmp_path: Path) -> dict[str, bytes]:
    path, _ = save_qdq(tmp_path, *residual(np.uint8), [1, 4, 6, 6])
    return {
        "onnx": float_model().SerializeToString(),
        "qdq": path.read_bytes(),
        "qoperator": qoperator_model(tmp_path),
        "qonnx": qonnx_network(tmp_path)[0].read_bytes(),
        "tflite": quantized_net().write(),
        "tflite float": one_convolution("float32", "int8", "float32").write(),
    }


def qoperator_model(tmp_path: Path) -> bytes:
    """Operators on codes, of the standard and of onnxruntime."""
    values = constants(np.uint8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["q"]),
        helper.make_node("QLinearConv", ["q", "sx", "zx", "w", "sw", "zw", "sy", "zy", "b"], ["c"]),
        helper.make_node("QLinearAdd", ["c", "sy", "zy", "c", "sy", "zy", "sz", "zz"], ["a"], domain="com.microsoft"),
        helper.make_node("DequantizeLinear", ["a", "sz", "zz"], ["y"]),
    ]
    _, proto = save_qdq(tmp_path, nodes, values, [1, 4, 4, 4])
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return proto.SerializeToString()


def import_within_limits(path: Path) -> str:
    """The error's text, or "" for a graph; fails on other exceptions, on time and on memory."""
    started = time.process_time()
    try:
        import_model(path)
        text = ""
    except McuqError as error:
        text = str(error)
        assert text.strip() and "\0" not in text
    assert time.process_time() - started < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < BYTES
    return text


def fuzz(tmp_path: Path, kind: str, count: int) -> None:
    good = seeds(tmp_path)[kind]
    path = tmp_path / "mutated"
    path.write_bytes(good)
    assert import_within_limits(path) == ""
    refused = 0
    for seed in range(count):
        path.write_bytes(mutate(good, seed))
        refused += bool(import_within_limits(path))
    assert count // 3 < refused <= count, "the mutations should mostly be noticed"


KINDS = ("onnx", "qdq", "qoperator", "qonnx", "tflite", "tflite float")


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files(tmp_path: Path, kind: str) -> None:
    fuzz(tmp_path, kind, 200)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_mutated_files(tmp_path: Path, kind: str) -> None:
    fuzz(tmp_path, kind, 10_000)


def every_cut(tmp_path: Path, kind: str, step: int) -> None:
    good = seeds(tmp_path)[kind]
    path = tmp_path / "cut"
    for size in range(0, len(good) - 1, step):
        path.write_bytes(good[:size])
        assert import_within_limits(path), f"{size} of {len(good)} bytes were taken for a model"


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_truncated_files(tmp_path: Path, kind: str) -> None:
    every_cut(tmp_path, kind, 41)


def write(tmp_path: Path, proto: Any) -> Path:
    path = tmp_path / "hostile.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def refuse(tmp_path: Path, proto: Any, words: str) -> None:
    text = import_within_limits(write(tmp_path, proto))
    assert words in text, text


def initializer(proto: Any, name: str) -> Any:
    return next(t for t in proto.graph.initializer if t.name == name)


def test_cycle(tmp_path: Path) -> None:
    proto = float_model()
    proto.graph.node[0].input[0] = "a"
    refuse(tmp_path, proto, "topological")


def test_duplicate_output_and_initializer(tmp_path: Path) -> None:
    proto = float_model()
    proto.graph.node[1].output[0] = "c"
    refuse(tmp_path, proto, "not a sound ONNX model")
    proto = float_model()
    proto.graph.initializer.append(proto.graph.initializer[0])
    refuse(tmp_path, proto, "not a sound ONNX model")


def test_duplicate_node_names_get_numbers(tmp_path: Path) -> None:
    proto = float_model()
    proto.graph.node[1].name = "first"
    graph = import_onnx(write(tmp_path, proto))
    names = [op.name for op in graph]  # type: ignore[union-attr]
    assert {"first", "first_2"} <= set(names) and len(set(names)) == len(names)


@pytest.mark.parametrize("dims", [[2**40, 2**20], [-1, 4], [2**21], [4] * 7, [2**13, 2**13]])
def test_huge_and_negative_dimensions(tmp_path: Path, dims: list[int]) -> None:
    proto = float_model()
    del initializer(proto, "w").dims[:]
    initializer(proto, "w").dims.extend(dims)
    refuse(tmp_path, proto, "allowed")


def test_constants_that_blow_up(tmp_path: Path) -> None:
    for kind, inputs, words in (("ConstantOfShape", ["big"], "allowed"), ("Expand", ["b1", "big"], "allowed")):
        proto = float_model()
        proto.graph.initializer.append(numpy_helper.from_array(np.array([2**19, 2**19]), "big"))
        proto.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "b1"))
        proto.graph.node.insert(0, helper.make_node(kind, inputs, ["huge"]))
        refuse(tmp_path, proto, words)


def test_doubling_constants(tmp_path: Path) -> None:
    """Forty nodes that each double a constant."""
    proto = float_model()
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(1024, np.float32), "d0"))
    for i in range(40):
        proto.graph.node.insert(i, helper.make_node("Concat", [f"d{i}", f"d{i}"], [f"d{i + 1}"], axis=0))
    refuse(tmp_path, proto, "allowed")


@pytest.mark.parametrize("opset", [1, 7, 99, 2**40])
def test_opset_range(tmp_path: Path, opset: int) -> None:
    proto = float_model()
    proto.opset_import[0].version = opset
    refuse(tmp_path, proto, f"ONNX opset {opset}: 8 to ")


def test_nan_weights_name_tensor_and_count(tmp_path: Path) -> None:
    proto = float_model()
    array = numpy_helper.to_array(initializer(proto, "w")).copy()
    array[0, 0, 0, :2] = np.nan, np.inf
    initializer(proto, "w").CopyFrom(numpy_helper.from_array(array, "w"))
    refuse(tmp_path, proto, "weights hold NaN or infinity: 'w' (2 of 108 values)")


@pytest.mark.parametrize("group", [0, -1, 2, 3, 2**40])
def test_groups_that_do_not_divide(tmp_path: Path, group: int) -> None:
    proto = float_model()
    proto.graph.node[0].attribute.append(helper.make_attribute("group", group))
    assert import_within_limits(write(tmp_path, proto))


def test_custom_domains_and_functions(tmp_path: Path) -> None:
    proto = float_model()
    proto.graph.node[1].domain = "evil.example"
    proto.opset_import.append(helper.make_opsetid("evil.example", 1))
    refuse(tmp_path, proto, "evil.example.Relu at 'second'")


def test_external_data(tmp_path: Path) -> None:
    inside = tmp_path / "model"
    inside.mkdir()
    values = numpy_helper.to_array(initializer(float_model(), "w")).tobytes()
    (inside / "w.bin").write_bytes(values)
    (tmp_path / "secret.bin").write_bytes(values)
    os.symlink(tmp_path / "secret.bin", inside / "link.bin")
    os.link(tmp_path / "secret.bin", inside / "hard.bin")

    def external(location: str, **fields: str) -> Path:
        proto = float_model()
        tensor = initializer(proto, "w")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **fields}.items():
            tensor.external_data.add(key=key, value=value)
        return write(inside, proto)

    assert import_within_limits(external("w.bin")) == ""
    assert import_within_limits(external("w.bin", offset="0", length=str(len(values)))) == ""
    hostile = [
        "../secret.bin",
        "sub/../../secret.bin",
        str(tmp_path / "secret.bin"),
        "link.bin",
        "hard.bin",
        "",
        "gone.bin",
    ]
    for location in [*hostile, "/dev/zero", ".", "a\0b"]:
        assert "model's folder" in import_within_limits(external(location)), location
    for fields in ({"length": str(2**40)}, {"offset": "-4"}, {"offset": "999999"}, {"length": "x"}):
        assert "external data of 'w'" in import_within_limits(external("w.bin", **fields))


def views_of(parts: int, size: int, channels: int) -> Any:
    """A model that cuts pieces off one map."""
    nodes = []
    constants = {"e": np.array([channels, size]), "a": np.array([1, 2])}
    for i in range(parts):
        nodes.append(helper.make_node("Slice", ["x", f"s{i}", "e", "a"], [f"c{i}"]))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"]))
        nodes.append(helper.make_node("MaxPool", [f"r{i}"], [f"y{i}"], kernel_shape=[2, 2]))
        constants[f"s{i}"] = np.array([i + 1, size - 3])
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, size, size])],
        [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, ["n", "c", "h", "w"]) for i in range(parts)],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize(("parts", "channels"), [(1, 4000), (40, 900)])
def test_selections_do_not_eat_the_memory(tmp_path: Path, parts: int, channels: int) -> None:
    """They are copies by counters, which hold no table and no weights."""
    assert import_within_limits(write(tmp_path, views_of(parts, 20, channels))) == ""


def test_one_weight_read_by_many_layers(tmp_path: Path) -> None:
    proto = float_model()
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros((500, 100), np.float32), "shared"))
    for i in range(400):
        proto.graph.node.append(helper.make_node("Gemm", ["flat", "shared"], [f"o{i}"], transB=1))
        proto.graph.output.append(helper.make_tensor_value_info(f"o{i}", TensorProto.FLOAT, [1, 500]))
    refuse(tmp_path, proto, "weights")


def test_many_nodes_of_one_name(tmp_path: Path) -> None:
    proto = float_model()
    for i in range(9_000):
        proto.graph.node.append(helper.make_node("Relu", [f"o{i}" if i else "y"], [f"o{i + 1}"], name="same"))
    assert import_within_limits(write(tmp_path, proto)) == ""
    for i in range(2_000):
        proto.graph.node.append(helper.make_node("Relu", ["y"], [f"p{i}"], name="same"))
    refuse(tmp_path, proto, "nodes, at most 10000")


def test_special_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path, tmp_path / "missing"):
        with pytest.raises(ModelError, match="no such file"):
            import_model(path)


def test_size_is_looked_at_first(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse
    with pytest.raises(ModelError, match="at most 67108864 are read"):
        import_model(path)


def test_control_flow_is_listed(tmp_path: Path) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["out"])], "b", [], [helper.make_tensor_value_info("out", 1, [1, 4, 5, 5])]
    )
    proto = float_model()
    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    proto.graph.node.insert(2, helper.make_node("If", ["yes"], ["i"], then_branch=body, else_branch=body, name="which"))
    with pytest.raises(UnsupportedError, match="If at 'which'"):
        import_onnx(write(tmp_path, proto))
