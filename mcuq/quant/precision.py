"""Precision per layer as a file: thresholds or fractional bits, made to be read and edited by hand.

    {
     "version": 1, "mode": "threshold",
     "layers": [
      {"layer": "x", "bw_layer_out": 8, "th_layer_out": 2.64},
      {"layer": "conv", "bw_layer_in": 8, "th_layer_in": 2.64, "bw_layer_out": 8, "th_layer_out": 5.1,
       "bw_params": 8, "th_params": [0.637, 0.374]}
     ]
    }

``threshold``: the largest code stands for the threshold, scale = th / (2^(bw-1) - 1), symmetric; weights have one
threshold per output channel. ``fixed``: fl fractional bits, scale = 2^-fl, one fl for a layer's weights. What a
block leaves out is calibrated (activations) or the largest magnitude (weights).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from mcuq.errors import ModelError, UsageError
from mcuq.ir.container import parse_json, read_bytes, write_atomic
from mcuq.ir.graph import Argmax, Conv2d, Graph, Reshape, Softmax
from mcuq.ir.quantized import QuantizedGraph, QuantParams

Mode = Literal["threshold", "fixed"]
VERSION, LARGEST_FILE = 1, 1 << 24
BITS = (8, 4, 2)
LARGEST_FL = 40
"""Fractional bits lie in -40 .. 40: the scales stay far inside what a requantization can express."""


@dataclass(frozen=True, slots=True)
class LayerPrecision:
    """Block of one layer. Ranges are thresholds or fractional bits; None: not given.

    Attributes:
        bw_*: bits. layer_in, layer_out: range of the activation read and written. params: of the weights, one
            per output channel (threshold) or one in all (fixed).
    """

    layer: str
    bw_layer_in: int | None = None
    layer_in: float | None = None
    bw_layer_out: int | None = None
    layer_out: float | None = None
    bw_params: int | None = None
    params: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Precision:
    """Precision of a network, one block per layer that is mentioned."""

    mode: Mode
    layers: tuple[LayerPrecision, ...]

    def block(self, layer: str) -> LayerPrecision:
        """The block of ``layer``; an empty one when it is not mentioned."""
        return next((block for block in self.layers if block.layer == layer), LayerPrecision(layer))

    def activation(self, layer: str, bits: int) -> QuantParams | None:
        """Parameters of the tensor that ``layer`` writes, or None when its range is left open."""
        block = self.block(layer)
        if block.layer_out is None:
            return None
        bits = block.bw_layer_out or bits
        zero = 0 if bits == 8 else 1 << (bits - 1)
        return QuantParams(bits, self._scale(block.layer_out, bits), zero)

    def weight_scales(self, layer: str, channels: int, bits: int) -> NDArray[np.float64] | None:
        """Scale per output channel [O], or None when the block leaves it open.

        Raises:
            UsageError: neither one threshold nor one per channel.
        """
        given = self.block(layer).params
        if given is None:
            return None
        if len(given) not in (1, channels):
            raise UsageError(f"{layer} has {channels} output channels, its precision block {len(given)} thresholds")
        return np.broadcast_to([self._scale(value, bits) for value in given], (channels,)).astype(np.float64)

    def _scale(self, value: float, bits: int) -> float:
        return value / ((1 << (bits - 1)) - 1) if self.mode == "threshold" else 2.0**-value

    def warnings(self, graph: Graph) -> tuple[str, ...]:
        """What in this file has no effect on ``graph`` (fused), or contradicts itself; one sentence each."""
        found: list[str] = []
        names = {op.name: op for op in graph}
        for block in self.layers:
            op = names.get(block.layer)
            if op is None:
                found.append(f"{block.layer}: the network has no such layer; its precision is not used")
                continue
            if isinstance(op, Softmax | Argmax | Reshape):
                found.append(f"{block.layer}: a {type(op).__name__} has no precision of its own; it is not used")
            if block.params is not None and not isinstance(op, Conv2d):
                found.append(f"{block.layer}: only convolutions and linear layers have parameters; they are not used")
            for name in op.inputs:
                written = self.block(name).layer_out
                if None not in (block.layer_in, written) and block.layer_in != written:
                    found.append(
                        f"{block.layer} reads {name} with range {block.layer_in}, but it is written with {written}: "
                        "a drop in accuracy may be observed; the writer's is used"
                    )
        return tuple(found)


def uniform_fixed(graph: Graph, fl: tuple[int, int, int], bits: int = 8) -> Precision:
    """Fixed point with the same fractional bits everywhere: ``fl`` = (layer inputs, params, layer outputs).

    The network's input has the first, every layer's output the third.
    """
    blocks: list[LayerPrecision] = []
    for op in graph:
        if not op.inputs:
            blocks.append(LayerPrecision(op.name, bw_layer_out=bits, layer_out=fl[0]))
            continue
        source = fl[0] if op.inputs[0] == graph.input.name else fl[2]
        params = (float(fl[1]),) if isinstance(op, Conv2d) else None
        bw = bits if isinstance(op, Conv2d) else None
        blocks.append(LayerPrecision(op.name, bits, source, bits, fl[2], bw, params))
    return Precision("fixed", tuple(blocks))


def precision_of(q: QuantizedGraph, mode: Mode) -> Precision:
    """The precision that ``q`` was quantized with (grids ``threshold`` or ``fixed``), for saving and editing."""
    blocks: list[LayerPrecision] = []
    for op in q.graph:
        out = q.params(op.name)
        into = q.params(op.inputs[0]) if op.inputs else None
        bw_params = params = None
        if isinstance(op, Conv2d):
            weight = q.weight(op.name)
            bw_params = weight.bits
            scales = weight.scale if mode == "threshold" else weight.scale[:1]
            params = tuple(_range(float(scale), weight.bits, mode) for scale in scales)
        blocks.append(
            LayerPrecision(
                op.name,
                None if into is None else into.bits,
                None if into is None else _range(into.scale, into.bits, mode),
                out.bits,
                _range(out.scale, out.bits, mode),
                bw_params,
                params,
            )
        )
    kept = (b for b, op in zip(blocks, q.graph, strict=True) if not isinstance(op, Softmax | Argmax | Reshape))
    return Precision(mode, tuple(kept))


def _range(scale: float, bits: int, mode: Mode) -> float:
    return scale * ((1 << (bits - 1)) - 1) if mode == "threshold" else float(round(-math.log2(scale)))


def save_precision(precision: Precision, path: Path | str) -> None:
    """Write ``precision``; equal ones give equal bytes."""
    write_atomic(Path(path), precision_text(precision).encode())


def precision_text(precision: Precision) -> str:
    """The file's text: one layer per line."""
    short = "th" if precision.mode == "threshold" else "fl"
    lines: list[str] = []
    for block in precision.layers:
        params = list(block.params) if block.params is not None else None
        fields: dict[str, Any] = {
            "layer": block.layer,
            "bw_layer_in": block.bw_layer_in,
            f"{short}_layer_in": _plain(block.layer_in, short),
            "bw_layer_out": block.bw_layer_out,
            f"{short}_layer_out": _plain(block.layer_out, short),
            "bw_params": block.bw_params,
            f"{short}_params": params if short == "th" or params is None else _plain(params[0], short),
        }
        lines.append("  " + json.dumps({k: v for k, v in fields.items() if v is not None}))
    body = ",\n".join(lines)
    return f'{{\n "version": {VERSION}, "mode": "{precision.mode}",\n "layers": [\n{body}\n ]\n}}\n'


def _plain(value: float | None, short: str) -> float | int | None:
    return value if value is None or short == "th" else int(value)


def load_precision(path: Path | str) -> Precision:
    """The precision in ``path``.

    Raises:
        ModelError: not such a file, unknown fields, bits other than 8, 4 and 2, or unusable ranges.
    """
    data = parse_json(read_bytes(Path(path), LARGEST_FILE), str(path))
    mode = data.get("mode") if isinstance(data, dict) else None
    if not isinstance(data, dict) or data.get("version") != VERSION or mode not in get_args(Mode):
        raise ModelError(f"{path}: not a precision file of version {VERSION} with mode threshold or fixed")
    layers = data.get("layers")
    if not isinstance(layers, list) or not all(isinstance(block, dict) for block in layers):
        raise ModelError(f"{path}: 'layers' has to be a list of blocks, one per layer")
    blocks = tuple(_block(cast("dict[str, Any]", block), cast("Mode", mode), str(path)) for block in layers)
    names = [block.layer for block in blocks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ModelError(f"{path}: two blocks for {', '.join(twice[:10])}; one per layer is allowed")
    return Precision(cast("Mode", mode), blocks)


def _block(fields: dict[str, Any], mode: Mode, path: str) -> LayerPrecision:
    short = "th" if mode == "threshold" else "fl"
    layer = fields.get("layer")
    allowed = [f"{kind}_{part}" for part in ("layer_in", "layer_out", "params") for kind in ("bw", short)]
    unknown = sorted(set(fields) - {"layer", *allowed})
    if not isinstance(layer, str) or unknown:
        raise ModelError(
            f"{path}: a block needs 'layer' and allows {', '.join(allowed)} in mode {mode}, found {unknown}"
        )

    def bits(part: str) -> int | None:
        value = fields.get(f"bw_{part}")
        if value is not None and (isinstance(value, bool) or value not in BITS):
            raise ModelError(f"{path}: bw_{part} of {layer} is {value!r}; 8, 4 and 2 bits can be stored")
        return value

    def span(part: str, value: Any) -> float:
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
        usable = number > 0 if short == "th" else number == int(number) if abs(number) <= LARGEST_FL else False
        if not math.isfinite(number) or not usable:
            wanted = "a number above 0" if short == "th" else f"a whole number in -{LARGEST_FL}..{LARGEST_FL}"
            raise ModelError(f"{path}: {short}_{part} of {layer} is {value!r}; it has to be {wanted}")
        return float(number)

    def one(part: str) -> float | None:
        value = fields.get(f"{short}_{part}")
        return None if value is None else span(part, value)

    given = fields.get(f"{short}_params")
    params = None
    if given is not None:
        params = tuple(span("params", v) for v in (given if isinstance(given, list) else [given]))
    return LayerPrecision(
        layer, bits("layer_in"), one("layer_in"), bits("layer_out"), one("layer_out"), bits("params"), params
    )
