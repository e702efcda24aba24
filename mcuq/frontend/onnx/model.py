"""Reading an ONNX file from an untrusted source: size, external data, checker, limits.

Order matters: nothing is parsed before its size is known, nothing is converted to numpy before the checker
has seen the declared shapes.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import checker, defs, helper, numpy_helper
from onnx.onnx_ml_pb2 import ModelProto, NodeProto, TensorProto

from mcuq.errors import ModelError, UnsupportedError
from mcuq.frontend.source import MAX_FILE, read_file

MAX_NODES, MAX_RANK, MAX_DIM, MAX_CONSTANT = 10_000, 6, 1 << 20, 1 << 24
MIN_OPSET = 8
STANDARD_DOMAINS = ("", "ai.onnx")


def load(path: Path) -> ModelProto:
    """The checked model at ``path``, external data embedded.

    Raises:
        ModelError: not an ONNX model, damaged, hostile or over a limit; UnsupportedError: opset or feature.
    """
    data = read_file(path)
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # protobuf raises different classes per implementation
        raise ModelError(
            f"{path.name}: not an ONNX model ({len(data)} bytes do not parse as protobuf). Export the model again."
        ) from error
    try:
        _check_limits(model, path)
        _embed_external_data(model, path)
        if model.ir_version < 4:  # since then initializers need not be inputs; quantizers add such to old files
            model.ir_version = 4
        checker.check_model(model, full_check=True)
        _check_values(model, path)
    except ModelError:
        raise
    except Exception as error:  # checker, shape inference, UTF-8: all mean an unsound file
        raise ModelError(f"{path.name}: not a sound ONNX model: {_short(error)}. Export the model again.") from error
    return model


def opset_of(model: ModelProto) -> int:
    """Version of the standard operator set, checked against the versions known here."""
    versions = [o.version for o in model.opset_import if o.domain in STANDARD_DOMAINS]
    newest = defs.onnx_opset_version()
    if len(versions) != 1 or not MIN_OPSET <= versions[0] <= newest:
        found = ", ".join(map(str, versions)) or "none"
        raise UnsupportedError(
            f"ONNX opset {found}: {MIN_OPSET} to {newest} are supported. Convert with onnx.version_converter."
        )
    return versions[0]


def _check_limits(model: ModelProto, path: Path) -> None:
    graph = model.graph
    if not model.ir_version or not graph.node:
        raise ModelError(f"{path.name}: not an ONNX model (no version or no operators). Export the model again.")
    _check_text(model)
    opset_of(model)
    if len(graph.node) > MAX_NODES:
        raise ModelError(f"{path.name}: {len(graph.node)} nodes, at most {MAX_NODES} are allowed.")
    if graph.sparse_initializer:
        raise UnsupportedError(f"{path.name}: sparse initializers; store the weights dense.")
    if model.functions:
        raise UnsupportedError(f"{path.name}: local functions; inline them with onnx.inliner.inline_local_functions.")
    for tensor in tensors_of(model):
        check_dims(tuple(tensor.dims), f"{path.name}: constant {_quote(tensor.name)}")


def _check_text(model: ModelProto) -> None:
    """Refuse names that are not UTF-8: protobuf hands them over as bytes."""
    graph = model.graph
    names: list[Any] = [o.domain for o in model.opset_import]
    for node in graph.node:
        names += [node.name, node.op_type, node.domain, *node.input, *node.output, *(a.name for a in node.attribute)]
    names += [value.name for value in (*graph.input, *graph.output, *graph.initializer)]
    odd = [name for name in names if not isinstance(name, str)]
    if odd:
        raise ModelError(f"{len(odd)} names are not UTF-8 text, the first is {odd[0][:80]!r}. Export the model again.")


def check_dims(dims: tuple[int, ...], what: str) -> None:
    """Own limits on a constant's declared shape. Raises ModelError."""
    if len(dims) > MAX_RANK or any(not 0 <= d <= MAX_DIM for d in dims):
        raise ModelError(
            f"{what} has shape {list(dims)[:8]}; at most {MAX_RANK} dimensions of 0 to {MAX_DIM} are allowed."
        )
    check_elements(math.prod(dims), what)


def check_elements(elements: int, what: str) -> None:
    """Own limit on the size of one constant. Raises ModelError."""
    if elements > MAX_CONSTANT:
        raise ModelError(f"{what} has {elements} elements; at most {MAX_CONSTANT} are allowed.")


def tensors_of(model: ModelProto) -> list[TensorProto]:
    """Initializers and the tensors of attributes."""
    attributes = [a for node in model.graph.node for a in node.attribute]
    found = [*model.graph.initializer]
    for attribute in attributes:
        if attribute.HasField("t"):
            found.append(attribute.t)
        found.extend(attribute.tensors)
        if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
            raise UnsupportedError(f"sparse attribute {_quote(attribute.name)}; store it dense.")
    return found


def _embed_external_data(model: ModelProto, path: Path) -> None:
    """Read external tensors from regular files inside the model's folder, then forget where they were."""
    folder = Path(os.path.realpath(path.parent))
    total = 0
    for tensor in tensors_of(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        fields = {entry.key: entry.value for entry in tensor.external_data}
        what = f"{path.name}: external data of {_quote(tensor.name)}"
        try:
            offset, length = int(fields.get("offset", "0")), int(fields.get("length", "-1"))
        except ValueError as error:
            raise ModelError(f"{what}: offset and length must be integers.") from error
        file = _inside(folder, fields.get("location", ""), what)
        size = file.stat().st_size
        length = size - offset if length < 0 else length
        total += length
        if offset < 0 or length < 0 or offset + length > size or total > MAX_FILE:
            raise ModelError(
                f"{what}: bytes {offset}..{offset + length} of a file of {size} (limit {MAX_FILE} in all)."
            )
        with file.open("rb") as stream:
            stream.seek(offset)
            tensor.raw_data = stream.read(length)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")


def _inside(folder: Path, location: str, what: str) -> Path:
    """A plain file below ``folder``; links of any kind are refused."""
    candidate = folder / location
    if not location or "\0" in location or Path(location).is_absolute() or ".." in Path(location).parts:
        raise ModelError(f"{what}: location {_quote(location)} is not a file inside the model's folder.")
    real = Path(os.path.realpath(candidate))
    if real != candidate or not real.is_file() or real.stat().st_nlink != 1:
        raise ModelError(f"{what}: {_quote(location)} is missing, a link or not a regular file in the model's folder.")
    return real


def _check_values(model: ModelProto, path: Path) -> None:
    """Refuse NaN and infinity in weights, naming each tensor and how many values are wrong. A clip's bound may be
    infinite: no bound."""
    wrong: list[str] = []
    bounds = {name for node in model.graph.node if node.op_type == "Clip" for name in node.input[1:]}
    for tensor in model.graph.initializer:
        if tensor.data_type in _FLOATS:
            array = to_array(tensor)
            bad = np.isnan(array) if tensor.name in bounds else ~np.isfinite(array)
            count = int(bad.sum())
            if count:
                wrong.append(f"{_quote(tensor.name)} ({count} of {array.size} values)")
    if wrong:
        raise ModelError(
            f"{path.name}: weights hold NaN or infinity: {', '.join(wrong[:20])}. Train again from a sound checkpoint."
        )


_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_FOUR_BITS = {TensorProto.INT4: 4, TensorProto.UINT4: 4}
_KINDS = {
    TensorProto.BOOL,
    TensorProto.INT8,
    TensorProto.UINT8,
    TensorProto.INT16,
    TensorProto.UINT16,
    TensorProto.INT32,
    TensorProto.UINT32,
    TensorProto.INT64,
    TensorProto.UINT64,
    *_FLOATS,
    *_FOUR_BITS,
}


def to_array(tensor: TensorProto) -> NDArray[Any]:
    """The values of a checked tensor: float64 for floats, else its integer type.

    Raises:
        UnsupportedError: another type; ModelError: its bytes do not fit its shape.
    """
    if tensor.data_type not in _KINDS:
        known = TensorProto.DataType.values()
        kind = TensorProto.DataType.Name(tensor.data_type) if tensor.data_type in known else tensor.data_type
        raise UnsupportedError(f"constant {_quote(tensor.name)} has type {kind}; use float or integer types.")
    check_dims(tuple(tensor.dims), f"constant {_quote(tensor.name)}")
    try:
        array = np.asarray(numpy_helper.to_array(tensor))
    except ValueError as error:  # the checker does not count the bytes of every type
        raise ModelError(f"constant {_quote(tensor.name)}: {_short(error)}. Export the model again.") from error
    if tensor.data_type in _FLOATS:
        with np.errstate(invalid="ignore"):  # a signalling NaN; counted by the caller
            return array.astype(np.float64)
    return (
        array.astype(np.int8 if tensor.data_type == TensorProto.INT4 else np.uint8)
        if (tensor.data_type in _FOUR_BITS)
        else array
    )


def bits_of(data_type: int) -> tuple[int, bool] | None:
    """(bits, signed) of a quantized integer type; None for all others."""
    kinds = {
        TensorProto.INT8: (8, True),
        TensorProto.UINT8: (8, False),
        TensorProto.INT4: (4, True),
        TensorProto.UINT4: (4, False),
    }
    return kinds.get(data_type)  # pyright: ignore[reportArgumentType, reportCallIssue]


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """Attributes by name, bytes decoded; tensors stay protobuf messages."""
    values: dict[str, Any] = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        values[attribute.name] = value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value
    return values


def _quote(name: str) -> str:
    return repr(str(name)[:80])


def _short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return repr(" ".join(lines)[:300])[1:-1] or type(error).__name__
