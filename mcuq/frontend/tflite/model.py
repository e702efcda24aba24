"""A TFLite file as plain values: tensors with their quantization, operators with their options.

Field and enumeration numbers are those of the TensorFlow Lite schema, version 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcuq.errors import ModelError, UnsupportedError
from mcuq.frontend.tflite.tables import Table, root

MAX_RANK, MAX_DIM, MAX_ELEMENTS = 6, 1 << 20, 1 << 24
IDENTIFIER = b"TFL3"
TYPES: dict[int, str] = {
    0: "<f4",
    1: "<f2",
    2: "<i4",
    3: "u1",
    4: "<i8",
    6: "?",
    7: "<i2",
    9: "i1",
    10: "<f8",
    17: "int4",
}
OPERATORS: dict[int, str] = {
    0: "ADD", 1: "AVERAGE_POOL_2D", 2: "CONCATENATION", 3: "CONV_2D", 4: "DEPTHWISE_CONV_2D", 5: "DEPTH_TO_SPACE",
    6: "DEQUANTIZE", 9: "FULLY_CONNECTED", 11: "L2_NORMALIZATION", 14: "LOGISTIC", 16: "LSTM", 17: "MAX_POOL_2D",
    18: "MUL", 19: "RELU", 20: "RELU_N1_TO_1", 21: "RELU6", 22: "RESHAPE", 23: "RESIZE_BILINEAR", 24: "RNN",
    25: "SOFTMAX", 26: "SPACE_TO_DEPTH", 27: "SVDF", 28: "TANH", 32: "CUSTOM", 34: "PAD", 36: "GATHER",
    39: "TRANSPOSE", 40: "MEAN", 41: "SUB", 42: "DIV", 43: "SQUEEZE", 44: "UNIDIRECTIONAL_SEQUENCE_LSTM",
    45: "STRIDED_SLICE", 49: "SPLIT", 50: "LOG_SOFTMAX", 53: "CAST", 54: "PRELU", 55: "MAXIMUM", 56: "ARG_MAX",
    57: "MINIMUM", 60: "PADV2", 65: "SLICE", 67: "TRANSPOSE_CONV", 70: "EXPAND_DIMS", 77: "SHAPE", 83: "PACK",
    47: "EXP", 59: "NEG", 69: "TILE", 73: "LOG", 74: "SUM", 75: "SQRT", 76: "RSQRT", 78: "POW", 82: "REDUCE_MAX",
    88: "UNPACK", 92: "SQUARE", 97: "RESIZE_NEAREST_NEIGHBOR", 98: "LEAKY_RELU", 99: "SQUARED_DIFFERENCE",
    100: "MIRROR_PAD", 101: "ABS", 102: "SPLIT_V", 105: "REVERSE_V2", 111: "ELU", 114: "QUANTIZE", 117: "HARD_SWISH",
    126: "BATCH_MATMUL", 150: "GELU", 152: "RELU_0_TO_1", 8: "FLOOR", 66: "SIN", 79: "ARG_MIN", 89: "REDUCE_MIN",
    104: "CEIL", 108: "COS", 116: "ROUND", 158: "SIGN",
    58: "LESS", 61: "GREATER", 62: "GREATER_EQUAL", 63: "LESS_EQUAL", 64: "SELECT", 71: "EQUAL",
    72: "NOT_EQUAL", 87: "LOGICAL_NOT", 123: "SELECT_V2",
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Quantization:
    """``scale * (code - zero_point)``, one entry or one per index of ``axis``; int64 and float64 vectors."""

    scale: NDArray[np.float64]
    zero_point: NDArray[np.int64]
    axis: int


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """``kind``: numpy type name, or "int4". ``data``: the bytes of a constant, else None."""

    name: str
    shape: tuple[int, ...]
    kind: str
    quantization: Quantization | None
    data: bytes | None


@dataclass(frozen=True, slots=True, eq=False)
class Operator:
    """``kind``: schema name. Tensors by index, -1 for an absent input. ``options``: None when absent."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Table | None

    def option(self, field: int, kind: str, default: Any = 0) -> Any:
        return default if self.options is None else self.options.number(field, kind, default)


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def parse(data: bytes) -> Model:
    """The only subgraph of a TFLite file.

    Raises:
        ModelError: not a TFLite file, damaged or over a limit; UnsupportedError: several subgraphs.
    """
    if data[4:8] != IDENTIFIER:
        raise ModelError(f"not a TFLite file ({len(data)} bytes without the mark TFL3). Convert the model again.")
    model = root(data)
    graphs = model.tables(2)
    if len(graphs) != 1:
        raise UnsupportedError(
            f"{len(graphs)} subgraphs; one is supported. Convert without control flow and state (variables)."
        )
    buffers = model.tables(4)
    kinds = [_kind_of(code) for code in model.tables(1)]
    tensors = tuple(_tensor(table, buffers) for table in graphs[0].tables(0))
    operators = tuple(_operator(table, kinds, len(tensors)) for table in graphs[0].tables(3))
    inputs, outputs = (_indices(graphs[0], field, len(tensors)) for field in (1, 2))
    if not operators or not outputs:
        raise ModelError("the file holds no operators or no outputs. Convert the model again.")
    return Model(tensors, operators, inputs, outputs)


def _kind_of(code: Table) -> str:
    number = max(code.number(0, "b"), code.number(3, "i"))
    name = OPERATORS.get(number, f"operator {number}")
    return f"CUSTOM {code.text(1)[:80]!r}" if name == "CUSTOM" else name


def _tensor(table: Table, buffers: list[Table]) -> Tensor:
    name = table.text(3)
    shape = tuple(int(n) for n in table.array(0, "i"))
    kind = TYPES.get(table.number(1, "b"))
    elements = int(np.prod(shape, dtype=object)) if shape else 1
    if len(shape) > MAX_RANK or any(not 0 <= n <= MAX_DIM for n in shape) or elements > MAX_ELEMENTS:
        raise ModelError(
            f"tensor {name[:80]!r} has shape {list(shape)[:8]}; at most {MAX_RANK} dimensions of 0 to {MAX_DIM} "
            f"and {MAX_ELEMENTS} elements are allowed."
        )
    if kind is None:
        raise UnsupportedError(f"tensor {name[:80]!r} has type number {table.number(1, 'b')}; use float32 or int8.")
    if table.table(6) is not None:
        raise UnsupportedError(f"tensor {name[:80]!r} is stored sparse; convert without sparsity.")
    index = table.number(2, "I")
    if index >= len(buffers):
        raise ModelError(f"tensor {name[:80]!r} names buffer {index} of {len(buffers)}. Convert the model again.")
    return Tensor(name, shape, kind, _quantization(table, shape, name), _content(buffers[index], kind, elements, name))


def _content(buffer: Table, kind: str, elements: int, name: str) -> bytes | None:
    if buffer.number(1, "Q") > 1:
        raise UnsupportedError(f"tensor {name[:80]!r} lies outside the file's tables; models of 2 GB are not read.")
    start, count = buffer.vector(0, 1)
    if not count:
        return None
    needed = (elements + 1) // 2 if kind == "int4" else elements * np.dtype(kind).itemsize
    if count != needed:
        raise ModelError(f"tensor {name[:80]!r} has {count} bytes, its shape needs {needed}. Convert the model again.")
    return buffer.data[start : start + count]


def _quantization(table: Table, shape: tuple[int, ...], name: str) -> Quantization | None:
    fields = table.table(4)
    if fields is None or not fields.vector(2, 4)[1]:
        return None
    scale = fields.array(2, "f").astype(np.float64)
    zero_point = fields.array(3, "q").astype(np.int64)
    zero_point = np.zeros_like(scale, dtype=np.int64) if not zero_point.size else zero_point
    axis = int(fields.number(6, "i"))
    axis = 0 if len(shape) == 1 else axis  # some converters give biases the axis of the weights
    size = shape[axis] if 0 <= axis < len(shape) else 1
    if scale.size not in (1, size) or zero_point.size not in (1, scale.size):
        raise ModelError(f"tensor {name[:80]!r} has {scale.size} scales for {size} channels. Convert the model again.")
    if not np.isfinite(scale).all() or (scale <= 0).any():
        raise ModelError(f"tensor {name[:80]!r} has a scale of {scale.min()}; scales have to be positive and finite.")
    return Quantization(scale, np.broadcast_to(zero_point, scale.shape), axis)


def _operator(table: Table, kinds: list[str], tensors: int) -> Operator:
    code = table.number(0, "I")
    if code >= len(kinds):
        raise ModelError(f"an operator has code {code} of {len(kinds)}. Convert the model again.")
    inputs, outputs = (_indices(table, field, tensors) for field in (1, 2))
    return Operator(kinds[code], inputs, outputs, table.table(4))


def _indices(table: Table, field: int, tensors: int) -> tuple[int, ...]:
    indices = tuple(int(n) for n in table.array(field, "i")[:1000])
    if any(not -1 <= n < tensors for n in indices):
        raise ModelError(f"a tensor index is outside 0..{tensors - 1}. Convert the model again.")
    return indices


def values(tensor: Tensor) -> NDArray[Any]:
    """The stored values of a constant: floats as float64, integers in their type (4 bits as int8)."""
    assert tensor.data is not None
    if tensor.kind == "int4":
        pairs = np.frombuffer(tensor.data, dtype=np.uint8)
        codes = np.stack([pairs & 15, pairs >> 4], axis=1).ravel()[: int(np.prod(tensor.shape))].astype(np.int8)
        return np.where(codes > 7, codes - 16, codes).astype(np.int8).reshape(tensor.shape)
    array = np.frombuffer(tensor.data, dtype=np.dtype(tensor.kind)).reshape(tensor.shape)
    return array.astype(np.float64) if array.dtype.kind == "f" else array
