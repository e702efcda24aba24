"""Every further operator of TFLite against numpy, through the float interpreter."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flatbuffers")
from mcuq.frontend.tflite import import_tflite
from mcuq.ir.fuse import fuse
from mcuq.ir.graph import Graph
from mcuq.reference import floating
from tests.tflite_writer import Net

RNG = np.random.default_rng(5)
Function = Callable[[Any], Any]


def draw(*shape: int) -> Any:
    return RNG.normal(0, 1, shape).astype(np.float32)


def ints(*values: Any) -> Any:
    return np.array(values, dtype=np.int32)


def sigmoid(v: Any) -> Any:
    return 1 / (1 + np.exp(-v))


def check(tmp_path: Path, net: Net, wanted: Function, atol: float = 1e-5) -> Graph:
    path = tmp_path / "net.tflite"
    path.write_bytes(net.write())
    graph = import_tflite(path)
    assert isinstance(graph, Graph)
    fused = fuse(graph)
    x = RNG.normal(0, 1, (1, *fused.input.shape))
    shape = net.tensors[0]["shape"]
    expected = wanted(x.reshape(shape))
    np.testing.assert_allclose(
        floating.run(fused, x)[fused.outputs[0]].reshape(expected.shape), expected, atol=atol, rtol=1e-5
    )
    return graph


UNARY: dict[str, tuple[Function, dict[str, Any]]] = {
    "LOGISTIC": (sigmoid, {}),
    "TANH": (np.tanh, {}),
    "HARD_SWISH": (lambda v: v * np.clip(v + 3, 0, 6) / 6, {}),
    "ELU": (lambda v: np.where(v > 0, v, np.exp(v) - 1), {}),
    "LEAKY_RELU": (lambda v: np.where(v > 0, v, 0.25 * v), {"f0": ("f32", 0.25)}),
    "GELU": (lambda v: v * 0.5 * (1 + np.vectorize(math.erf)(v / math.sqrt(2))), {}),
    "EXP": (np.exp, {}),
    "SQUARE": (np.square, {}),
    "ABS": (np.abs, {}),
    "NEG": (np.negative, {}),
    "SIN": (np.sin, {}),
    "COS": (np.cos, {}),
    "FLOOR": (np.floor, {}),
    "CEIL": (np.ceil, {}),
    "ROUND": (np.round, {}),
    "SIGN": (np.sign, {}),
    "RELU_0_TO_1": (lambda v: np.clip(v, 0, 1), {}),
    "LOG": (lambda v: np.where(v > 0, np.log(np.abs(v)), 0), {}),
    "SQRT": (lambda v: np.where(v > 0, np.sqrt(np.abs(v)), 0), {}),
    "RSQRT": (lambda v: np.where(v > 0, 1 / np.sqrt(np.abs(v)), 0), {}),
}


@pytest.mark.parametrize("kind", UNARY)
def test_functions_of_every_element(tmp_path: Path, kind: str) -> None:
    wanted, options = UNARY[kind]
    net = Net()
    net.op(kind, [net.tensor([1, 4, 3, 2], "float32")], net.tensor([1, 4, 3, 2], "float32"), **options)
    check(tmp_path, net, wanted)


BINARY: dict[str, Function] = {
    "ADD": lambda a, b: a + b,
    "SUB": lambda a, b: a - b,
    "MUL": lambda a, b: a * b,
    "DIV": lambda a, b: a / b,
    "MAXIMUM": np.maximum,
    "MINIMUM": np.minimum,
    "SQUARED_DIFFERENCE": lambda a, b: (a - b) ** 2,
}  # type: ignore[dict-item]


@pytest.mark.parametrize("shape", [(1, 4, 3, 2), (1, 1, 1, 2)])
@pytest.mark.parametrize("kind", BINARY)
def test_two_activations(tmp_path: Path, kind: str, shape: tuple[int, ...]) -> None:
    """The second one of the same shape, or one value per channel."""
    net, w = Net(), draw(2, 1, 1, 2)
    x = net.tensor([1, 4, 3, 2], "float32")
    y = net.op("CONV_2D", [x, net.constant(w), -1], net.tensor([1, 4, 3, 2], "float32"), f1=("i32", 1), f2=("i32", 1))
    z = net.op("LOGISTIC", [y], net.tensor([1, 4, 3, 2], "float32"))
    if shape[1] == 1:
        z = net.op("MEAN", [z, net.constant(ints(1, 2))], net.tensor(shape, "float32"), f0=("bool", True))
    net.op(kind, [x, z], net.tensor([1, 4, 3, 2], "float32"))

    def wanted(v: Any) -> Any:
        gate = sigmoid(np.einsum("nhwc,oc->nhwo", v, w[:, 0, 0]))
        other = gate.mean(axis=(1, 2), keepdims=True) if shape[1] == 1 else gate
        return BINARY[kind](v, other)  # type: ignore[call-arg]

    check(tmp_path, net, wanted)


@pytest.mark.parametrize("kind", ["ADD", "SUB", "MUL", "DIV"])
@pytest.mark.parametrize("first", [False, True])
def test_an_activation_and_a_constant(tmp_path: Path, kind: str, first: bool) -> None:
    net, k = Net(), np.array([0.5, -2.0], dtype=np.float32)
    x, c = net.tensor([1, 4, 3, 2], "float32"), net.constant(k)
    net.op(kind, [c, x] if first else [x, c], net.tensor([1, 4, 3, 2], "float32"))
    check(tmp_path, net, lambda v: BINARY[kind](k, v) if first else BINARY[kind](v, k))  # type: ignore[call-arg]


COMPARISONS = {"GREATER": np.greater, "GREATER_EQUAL": np.greater_equal, "LESS": np.less, "LESS_EQUAL": np.less_equal,
               "EQUAL": np.equal, "NOT_EQUAL": np.not_equal}  # fmt: skip


@pytest.mark.parametrize("select", ["SELECT", "SELECT_V2"])
@pytest.mark.parametrize("kind", COMPARISONS)
def test_choices_by_masks(tmp_path: Path, kind: str, select: str) -> None:
    """|x| where the mask holds, else -2; and the mask the other way round."""
    net, shape = Net(), [1, 4, 3, 2]
    x = net.tensor(shape, "float32")
    y = net.op("ABS", [x], net.tensor(shape, "float32"))
    mask = net.op(kind, [x, y], net.tensor(shape, "bool"))
    chosen = net.op(select, [mask, y, net.constant(np.array([-2], np.float32))], net.tensor(shape, "float32"))
    other = net.op("LOGICAL_NOT", [mask], net.tensor(shape, "bool"))
    real = net.op("CAST", [other], net.tensor(shape, "float32"))
    net.op("CONCATENATION", [chosen, real], net.tensor([1, 4, 3, 4], "float32"), f0=("i32", 3))

    def wanted(v: Any) -> Any:
        holds = COMPARISONS[kind](v, np.abs(v))
        return np.concatenate([np.where(holds, np.abs(v), -2), ~holds], axis=3)

    check(tmp_path, net, wanted)


def test_constants_are_joined(tmp_path: Path) -> None:
    net, k = Net(), draw(1, 4, 3, 2)
    x, c = net.tensor([1, 4, 3, 2], "float32"), net.constant(k)
    net.op("CONCATENATION", [c, x], net.tensor([1, 4, 3, 4], "float32"), f0=("i32", 3))
    check(tmp_path, net, lambda v: np.concatenate([k, v], axis=3))


def test_log_softmax(tmp_path: Path) -> None:
    net = Net()
    net.op("LOG_SOFTMAX", [net.tensor([1, 4, 3, 5], "float32")], net.tensor([1, 4, 3, 5], "float32"))
    check(tmp_path, net, lambda v: v - np.log(np.exp(v).sum(axis=3, keepdims=True)))


def test_minimum_over_axes(tmp_path: Path) -> None:
    net = Net()
    x = net.tensor([1, 4, 3, 5], "float32")
    net.op("REDUCE_MIN", [x, net.constant(ints(1, -1))], net.tensor([1, 3], "float32"))
    check(tmp_path, net, lambda v: v.min(axis=(1, 3)))


@pytest.mark.parametrize(("kind", "wanted"), [("ARG_MAX", np.argmax), ("ARG_MIN", np.argmin)])
@pytest.mark.parametrize("axis", [1, 3, -1])
def test_first_of_the_extremes_of_every_pixel(tmp_path: Path, kind: str, wanted: Any, axis: int) -> None:
    net = Net()
    shape = [n for i, n in enumerate((1, 4, 3, 5)) if i != axis % 4]
    net.op(kind, [net.tensor([1, 4, 3, 5], "float32"), net.constant(ints(axis))], net.tensor(shape, "int32"))
    check(tmp_path, net, lambda v: wanted(v, axis=axis))


@pytest.mark.parametrize("shape", [(3, 1), (4, 3, 2), (4, 1, 1)])
def test_constants_that_differ_by_place(tmp_path: Path, shape: tuple[int, ...]) -> None:
    net, k = Net(), draw(*shape)
    net.op("ADD", [net.tensor([1, 4, 3, 2], "float32"), net.constant(k)], net.tensor([1, 4, 3, 2], "float32"))
    check(tmp_path, net, lambda v: v + k)


@pytest.mark.parametrize("slope", [draw(1, 1, 2), draw(1)])
def test_prelu(tmp_path: Path, slope: Any) -> None:
    net = Net()
    net.op("PRELU", [net.tensor([1, 4, 3, 2], "float32"), net.constant(slope)], net.tensor([1, 4, 3, 2], "float32"))
    check(tmp_path, net, lambda v: np.where(v > 0, v, v * slope))


@pytest.mark.parametrize("first", [False, True])
def test_powers(tmp_path: Path, first: bool) -> None:
    net = Net()
    x, c = net.tensor([1, 4, 3, 2], "float32"), net.constant(np.float32(3.0))
    net.op("POW", [c, x] if first else [x, c], net.tensor([1, 4, 3, 2], "float32"))
    check(tmp_path, net, lambda v: 3.0**v if first else v**3)


def test_l2_normalization(tmp_path: Path) -> None:
    net = Net()
    net.op("L2_NORMALIZATION", [net.tensor([1, 4, 3, 5], "float32")], net.tensor([1, 4, 3, 5], "float32"))
    check(tmp_path, net, lambda v: v / np.sqrt((v**2).sum(axis=3, keepdims=True)))


@pytest.mark.parametrize("size", [(8, 6), (5, 7), (2, 2)])
@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("kind", ["RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"])
def test_resizing(tmp_path: Path, kind: str, size: tuple[int, int], corners: bool, half: bool) -> None:
    """TFLite's own formulas, column by column."""
    if corners and half:
        pytest.skip("the schema allows one of them")
    net, linear = Net(), kind == "RESIZE_BILINEAR"
    at = (2, 3) if linear else (0, 1)
    options = {f"f{at[0]}": ("bool", corners), f"f{at[1]}": ("bool", half)}
    net.op(
        kind, [net.tensor([1, 4, 3, 2], "float32"), net.constant(ints(*size))],
        net.tensor([1, *size, 2], "float32"), **options,
    )  # fmt: skip

    def along(v: Any, axis: int, outputs: int) -> Any:
        n = v.shape[axis]
        scale = (n - 1) / (outputs - 1) if corners and outputs > 1 else n / outputs
        parts = []
        for i in range(outputs):
            if linear:
                place = max((i + 0.5) * scale - 0.5 if half else i * scale, 0)
                low = min(math.floor(place), n - 1)
                high = min(low + 1, n - 1)
                parts.append(v.take(low, axis) * (1 - (place - low)) + v.take(high, axis) * (place - low))
            else:
                place = (i + 0.5 if half else i) * scale
                parts.append(v.take(min(math.floor(place + 0.5) if corners else math.floor(place), n - 1), axis))
        return np.stack(parts, axis)

    check(tmp_path, net, lambda v: along(along(v, 1, size[0]), 2, size[1]), atol=2e-3 if linear else 1e-9)


MOVES: dict[str, tuple[list[Any], list[int], Function, dict[str, Any]]] = {
    "DEPTH_TO_SPACE": (
        [], [1, 8, 6, 2],
        lambda v: v.reshape(1, 4, 3, 2, 2, 2).transpose(0, 1, 3, 2, 4, 5).reshape(1, 8, 6, 2), {"f0": ("i32", 2)},
    ),
    "TRANSPOSE": ([ints(0, 2, 1, 3)], [1, 3, 4, 8], lambda v: v.transpose(0, 2, 1, 3), {}),
    "TILE": ([ints(1, 2, 1, 2)], [1, 8, 3, 16], lambda v: np.tile(v, (1, 2, 1, 2)), {}),
    "REVERSE_V2": ([ints(2)], [1, 4, 3, 8], lambda v: v[:, :, ::-1], {}),
    "GATHER": ([ints(5, 0, 2)], [1, 4, 3, 3], lambda v: v[..., [5, 0, 2]], {"f0": ("i32", 3)}),
    "MIRROR_PAD": (
        [ints([0, 0], [1, 2], [2, 0], [0, 0])], [1, 7, 5, 8],
        lambda v: np.pad(v, ((0, 0), (1, 2), (2, 0), (0, 0)), mode="reflect"), {},
    ),
    "PADV2": (
        [ints([0, 0], [1, 2], [2, 0], [0, 0]), np.float32(1.5)], [1, 7, 5, 8],
        lambda v: np.pad(v, ((0, 0), (1, 2), (2, 0), (0, 0)), constant_values=1.5), {},
    ),
    "SUM": ([ints(1, 2)], [1, 8], lambda v: v.sum(axis=(1, 2)), {}),
    "REDUCE_MAX": ([ints(3)], [1, 4, 3], lambda v: v.max(axis=3), {}),
    "SLICE": ([ints(0, 1, 0, 3), ints(1, 2, 3, 4)], [1, 2, 3, 4], lambda v: v[:, 1:3, :, 3:7], {}),
}  # fmt: skip


@pytest.mark.parametrize("kind", MOVES)
def test_moves_and_reductions(tmp_path: Path, kind: str) -> None:
    constants, shape, wanted, options = MOVES[kind]
    net = Net()
    inputs = [net.tensor([1, 4, 3, 8], "float32"), *(net.constant(c) for c in constants)]
    net.op(kind, inputs, net.tensor(shape, "float32"), **options)
    check(tmp_path, net, wanted)


def test_space_to_depth(tmp_path: Path) -> None:
    net = Net()
    x, y = net.tensor([1, 4, 6, 2], "float32"), net.tensor([1, 2, 3, 8], "float32")
    net.op("SPACE_TO_DEPTH", [x], y, f0=("i32", 2))
    check(tmp_path, net, lambda v: v.reshape(1, 2, 2, 3, 2, 2).transpose(0, 1, 3, 2, 4, 5).reshape(1, 2, 3, 8))


def test_shapes_that_converters_compute(tmp_path: Path) -> None:
    """Flattening as Keras writes it: SHAPE, STRIDED_SLICE, PACK, RESHAPE."""
    net, w = Net(), draw(5, 24)
    x = net.tensor([1, 2, 3, 4], "float32")
    shape = net.op("SHAPE", [x], net.tensor([4], "int32"))
    bounds = [net.constant(ints(v)) for v in (0, 1, 1)]
    batch = net.op("STRIDED_SLICE", [shape, *bounds], net.tensor([], "int32"), f4=("i32", 1))
    target = net.op(
        "PACK", [batch, net.constant(np.array(24, dtype=np.int32))], net.tensor([2], "int32"), f0=("i32", 2)
    )
    flat = net.op("RESHAPE", [x, target], net.tensor([1, 24], "float32"))
    net.op("FULLY_CONNECTED", [flat, net.constant(w), -1], net.tensor([1, 5], "float32"))
    check(tmp_path, net, lambda v: v.reshape(1, 24) @ w.T)


def test_pieces_of_given_sizes_and_single_rows(tmp_path: Path) -> None:
    net = Net()
    x = net.tensor([1, 4, 3, 4], "float32")
    sizes = net.constant(ints(1, 3))
    parts = [net.tensor([1, 4, 3, n], "float32") for n in (1, 3)]
    net.op("SPLIT_V", [x, sizes, net.constant(np.array(3, dtype=np.int32))], parts[0], f0=("i32", 2))
    net.operators[-1]["outputs"] = parts
    rows = [net.tensor([1, 3, 3], "float32") for _ in range(4)]
    net.op("UNPACK", [parts[1]], rows[0], f0=("i32", 4), f1=("i32", 1))
    net.operators[-1]["outputs"] = rows
    net.op("PACK", [rows[2], rows[0]], net.tensor([1, 2, 3, 3], "float32"), f0=("i32", 2), f1=("i32", 1))
    check(tmp_path, net, lambda v: np.stack([v[:, 2, :, 1:], v[:, 0, :, 1:]], axis=1))


@pytest.mark.parametrize(("padding", "size", "kernel"), [(0, (8, 6), (3, 3)), (1, (9, 8), (3, 4)), (0, (8, 6), (2, 2))])
def test_transposed_convolution(tmp_path: Path, padding: int, size: tuple[int, int], kernel: tuple[int, int]) -> None:
    """Every input pixel adds its kernel to the output; SAME (0) cuts the sides, VALID (1) does not."""
    net, w, b = Net(), draw(5, *kernel, 2), draw(5)
    x = net.tensor([1, 4, 3, 2], "float32")
    inputs = [net.constant(ints(1, *size, 5)), net.constant(w), x, net.constant(b)]
    stride = {"f1": ("i32", 2), "f2": ("i32", 2)}
    net.op("TRANSPOSE_CONV", inputs, net.tensor([1, *size, 5], "float32"), f0=("i8", padding), **stride)

    def wanted(v: Any) -> Any:
        whole = np.zeros((1, 3 * 2 + kernel[0] + 4, 2 * 2 + kernel[1] + 4, 5))
        for i, j in np.ndindex(4, 3):
            spread = np.einsum("nc,okjc->nkjo", v[:, i, j], w)
            whole[:, 2 * i : 2 * i + kernel[0], 2 * j : 2 * j + kernel[1]] += spread
        total = [(n - 1) * 2 + k - s for n, k, s in zip((4, 3), kernel, size, strict=True)]
        top, left = (max(t, 0) // 2 if padding == 0 else 0 for t in total)
        return whole[:, top : top + size[0], left : left + size[1]] + b

    check(tmp_path, net, wanted)
