"""ONNX files to the float graph, or to a quantized graph when the file holds scales (QDQ)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from onnx.onnx_ml_pb2 import ModelProto, ValueInfoProto

from mcuq.errors import ModelError, UsageError
from mcuq.frontend.builder import MAX_INPUTS, for_inputs
from mcuq.frontend.onnx import arithmetic, layers, qonnx, quantization, resizing, windows
from mcuq.frontend.onnx.model import load, opset_of
from mcuq.frontend.onnx.translate import Translator
from mcuq.frontend.quantized import quantized_graph
from mcuq.frontend.simplify import checked, simplify
from mcuq.ir.graph import Graph, Normalization
from mcuq.ir.quantized import QuantizedGraph
from mcuq.ir.samples import InputShape
from mcuq.ir.verify import Level

HANDLERS = layers.HANDLERS | arithmetic.HANDLERS | windows.HANDLERS | resizing.HANDLERS | quantization.HANDLERS


CONTRIBUTED = {"com.microsoft": quantization.CONTRIBUTED, **dict.fromkeys(qonnx.DOMAINS, qonnx.HANDLERS)}
"""Handlers of operators outside the standard, by domain."""


def import_onnx(
    path: str | os.PathLike[str],
    input_shape: InputShape | None = None,
    normalization: Normalization | tuple[Normalization | None, ...] | None = None,
) -> Graph | QuantizedGraph:
    """The graph of an ONNX model: float and not fused, or quantized when the file holds scales of activations.

    Args:
        input_shape: (H, W, C), (L, C) or (C,), for models whose input has unknown dimensions besides the batch; one
            such shape for each of several inputs.
        normalization: how raw uint8 pixels become the model's input; kept in the graph's input. Of several inputs
            one for all, or one for each.

    Raises:
        ModelError: the file is damaged, hostile or over a limit.
        UnsupportedError: operators without counterpart, all of them listed.
        UsageError: ``input_shape`` is missing or does not fit.
    """
    model = load(Path(path))
    translator = Translator(HANDLERS, CONTRIBUTED, opset_of(model))
    shapes = _input_shapes(model, input_shape)
    outputs = translator.run(model, shapes, for_inputs(normalization, len(shapes)))
    builder = translator.builder
    if builder.params:
        return quantized_graph(builder, outputs)
    return checked(simplify(builder.graph(outputs))[0], Level.FLOAT)


def input_names(path: Path) -> tuple[str, ...]:
    """What the file calls its inputs, in order. Raises ModelError."""
    return tuple(value.name for value in _inputs(load(path)))


def _inputs(model: ModelProto) -> list[ValueInfoProto]:
    initializers = {tensor.name for tensor in model.graph.initializer}
    return [i for i in model.graph.input if i.name not in initializers]


def _input_shapes(model: ModelProto, given: InputShape | None) -> list[tuple[int, ...]]:
    """The inputs' shapes in the model's order, batch 1."""
    inputs = _inputs(model)
    if not 1 <= len(inputs) <= MAX_INPUTS:
        raise ModelError(f"the model has {len(inputs)} inputs; 1 to {MAX_INPUTS} are supported.")
    shapes: Any = given if given and isinstance(given[0], tuple) else (given,) * len(inputs)
    if len(shapes) != len(inputs):
        raise UsageError(f"{len(shapes)} input shapes were given, the model has {len(inputs)} inputs")
    return [_input_shape(value, shape) for value, shape in zip(inputs, shapes, strict=True)]


def _input_shape(value: ValueInfoProto, given: tuple[int, ...] | None) -> tuple[int, ...]:
    tensor = value.type.tensor_type
    dims = [d.dim_value if d.HasField("dim_value") else 0 for d in tensor.shape.dim]
    if not 2 <= len(dims) <= 4 or tensor.elem_type not in (1, 2, 3, 10, 11):
        raise ModelError(
            f"the input {value.name[:80]!r} has {len(dims)} dimensions and type {tensor.elem_type}; "
            "[N, C, H, W], [N, C, L] or [N, F] of floats (or quantized bytes) are supported."
        )
    if given is not None:
        return (1, *_given(given, dims))
    if min(dims[1:]) < 1:
        raise UsageError(f"the input {value.name[:80]!r} has unknown dimensions {dims}; give --input-shape H,W,C")
    return (1, *dims[1:])


def _given(given: tuple[int, ...], dims: list[int]) -> tuple[int, ...]:
    """``input_shape`` (H, W, C) in the model's order C, H, W; leading ones may be left out or given."""
    order = (given[-1], *given[:-1])
    while len(order) > len(dims) - 1 and len(order) > 1 and order[1] == 1:
        order = (order[0], *order[2:])
    fits = len(order) == len(dims) - 1 and all(d in (0, n) and n > 0 for d, n in zip(dims[1:], order, strict=True))
    if not fits:
        raise UsageError(f"input shape {given} (H, W, C) does not fit the model's input {dims} (0: unknown)")
    return order
