"""The TFLite front end: operators against sums written out, quantization kept, damaged files refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flatbuffers")
from mcuq.errors import ModelError, UnsupportedError
from mcuq.frontend.files import import_model
from mcuq.frontend.tflite import import_tflite
from mcuq.ir.fuse import fuse
from mcuq.ir.graph import Graph, Normalization
from mcuq.ir.integer import QConv2d
from mcuq.ir.quantized import QuantizedGraph, QuantParams
from mcuq.ir.text import to_text
from mcuq.lower.lower import lower
from mcuq.numerics import dequantize, quantize
from mcuq.reference import floating, integer
from tests.tflite_writer import Net

RNG = np.random.default_rng(3)


def draw(*shape: int) -> Any:
    return RNG.normal(0, 1, shape).astype(np.float32)


def save(tmp_path: Path, net: Net) -> Path:
    path = tmp_path / "net.bin"
    path.write_bytes(net.write())
    return path


def imported(tmp_path: Path, net: Net) -> Graph:
    graph = import_tflite(save(tmp_path, net))
    assert isinstance(graph, Graph)
    return graph


def evaluate(graph: Graph, x: Any) -> Any:
    fused = fuse(graph)
    return floating.run(fused, x.astype(np.float64))[fused.outputs[0]]


def quantized_net() -> Net:
    """Conv (per channel, RELU6), depthwise, residual addition, pool, mean, fully connected, softmax."""
    net = Net()
    x = net.tensor([1, 8, 7, 3], scale=0.05, zero=-3)
    w = net.constant(RNG.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8), RNG.uniform(0.004, 0.01, 4))
    b = net.constant(RNG.integers(-500, 500, 4).astype(np.int32), [0.0003] * 4)
    conv = net.tensor([1, 4, 4, 4], scale=0.02, zero=-128, name="a/conv;b")
    net.op("CONV_2D", [x, w, b], conv, f1=("i32", 2), f2=("i32", 2), f3=("i8", 3))
    w2 = net.constant(RNG.integers(-127, 128, (1, 3, 3, 4)).astype(np.int8), RNG.uniform(0.01, 0.02, 4), axis=3)
    b2 = net.constant(RNG.integers(-500, 500, 4).astype(np.int32), [0.0003] * 4)
    deep = net.tensor([1, 4, 4, 4], scale=0.04, zero=5)
    net.op("DEPTHWISE_CONV_2D", [conv, w2, b2], deep, f1=("i32", 1), f2=("i32", 1), f3=("i32", 1))
    add = net.op("ADD", [deep, conv], net.tensor([1, 4, 4, 4], scale=0.05, zero=-60), f0=("i8", 1))
    options = {f"f{i}": ("i32", 2) for i in (1, 2, 3, 4)}
    pool = net.op("MAX_POOL_2D", [add], net.tensor([1, 2, 2, 4], scale=0.05, zero=-60), **options)
    axes = net.constant(np.array([1, 2], dtype=np.int32))
    mean = net.op("MEAN", [pool, axes], net.tensor([1, 4], scale=0.03, zero=-100))
    w3 = net.constant(RNG.integers(-127, 128, (5, 4)).astype(np.int8), 0.01)
    b3 = net.constant(RNG.integers(-500, 500, 5).astype(np.int32), 0.0003)
    dense = net.op("FULLY_CONNECTED", [mean, w3, b3], net.tensor([1, 5], scale=0.06, zero=3))
    net.op("SOFTMAX", [dense], net.tensor([1, 5], scale=1 / 256, zero=-128), f0=("f32", 1.0))
    return net


def test_quantized_model_keeps_its_codes_and_scales(tmp_path: Path) -> None:
    net = quantized_net()
    q = import_tflite(save(tmp_path, net))
    assert isinstance(q, QuantizedGraph)
    conv = q.graph.convs[0]
    assert conv.name == "a.conv" and conv.clamp == (0.0, 6.0) and conv.window.padding == (0, 1, 1, 1)
    np.testing.assert_array_equal(q.weight("a.conv").codes, net.tensors[1]["data"])
    np.testing.assert_allclose(q.weight("a.conv").scale, net.tensors[1]["scale"], rtol=1e-6)
    deep = q.graph.convs[1]
    np.testing.assert_array_equal(q.weight(deep.name).codes[:, :, :, 0], net.tensors[4]["data"][0].transpose(2, 0, 1))
    assert deep.groups == 4
    scale = float(np.float32(0.05))
    assert q.params(q.graph.input.name) == QuantParams(8, scale, -3)
    steps = q.weight("a.conv").bias / (scale * q.weight("a.conv").scale)
    assert np.abs(steps - net.tensors[2]["data"]).max() < 0.01


def test_each_layer_is_within_one_step_of_real_arithmetic(tmp_path: Path) -> None:
    q = import_tflite(save(tmp_path, quantized_net()))
    assert isinstance(q, QuantizedGraph)
    graph = lower(q)
    values = integer.run(graph, RNG.integers(-128, 128, (16, 8, 7, 3)))
    real = {name: dequantize(values[name], graph.tensor(name).scale, graph.tensor(name).zero_point) for name in values}
    for op in q.graph.ops[1:]:
        tensor = graph.tensor(op.name)
        exact = floating.evaluate(op, tuple(real[name] for name in op.inputs))
        wanted = quantize(exact, tensor.scale, tensor.zero_point, tensor.bits)
        assert np.abs(values[op.name] - wanted).max() <= 1, op.name
        assert len(np.unique(wanted)) > 4, "a test on a constant tensor shows nothing"


def test_integer_graph_as_text(tmp_path: Path) -> None:
    q = import_tflite(save(tmp_path, quantized_net()))
    assert isinstance(q, QuantizedGraph)
    kinds = [line.split(" = ")[1].split("(")[0] for line in to_text(lower(q)).splitlines()[:-1]]
    assert kinds == ["input", "conv2d", "conv2d", "add", "max_pool", "avg_pool", "conv2d", "softmax"]


def one_convolution(activations: str, weights: str, biases: str) -> Net:
    """Activations of ``activations``; floats have no scale."""
    net = Net()
    scale: dict[str, Any] = {} if activations == "float32" else {"scale": 0.05, "zero": 0}
    x = net.tensor([1, 4, 4, 2], activations, **scale)
    w = net.constant(np.arange(-3, 3).reshape(3, 1, 1, 2).astype(weights), 0.02)
    b = net.constant(np.array([1, -2, 3]).astype(biases), None if biases == "float32" else 0.001)
    y = net.tensor([1, 4, 4, 3], activations, **scale)
    net.op("CONV_2D", [x, w, b], y, f0=("i8", 0), f1=("i32", 1), f2=("i32", 1))
    return net


def test_sixteen_bit_activations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"type int16; .* of float32, int8 or uint8"):
        import_tflite(save(tmp_path, one_convolution("int16", "int8", "int64")))


def test_weights_quantized_alone_are_a_float_model(tmp_path: Path) -> None:
    """Dynamic-range files: activations are float there; weights become the real numbers they stand for."""
    graph = imported(tmp_path, one_convolution("float32", "int8", "float32"))
    np.testing.assert_allclose(graph.convs[0].weight.ravel(), 0.02 * np.arange(-3, 3), rtol=1e-6)


def test_uint8_input_is_pixels(tmp_path: Path) -> None:
    net = Net()
    x = net.tensor([1, 4, 4, 2], "uint8", 0.5, 10)
    moved = net.op("QUANTIZE", [x], net.tensor([1, 4, 4, 2], "int8", 0.5, -118))
    net.op("RELU", [moved], net.tensor([1, 4, 4, 2], "int8", 0.5, -118))
    q = import_tflite(save(tmp_path, net))
    assert isinstance(q, QuantizedGraph)
    assert q.graph.input.normalization == Normalization(0.5, 10)
    graph = lower(q)
    pixels = RNG.integers(0, 256, (2, 4, 4, 2))
    result = integer.run(graph, pixels)[graph.outputs[0]]
    np.testing.assert_array_equal(result, np.maximum(pixels - 128, -118))


FLOAT_CASES: dict[str, Any] = {}


def case(function: Any) -> Any:
    FLOAT_CASES[function.__name__] = function
    return function


@case
def convolution(net: Net) -> Any:
    x, w, b = net.tensor([1, 7, 6, 3], "float32"), draw(4, 3, 2, 3), draw(4)
    y = net.tensor([1, 4, 3, 4], "float32")
    net.op("CONV_2D", [x, net.constant(w), net.constant(b)], y, f1=("i32", 2), f2=("i32", 2), f3=("i8", 1))

    def wanted(v: Any) -> Any:
        padded = np.pad(v, ((0, 0), (1, 1), (0, 0), (0, 0)))
        taps = [[padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 2] for j in range(3)] for i in range(4)]
        rows = [[np.einsum("nhwc,ohwc->no", t, w) + b for t in row] for row in taps]
        return np.maximum(np.array(rows).transpose(2, 0, 1, 3), 0)

    return (7, 6, 3), wanted


@case
def valid_average_pool(net: Net) -> Any:
    x, y = net.tensor([1, 5, 5, 2], "float32"), net.tensor([1, 2, 2, 2], "float32")
    sizes = {f"f{i}": ("i32", 2) for i in (1, 2, 3, 4)}
    net.op("AVERAGE_POOL_2D", [x], y, f0=("i8", 1), **sizes)
    return (5, 5, 2), lambda v: v[:, :4, :4].reshape(1, 2, 2, 2, 2, 2).mean(axis=(2, 4))


@case
def flattened_dense(net: Net) -> Any:
    x, w = net.tensor([1, 2, 3, 4], "float32"), draw(5, 24)
    flat = net.op("RESHAPE", [x], net.tensor([1, 24], "float32"))
    net.op("FULLY_CONNECTED", [flat, net.constant(w), -1], net.tensor([1, 5], "float32"))
    return (2, 3, 4), lambda v: v.reshape(1, 24) @ w.T


@case
def padded_channels(net: Net) -> Any:
    x = net.tensor([1, 3, 3, 2], "float32")
    pads = net.constant(np.array([[0, 0], [0, 0], [0, 0], [1, 2]], dtype=np.int32))
    y = net.op("PAD", [x, pads], net.tensor([1, 3, 3, 5], "float32"))
    net.op("RELU6", [y], net.tensor([1, 3, 3, 5], "float32"))
    return (3, 3, 2), lambda v: np.clip(np.pad(v, ((0, 0), (0, 0), (0, 0), (1, 2))), 0, 6)


@case
def strided_slice_and_pad(net: Net) -> Any:
    x = net.tensor([1, 6, 6, 2], "float32")
    bounds = [net.constant(np.array(v, dtype=np.int32)) for v in ([0, 1, 0, 0], [0, 6, 6, 0], [1, 2, 2, 1])]
    s = net.op("STRIDED_SLICE", [x, *bounds], net.tensor([1, 3, 3, 2], "float32"), f1=("i32", 9), f0=("i32", 1))
    pads = net.constant(np.array([[0, 0], [1, 0], [0, 2], [0, 0]], dtype=np.int32))
    net.op("PAD", [s, pads], net.tensor([1, 4, 5, 2], "float32"))
    return (6, 6, 2), lambda v: np.pad(v[:, 1::2, ::2], ((0, 0), (1, 0), (0, 2), (0, 0)))


@case
def joined(net: Net) -> Any:
    x = net.tensor([1, 3, 3, 2], "float32")
    y = net.op("RELU", [x], net.tensor([1, 3, 3, 2], "float32"))
    net.op("CONCATENATION", [x, y], net.tensor([1, 3, 3, 4], "float32"), f0=("i32", -1))
    return (3, 3, 2), lambda v: np.concatenate([v, np.maximum(v, 0)], axis=3)


@case
def joined_rows(net: Net) -> Any:
    x = net.tensor([1, 3, 3, 2], "float32")
    y = net.op("RELU", [x], net.tensor([1, 3, 3, 2], "float32"))
    net.op("CONCATENATION", [x, y], net.tensor([1, 6, 3, 2], "float32"), f0=("i32", 1))
    return (3, 3, 2), lambda v: np.concatenate([v, np.maximum(v, 0)], axis=1)


@case
def scaled_and_shifted(net: Net) -> Any:
    x, s, b = net.tensor([1, 3, 3, 2], "float32"), draw(2), draw(1, 1, 1, 2)
    y = net.op("MUL", [x, net.constant(s)], net.tensor([1, 3, 3, 2], "float32"))
    z = net.op("SUB", [y, net.constant(b)], net.tensor([1, 3, 3, 2], "float32"))
    net.op("ADD", [z, y], net.tensor([1, 3, 3, 2], "float32"))
    return (3, 3, 2), lambda v: 2 * (v * s) - b


@case
def transposed(net: Net) -> Any:
    x, w = net.tensor([1, 2, 3, 4], "float32"), draw(5, 24)
    order = net.constant(np.array([0, 3, 1, 2], dtype=np.int32))
    t = net.op("TRANSPOSE", [x, order], net.tensor([1, 4, 2, 3], "float32"))
    flat = net.op("RESHAPE", [t], net.tensor([1, 24], "float32"))
    net.op("FULLY_CONNECTED", [flat, net.constant(w), -1], net.tensor([1, 5], "float32"))
    return (2, 3, 4), lambda v: v.transpose(0, 3, 1, 2).reshape(1, 24) @ w.T


@case
def half_precision_weights(net: Net) -> Any:
    x, w = net.tensor([1, 6], "float32"), draw(5, 6).astype(np.float16)
    real = net.op("DEQUANTIZE", [net.constant(w)], net.tensor([5, 6], "float32"))
    net.op("FULLY_CONNECTED", [x, real, -1], net.tensor([1, 5], "float32"))
    return (6,), lambda v: v.reshape(1, 6) @ w.astype(np.float64).T


@case
def split_and_added(net: Net) -> Any:
    x = net.tensor([1, 3, 3, 4], "float32")
    parts = [net.tensor([1, 3, 3, 2], "float32") for _ in range(2)]
    net.op("SPLIT", [net.constant(np.array(3, dtype=np.int32)), x], parts[0], f0=("i32", 2))
    net.operators[-1]["outputs"] = parts
    net.op("ADD", parts, net.tensor([1, 3, 3, 2], "float32"))
    return (3, 3, 4), lambda v: v[..., :2] + v[..., 2:]


@case
def mean_over_height(net: Net) -> Any:
    x = net.tensor([1, 4, 3, 2], "float32")
    net.op("MEAN", [x, net.constant(np.array([1], dtype=np.int32))], net.tensor([1, 3, 2], "float32"))
    return (4, 3, 2), lambda v: v.mean(axis=1)


@case
def largest(net: Net) -> Any:
    x = net.tensor([1, 6], "float32")
    net.op("ARG_MAX", [x, net.constant(np.array([1], dtype=np.int32))], net.tensor([1], "int64"))
    return (6,), lambda v: v.reshape(1, 6).argmax(axis=1).astype(np.float64)


@pytest.mark.parametrize("name", FLOAT_CASES)
def test_float_operator(tmp_path: Path, name: str) -> None:
    net = Net()
    shape, wanted = FLOAT_CASES[name](net)
    graph = imported(tmp_path, net)
    x = draw(1, *(1,) * (3 - len(shape)), *shape).astype(np.float64)
    expected = wanted(x)
    np.testing.assert_allclose(evaluate(graph, x).reshape(expected.shape), expected, atol=1e-5)


def test_strided_shortcut_is_one_selection(tmp_path: Path) -> None:
    net = Net()
    strided_slice_and_pad(net)
    graph = fuse(imported(tmp_path, net))
    assert [type(op).__name__ for op in graph] == ["Input", "Copy", "Pad"]


def test_unsupported_operators_are_listed_together(tmp_path: Path) -> None:
    net = Net()
    x = net.tensor([1, 3, 3, 2], "float32")
    y = net.op("SVDF", [x], net.tensor([1, 3, 3, 2], "float32", name="gate"))
    z = net.op("CUSTOM", [x], net.tensor([1, 3, 3, 2], "float32"))
    net.op("MUL", [y, z], net.tensor([1, 3, 3, 2], "float32"))
    net.op("LSTM", [x], net.tensor([1, 3, 3, 2], "float32"))
    with pytest.raises(UnsupportedError) as caught:
        import_tflite(save(tmp_path, net))
    text = str(caught.value)
    assert "3 operators have no counterpart" in text and "SVDF at 'gate'" in text and "LSTM" in text
    assert "CUSTOM 'MyOperator'" in text


def test_a_state_that_nothing_writes_is_no_damage(tmp_path: Path) -> None:
    """Recurrent layers read variables without content; what lies behind is listed, too."""
    net = Net()
    x, state = net.tensor([1, 3, 3, 2], "float32"), net.tensor([1, 2], "float32")
    y = net.op("LSTM", [x, state], net.tensor([1, 3, 3, 2], "float32"))
    net.op("SVDF", [net.op("RELU", [y], net.tensor([1, 3, 3, 2], "float32"))], net.tensor([1, 2], "float32"))
    with pytest.raises(UnsupportedError, match=r"2 operators have no counterpart[\s\S]*LSTM[\s\S]*SVDF"):
        import_tflite(save(tmp_path, net))


def test_biases_may_bear_the_axis_of_their_weights(tmp_path: Path) -> None:
    """Scales of a bias [C] along axis 3, as some converters write those of depthwise layers."""
    net = Net()
    x = net.tensor([1, 2, 2, 2], scale=0.5, zero=-128)
    w = net.constant(np.array([[[[2, 3]]]], dtype=np.int8), [0.5, 0.25], 0, 3)
    b = net.constant(np.array([4, 8], dtype=np.int32), [0.25, 0.125], 0, 3)
    stride = {"f1": ("i32", 1), "f2": ("i32", 1), "f3": ("i32", 1)}
    net.op("DEPTHWISE_CONV_2D", [x, w, b], net.tensor([1, 2, 2, 2], scale=0.5, zero=-128), **stride)
    graph = import_tflite(save(tmp_path, net))
    assert isinstance(graph, QuantizedGraph)
    np.testing.assert_allclose(graph.weights[0].bias, [1.0, 1.0], atol=0.3)


def broken(name: str) -> bytes:
    net = quantized_net()
    match name:
        case "not a TFLite file":
            return b"abcd" + net.write()[4:8].lower() + b"efgh"
        case "before any operator writes it":
            net.operators[0]["inputs"][0] = 4 + len(net.tensors) - 6
        case "written before":
            net.operators.append(dict(net.operators[0]))
        case "scales have to be positive":
            net.tensors[0]["scale"] = 0.0
        case "its shape needs":
            net.tensors[1]["shape"] = [4, 3, 3, 2]
        case "at most 6 dimensions":
            net.tensors[0]["shape"] = [1, 1 << 21, 7, 3]
        case "elements are allowed":
            net.tensors[0]["shape"] = [1, 1 << 19, 1 << 19, 3]
        case "hold NaN or infinity":
            net = Net()
            x = net.tensor([1, 2], "float32")
            net.op(
                "FULLY_CONNECTED",
                [x, net.constant(np.array([[np.nan, 1]], dtype=np.float32)), -1],
                net.tensor([1, 1], "float32"),
            )
        case "2 scales for 4 channels":
            net.tensors[1]["scale"] = [0.1, 0.2]
        case "outside 0..":
            net.operators[0]["inputs"][1] = 999
        case _:
            raise ValueError(name)
    return net.write()


@pytest.mark.parametrize(
    "words",
    [
        "not a TFLite file",
        "before any operator writes it",
        "written before",
        "scales have to be positive",
        "its shape needs",
        "at most 6 dimensions",
        "elements are allowed",
        "hold NaN or infinity",
        "2 scales for 4 channels",
        "outside 0..",
    ],
)
def test_broken_files_are_refused(tmp_path: Path, words: str) -> None:
    path = tmp_path / "broken.tflite"
    path.write_bytes(broken(words))
    with pytest.raises(ModelError, match=words):
        import_tflite(path)


def test_content_decides_what_a_file_is(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(quantized_net().write())
    assert isinstance(import_model(path), QuantizedGraph)
    for data, words in [
        (b"PK\x03\x04rest", "zip archive"),
        (b"\x80\x04\x95rest", "pickle, which can run code"),
        (b"", "empty"),
        (b"hello, this is text", "ONNX"),
        (b"\x93NUMPY\x01\x00", "numpy array"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
    ]:
        path.write_bytes(data)
        with pytest.raises(ModelError, match=words):
            import_model(path)
    with pytest.raises(ModelError, match="no such file"):
        import_model(tmp_path)
    with pytest.raises(ModelError, match="no such file"):
        import_model("a\0b")


def test_convolutions_round_twice_on_request(tmp_path: Path) -> None:
    """Also one whose kernel is the whole map; fully connected layers round once, as the reference kernels do."""
    net = Net()
    x = net.tensor([1, 2, 2, 1], scale=0.5)
    w = net.constant(np.array([[[[2], [3]], [[1], [4]]]], dtype=np.int8), 0.25)
    stride = {"f0": ("i8", 1), "f1": ("i32", 1), "f2": ("i32", 1)}
    y = net.op("CONV_2D", [x, w], net.tensor([1, 1, 1, 1], scale=3.0), **stride)
    flat = net.constant(np.array([[5]], dtype=np.int8), 0.25)
    net.op("FULLY_CONNECTED", [y, flat], net.tensor([1, 1], scale=4.0))
    for roundings in (1, 2):
        graph = import_model(save(tmp_path, net), roundings=None if roundings == 2 else 1)
        assert isinstance(graph, QuantizedGraph)
        assert [weight.roundings for weight in graph.weights] == [roundings, 1]
        assert [op.roundings for op in lower(graph) if isinstance(op, QConv2d)] == [roundings, 1]
