"""The ONNX front end: every operator against the onnx package's own evaluator, through the float interpreter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from mcuq.errors import UnsupportedError, UsageError  # noqa: E402
from mcuq.frontend.onnx import import_onnx  # noqa: E402
from mcuq.ir.fuse import fuse  # noqa: E402
from mcuq.ir.graph import Conv2d, Graph, Normalization  # noqa: E402
from mcuq.ir.text import to_text  # noqa: E402
from mcuq.reference import floating  # noqa: E402

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
        elif wanted.ndim == 3 and actual.shape[1:] != (1, *wanted.shape[1:]):
            actual = actual[:, 0].transpose(0, 2, 1)
        np.testing.assert_allclose(actual.reshape(wanted.shape), wanted, atol=atol, rtol=1e-5)
    return graph


def node(kind: str, inputs: str, outputs: str = "y", **attributes: Any) -> Any:
    return helper.make_node(kind, ["" if i == "-" else i for i in inputs.split()], outputs.split(), **attributes)


W = {"w": draw(6, 4, 3, 3), "b": draw(6), "fc": draw(5, 6), "mat": draw(6, 5), "bias5": draw(5)}
TWO = {"w": W["w"], "w2": draw(6, 4, 3, 3)}
CASES: dict[str, tuple[list[Any], tuple[int, ...], dict[str, Any], int]] = {
    "conv": ([node("Conv", "x w b", pads=[1, 1, 1, 1], strides=[2, 2])], (1, 4, 9, 8), W, 18),
    "conv without bias, dilated": ([node("Conv", "x w", dilations=[2, 2])], (1, 4, 9, 8), W, 18),
    "conv same_lower": ([node("Conv", "x w", auto_pad="SAME_LOWER")], (1, 4, 6, 6), W, 18),
    "grouped conv": ([node("Conv", "x g", group=2)], (1, 4, 6, 6), {"g": draw(6, 2, 2, 3)}, 18),
    "depthwise conv": ([node("Conv", "x g", group=4)], (1, 4, 6, 6), {"g": draw(4, 1, 3, 3)}, 18),
    "gemm": ([node("Gemm", "x fc bias5", transB=1)], (1, 6), W, 18),
    "gemm scaled": ([node("Gemm", "x mat bias5", alpha=0.5, beta=2.0)], (1, 6), W, 13),
    "matmul with bias": ([node("MatMul", "x mat", "m"), node("Add", "m bias5")], (1, 6), W, 18),
    "matmul per position": ([node("MatMul", "t mat")], (1, 6, 7), W, 18),
    "flatten, gemm": (
        [node("Flatten", "x", "f"), node("Gemm", "f v", transB=1)],
        (1, 4, 3, 2),
        {"v": draw(5, 24)},
        18,
    ),
    "reshape, gemm": (
        [node("Reshape", "x s", "f"), node("MatMul", "f v")],
        (1, 4, 3, 2),
        {"s": ints(0, -1), "v": draw(24, 5)},
        8,
    ),
    "transposed conv": (
        [node("ConvTranspose", "x t b", strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 0])],
        (1, 4, 5, 4),
        {"t": draw(4, 6, 3, 3), "b": draw(6)},
        18,
    ),
    "transposed conv, dilated": (
        [node("ConvTranspose", "x t", strides=[3, 2], dilations=[2, 1])],
        (1, 4, 3, 4),
        {"t": draw(4, 3, 2, 3)},
        18,
    ),
    "transposed conv, same": (
        [node("ConvTranspose", "x t", strides=[2, 2], auto_pad="SAME_UPPER")],
        (1, 4, 5, 4),
        {"t": draw(4, 6, 4, 4)},
        18,
    ),
    "transposed conv of sequences": (
        [node("ConvTranspose", "x t", strides=[2], pads=[1, 0])],
        (1, 4, 5),
        {"t": draw(4, 6, 3)},
        18,
    ),
    "batch norm": (
        [node("BatchNormalization", "x a b m v", epsilon=1e-3)],
        (1, 4, 3, 3),
        {"a": draw(4), "b": draw(4), "m": draw(4), "v": np.abs(draw(4))},
        15,
    ),
    "relu": ([node("Relu", "x")], (1, 4, 3, 3), {}, 18),
    "clip inputs": ([node("Clip", "x lo hi")], (1, 4, 3, 3), {"lo": np.float32(-0.5), "hi": np.float32(0.7)}, 18),
    "clip one input": ([node("Clip", "x - hi")], (1, 4, 3, 3), {"hi": np.float32(0.7)}, 13),
    "clip attributes": ([node("Clip", "x", min=0.0, max=0.5)], (1, 4, 3, 3), {}, 9),
    "max and min with numbers": (
        [node("Max", "x lo", "m"), node("Min", "m hi")],
        (1, 4, 3, 3),
        {"lo": np.float32(-0.5), "hi": np.float32(0.7)},
        18,
    ),
    "add": ([node("Relu", "x", "r"), node("Add", "x r")], (1, 4, 3, 3), {}, 18),
    "add constant": ([node("Conv", "x w", "c"), node("Add", "c k")], (1, 4, 6, 6), {**W, "k": draw(6, 1, 1)}, 18),
    "add constant to scalar": ([node("Add", "k x")], (1, 4, 3, 3), {"k": np.float32(2.5)}, 18),
    "sub of tensors": ([node("Relu", "x", "r"), node("Sub", "x r")], (1, 4, 3, 3), {}, 18),
    "sub from constant": ([node("Sub", "k x")], (1, 4, 3, 3), {"k": draw(1, 4, 1, 1)}, 18),
    "input normalization": (
        [node("Div", "x d", "q"), node("Sub", "q m", "z"), node("Mul", "z s", "n"), node("Conv", "n w")],
        (1, 4, 6, 6),
        {**W, "d": np.float32(255), "m": draw(1, 4, 1, 1), "s": draw(4, 1, 1)},
        18,
    ),
    "neg": ([node("Neg", "x")], (1, 4, 3, 3), {}, 18),
    "product": ([node("Conv", "x w", "c"), node("Conv", "x w2", "d"), node("Mul", "c d")], (1, 4, 6, 6), TWO, 18),
    "quotient": (
        [node("Conv", "x w", "c"), node("Conv", "x w2", "k"), node("Exp", "k", "d"), node("Div", "c d")],
        (1, 4, 6, 6),
        TWO,
        18,
    ),
    "squeeze and excite": (
        [node("GlobalAveragePool", "x", "p"), node("Sigmoid", "p", "g"), node("Mul", "g x")],
        (1, 4, 5, 3),
        {},
        18,
    ),
    "gate per pixel": ([node("Conv", "x one", "a"), node("Mul", "x a")], (1, 4, 5, 3), {"one": draw(1, 4, 1, 1)}, 18),
    "sum with a pooled map": ([node("GlobalMaxPool", "x", "p"), node("Add", "x p")], (1, 4, 5, 3), {}, 18),
    "maximum of maps": (
        [node("Conv", "x w", "c"), node("Conv", "x w2", "d"), node("Max", "c d")],
        (1, 4, 6, 6),
        TWO,
        18,
    ),
    "minimum of maps": (
        [node("Conv", "x w", "c"), node("Conv", "x w2", "d"), node("Min", "c d")],
        (1, 4, 6, 6),
        TWO,
        18,
    ),
    "prelu per channel": ([node("PRelu", "x s")], (1, 4, 3, 3), {"s": draw(4, 1, 1)}, 18),
    "prelu with one slope": ([node("PRelu", "x s")], (1, 4, 3, 3), {"s": draw(1)}, 18),
    "square": ([node("Pow", "x two")], (1, 4, 3, 3), {"two": np.float32(2)}, 18),
    "power of a constant": ([node("Pow", "two x")], (1, 4, 3, 3), {"two": np.float32(2)}, 18),
    "l2 normalization": ([node("LpNormalization", "x", axis=1, p=2)], (1, 4, 3, 3), {}, 18),
    "l2 normalization, written out": (
        [node("ReduceL2", "x a", "l"), node("Clip", "l low", "k"), node("Expand", "k s", "e"), node("Div", "x e")],
        (1, 4, 3, 3),
        {"a": ints(1), "low": np.float32(1e-12), "s": ints(1, 4, 3, 3)},
        18,
    ),
    "resize nearest": (
        [node("Resize", "x - s", coordinate_transformation_mode="asymmetric", nearest_mode="floor")],
        (1, 4, 3, 5),
        {"s": np.array([1, 1, 2, 2], np.float32)},
        18,
    ),
    "resize nearest by half pixels": ([node("Resize", "x - - s")], (1, 4, 5, 4), {"s": ints(1, 4, 7, 3)}, 18),
    "resize linear": (
        [node("Resize", "x - s", mode="linear")],
        (1, 4, 3, 5),
        {"s": np.array([1, 1, 2, 2], np.float32)},
        18,
    ),
    "resize linear, corners aligned": (
        [node("Resize", "x - - s", mode="linear", coordinate_transformation_mode="align_corners")],
        (1, 4, 3, 5),
        {"s": ints(1, 4, 9, 9)},
        18,
    ),
    "upsample": ([node("Upsample", "x s")], (1, 4, 3, 2), {"s": np.array([1, 1, 2, 3], np.float32)}, 9),
    "depth to space": ([node("DepthToSpace", "x", blocksize=2)], (1, 8, 3, 2), {}, 18),
    "depth to space, columns first": ([node("DepthToSpace", "x", blocksize=2, mode="CRD")], (1, 8, 3, 2), {}, 18),
    "space to depth": ([node("SpaceToDepth", "x", blocksize=2)], (1, 2, 6, 4), {}, 18),
    "transpose": (
        [node("Transpose", "x", "t", perm=[0, 3, 2, 1]), node("Conv", "t v")],
        (1, 4, 3, 5),
        {"v": draw(2, 5, 3, 3)},
        18,
    ),
    "reversed slice": (
        [node("Slice", "x s e a t")],
        (1, 4, 5, 6),
        {"s": ints(-1), "e": ints(-99), "a": ints(3), "t": ints(-2)},
        18,
    ),
    "concat along rows": ([node("Relu", "x", "r"), node("Concat", "x r", axis=2)], (1, 4, 3, 3), {}, 18),
    "concat along columns": ([node("Relu", "x", "r"), node("Concat", "x r", axis=3)], (1, 4, 3, 3), {}, 18),
    "pad with a constant": (
        [node("Pad", "x p v")],
        (1, 4, 3, 3),
        {"p": ints(0, 0, 1, 2, 0, 0, 3, 0), "v": np.float32(1.5)},
        18,
    ),
    "pad reflecting": ([node("Pad", "x p", mode="reflect")], (1, 4, 3, 4), {"p": ints(0, 0, 1, 2, 0, 0, 2, 0)}, 18),
    "pad with the edge": ([node("Pad", "x p", mode="edge")], (1, 4, 3, 4), {"p": ints(0, 0, 1, 2, 0, 0, 2, 0)}, 18),
    "mean over channels": ([node("ReduceMean", "x a")], (1, 4, 5, 3), {"a": ints(1)}, 18),
    "mean over everything": ([node("ReduceMean", "x", keepdims=0)], (1, 4, 5, 3), {}, 18),
    "sum over rows": ([node("ReduceSum", "x a", keepdims=0)], (1, 4, 5, 3), {"a": ints(2)}, 18),
    "maximum over channels": ([node("ReduceMax", "x a")], (1, 4, 5, 3), {"a": ints(1)}, 18),
    "sum of three": ([node("Relu", "x", "r"), node("Sum", "x r x")], (1, 4, 3, 3), {}, 18),
    "concat": ([node("Relu", "x", "r"), node("Concat", "x r", axis=1)], (1, 4, 3, 3), {}, 18),
    "max pool": ([node("MaxPool", "x", kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])], (1, 4, 7, 6), {}, 18),
    "max pool ceil": ([node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)], (1, 4, 8, 8), {}, 18),
    "average pool": ([node("AveragePool", "x", kernel_shape=[2, 2], strides=[2, 2])], (1, 4, 7, 6), {}, 18),
    "average pool padded": (
        [node("AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])],
        (1, 4, 7, 7),
        {},
        18,
    ),
    "average pool counting padding": (
        [node("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)],
        (1, 4, 7, 7),
        {},
        18,
    ),
    "global average pool": ([node("GlobalAveragePool", "x")], (1, 4, 5, 3), {}, 18),
    "global max pool": ([node("GlobalMaxPool", "x")], (1, 4, 5, 3), {}, 18),
    "mean input": ([node("ReduceMean", "x a", keepdims=0)], (1, 4, 5, 3), {"a": ints(2, 3)}, 18),
    "mean attribute": ([node("ReduceMean", "x", axes=[-1, -2], keepdims=1)], (1, 4, 5, 3), {}, 13),
    "mean over height": ([node("ReduceMean", "x a", keepdims=1)], (1, 4, 5, 3), {"a": ints(2)}, 18),
    "mean over width": ([node("ReduceMean", "x", axes=[3], keepdims=0)], (1, 4, 5, 3), {}, 13),
    "split channels": (
        [node("Split", "x n", "a b", axis=1), node("Relu", "b", "r"), node("Concat", "r a", axis=1)],
        (1, 4, 3, 3),
        {"n": ints(1, 3)},
        18,
    ),
    "split in equal parts": (
        [node("Split", "x", "a b", axis=1, num_outputs=2), node("Add", "a b")],
        (1, 4, 3, 3),
        {},
        18,
    ),
    "pad": ([node("Pad", "x p")], (1, 4, 3, 3), {"p": ints(0, 0, 1, 2, 0, 0, 3, 0)}, 18),
    "pad attribute": ([node("Pad", "x", pads=[0, 0, 1, 1, 0, 0, 1, 1])], (1, 4, 3, 3), {}, 9),
    "softmax": ([node("Softmax", "x")], (1, 6), {}, 18),
    "softmax, old flattening": ([node("Softmax", "x", axis=1)], (1, 6), {}, 9),
    "dropout, identity": ([node("Dropout", "x", "d"), node("Identity", "d")], (1, 6), {}, 13),
    "squeeze, unsqueeze": (
        [
            node("GlobalAveragePool", "x", "p"),
            node("Squeeze", "p a", "q"),
            node("Unsqueeze", "q a", "u"),
            node("Conv", "u k"),
        ],
        (1, 4, 3, 3),
        {"a": ints(2, 3), "k": draw(2, 4, 1, 1)},
        18,
    ),
    "transpositions that cancel": (
        [
            node("Transpose", "x", "t", perm=[0, 2, 3, 1]),
            node("Transpose", "t", "u", perm=[0, 3, 1, 2]),
            node("Conv", "u w"),
        ],
        (1, 4, 5, 5),
        W,
        18,
    ),
    "channel slice": ([node("Slice", "x s e a")], (1, 4, 3, 3), {"s": ints(1), "e": ints(3), "a": ints(1)}, 18),
    "spatial crop": (
        [node("Slice", "x s e a t")],
        (1, 4, 7, 8),
        {"s": ints(1, 2), "e": ints(6, -1), "a": ints(2, 3), "t": ints(2, 1)},
        18,
    ),
    "strided shortcut with padded channels": (
        [node("Slice", "x s e a t", "h"), node("Pad", "h p")],
        (1, 4, 8, 8),
        {"s": ints(0, 0), "e": ints(99, 99), "a": ints(2, 3), "t": ints(2, 2), "p": ints(0, 2, 0, 0, 0, 2, 0, 0)},
        18,
    ),
    "average pool counting padding, ceil": (
        [node("AveragePool", "x", kernel_shape=[3, 2], strides=[2, 3], pads=[1, 1, 1, 1], ceil_mode=1)],
        (1, 4, 8, 9),
        {},
        19,
    ),
    "minimum over channels": ([node("ReduceMin", "x a")], (1, 4, 5, 3), {"a": ints(1)}, 18),
    "minimum of all": ([node("ReduceMin", "x", keepdims=0)], (1, 4, 20, 10), {}, 18),
    "sum of magnitudes": ([node("ReduceL1", "x", axes=[-1], keepdims=0)], (1, 4, 5, 3), {}, 13),
    "sum of squares": ([node("ReduceSumSquare", "x a")], (1, 4, 5, 3), {"a": ints(-2, -1)}, 18),
    "logarithm of a sum": ([node("Exp", "x", "e"), node("ReduceLogSum", "e a")], (1, 4, 5, 3), {"a": ints(1)}, 18),
    "log sum exp": ([node("ReduceLogSumExp", "x a", keepdims=0)], (1, 4, 5, 3), {"a": ints(3)}, 18),
    "length by itself": ([node("ReduceL2", "x a", "l"), node("Mul", "x l")], (1, 4, 5, 3), {"a": ints(1)}, 18),
    "length over two axes": ([node("ReduceL2", "x a", keepdims=0)], (1, 4, 5, 3), {"a": ints(2, 3)}, 18),
    "log softmax": ([node("LogSoftmax", "x", axis=1)], (1, 6), {}, 18),
    "log softmax, old flattening": ([node("LogSoftmax", "x", axis=1)], (1, 6), {}, 9),
    "argmax over channels": (
        [node("ArgMax", "x", "i", axis=1, keepdims=1), node("Cast", "i", to=1)], (1, 4, 5, 3), {}, 18,
    ),
    "argmin over rows": (
        [node("ArgMin", "x", "i", axis=-2, keepdims=0), node("Cast", "i", to=1)], (1, 4, 5, 3), {}, 18,
    ),
    "constants per column": ([node("Mul", "x k", "m"), node("Add", "m k")], (1, 4, 5, 3), {"k": draw(3)}, 18),
    "constants per row": ([node("Sub", "k x")], (1, 4, 5, 3), {"k": draw(5, 1)}, 18),
    "constants per element": (
        [node("Conv", "x w", "c"), node("Add", "c k")],
        (1, 4, 7, 7),
        W | {"k": draw(1, 6, 5, 5)},
        18,
    ),
    "pieces of rows in another order": (
        [node("Split", "x n", "a b c", axis=3), node("Concat", "c a b", axis=3)],
        (1, 4, 3, 8),
        {"n": ints(1, 2, 5)},
        18,
    ),
    "wider and narrower side by side": (
        [node("Slice", "x s e a", "b"), node("Concat", "x b x", axis=3)],
        (1, 4, 3, 5),
        {"s": ints(0), "e": ints(2), "a": ints(3)},
        18,
    ),
    "channel shuffle": (
        [node("Reshape", "x s", "r"), node("Transpose", "r", "t", perm=[0, 2, 1, 3, 4]), node("Reshape", "t u")],
        (1, 4, 3, 3),
        {"s": ints(1, 2, 2, 3, 3), "u": ints(1, 4, 3, 3)},
        18,
    ),
}
CASES["matmul per position"][0].insert(0, node("Transpose", "x", "t", perm=[0, 2, 1]))


FUNCTIONS: dict[str, dict[str, Any]] = {
    "Sigmoid": {}, "Tanh": {}, "HardSigmoid": {"alpha": 0.3, "beta": 0.4}, "HardSwish": {}, "Elu": {"alpha": 0.7},
    "Selu": {}, "Celu": {"alpha": 0.5}, "Softplus": {}, "Softsign": {}, "LeakyRelu": {"alpha": 0.2},
    "ThresholdedRelu": {"alpha": 0.5}, "Gelu": {"approximate": "tanh"}, "Mish": {}, "Erf": {}, "Exp": {}, "Abs": {},
    "Reciprocal": {}, "Sin": {}, "Cos": {}, "Floor": {}, "Ceil": {}, "Round": {}, "Sign": {},
}  # fmt: skip


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_functions_of_every_element(tmp_path: Path, kind: str) -> None:
    proto = model([node(kind, "x", **FUNCTIONS[kind])], [1, 4, 5, 5], {}, opset=20)
    graph = check(tmp_path, proto, (1, 4, 5, 5))
    assert [type(op).__name__ for op in graph] == ["Input", "Activation"]


EXPRESSIONS: dict[str, tuple[list[Any], str]] = {
    "silu": ([node("Sigmoid", "x", "s"), node("Mul", "x s")], "silu"),
    "hard swish": (
        [node("Add", "x three", "a"), node("Clip", "a zero six", "c"), node("Mul", "x c", "m"), node("Div", "m six")],
        "hard_swish",
    ),
    "hard sigmoid": (
        [node("Add", "x three", "a"), node("Clip", "a zero six", "c"), node("Div", "c six")],
        "hard_sigmoid(0.166667,0.5)",
    ),
    "gelu": (
        [node("Div", "x root", "d"), node("Erf", "d", "e"), node("Add", "e one", "p"), node("Mul", "x p", "m"),
         node("Mul", "m half")],
        "gelu",
    ),
    "mish": ([node("Softplus", "x", "s"), node("Tanh", "s", "t"), node("Mul", "t x")], "mish"),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_activations_that_exporters_write_out(tmp_path: Path, name: str) -> None:
    nodes, known = EXPRESSIONS[name]
    numbers = {"three": 3.0, "zero": 0.0, "six": 6.0, "root": 2**0.5, "one": 1.0, "half": 0.5}
    constants = {key: np.float32(value) for key, value in numbers.items()}
    graph = check(tmp_path, model(nodes, [1, 4, 5, 5], constants), (1, 4, 5, 5))
    assert f"activation(x) {known} : 5x5x4" in to_text(graph)


@pytest.mark.parametrize("name", CASES)
def test_operator(tmp_path: Path, name: str) -> None:
    nodes, shape, constants, opset = CASES[name]
    used = {i for n in nodes for i in n.input}
    check(tmp_path, model(nodes, list(shape), {k: v for k, v in constants.items() if k in used}, opset=opset), shape)


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
        tmp_path, model(nodes, [1, 4, 6, 6], {"w": W["w"], "k": draw(6, 1, 1), "s": draw(6, 1, 1)}), (1, 4, 6, 6)
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
        "axis": ints(0), "minus": ints(-1), "flat": ints(-1), "w": W["w"],
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


TABLE = (
    "Add BatchNormalization Conv Dropout GlobalAveragePool GlobalMaxPool LRN LeakyRelu Max MaxPool Mul Relu Sigmoid "
    "Softmax Softplus Sub Sum Tanh Transpose AveragePool Clip Concat Div Flatten Shape Squeeze Gemm MatMul Pad Reshape "
    "Resize Upsample"
)


def test_n21_every_operator_of_the_table_has_a_case_or_an_error(tmp_path: Path) -> None:
    tried = {n.op_type for nodes, *_ in CASES.values() for n in nodes} | set(FUNCTIONS) | {"Shape"}
    assert set(TABLE.split()) - tried == {"LRN"}
    with pytest.raises(UnsupportedError, match=r"LRN at 'y' -> use BatchNormalization"):
        import_onnx(save(tmp_path, model([node("LRN", "x", size=3)], [1, 4, 3, 3], {})))
