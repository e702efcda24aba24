"""The ONNX front end: every operator against the onnx package's own evaluator, through the float interpreter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
from onnx import TensorProto, helper

from mcuq.errors import UnsupportedError
from mcuq.frontend.onnx import import_onnx
from mcuq.ir.text import to_text
from tests.onnx_models import check, draw, ints, model, node, save

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
        [node("ArgMax", "x", "i", axis=1, keepdims=1), node("Cast", "i", to=1)],
        (1, 4, 5, 3),
        {},
        18,
    ),
    "argmin over rows": (
        [node("ArgMin", "x", "i", axis=-2, keepdims=0), node("Cast", "i", to=1)],
        (1, 4, 5, 3),
        {},
        18,
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
    "layer norm of the last axis": (
        [node("LayerNormalization", "x s k", axis=-1, epsilon=1e-3)],
        (1, 4, 5, 6),
        {"s": draw(6), "k": draw(6)},
        17,
    ),
    "layer norm of a sequence, over channels": (
        [
            node("Transpose", "x", "t", perm=[0, 2, 1]),
            node("LayerNormalization", "t s", "n"),
            node("Transpose", "n", perm=[0, 2, 1]),
        ],
        (1, 4, 6),
        {"s": draw(4)},
        17,
    ),
    "layer norm of everything": (
        [node("LayerNormalization", "x s k", axis=1)],
        (1, 4, 5, 3),
        {"s": draw(4, 5, 3), "k": draw(4, 5, 3)},
        17,
    ),
    "instance norm": ([node("InstanceNormalization", "x s k")], (1, 4, 5, 3), {"s": draw(4), "k": draw(4)}, 17),
    "choice by a mask": (
        [
            node("Greater", "x h", "g"),
            node("Not", "g", "n"),
            node("Cast", "n", "b", to=9),
            node("Cast", "b", "f", to=1),
            node("Mul", "x h", "m"),
            node("Where", "g x m", "w"),
            node("Add", "w f"),
        ],
        (1, 4, 5, 3),
        {"h": np.float32(0.25)},
        18,
    ),
    "masks of every comparison": (
        [node("Abs", "x", "a")]
        + [
            node(kind, f"x {other}", f"b{i}")
            for i, (kind, other) in enumerate(
                [("Less", "h"), ("LessOrEqual", "a"), ("GreaterOrEqual", "h"), ("Equal", "a")]
            )
        ]
        + [
            node("Cast", "b0", "c0", to=1),
            node("Cast", "b1", "c1", to=1),
            node("Cast", "b2", "c2", to=1),
            node("Cast", "b3", "c3", to=1),
            node("Concat", "c0 c1 c2 c3 x", axis=1),
        ],
        (1, 4, 5, 3),
        {"h": np.float32(0.25)},
        18,
    ),
    "joined with constants": (
        [node("Concat", "x k", axis=1)],
        (1, 4, 5, 3),
        {"k": np.arange(30, dtype=np.float32).reshape(1, 2, 5, 3)},
        18,
    ),
    "copies with constants of their own": (
        [node("Tile", "x t", "r"), node("Mul", "r k")],
        (1, 1, 5, 3),
        {"t": ints(1, 3, 1, 1), "k": np.array([1, 2, -3], np.float32).reshape(3, 1, 1)},
        18,
    ),
    "arithmetic of constants": (
        [
            node("Mod", "five three", "two"),
            node("MatMul", "m m", "mm"),
            node("ReduceL2", "mm two0", "l", keepdims=0),
            node("Mul", "x l", "s"),
            node("Cast", "two", "tf", to=1),
            node("Add", "s tf"),
        ],
        (1, 2, 5, 3),
        {"five": ints(5), "three": ints(3), "two0": ints(0), "m": np.eye(3, dtype=np.float32) * 2},
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


def test_group_norm(tmp_path: Path) -> None:
    constants = {"s": draw(6), "k": draw(6)}
    proto = model([node("GroupNormalization", "x s k", num_groups=2)], [1, 6, 5, 3], constants, opset=21)
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 6, 5, 3]))
    check(tmp_path, proto, (1, 6, 5, 3))


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
