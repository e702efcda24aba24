"""Files of :class:`mcuq.quant.precision.Precision`, made to be read and edited by hand: one layer per line.

    {
     "version": 1, "mode": "threshold",
     "layers": [
      {"layer": "x", "bw_layer_out": 8, "th_layer_out": 2.64},
      {"layer": "conv", "bw_layer_in": 8, "th_layer_in": 2.64, "bw_layer_out": 8, "th_layer_out": 5.1,
       "bw_params": 8, "th_params": [0.637, 0.374]}
     ]
    }

Field names are those of CHaiDNN's ``precision_param``; its own text format is read, too (``precision_prototxt``).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, cast, get_args

from mcuq.errors import ModelError
from mcuq.ir.container import parse_json, read_bytes, write_atomic
from mcuq.quant.fixed_norm import NORM_FIELDS
from mcuq.quant.precision import LayerPrecision, Mode, Precision
from mcuq.quant.widths import WIDTHS

VERSION, LARGEST_FILE = 1, 1 << 24
LARGEST_FL = 40
"""Fractional bits lie in -40 .. 40: the scales stay far inside what a requantization can express."""


def save_precision(precision: Precision, path: Path | str) -> None:
    """Write ``precision``; equal ones give equal bytes."""
    write_atomic(Path(path), precision_text(precision).encode())


def precision_text(precision: Precision) -> str:
    """The file's text: one layer per line."""
    lines = ["  " + json.dumps({"layer": b.layer, **fields_of(b, precision.mode)}) for b in precision.layers]
    body = ",\n".join(lines)
    return f'{{\n "version": {VERSION}, "mode": "{precision.mode}",\n "layers": [\n{body}\n ]\n}}\n'


def fields_of(block: LayerPrecision, mode: Mode) -> dict[str, Any]:
    """The block's fields by their names in files, those left open left out."""
    short = "th" if mode == "threshold" else "fl"
    params = list(block.params) if block.params is not None else None
    fields: dict[str, Any] = {
        "bw_layer_in": block.bw_layer_in,
        f"{short}_layer_in": _plain(block.layer_in, short),
        "bw_layer_out": block.bw_layer_out,
        f"{short}_layer_out": _plain(block.layer_out, short),
        "bw_params": block.bw_params,
        f"{short}_params": params if short == "th" or params is None else _plain(params[0], short),
        **dict(block.norm),
    }
    return {k: v for k, v in fields.items() if v is not None}


def _plain(value: float | None, short: str) -> float | int | None:
    return value if value is None or short == "th" else int(value)


def load_precision(path: Path | str) -> Precision:
    """The precision in ``path``.

    Raises:
        ModelError: not such a file, unknown fields, bits other than 8, 6, 4 and 2, or unusable ranges.
    """
    data = parse_json(read_bytes(Path(path), LARGEST_FILE), str(path))
    mode = data.get("mode") if isinstance(data, dict) else None
    if not isinstance(data, dict) or data.get("version") != VERSION or mode not in get_args(Mode):
        raise ModelError(f"{path}: not a precision file of version {VERSION} with mode threshold or fixed")
    layers = data.get("layers")
    if not isinstance(layers, list) or not all(isinstance(block, dict) for block in layers):
        raise ModelError(f"{path}: 'layers' has to be a list of blocks, one per layer")
    blocks = tuple(block_of(cast("dict[str, Any]", block), cast("Mode", mode), str(path)) for block in layers)
    return unique(Precision(cast("Mode", mode), blocks), str(path))


def unique(precision: Precision, path: str) -> Precision:
    """``precision`` itself. Raises ModelError when a layer has two blocks."""
    names = [block.layer for block in precision.layers]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise ModelError(f"{path}: two blocks for {', '.join(twice[:10])}; one per layer is allowed")
    return precision


def block_of(fields: dict[str, Any], mode: Mode, path: str, widths: tuple[int, ...] = WIDTHS) -> LayerPrecision:
    """A block from its fields by name.

    Raises:
        ModelError: unknown fields, other bits than ``widths``, unusable ranges.
    """
    short = "th" if mode == "threshold" else "fl"
    layer = fields.get("layer")
    allowed = [f"{kind}_{part}" for part in ("layer_in", "layer_out", "params") for kind in ("bw", short)]
    allowed += NORM_FIELDS if mode == "fixed" else ()
    unknown = sorted(set(fields) - {"layer", *allowed})
    if not isinstance(layer, str) or unknown:
        raise ModelError(
            f"{path}: a block needs 'layer' and allows {', '.join(allowed)} in mode {mode}, found {unknown}"
        )
    where = f"of {layer}"

    def bits(part: str) -> int | None:
        value = fields.get(f"bw_{part}")
        if value is not None and (isinstance(value, bool) or value not in widths):
            words = f"{', '.join(map(str, widths[:-1]))} and {widths[-1]}"
            raise ModelError(f"{path}: bw_{part} {where} is {value!r}; {words} bits can be stored")
        return value

    def one(part: str) -> float | None:
        value = fields.get(f"{short}_{part}")
        return None if value is None else _range(f"{path}: {short}_{part} {where}", value, short)

    given = fields.get(f"{short}_params")
    params = None
    if given is not None:
        name = f"{path}: {short}_params {where}"
        params = tuple(_range(name, v, short) for v in (given if isinstance(given, list) else [given]))
    norm = tuple(
        (name, _norm_field(f"{path}: {name} {where}", name, fields[name])) for name in NORM_FIELDS if name in fields
    )
    return LayerPrecision(
        layer, bits("layer_in"), one("layer_in"), bits("layer_out"), one("layer_out"), bits("params"), params, norm
    )


def _range(name: str, value: Any, short: str) -> float:
    """A threshold or a number of fractional bits. Raises ModelError."""
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    usable = number > 0 if short == "th" else number == int(number) if abs(number) <= LARGEST_FL else False
    if not usable or abs(number) > 1e30:
        wanted = "a number above 0" if short == "th" else f"a whole number in -{LARGEST_FL}..{LARGEST_FL}"
        raise ModelError(f"{name} is {value!r}; it has to be {wanted}")
    return float(number)


def _norm_field(name: str, field: str, value: Any) -> int:
    low, high = (2, 32) if field.endswith("_bw") else (-LARGEST_FL, LARGEST_FL)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ModelError(f"{name} is {value!r}; it has to be a whole number in {low}..{high}")
    return value
