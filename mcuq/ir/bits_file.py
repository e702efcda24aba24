"""``bits.json``: the bits of every tensor, one tensor per line, made to be read and edited by hand.

    {
     "version": 1, "method": "exact", "status": "OPTIMAL", "objective": 0.25, "bound": 0.25,
     "flash": {"used": 1000, "limit": 2000}, "ram": {"used": 500, "limit": 600},
     "instructions": {"used": 10000, "limit": null},
     "order": ["x", "conv"], "quant_types": {}, "fold_types": {},
     "tensors": [
      {"name": "conv.weight", "layer": "conv", "kind": "weight", "bits": 4, "bytes": 108},
      ...
     ]
    }

Weights with one step for the whole layer say so: ``"bits": 4, "granularity": "layer"``; others have one per channel.
Instructions are predicted (an estimate); a file may leave them out. Status and objective are the solver's, of the bits
it wrote; bytes of edited tensors are counted anew by planning.
"""

from __future__ import annotations

import difflib
import json
import math
from pathlib import Path
from typing import Any, NoReturn, cast, get_args

from mcuq.errors import ModelError
from mcuq.ir.container import parse_json, read_bytes, write_atomic
from mcuq.ir.graph import Conv2d, Graph
from mcuq.ir.plans import BitPlan, Granularity, Limits, Status, TensorBits, TensorKind

VERSION = 1
LARGEST_FILE = 1 << 24
ALLOWED = {"weight": (8, 4, 2), "activation": (8, 4, 2, 32)}
_SCALARS = ("version", "method", "status", "objective", "bound", "flash", "ram", "instructions")
_FIELDS = (*_SCALARS, "order", "quant_types", "fold_types")


def save_bits(plan: BitPlan, path: Path | str) -> None:
    """Write ``plan``; equal plans give equal bytes. Raises UsageError when the folder cannot be written."""
    write_atomic(Path(path), bits_text(plan).encode())


def load_bits(path: Path | str, graph: Graph | None = None) -> BitPlan:
    """The plan in ``path``, checked; with ``graph`` (fused) also against its layers.

    Raises:
        ModelError: the file cannot be read, a field is missing or wrong, bits are not allowed, a tensor is named
            twice, or, with ``graph``, a layer is unknown or a convolution has no bits for its weights.
    """
    try:
        plan = parse_bits(read_bytes(Path(path), LARGEST_FILE))
        if graph is not None:
            check_bits(plan, graph)
    except ModelError as error:
        text = str(error)
        raise ModelError(text if text.startswith(str(path)) else f"{path}: {text}") from error
    return plan


def bits_text(plan: BitPlan) -> str:
    """The file's text. The objective of an infeasible plan (infinite) is null."""
    head = {
        "version": VERSION,
        "method": plan.method,
        "status": plan.status,
        "objective": _finite(plan.objective),
        "bound": _finite(plan.bound),
        "flash": {"used": plan.flash_used, "limit": plan.limits.flash},
        "ram": {"used": plan.ram_used, "limit": plan.limits.ram},
        "instructions": {"used": plan.instructions, "limit": plan.limits.instructions},
        "order": list(plan.order),
        "quant_types": dict(plan.quant_types),
        "fold_types": dict(plan.fold_types),
    }
    lines = [f' "{name}": {json.dumps(value)},' for name, value in head.items()]
    rows = [json.dumps(tensor_row(tensor)) for tensor in plan.tensors]
    table = ",\n".join(f"  {row}" for row in rows)
    return "\n".join(["{", *lines, ' "tensors": [', *([table] if rows else []), " ]", "}", ""])


def tensor_row(tensor: TensorBits) -> dict[str, Any]:
    """A line of the file; one step per channel is not mentioned."""
    row = {"name": tensor.name, "layer": tensor.layer, "kind": tensor.kind, "bits": tensor.bits}
    if tensor.granularity != "channel":
        row["granularity"] = tensor.granularity
    return {**row, "bytes": tensor.bytes}


def parse_bits(text: bytes | str) -> BitPlan:
    """Inverse of :func:`bits_text`, every field checked. Raises ModelError."""
    raw = parse_json(text, "list of bits")
    if isinstance(raw, dict):
        cast("dict[str, Any]", raw).setdefault("instructions", {"used": 0, "limit": None})
    data = _object(raw, "the file", {*_FIELDS, "tensors"})
    if data["version"] != VERSION:
        raise ModelError(f"version {str(data['version'])[:20]} of the bits file; version {VERSION} is read here")
    flash, ram, counts = (_object(data[what], what, {"used", "limit"}) for what in ("flash", "ram", "instructions"))
    tensors = tuple(_tensor(index, row) for index, row in enumerate(_list(data["tensors"], "tensors")))
    twice = _first_repeated([t.name for t in tensors])
    if twice is not None:
        raise ModelError(f"tensor {twice} is listed twice; keep one line")
    status = data["status"]
    if status not in get_args(Status):
        _wrong("status", f"one of {', '.join(get_args(Status))}", status)
    return BitPlan(
        tensors=tensors,
        status=status,
        objective=_number(data["objective"], "objective"),
        bound=_number(data["bound"], "bound"),
        flash_used=_natural(flash["used"], "flash used"),
        ram_used=_natural(ram["used"], "ram used"),
        limits=Limits(
            _natural(flash["limit"], "flash limit"),
            _natural(ram["limit"], "ram limit"),
            None if counts["limit"] is None else _natural(counts["limit"], "instructions limit"),
        ),
        instructions=_natural(counts["used"], "instructions used"),
        method=_text(data["method"], "method"),
        order=tuple(_text(name, "order") for name in _list(data["order"], "order")),
        quant_types=_choices(data["quant_types"], "quant_types"),
        fold_types=_choices(data["fold_types"], "fold_types"),
    )


def check_bits(plan: BitPlan, graph: Graph) -> None:
    """Every layer of ``plan`` is in ``graph``, every convolution has weight bits. Raises ModelError."""
    names = [op.name for op in graph]
    convs = {op.name for op in graph if isinstance(op, Conv2d)}
    for tensor in plan.tensors:
        if tensor.layer not in names:
            close = difflib.get_close_matches(tensor.layer, names, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ModelError(f"tensor {tensor.name}: the network has no layer {tensor.layer}{hint}")
        if tensor.kind == "weight" and tensor.layer not in convs:
            raise ModelError(f"tensor {tensor.name}: layer {tensor.layer} has no weights")
    weights = {tensor.layer for tensor in plan.tensors if tensor.kind == "weight"}
    missing = [op.name for op in graph.convs if op.name not in weights]
    if missing:
        raise ModelError(f"no bits for the weights of {', '.join(missing)}; add a line for each")


def _tensor(index: int, row: Any) -> TensorBits:
    if isinstance(row, dict):
        row = {"granularity": "channel", **cast("dict[str, Any]", row)}
    data = _object(row, f"tensor {index}", {"name", "layer", "kind", "bits", "granularity", "bytes"})
    name, layer, kind = (_text(data[what], f"tensor {index} {what}") for what in ("name", "layer", "kind"))
    if kind not in get_args(TensorKind):
        _wrong(f"tensor {name}: kind", "weight or activation", kind)
    if name != (f"{layer}.weight" if kind == "weight" else layer):
        raise ModelError(f"tensor {name}: the {kind} of layer {layer} has another name")
    allowed = ALLOWED[kind]
    if type(data["bits"]) is not int or data["bits"] not in allowed:
        _wrong(f"tensor {name}: bits", " or ".join(map(str, allowed)), data["bits"])
    size = _natural(data["bytes"], f"tensor {name}: bytes")
    steps = get_args(Granularity) if kind == "weight" else ("channel",)
    if data["granularity"] not in steps:
        _wrong(f"tensor {name}: granularity", " or ".join(steps), data["granularity"])
    return TensorBits(name, layer, cast("TensorKind", kind), data["bits"], size, data["granularity"])


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: Any, what: str) -> float:
    if value is None:
        return math.inf
    return float(value) if type(value) in (int, float) and abs(value) < 1e300 else _wrong(what, "a number", value)


def _natural(value: Any, what: str) -> int:
    fits = type(value) is int and 0 <= value < 1 << 62
    return value if fits else _wrong(what, "a whole number", value)


def _text(value: Any, what: str) -> str:
    return value if isinstance(value, str) and len(value) <= 1000 else _wrong(what, "a text", value)


def _list(value: Any, what: str) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else _wrong(what, "a list", value)


def _object(value: Any, what: str, fields: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        _wrong(what, "an object", value)
    found = cast("dict[str, Any]", value)
    for name in sorted(fields - set(found)):
        raise ModelError(f"{what} lacks the field {name}")
    for name in sorted(set(found) - fields):
        raise ModelError(f"{what} has an unknown field {name[:140]!r}; {', '.join(sorted(fields))} are known")
    return found


def _choices(value: Any, what: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        _wrong(what, "an object", value)
    pairs = cast("dict[str, Any]", value).items()
    return tuple((_text(layer, what), _text(choice, f"{what} of {layer[:140]}")) for layer, choice in pairs)


def _first_repeated(names: list[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _wrong(what: str, wanted: str, found: Any) -> NoReturn:
    raise ModelError(f"{what[:200]} must be {wanted}, found {repr(found)[:80]}")
