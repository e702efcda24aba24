"""Precision in the text format of CHaiDNN's deploy files (Caffe prototxt): read with its messages, and written.

    layer {
      name: "conv1"
      type: "Convolution"
      precision_param { quant_type: "Xilinx" bw_layer_in: 8 th_layer_in: 150.9 th_params: 0.637 th_params: 0.374 ... }
    }

Quantization type ``Xilinx`` is the mode ``threshold``, ``DynamicFixed`` the mode ``fixed``; widths are 8 and 6 bits.
Layers are matched by name as model files' are (``/`` is ``.``); of a layer only name, type and block are read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcuq.errors import ModelError
from mcuq.frontend.builder import safe_name
from mcuq.ir.container import read_bytes
from mcuq.ir.graph import Add, AvgPool, Concat, Conv2d, FloatOp, Graph, Input, MaxPool, Reshape, Softmax
from mcuq.quant.precision import LayerPrecision, Mode, Precision
from mcuq.quant.precision_file import LARGEST_FILE, block_of, fields_of, unique

TYPES: dict[str, Mode] = {"Xilinx": "threshold", "DynamicFixed": "fixed"}
WIDTHS = (8, 6)
MAX_DEPTH = 32
LAYERS: dict[str, tuple[bool | None, bool | None]] = {
    "Convolution": (True, True),
    "BatchNorm": (True, True),
    "Scale": (True, True),
    "Pooling": (True, True),
    "Permute": (True, True),
    "Eltwise": (True, True),
    "DepthwiseConvolution": (True, True),
    "Concat": (True, None),
    "ReLU": (True, False),
    "Deconvolution": (True, False),
    "Normalize": (True, False),
    "Input": (True, False),
    "Power": (False, False),
    "InnerProduct": (False, False),
    "Crop": (False, False),
    "Softmax": (False, False),
    "Dropout": (False, False),
    "ArgMax": (False, False),
    "Flatten": (False, False),
    "PriorBox": (False, False),
    "Reshape": (False, False),
    "NMS": (False, False),
}
"""Whether a layer type needs a block in mode threshold and in mode fixed; None: it may have one."""
_TOKEN = re.compile(r'\s+|#[^\n]*|([{}:]|"[^"\n]*"|\'[^\'\n]*\'|[^\s{}:"\'#]+)')
"""A space, a comment, or in group 1 a token."""


@dataclass(frozen=True, slots=True)
class Deploy:
    """What a deploy file says: its precision, and messages about blocks that lack or that nothing reads."""

    precision: Precision
    messages: tuple[str, ...]


def load_prototxt(path: Path | str) -> Deploy:
    """The precision blocks of a deploy file.

    Raises:
        ModelError: not such a text, two quantization types, other bits than 8 and 6, unusable or unknown fields.
    """
    text = read_bytes(Path(path), LARGEST_FILE).decode("utf-8", errors="replace")
    net = _parse(text, str(path))
    layers = [layer for key in ("layer", "layers") for layer in net.get(key, []) if isinstance(layer, dict)]
    blocks = [(layer, found[0]) for layer in layers if (found := layer.get("precision_param"))]
    if not blocks or not all(isinstance(block, dict) for _, block in blocks):
        raise ModelError(f"{path}: no layer has a precision_param block; it is not a quantized deploy file")
    kinds = {str(block["quant_type"][0]) for _, block in blocks if "quant_type" in block} or {"DynamicFixed"}
    if len(kinds) > 1 or not kinds <= set(TYPES):
        raise ModelError(f"{path}: quant_type {', '.join(sorted(kinds))}; one of {', '.join(TYPES)} for all layers")
    mode = TYPES[kinds.pop()]
    precision = Precision(mode, tuple(_block(layer, block, mode, str(path)) for layer, block in blocks))
    return Deploy(unique(precision, str(path)), _messages(layers, mode))


def _block(layer: dict[str, Any], block: dict[str, Any], mode: Mode, path: str) -> LayerPrecision:
    name = layer.get("name", [None])[0]
    fields: dict[str, Any] = {"layer": safe_name(name) if isinstance(name, str) else name}
    for field, values in block.items():
        if field == "quant_type":
            continue
        numbers = [_number(v) for v in values]
        several = field == "th_params"
        if len(numbers) > 1 and not several:
            raise ModelError(f"{path}: {field} of {fields['layer']} is given {len(numbers)} times")
        fields[field] = numbers if several else numbers[0]
    return block_of(fields, mode, path, WIDTHS)


def _number(text: Any) -> Any:
    """A whole number, a real one, or the text itself, which the checks of the block then quote."""
    for kind in (int, float):
        try:
            return kind(text)
        except (TypeError, ValueError):
            pass
    return text


def _messages(layers: list[dict[str, Any]], mode: Mode) -> tuple[str, ...]:
    found: list[str] = []
    for layer in layers:
        name, kind = str(layer.get("name", ["?"])[0]), str(layer.get("type", ["?"])[0])
        needs = LAYERS.get(kind, (False, False))[0 if mode == "threshold" else 1]
        has = "precision_param" in layer
        if needs and not has:
            found.append(f"{name}: a {kind} needs a precision_param block in mode {mode}; its ranges are calibrated")
        if has and needs is False:
            found.append(f"{name}: a {kind} needs no precision in mode {mode}; they are for supported layers only")
    return tuple(found)


def _parse(text: str, path: str) -> dict[str, list[Any]]:
    """Fields of protobuf's text format: name -> values, a value is a text or again such a mapping."""
    stack: list[dict[str, list[Any]]] = [{}]
    at, name, colon = 0, "", False
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ModelError(f"{path}: not in protobuf's text format at byte {at}: {text[at : at + 20]!r}")
        token, at = found[1], found.end()
        if token is None:
            continue
        match token:
            case "{" if name:
                inner: dict[str, list[Any]] = {}
                stack[-1].setdefault(name, []).append(inner)
                stack.append(inner)
                name, colon = "", False
            case "}" if len(stack) > 1 and not name:
                stack.pop()
            case ":" if name and not colon:
                colon = True
            case _ if colon:
                stack[-1].setdefault(name, []).append(token.strip("\"'"))
                name, colon = "", False
            case _ if not name and token not in "{}:":
                name = token
            case _:
                raise ModelError(f"{path}: not in protobuf's text format at byte {at}: unexpected {token[:20]!r}")
        if len(stack) > MAX_DEPTH:
            raise ModelError(f"{path}: blocks are nested more than {MAX_DEPTH} deep")
    if len(stack) > 1 or name:
        raise ModelError(f"{path}: the text ends inside a block; it is cut off")
    return stack[0]


def prototxt_text(precision: Precision, graph: Graph) -> str:
    """``precision`` as precision_param blocks of a deploy file's layers, for the layers of ``graph`` (fused).

    Raises:
        ModelError: widths other than 8 and 6.
    """
    kind = next(name for name, mode in TYPES.items() if mode == precision.mode)
    ops = {op.name: op for op in graph}
    lines: list[str] = []
    for block in precision.layers:
        fields = fields_of(block, precision.mode)
        block_of({"layer": block.layer, **fields}, precision.mode, block.layer, WIDTHS)
        lines += ["layer {", f'  name: "{block.layer}"', f'  type: "{layer_type(ops.get(block.layer))}"']
        lines += ["  precision_param {", f'    quant_type: "{kind}"']
        for name, value in fields.items():
            lines += [f"    {name}: {v!r}" for v in (value if isinstance(value, list) else [value])]
        lines += ["  }", "}"]
    return "\n".join(lines) + "\n"


def layer_type(op: FloatOp | None) -> str:
    """The Caffe type of an operator; linear layers are convolutions over the whole map."""
    match op:
        case Input():
            return "Input"
        case Conv2d(groups=1):
            return "Convolution"
        case Conv2d():
            return "DepthwiseConvolution"
        case Add():
            return "Eltwise"
        case MaxPool() | AvgPool():
            return "Pooling"
        case Concat():
            return "Concat"
        case Softmax():
            return "Softmax"
        case Reshape():
            return "Reshape"
        case _:
            return "ReLU"
