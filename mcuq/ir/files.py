"""Graphs as files: one safetensors file whose metadata holds the graph as JSON (docs/FORMAT.md).

No pickle, no code. A file is read within fixed limits, its structure checked field by field and its graph
verified, so that a truncated, edited or hostile one ends in a ModelError (or another McuqError of ``verify``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast, get_args

from mcuq.errors import McuqError, ModelError
from mcuq.ir.codec import LONGEST_LIST, Reader, Writer
from mcuq.ir.container import decode, encode, parse_json, read_bytes, write_atomic
from mcuq.ir.graph import FloatOp, Graph
from mcuq.ir.integer import IntegerGraph, IntegerOp
from mcuq.ir.verify import Level, verify

INTEGER_FORMAT, FLOAT_FORMAT = "mcuq-integer", "mcuq-float"
VERSION = 1
"""Of both formats; a reader takes exactly its own."""
_INTEGER_OPS = {kind.__name__: kind for kind in get_args(IntegerOp)}
_FLOAT_OPS = {kind.__name__: kind for kind in get_args(FloatOp)}


def save_integer(graph: IntegerGraph, path: Path | str, metadata: dict[str, str] | None = None) -> None:
    """Write ``graph`` and free-text ``metadata``; equal arguments give equal bytes.

    Raises:
        McuqError: the graph does not verify (nothing is written).
        UsageError: the folder cannot be written.
    """
    verify(graph, Level.INTEGER)
    write_atomic(Path(path), _encode(graph, INTEGER_FORMAT, metadata or {}))


def load_integer(path: Path | str) -> tuple[IntegerGraph, dict[str, str]]:
    """The verified graph and metadata that :func:`save_integer` wrote.

    Raises:
        ModelError: the file is missing, truncated, damaged, of another kind or version, or does not verify.
    """
    ops, outputs, metadata = _decode(Path(path), INTEGER_FORMAT, _INTEGER_OPS)
    graph = IntegerGraph(ops, outputs)
    _verify_read(graph, Level.INTEGER, path)
    return graph, metadata


def save_graph(graph: Graph, path: Path | str, metadata: dict[str, str] | None = None) -> None:
    """Write a float graph with its weights (float64). Arguments and errors are :func:`save_integer`'s."""
    verify(graph, Level.FLOAT)
    write_atomic(Path(path), _encode(graph, FLOAT_FORMAT, metadata or {}))


def load_graph(path: Path | str) -> tuple[Graph, dict[str, str]]:
    """The verified float graph and metadata that :func:`save_graph` wrote. Errors are :func:`load_integer`'s."""
    ops, outputs, metadata = _decode(Path(path), FLOAT_FORMAT, _FLOAT_OPS)
    graph = Graph(ops, outputs)
    _verify_read(graph, Level.FLOAT, path)
    return graph, metadata


def _encode(graph: Graph | IntegerGraph, form: str, metadata: dict[str, str]) -> bytes:
    writer = Writer()
    ops = [{"op": type(op).__name__, **writer.encode(op, op.name)} for op in graph.ops]
    text = json.dumps({"ops": ops, "outputs": list(graph.outputs)}, separators=(",", ":"), sort_keys=True)
    header = {"format": form, "version": str(VERSION), "graph": text, "metadata": json.dumps(metadata, sort_keys=True)}
    return encode(writer.arrays, header)


def _decode(path: Path, form: str, kinds: dict[str, Any]) -> tuple[tuple[Any, ...], tuple[str, ...], dict[str, str]]:
    """(operators, outputs, metadata), each of the right type, nothing verified yet."""
    try:
        arrays, header = decode(read_bytes(path))
        found = (header.get("format", "none"), header.get("version", "none"))
        if found != (form, str(VERSION)):
            raise ModelError(
                f"it is {found[0][:40]!r} version {found[1][:40]!r}; {form!r} version '{VERSION}' is read here"
            )
        reader = Reader(arrays)
        ops, outputs = _graph(parse_json(header.get("graph", ""), "graph"), kinds, reader)
        reader.finish()
        metadata = _texts(parse_json(header.get("metadata", "{}"), "metadata"))
    except ModelError as error:
        text = str(error)
        raise ModelError(text if text.startswith(str(path)) else f"{path}: {text}") from error
    return ops, outputs, metadata


def _graph(value: Any, kinds: dict[str, Any], reader: Reader) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    fields = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    entries = fields.get("ops")
    if set(fields) != {"ops", "outputs"} or not isinstance(entries, list):
        raise ModelError("the file is damaged: its graph needs a list of ops and outputs")
    found = cast("list[Any]", entries)
    if len(found) > LONGEST_LIST:
        raise ModelError(f"the file is damaged: {len(found)} operators; at most {LONGEST_LIST} are read")
    ops = tuple(_op(entry, kinds, reader, f"op {index}") for index, entry in enumerate(found))
    return ops, reader.decode(tuple[str, ...], fields["outputs"], "outputs")


def _op(value: Any, kinds: dict[str, Any], reader: Reader, path: str) -> Any:
    fields = dict(cast("dict[str, Any]", value)) if isinstance(value, dict) else {}
    name = fields.pop("op", None)
    kind = kinds.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ModelError(f"the file is damaged: {path} is a {str(name)[:40]!r}; {', '.join(kinds)} are known")
    return reader.fields(kind, fields, path)


def _texts(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ModelError("the file is damaged: its metadata is no object")
    entries = cast("dict[str, Any]", value)
    if not all(isinstance(text, str) for text in entries.values()):
        raise ModelError("the file is damaged: its metadata holds something other than text")
    return entries


def _verify_read(graph: Graph | IntegerGraph, level: Level, path: Path | str) -> None:
    try:
        verify(graph, level)
    except McuqError as error:
        raise ModelError(f"{path}: {error}") from error
