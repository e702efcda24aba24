"""Quantized ONNX models: scales and codes of QDQ and QOperator files reach the integer graph unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from mcuq.errors import ModelError, UnsupportedError  # noqa: E402
from mcuq.frontend.onnx import import_onnx  # noqa: E402
from mcuq.ir.graph import Normalization  # noqa: E402
from mcuq.ir.quantized import QuantizedGraph, QuantParams  # noqa: E402
from mcuq.lower.lower import lower  # noqa: E402
from mcuq.reference import integer  # noqa: E402

RNG = np.random.default_rng(5)
WEIGHTS = RNG.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8)
SCALES = RNG.uniform(0.002, 0.006, 4).astype(np.float32)
BIAS = RNG.integers(-800, 800, 4).astype(np.int32)


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def save(
    tmp_path: Path, nodes: list[Any], constants: dict[str, Any], out: Any, kind: int = TensorProto.FLOAT
) -> tuple[Path, Any]:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, [1, 3, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        [v if isinstance(v, TensorProto) else numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    path = tmp_path / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    return path, proto


def qdq(name: str, out: str, scale: str, zero: str) -> list[Any]:
    return [
        node("QuantizeLinear", f"{name} {scale} {zero}", f"{out}.q"),
        node("DequantizeLinear", f"{out}.q {scale} {zero}", out),
    ]


def constants(kind: Any) -> dict[str, Any]:
    """Scales and zero points of a network whose activations are int8 or uint8 codes."""
    shift = 0 if kind is np.int8 else 128
    return {
        "sx": np.float32(0.03), "zx": kind(shift - 5), "sy": np.float32(0.04), "zy": kind(shift - 128),
        "sz": np.float32(0.06), "zz": kind(shift + 7), "w": WEIGHTS, "sw": SCALES, "zw": np.zeros(4, np.int8),
        "b": BIAS, "sb": (np.float32(0.03) * SCALES), "zb": np.zeros(4, np.int32),
    }  # fmt: skip


def residual(kind: Any) -> tuple[list[Any], dict[str, Any]]:
    nodes = [
        *qdq("x", "xd", "sx", "zx"),
        node("DequantizeLinear", "w sw zw", "wd", axis=0),
        node("DequantizeLinear", "b sb zb", "bd", axis=0),
        node("Conv", "xd wd bd", "c", pads=[1, 1, 1, 1]),
        *qdq("c", "cd", "sy", "zy"),
        node("MaxPool", "cd", "m", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Add", "m cd", "a"),
        *qdq("a", "y", "sz", "zz"),
    ]
    return nodes, constants(kind)


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_qdq_network_within_one_step(tmp_path: Path, kind: Any) -> None:
    path, proto = save(tmp_path, *residual(kind), [1, 4, 6, 6])
    q = import_onnx(path)
    assert isinstance(q, QuantizedGraph)
    assert [(type(op).__name__) for op in q.graph] == ["Input", "Conv2d", "MaxPool", "Add"]
    assert q.params("x") == QuantParams(8, float(np.float32(0.03)), -5)
    conv = q.graph.convs[0].name
    np.testing.assert_array_equal(q.weight(conv).codes, WEIGHTS.transpose(0, 2, 3, 1))
    graph = lower(q)
    codes = RNG.integers(-128, 128, (1, 6, 6, 3))
    ours = integer.run(graph, codes)[graph.outputs[0]]
    real = (np.float32(0.03) * (codes + 5)).astype(np.float32).transpose(0, 3, 1, 2)
    theirs = ReferenceEvaluator(proto).run(None, {"x": real})[0].transpose(0, 2, 3, 1)
    wanted = np.rint(theirs / np.float32(0.06)) + 7
    assert np.abs(ours - wanted).max() <= 2  # one step of the convolution is up to 2/3 step of the sum, twice
    assert (ours == wanted).mean() > 0.95
    assert len(np.unique(ours)) > 20


def test_stored_unsigned_weights_are_asymmetric_codes(tmp_path: Path) -> None:
    nodes, values = residual(np.int8)
    values |= {"w": (WEIGHTS.astype(int) + 128).astype(np.uint8), "zw": np.array([120, 128, 130, 3], dtype=np.uint8)}
    q = import_onnx(save(tmp_path, nodes, values, [1, 4, 6, 6])[0])
    assert isinstance(q, QuantizedGraph)
    weight = q.weights[0]
    np.testing.assert_array_equal(weight.codes, WEIGHTS.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(weight.zero_point, [-8, 0, 2, -125])
    assert lower(q).ops[1].weight_zero_point.tolist() == [-8, 0, 2, -125]


def test_four_bit_weights(tmp_path: Path) -> None:
    nodes, values = residual(np.int8)
    codes = RNG.integers(-8, 8, WEIGHTS.shape)
    values |= {
        "w": helper.make_tensor("w", TensorProto.INT4, WEIGHTS.shape, codes.ravel().tolist()),
        "zw": helper.make_tensor("zw", TensorProto.INT4, [4], [0] * 4),
    }
    q = import_onnx(save(tmp_path, nodes, values, [1, 4, 6, 6])[0])
    assert isinstance(q, QuantizedGraph)
    assert q.weights[0].bits == 4
    np.testing.assert_array_equal(q.weights[0].codes, codes.transpose(0, 2, 3, 1))


def test_uint8_model_input_is_pixels(tmp_path: Path) -> None:
    nodes, values = residual(np.uint8)
    nodes[0:2] = [node("DequantizeLinear", "x sx zx", "xd")]
    q = import_onnx(save(tmp_path, nodes, values, [1, 4, 6, 6], TensorProto.UINT8)[0])
    assert isinstance(q, QuantizedGraph)
    assert q.graph.input.normalization == Normalization(float(np.float32(0.03)), 123)
    assert lower(q).input.encoding == "uint8"


def test_qlinear_conv_equals_qdq(tmp_path: Path) -> None:
    values = constants(np.int8)
    nodes = [
        node("QuantizeLinear", "x sx zx", "q"),
        node("QLinearConv", "q sx zx w sw zw sy zy b", "c", pads=[1, 1, 1, 1]),
        node("DequantizeLinear", "c sy zy", "y"),
    ]
    direct = import_onnx(save(tmp_path, nodes, values, [1, 4, 6, 6])[0])
    nodes, _ = residual(np.int8)
    nodes = nodes[:5] + qdq("c", "y", "sy", "zy")
    pairs = import_onnx(save(tmp_path, nodes, values, [1, 4, 6, 6])[0])
    assert isinstance(direct, QuantizedGraph) and isinstance(pairs, QuantizedGraph)
    np.testing.assert_array_equal(direct.weights[0].codes, pairs.weights[0].codes)
    np.testing.assert_allclose(direct.weights[0].bias, pairs.weights[0].bias, rtol=1e-6)
    assert [a.params for a in direct.activations] == [a.params for a in pairs.activations]


def test_onnxruntimes_operators_equal_qdq(tmp_path: Path) -> None:
    """QLinearConcat, Mul and Add with constants, average pool, softmax, a padding with the zero point."""
    values = constants(np.uint8)
    codes = RNG.integers(0, 256, (4, 1, 1)).astype(np.uint8)
    values |= {"k": codes, "sk": np.float32(0.02), "zk": np.uint8(130), "sm": np.float32(1 / 256), "zm": np.uint8(0)}
    values |= {"pads": np.array([0, 0, 1, 1, 0, 0, 0, 1])}
    contributed = {"domain": "com.microsoft"}
    nodes = [
        node("QuantizeLinear", "x sx zx", "q"),
        node("Pad", "q pads zx", "p"),
        node("QLinearConv", "p sx zx w sw zw sy zy b", "c"),
        node("QLinearMul", "c sy zy k sk zk sy zy", "m", **contributed),
        node("QLinearAdd", "m sy zy k sk zk sz zz", "a", **contributed),
        node("QLinearConcat", "sz zz c sy zy a sz zz", "j", axis=1, **contributed),
        node("QLinearAveragePool", "j sz zz sz zz", "v", kernel_shape=[5, 6], **contributed),
        node("QLinearSoftmax", "v sz zz sm zm", "s", axis=1, opset=13, **contributed),
        node("DequantizeLinear", "s sm zm", "y"),
    ]
    path, proto = save(tmp_path, nodes, values, [1, 8, 1, 1])
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    path.write_bytes(proto.SerializeToString())
    direct = import_onnx(path)
    plain = [
        *qdq("x", "xd", "sx", "zx"),
        node("Pad", "xd pads", "p"),
        node("DequantizeLinear", "w sw zw", "wd", axis=0),
        node("DequantizeLinear", "b sb zb", "bd", axis=0),
        node("Conv", "p wd bd", "c"),
        *qdq("c", "cd", "sy", "zy"),
        node("DequantizeLinear", "k sk zk", "kd"),
        node("Mul", "cd kd", "m"),
        *qdq("m", "md", "sy", "zy"),
        node("Add", "md kd", "a"),
        *qdq("a", "ad", "sz", "zz"),
        node("Concat", "cd ad", "j", axis=1),
        *qdq("j", "jd", "sz", "zz"),
        node("AveragePool", "jd", "v", kernel_shape=[5, 6]),
        *qdq("v", "vd", "sz", "zz"),
        node("Softmax", "vd", "s", axis=1),
        *qdq("s", "y", "sm", "zm"),
    ]
    path, proto = save(tmp_path, plain, values, [1, 8, 1, 1])
    pairs = import_onnx(path)
    assert isinstance(direct, QuantizedGraph) and isinstance(pairs, QuantizedGraph)
    assert [type(op).__name__ for op in direct.graph] == [type(op).__name__ for op in pairs.graph]
    assert [a.params for a in direct.activations] == [a.params for a in pairs.activations]
    x = RNG.integers(-128, 128, (8, 6, 6, 3))
    ours, theirs = (integer.run_outputs(lower(q), x)[q.graph.outputs[0]] for q in (direct, pairs))
    np.testing.assert_array_equal(ours, theirs)
    real = (0.03 * (x - (-5))).astype(np.float32).transpose(0, 3, 1, 2)
    evaluator = ReferenceEvaluator(proto)
    wanted = np.concatenate([evaluator.run(None, {"x": image[None]})[0] for image in real]).reshape(8, 8)
    assert np.abs((ours.reshape(8, 8) + 128) / 256 - wanted).max() <= 5 / 256  # steps of five operators add up


@pytest.mark.parametrize("kind", ["QLinearSigmoid", "QLinearLeakyRelu"])
def test_onnxruntimes_functions_on_every_code(tmp_path: Path, kind: str) -> None:
    """Of uint8 codes; onnxruntime's own results are the function of the real value, rounded to the output's codes."""
    leaky = kind == "QLinearLeakyRelu"
    scale, zero, out, out_zero = 0.05, 100, 0.045 if leaky else 1 / 256, 40 if leaky else 0
    values = {"sx": np.float32(scale), "zx": np.uint8(zero), "so": np.float32(out), "zo": np.uint8(out_zero)}
    nodes = [
        node("QuantizeLinear", "x sx zx", "q"),
        node(kind, "q sx zx so zo", "f", domain="com.microsoft", **({"alpha": 0.1} if leaky else {})),
        node("DequantizeLinear", "f so zo", "y"),
    ]
    path, proto = save(tmp_path, nodes, values, [1, 3, 6, 6])
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    path.write_bytes(proto.SerializeToString())
    quantized = import_onnx(path)
    assert isinstance(quantized, QuantizedGraph)
    codes = np.arange(256)
    real = np.float64(np.float32(scale)) * (codes - zero)
    wanted = np.where(real >= 0, real, 0.1 * real) if leaky else 1 / (1 + np.exp(-real))
    steps = wanted / np.float64(np.float32(out)) + out_zero
    x = np.resize(codes, (3, 6, 6, 3)) - 128
    found = integer.run_outputs(lower(quantized), x)[quantized.graph.outputs[0]].ravel()[:256] + 128
    tie = np.abs(steps - np.floor(steps) - 0.5) < 1e-6
    np.testing.assert_array_equal(found[~tie], np.clip(np.rint(steps), 0, 255)[~tie])


def test_quantization_at_run_time_is_refused_once(tmp_path: Path) -> None:
    nodes = [
        node("DynamicQuantizeLinear", "x", "q s z"),
        node("ConvInteger", "q w z", "c", pads=[1, 1, 1, 1]),
        node("Cast", "c", "f", to=TensorProto.FLOAT),
        node("Mul", "f s", "y"),
    ]
    with pytest.raises(UnsupportedError, match="quantized at run time") as caught:
        import_onnx(save(tmp_path, nodes, constants(np.uint8), [1, 4, 6, 6])[0])
    assert "1 operator" in str(caught.value)


def test_sixteen_bit_activations_are_refused_once(tmp_path: Path) -> None:
    nodes, values = residual(np.int8)
    values |= {"zx": np.int16(0)}
    with pytest.raises(UnsupportedError, match="type int16; int8, uint8, int4 and uint4") as caught:
        import_onnx(save(tmp_path, nodes, values, [1, 4, 6, 6])[0])
    assert "1 operator" in str(caught.value)


def test_old_files_with_constants_that_are_no_inputs(tmp_path: Path) -> None:
    """Quantizers add such to files of IR version 3."""
    nodes = [node("Conv", "x k", "y")]
    path, proto = save(tmp_path, nodes, {"k": RNG.normal(0, 1, (4, 3, 1, 1)).astype(np.float32)}, [1, 4, 6, 6])
    proto.ir_version, proto.opset_import[0].version = 3, 8
    path.write_bytes(proto.SerializeToString())
    assert len(import_onnx(path).convs) == 1  # type: ignore[union-attr]


def test_final_scores_without_scale_keep_32_bits(tmp_path: Path) -> None:
    nodes, values = residual(np.int8)
    nodes = [*nodes[:4], node("Conv", "xd wd bd", "y", pads=[1, 1, 1, 1])]
    q = import_onnx(save(tmp_path, nodes, values, [1, 4, 6, 6])[0])
    assert isinstance(q, QuantizedGraph)
    assert q.params(q.graph.outputs[0]).bits == 32
    assert lower(q, logits_bits=32).ops[-1].output.bits == 32


def test_missing_scales_are_named(tmp_path: Path) -> None:
    nodes, values = residual(np.int8)
    nodes = [*nodes[:5], node("Conv", "c w5", "y")]
    values["w5"] = RNG.normal(0, 1, (2, 4, 1, 1)).astype(np.float32)
    with pytest.raises(UnsupportedError, match="1 tensors have no scale: c"):
        import_onnx(save(tmp_path, nodes, values, [1, 2, 6, 6])[0])


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_unusable_scales_are_refused(tmp_path: Path, scale: float) -> None:
    nodes, values = residual(np.int8)
    values["sx"] = np.float32(scale)
    with pytest.raises(ModelError, match=r"positive and finite|NaN or infinity"):
        import_onnx(save(tmp_path, nodes, values, [1, 4, 6, 6])[0])


def test_two_readers_with_two_scales_get_a_copy(tmp_path: Path) -> None:
    """The same tensor quantized twice: one reader takes the first codes, the other a requantized copy."""
    nodes, values = residual(np.int8)
    nodes = [*nodes[:7], *qdq("c", "other", "sz", "zz"), node("Add", "cd other", "a"), *qdq("a", "y", "sz", "zz")]
    q = import_onnx(save(tmp_path, nodes, values, [1, 4, 6, 6])[0])
    assert isinstance(q, QuantizedGraph)
    conv, add = q.graph.convs[0].name, q.graph.ops[-1]
    assert add.inputs[0] != add.inputs[1] and conv in add.inputs
    copy = next(name for name in add.inputs if name != conv)
    assert q.params(conv).scale == float(np.float32(0.04)) and q.params(copy).scale == float(np.float32(0.06))
    lower(q)
