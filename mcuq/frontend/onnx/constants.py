"""Constant folding: exporters compute shapes and paddings by chains of small operators.

Only operators that cannot enlarge their input without saying so by a shape are here, and every declared
result shape is checked against the limits of ``model`` before memory is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper
from onnx.onnx_ml_pb2 import NodeProto

from mcuq.frontend.onnx.model import check_dims, check_elements, to_array
from mcuq.frontend.views import Refusal

MAX_PRODUCTS = 1 << 28
"""Multiplications of one folded matrix product."""
Array = NDArray[Any]
Evaluator = Callable[[list[Any], dict[str, Any], int], Any]


def _axes(inputs: list[Any], attributes: dict[str, Any], position: int = 1) -> list[int] | None:
    """``axes`` as input (newer opsets) or attribute."""
    if len(inputs) > position and inputs[position] is not None:
        return [int(a) for a in np.ravel(inputs[position])]
    axes = attributes.get("axes")
    return None if axes is None else [int(a) for a in axes]


def reshape_target(shape: tuple[int, ...], target: list[int], *, allow_zero: bool = False) -> tuple[int, ...]:
    """Result shape of Reshape. Raises Refusal when the numbers of elements differ."""
    if len(target) > 8 or target.count(-1) > 1 or min(target, default=1) < -1:
        raise Refusal(f"cannot reshape {list(shape)} to {target}")
    if 0 in target and not allow_zero:
        target = [shape[i] if n == 0 and i < len(shape) else n for i, n in enumerate(target)]
    size, known = int(np.prod(shape)), int(np.prod([n for n in target if n != -1]))
    result = tuple(size // max(1, known) if n == -1 else n for n in target)
    if int(np.prod(result)) != size:
        raise Refusal(f"cannot reshape {list(shape)} to {target}")
    return result


def slices_of(shape: tuple[int, ...], inputs: list[Any], attributes: dict[str, Any]) -> tuple[slice, ...]:
    """The numpy slices of a Slice node (attributes before opset 10, inputs since)."""
    if len(inputs) > 1:
        starts, ends, axes, steps = (*inputs[1:], None, None)[:4]
    else:
        starts, ends, axes, steps = attributes["starts"], attributes["ends"], attributes.get("axes"), None
    if starts is None or ends is None:
        raise Refusal("slices need constant bounds")
    starts, ends = [int(v) for v in np.ravel(starts)], [int(v) for v in np.ravel(ends)]
    axes = list(range(len(starts))) if axes is None else [int(v) for v in np.ravel(axes)]
    steps = [1] * len(starts) if steps is None else [int(v) for v in np.ravel(steps)]
    result = [slice(None)] * len(shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = shape[axis]
        if step == 0:
            raise Refusal("a slice of step 0")
        start, end = (v + size if v < 0 else v for v in (start, end))
        lowest, highest = (0, size) if step > 0 else (-1, size - 1)
        start = min(max(start, 0), highest if step < 0 else size)
        end = min(max(end, lowest), highest if step > 0 else size - 1)
        result[axis] = slice(start, None if end < 0 else end, step)
    return tuple(result)


def _constant(inputs: list[Any], attributes: dict[str, Any], opset: int) -> Any:
    for key in ("value_float", "value_int", "value_floats", "value_ints"):
        if key in attributes:
            return np.asarray(attributes[key], dtype=np.float64 if "float" in key else np.int64)
    if "value" not in attributes:
        raise Refusal("a constant that is neither number nor dense tensor")
    return to_array(attributes["value"])


def _constant_of_shape(inputs: list[Any], attributes: dict[str, Any], opset: int) -> Any:
    dims = tuple(int(n) for n in np.ravel(inputs[0]))
    check_dims(dims, "ConstantOfShape")
    value = to_array(attributes["value"]) if "value" in attributes else np.zeros(1)
    return np.full(dims, np.ravel(value)[0])


def _expand(inputs: list[Any], attributes: dict[str, Any], opset: int) -> Any:
    dims = np.broadcast_shapes(np.shape(inputs[0]), tuple(int(n) for n in np.ravel(inputs[1])))
    check_dims(dims, "Expand")
    return np.broadcast_to(inputs[0], dims).copy()


def _tile(inputs: list[Any], attributes: dict[str, Any], opset: int) -> Any:
    repeats = [int(n) for n in np.ravel(inputs[1])]
    check_dims(tuple(n * r for n, r in zip(np.shape(inputs[0]), repeats, strict=True)), "Tile")
    return np.tile(inputs[0], repeats)


def _range(inputs: list[Any], attributes: dict[str, Any], opset: int) -> Any:
    start, limit, delta = (np.ravel(v)[0] for v in inputs)
    if delta == 0:
        raise Refusal("a range of step 0")
    check_dims((max(0, int(np.ceil((limit - start) / delta))),), "Range")
    return np.arange(start, limit, delta)


def _cast(inputs: list[Any], attributes: dict[str, Any], opset: int) -> Any:
    kind = np.dtype(helper.tensor_dtype_to_np_dtype(int(attributes["to"])))
    if kind.kind not in "fiub":
        raise Refusal(f"a cast to {kind.name}")
    return np.asarray(inputs[0]).astype(np.float64 if kind.kind == "f" else kind)


def _reshape(inputs: list[Any], attributes: dict[str, Any], opset: int) -> Any:
    target = [int(n) for n in np.ravel(inputs[1])]
    shape = np.shape(inputs[0])
    return np.reshape(inputs[0], reshape_target(shape, target, allow_zero=bool(attributes.get("allowzero"))))


def _squeeze(inputs: list[Any], attributes: dict[str, Any], opset: int) -> Any:
    axes = _axes(inputs, attributes)
    return np.squeeze(inputs[0], None if axes is None else tuple(axes))


def _unsqueeze(inputs: list[Any], attributes: dict[str, Any], opset: int) -> Any:
    return np.expand_dims(inputs[0], tuple(_axes(inputs, attributes) or ()))


def _flatten(inputs: list[Any], attributes: dict[str, Any], opset: int) -> Any:
    shape = np.shape(inputs[0])
    axis = int(attributes.get("axis", 1)) % (len(shape) + 1)
    return np.reshape(inputs[0], (int(np.prod(shape[:axis])), int(np.prod(shape[axis:]))))


def _transpose(inputs: list[Any], attributes: dict[str, Any], opset: int) -> Any:
    return np.transpose(inputs[0], attributes.get("perm"))


def _slice(inputs: list[Any], attributes: dict[str, Any], opset: int) -> Any:
    return inputs[0][slices_of(np.shape(inputs[0]), inputs, attributes)]


def _gather(inputs: list[Any], attributes: dict[str, Any], opset: int) -> Any:
    axis = int(attributes.get("axis", 0))
    shape = np.shape(inputs[0])
    check_dims((*shape[:axis], *np.shape(inputs[1]), *shape[axis % max(1, len(shape)) + 1 :]), "Gather")
    return np.take(inputs[0], np.asarray(inputs[1], dtype=np.int64), axis=axis)


def _concat(inputs: list[Any], attributes: dict[str, Any], opset: int) -> Any:
    check_elements(sum(int(np.size(part)) for part in inputs), "Concat")
    return np.concatenate(inputs, axis=int(attributes["axis"]))


def _depth_to_space(inputs: list[Any], attributes: dict[str, Any], opset: int) -> Any:
    n, c, h, w = np.shape(inputs[0])
    size = int(attributes["blocksize"])
    if attributes.get("mode", "DCR") == "CRD":
        parts = np.reshape(inputs[0], (n, c // size**2, size, size, h, w)).transpose(0, 1, 4, 2, 5, 3)
    else:
        parts = np.reshape(inputs[0], (n, size, size, c // size**2, h, w)).transpose(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, c // size**2, h * size, w * size)


def _space_to_depth(inputs: list[Any], attributes: dict[str, Any], opset: int) -> Any:
    n, c, h, w = np.shape(inputs[0])
    size = int(attributes["blocksize"])
    parts = np.reshape(inputs[0], (n, c, h // size, size, w // size, size)).transpose(0, 3, 5, 1, 2, 4)
    return parts.reshape(n, c * size**2, h // size, w // size)


def _where(inputs: list[Any], attributes: dict[str, Any], opset: int) -> Any:
    check_dims(np.broadcast_shapes(*map(np.shape, inputs)), "Where")
    return np.where(*inputs)


def _reduce(function: Callable[..., Any]) -> Evaluator:
    def evaluate(inputs: list[Any], attributes: dict[str, Any], opset: int) -> Any:
        axes = _axes(inputs, attributes)
        keep = bool(attributes.get("keepdims", 1))
        return function(inputs[0], axis=None if axes is None else tuple(axes), keepdims=keep)

    return evaluate


def _binary(function: Callable[[Array, Array], Any]) -> Evaluator:
    def evaluate(inputs: list[Any], attributes: dict[str, Any], opset: int) -> Any:
        check_dims(np.broadcast_shapes(np.shape(inputs[0]), np.shape(inputs[1])), "a constant")
        return function(inputs[0], inputs[1])

    return evaluate


def _divide(left: Array, right: Array) -> Any:
    if np.asarray(left).dtype.kind == "f":
        return np.divide(left, right)
    if np.any(np.asarray(right) == 0):
        raise Refusal("an integer division by zero")
    return np.trunc(np.asarray(left) / np.asarray(right)).astype(np.int64)


def _unary(function: Callable[[Array], Any]) -> Evaluator:
    return lambda inputs, attributes, opset: function(inputs[0])


def _mod(inputs: list[Any], attributes: dict[str, Any], opset: int) -> Any:
    if np.asarray(inputs[1]).dtype.kind != "f" and np.any(np.asarray(inputs[1]) == 0):
        raise Refusal("an integer division by zero")
    return _binary(np.fmod if attributes.get("fmod") else np.mod)(inputs, attributes, opset)


def _matmul(inputs: list[Any], attributes: dict[str, Any], opset: int) -> Any:
    left, right = map(np.shape, inputs)
    if min(len(left), len(right)) < 1:
        raise Refusal("a matrix product of numbers")
    rows, columns = left[-2:-1], right[-1:] if len(right) > 1 else ()
    dims = (*np.broadcast_shapes(left[:-2], right[:-2]), *rows, *columns)
    check_dims(dims, "MatMul")
    if math.prod(dims) * left[-1] > MAX_PRODUCTS:
        raise Refusal(f"a product of constant matrices with more than {MAX_PRODUCTS} products")
    return np.matmul(*inputs)


def _sum_of_squares(x: Array, **options: Any) -> Any:
    return np.sum(np.square(x), **options)


def _length(x: Array, **options: Any) -> Any:
    return np.sqrt(_sum_of_squares(x, **options))


COMPARISONS: dict[str, Callable[[Array, Array], Any]] = {
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
}
LOGIC: dict[str, Callable[[Array, Array], Any]] = {"And": np.logical_and, "Or": np.logical_or, "Xor": np.logical_xor}

STRUCTURAL: dict[str, Evaluator] = {
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Slice": _slice,
    "Gather": _gather,
    "Identity": _unary(lambda x: x),
    "Expand": _expand,
    "Tile": _tile,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}
"""Operators that only move elements: they act on constants and on the indices of a view alike."""

EVALUATORS: dict[str, Evaluator] = STRUCTURAL | {
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Cast": _cast,
    "Concat": _concat,
    "Shape": lambda inputs, attributes, opset: np.asarray(np.shape(inputs[0]), dtype=np.int64),
    "Size": lambda inputs, attributes, opset: np.asarray(np.size(inputs[0]), dtype=np.int64),
    "Add": _binary(np.add),
    "Sub": _binary(np.subtract),
    "Mul": _binary(np.multiply),
    "Div": _binary(_divide),
    "Pow": _binary(np.power),
    "Min": _binary(np.minimum),
    "Max": _binary(np.maximum),
    "Mod": _mod,
    "MatMul": _matmul,
    **{kind: _binary(function) for kind, function in COMPARISONS.items()},
    **{kind: _binary(function) for kind, function in LOGIC.items()},
    "Not": _unary(np.logical_not),
    "Abs": _unary(np.abs),
    "Sign": _unary(np.sign),
    "Log": _unary(np.log),
    "Sin": _unary(np.sin),
    "Cos": _unary(np.cos),
    "Tanh": _unary(np.tanh),
    "Sigmoid": _unary(lambda x: 1.0 / (1.0 + np.exp(-x))),
    "Relu": _unary(lambda x: np.maximum(x, 0)),
    "Round": _unary(np.round),
    "Neg": _unary(np.negative),
    "Sqrt": _unary(np.sqrt),
    "Reciprocal": _unary(lambda x: 1.0 / x),
    "Exp": _unary(np.exp),
    "Floor": _unary(np.floor),
    "Ceil": _unary(np.ceil),
    "Where": _where,
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "ReduceMean": _reduce(np.mean),
    "ReduceL2": _reduce(_length),
    "ReduceSumSquare": _reduce(_sum_of_squares),
}


def evaluate(node: NodeProto, inputs: list[Any], attributes: dict[str, Any], opset: int) -> Any:
    """Result of a node with constant inputs (absent ones None).

    Raises:
        Refusal: no evaluator, or values that do not fit the operator.
    """
    evaluator = EVALUATORS.get(node.op_type)
    if evaluator is None:
        raise Refusal("constants cannot be folded through this operator; fold them with onnxsim or onnxruntime")
    try:
        with np.errstate(all="ignore"):
            return np.asarray(evaluator(inputs, attributes, opset))
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise Refusal(f"its constant inputs do not fit: {error}") from error
