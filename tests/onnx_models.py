"""Small ONNX models, and their import held against the onnx package's own evaluator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from mcuq.frontend.onnx import import_onnx
from mcuq.ir.fuse import fuse
from mcuq.ir.graph import Graph
from mcuq.reference import floating

RNG = np.random.default_rng(0)


def draw(*shape: int) -> Any:
    return RNG.normal(0, 1, shape).astype(np.float32)


def ints(*values: int) -> Any:
    return np.array(values, dtype=np.int64)


def model(
    nodes: list[Any], shape: list[Any], constants: dict[str, Any], *, opset: int = 18, outputs: Any = ("y",)
) -> Any:
    """A model with inferred output shapes."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(proto, data_prop=True)


def save(tmp_path: Path, proto: Any) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def check(tmp_path: Path, proto: Any, shape: tuple[int, ...], atol: float = 1e-5) -> Graph:
    """Import, fuse, interpret; every output must equal the onnx evaluator's."""
    graph = import_onnx(save(tmp_path, proto))
    x = draw(*shape)
    expected = ReferenceEvaluator(proto).run(None, {"x": x})
    images = x.transpose(0, 2, 3, 1) if x.ndim == 4 else x.reshape(1, *graph.input.shape)
    if x.ndim == 3:
        images = x.transpose(0, 2, 1)[:, None]
    values = floating.run(fuse(graph), images.astype(np.float64))
    for name, wanted in zip(fuse(graph).outputs, expected, strict=True):
        actual = values[name]
        if wanted.ndim == 4:
            actual = actual.transpose(0, 3, 1, 2)
        elif wanted.ndim == 3 and actual.shape[1] == 1 and actual.shape[2:] != wanted.shape[1:]:
            actual = actual[:, 0].transpose(0, 2, 1)
        np.testing.assert_allclose(actual.reshape(wanted.shape), wanted, atol=atol, rtol=1e-4)
    return graph


def node(kind: str, inputs: str, outputs: str = "y", **attributes: Any) -> Any:
    return helper.make_node(kind, ["" if i == "-" else i for i in inputs.split()], outputs.split(), **attributes)
