"""QONNX: networks trained with few bits keep their codes, in the widths that the device packs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnx.reference.op_run import OpRun  # noqa: E402

from mcuq.errors import UnsupportedError  # noqa: E402
from mcuq.frontend.onnx import import_onnx  # noqa: E402
from mcuq.ir.quantized import QuantizedGraph, QuantParams  # noqa: E402
from mcuq.lower.lower import lower  # noqa: E402
from mcuq.numerics import dequantize  # noqa: E402
from mcuq.reference import integer  # noqa: E402

DOMAIN = "qonnx.custom_op.general"
RNG = np.random.default_rng(2)


class Quant(OpRun):
    op_domain = DOMAIN

    def _run(self, x: Any, scale: Any, zero: Any, width: Any, signed: int = 1, narrow: int = 0, **_: Any) -> Any:
        bits = int(width)
        low = -(1 << (bits - 1)) + narrow if signed else 0
        high = (1 << (bits - 1)) - 1 if signed else (1 << bits) - 1 - narrow
        return (((np.clip(np.rint(x / scale + zero), low, high) - zero) * scale).astype(np.float32),)


class BipolarQuant(OpRun):
    op_domain = DOMAIN

    def _run(self, x: Any, scale: Any) -> Any:
        return (np.where(x >= 0, scale, -scale).astype(np.float32),)


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def quant(source: str, target: str, scale: str, bits: int, signed: int = 1, narrow: int = 0) -> Any:
    attributes = {"signed": signed, "narrow": narrow, "rounding_mode": "ROUND", "domain": DOMAIN}
    return node("Quant", f"{source} {scale} zero bits{bits}", target, **attributes)


def network(tmp_path: Path, extra: tuple[Any, ...] = ()) -> tuple[Path, Any]:
    """4-bit weights per channel, 2-bit ones, bipolar ones and 6-bit ones; activations of 8, 4 and 3 bits."""
    arrays: dict[str, Any] = {
        "zero": 0.0, "sx": 0.03, "sa": 0.25, "sb": 0.43, "sy": 0.1, "sbias": 0.001,
        "w1": RNG.normal(0, 0.3, (6, 2, 3, 3)), "s1": RNG.uniform(0.08, 0.12, (6, 1, 1, 1)),
        "b1": RNG.normal(0, 0.2, 6),
        "w2": RNG.normal(0, 0.3, (6, 1, 3, 3)), "s2": 0.2,
        "w3": RNG.normal(0, 0.3, (8, 6, 1, 1)), "s3": 0.23,
        "w4": RNG.normal(0, 0.3, (5, 8 * 16)), "s4": RNG.uniform(0.01, 0.03, (5, 1)),
        **{f"bits{n}": float(n) for n in (2, 3, 4, 6, 8, 16)},
    }  # fmt: skip
    nodes = [
        quant("x", "xq", "sx", 8),
        quant("w1", "w1q", "s1", 4, narrow=1),
        quant("b1", "b1q", "sbias", 16),
        node("Conv", "xq w1q b1q", "c1", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", "c1", "r1"),
        quant("r1", "a1", "sa", 4, signed=0),
        quant("w2", "w2q", "s2", 2),
        node("Conv", "a1 w2q", "c2", pads=[1, 1, 1, 1], group=6),
        node("Relu", "c2", "r2"),
        quant("r2", "a2", "sa", 3, signed=0),
        node("BipolarQuant", "w3 s3", "w3q", domain=DOMAIN),
        node("Conv", "a2 w3q", "c3"),
        quant("c3", "a3", "sb", 4),
        node("Flatten", "a3", "f"),
        quant("w4", "w4q", "s4", 6),
        node("Gemm", "f w4q", "g", transB=1),
        quant("g", "y", "sy", 8),
        *extra,
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])],
        [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in arrays.items()],
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    proto = helper.make_model(graph, opset_imports=imports, ir_version=8)
    path = tmp_path / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    return path, proto


def test_codes_and_widths_are_kept(tmp_path: Path) -> None:
    path, proto = network(tmp_path)
    q = import_onnx(path)
    assert isinstance(q, QuantizedGraph)
    assert [w.bits for w in q.weights] == [4, 2, 2, 8]
    assert [(int(w.codes.min()), int(w.codes.max())) for w in q.weights[1:3]] == [(-2, 1), (-1, 1)]
    assert set(np.unique(q.weights[2].codes)) == {-1, 1}
    stored = {a.params for a in q.activations}
    a, b = float(np.float32(0.25)), float(np.float32(0.43))
    assert {QuantParams(4, a, 0), QuantParams(4, a, 0, (0, 7)), QuantParams(4, b, 8)} <= stored
    lowered = lower(q)
    x = RNG.integers(-128, 128, (16, 8, 8, 2))
    codes = integer.run(lowered, x)
    tensor = lowered.tensor(lowered.outputs[0])
    ours = dequantize(codes[lowered.outputs[0]], tensor.scale, tensor.zero_point).reshape(16, 5)
    evaluator = ReferenceEvaluator(proto, new_ops=[Quant, BipolarQuant])
    real = (np.float32(0.03) * x).astype(np.float32).transpose(0, 3, 1, 2)
    wanted = np.concatenate([evaluator.run(None, {"x": image[None]})[0] for image in real])  # type: ignore[list-item]
    assert wanted.std() > 0.5
    assert np.mean(np.abs(ours - wanted) < 1e-4) > 0.9, "only ties may fall on the other side"


def test_what_has_no_counterpart_is_named(tmp_path: Path) -> None:
    extra = (
        node("BipolarQuant", "a3 s3", "z1", domain=DOMAIN),
        node("Trunc", "a3 sb zero bits8 bits4", "z2", domain=DOMAIN),
        quant("a3", "z3", "sb", 16),
    )
    with pytest.raises(UnsupportedError) as caught:
        import_onnx(network(tmp_path, extra)[0])
    for text in ("one bit have no code for zero", "drops low bits of a sum", "activations of 16 bits"):
        assert text in str(caught.value)


def test_scales_do_not_enlarge_constants(tmp_path: Path) -> None:
    path, proto = network(tmp_path)
    for shape in ((1, 1, 5, 1), (6, 1, 1, 7), (2, 6, 1, 3, 3)):
        large = numpy_helper.from_array(np.full(shape, 0.1, np.float32), "s2")
        next(t for t in proto.graph.initializer if t.name == "s2").CopyFrom(large)
        path.write_bytes(proto.SerializeToString())
        with pytest.raises(UnsupportedError, match="do not fit a constant of shape"):
            import_onnx(path)
