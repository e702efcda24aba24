"""Named arrays and text in one safetensors file: deterministic bytes out, nothing believed on the way in.

The format (https://huggingface.co/docs/safetensors): 8 bytes little-endian header length, a JSON header, the
arrays. Written here by hand because the bytes must not depend on hash order, and read here by hand because
every limit and every error text is part of the promise that a hostile file does no harm.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from mcuq.errors import ModelError, UsageError

LARGEST_FILE = 1 << 30
LARGEST_HEADER = 1 << 24
LARGEST_DIMENSIONS = 8
DTYPES = {
    "I8": np.dtype("<i1"),
    "U8": np.dtype("<u1"),
    "U16": np.dtype("<u2"),
    "I32": np.dtype("<i4"),
    "F64": np.dtype("<f8"),
}
_CODES = {dtype: code for code, dtype in DTYPES.items()}


def encode(arrays: dict[str, NDArray[Any]], metadata: dict[str, str]) -> bytes:
    """The file's bytes: arrays and header entries in sorted order, the same for equal contents."""
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    blocks: list[bytes] = []
    offset = 0
    for name, array in sorted(arrays.items()):
        dtype = array.dtype.newbyteorder("<")
        block = np.ascontiguousarray(array, dtype=dtype).tobytes()
        span = [offset, offset + len(block)]
        header[name] = {"dtype": _CODES[dtype], "shape": list(array.shape), "data_offsets": span}
        blocks.append(block)
        offset += len(block)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=True).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(blocks)


def decode(data: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Inverse of :func:`encode`; arrays are copies of their own.

    Raises:
        ModelError: anything about the bytes is not as :func:`encode` writes it.
    """
    if len(data) < 8:
        _damaged(f"{len(data)} bytes are no model file; it is empty or truncated")
    size = int.from_bytes(data[:8], "little")
    if size > min(LARGEST_HEADER, len(data) - 8):
        _damaged(f"its header claims {size} bytes, {len(data) - 8} follow; it is truncated or no model file")
    header = parse_json(data[8 : 8 + size], "header")
    if not isinstance(header, dict):
        _damaged("its header is no JSON object")
    entries = cast("dict[str, Any]", header)
    metadata = _metadata(entries.pop("__metadata__", {}))
    body = data[8 + size :]
    spans: list[tuple[int, int]] = []
    arrays: dict[str, NDArray[Any]] = {}
    for name, entry in entries.items():
        start, end, array = _array(name, entry, body)
        spans.append((start, end))
        arrays[name] = array
    position = 0
    for start, end in sorted(spans):
        if start != position:
            _damaged(f"its arrays overlap or leave a gap at byte {position}")
        position = end
    if position != len(body):
        _damaged(f"its arrays take {position} bytes, {len(body)} are there")
    return arrays, metadata


def parse_json(text: bytes | str, what: str) -> Any:
    """JSON without NaN, infinities or twice-named fields. Raises ModelError."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a field is named twice")
        return result

    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not allowed")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        raise ModelError(f"the file is damaged: its {what} is not JSON ({reason[:200]})") from error


def read_bytes(path: Path, largest: int = LARGEST_FILE) -> bytes:
    """The whole file. Raises ModelError when it cannot be read or is larger than ``largest`` bytes."""
    try:
        size = path.stat().st_size
        if size > largest:
            raise ModelError(f"{path}: {size} bytes, at most {largest} are read")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` beside ``path``, then rename: readers see the old file or the whole new one.

    Raises:
        UsageError: the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise UsageError(f"{path}: cannot be written ({error.strerror})") from error


def _damaged(text: str) -> NoReturn:
    raise ModelError(f"the file is damaged: {text}")


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        _damaged("its metadata is no JSON object")
    entries = cast("dict[str, Any]", value)
    if not all(isinstance(text, str) for text in entries.values()):
        _damaged("its metadata holds something other than text")
    return entries


def _array(name: str, entry: Any, body: bytes) -> tuple[int, int, NDArray[Any]]:
    fields = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
    shown = repr(name[:140])
    if set(fields) != {"dtype", "shape", "data_offsets"}:
        _damaged(f"array {shown} needs dtype, shape and data_offsets")
    dtype = DTYPES.get(fields["dtype"]) if isinstance(fields["dtype"], str) else None
    if dtype is None:
        _damaged(f"array {shown} has dtype {str(fields['dtype'])[:20]!r}; {', '.join(DTYPES)} are known")
    shape, span = _naturals(fields["shape"]), _naturals(fields["data_offsets"])
    if shape is None or len(shape) > LARGEST_DIMENSIONS:
        _damaged(f"array {shown} has no proper shape")
    if span is None or len(span) != 2 or not span[0] <= span[1] <= len(body):
        _damaged(f"array {shown} has no proper place in the file")
    wanted = math.prod(shape) * dtype.itemsize
    if wanted != span[1] - span[0]:
        _damaged(f"array {shown} of shape {shape} takes {wanted} bytes, {span[1] - span[0]} are there")
    array = np.frombuffer(body, dtype=dtype, count=math.prod(shape), offset=span[0]).reshape(shape)
    return span[0], span[1], array.astype(dtype.newbyteorder("="))


def _naturals(value: Any) -> list[int] | None:
    if not isinstance(value, list):
        return None
    items = cast("list[Any]", value)
    return items if all(type(item) is int and 0 <= item <= LARGEST_FILE for item in items) else None
