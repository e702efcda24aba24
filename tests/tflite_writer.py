"""TFLite files for tests, written with the flatbuffers package: tensors, operators, options by field number."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np

TYPES = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int64": 4, "bool": 6, "int16": 7, "int8": 9}
CODES = {
    "ADD": 0, "AVERAGE_POOL_2D": 1, "CONCATENATION": 2, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 4, "DEPTH_TO_SPACE": 5,
    "DEQUANTIZE": 6, "FULLY_CONNECTED": 9, "L2_NORMALIZATION": 11, "LOGISTIC": 14, "MAX_POOL_2D": 17, "MUL": 18,
    "RELU": 19, "RELU6": 21, "LSTM": 16, "RESHAPE": 22, "RESIZE_BILINEAR": 23, "SOFTMAX": 25, "SPACE_TO_DEPTH": 26,
    "SVDF": 27, "TANH": 28,
    "CUSTOM": 32, "PAD": 34, "GATHER": 36, "TRANSPOSE": 39, "MEAN": 40, "SUB": 41, "DIV": 42, "STRIDED_SLICE": 45,
    "EXP": 47, "SPLIT": 49, "PRELU": 54, "MAXIMUM": 55, "ARG_MAX": 56, "MINIMUM": 57, "NEG": 59, "PADV2": 60,
    "SLICE": 65, "TRANSPOSE_CONV": 67, "TILE": 69, "LOG": 73, "SUM": 74, "SQRT": 75, "RSQRT": 76, "SHAPE": 77,
    "POW": 78, "REDUCE_MAX": 82, "PACK": 83, "UNPACK": 88, "SQUARE": 92, "RESIZE_NEAREST_NEIGHBOR": 97,
    "LEAKY_RELU": 98, "SQUARED_DIFFERENCE": 99, "MIRROR_PAD": 100, "ABS": 101, "SPLIT_V": 102, "REVERSE_V2": 105,
    "ELU": 111, "QUANTIZE": 114, "HARD_SWISH": 117, "GELU": 150, "RELU_0_TO_1": 152, "LOG_SOFTMAX": 50,
    "ARG_MIN": 79, "REDUCE_MIN": 89, "SIN": 66, "COS": 108, "FLOOR": 8, "CEIL": 104, "ROUND": 116, "SIGN": 158,
    "LESS": 58, "GREATER": 61, "GREATER_EQUAL": 62, "LESS_EQUAL": 63, "SELECT": 64, "EQUAL": 71, "NOT_EQUAL": 72,
    "LOGICAL_NOT": 87, "CAST": 53, "SELECT_V2": 123,
}  # fmt: skip


@dataclass
class Net:
    """Collects tensors and operators; tensor 0 is the input and the last operator's output the output."""

    tensors: list[dict[str, Any]] = field(default_factory=list)
    operators: list[dict[str, Any]] = field(default_factory=list)

    def tensor(
        self,
        shape: Any,
        kind: str = "int8",
        scale: Any = None,
        zero: Any = 0,
        data: Any = None,
        axis: int = 0,
        name: str = "",
    ) -> int:
        entry = {"shape": list(shape), "kind": kind, "scale": scale, "zero": zero, "data": data, "axis": axis}
        self.tensors.append({**entry, "name": name or f"t{len(self.tensors)}"})
        return len(self.tensors) - 1

    def constant(self, data: Any, scale: Any = None, zero: Any = 0, axis: int = 0) -> int:
        array = np.asarray(data)
        return self.tensor(array.shape, array.dtype.name, scale, zero, array, axis)

    def op(self, kind: str, inputs: list[int], output: int, **options: tuple[str, Any]) -> int:
        """``options``: f<number>=(flatbuffers type, value)."""
        self.operators.append({"kind": kind, "inputs": inputs, "outputs": [output], "options": options})
        return output

    def write(self, outputs: list[int] | None = None, inputs: tuple[int, ...] = (0,)) -> bytes:
        b = flatbuffers.Builder(1024)
        kinds = sorted({op["kind"] for op in self.operators})
        buffers: list[bytes] = [b""]
        tensors = []
        for entry in self.tensors:
            index = 0
            if entry["data"] is not None:
                buffers.append(np.ascontiguousarray(entry["data"]).tobytes())
                index = len(buffers) - 1
            tensors.append(_tensor(b, entry, index))
        operators = [_operator(b, op, kinds.index(op["kind"])) for op in self.operators]
        last = [self.operators[-1]["outputs"][0]] if outputs is None else outputs
        parts = {0: _tables(b, tensors), 1: _ints(b, list(inputs)), 2: _ints(b, last), 3: _tables(b, operators)}
        graph = _table(b, 5, {k: ("off", v) for k, v in parts.items()})
        codes = [_table(b, 4, {0: ("i8", min(CODES[k], 127)), 3: ("i32", CODES[k])} | _custom(b, k)) for k in kinds]
        stored = [_table(b, 1, {0: ("off", b.CreateByteVector(data))} if data else {}) for data in buffers]
        fields = {1: _tables(b, codes), 2: _tables(b, [graph]), 4: _tables(b, stored)}
        root = _table(b, 8, {0: ("u32", 3)} | {k: ("off", v) for k, v in fields.items()})
        b.Finish(root, file_identifier=b"TFL3")
        return bytes(b.Output())


def _custom(b: Any, kind: str) -> dict[int, tuple[str, Any]]:
    return {1: ("off", b.CreateString("MyOperator"))} if kind == "CUSTOM" else {}


def _table(b: Any, size: int, fields: dict[int, tuple[str, Any]]) -> int:
    slots = {
        "i8": b.PrependInt8Slot, "u8": b.PrependUint8Slot, "bool": b.PrependBoolSlot, "i32": b.PrependInt32Slot,
        "u32": b.PrependUint32Slot, "f32": b.PrependFloat32Slot, "off": b.PrependUOffsetTRelativeSlot,
    }  # fmt: skip
    b.StartObject(size)
    for number, (kind, value) in fields.items():
        slots[kind](number, value, 0)
    return b.EndObject()


def _tables(b: Any, offsets: list[int]) -> int:
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return b.EndVector()


def _ints(b: Any, values: Any) -> int:
    return b.CreateNumpyVector(np.asarray(values, dtype=np.int32))


def _tensor(b: Any, entry: dict[str, Any], buffer: int) -> int:
    fields = {0: ("off", _ints(b, entry["shape"])), 1: ("i8", TYPES[entry["kind"]]), 2: ("u32", buffer)}
    fields[3] = ("off", b.CreateString(entry["name"]))
    if entry["scale"] is not None:
        scale = np.atleast_1d(np.asarray(entry["scale"], dtype=np.float32))
        zero = np.broadcast_to(np.asarray(entry["zero"], dtype=np.int64), scale.shape).copy()
        parts = {2: ("off", b.CreateNumpyVector(scale)), 3: ("off", b.CreateNumpyVector(zero))}
        fields[4] = ("off", _table(b, 7, {**parts, 6: ("i32", entry["axis"])}))
    return _table(b, 9, fields)


def _operator(b: Any, op: dict[str, Any], code: int) -> int:
    options = _table(b, 10, {int(k[1:]): _vector(b, v) for k, v in op["options"].items()})
    fields = {0: ("u32", code), 1: ("off", _ints(b, op["inputs"])), 2: ("off", _ints(b, op["outputs"]))}
    return _table(b, 9, {**fields, 4: ("off", options)})


def _vector(b: Any, option: tuple[str, Any]) -> tuple[str, Any]:
    return ("off", _ints(b, option[1])) if option[0] == "ints" else option
