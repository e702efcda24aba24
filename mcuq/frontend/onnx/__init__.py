"""ONNX files to the float graph, or to a quantized graph when the file holds scales (QDQ)."""

from __future__ import annotations

import os
from pathlib import Path

from onnx.onnx_ml_pb2 import ModelProto

from mcuq.errors import ModelError, UsageError
from mcuq.frontend.onnx import arithmetic, layers, qonnx, quantization, resizing, windows
from mcuq.frontend.onnx.model import load, opset_of
from mcuq.frontend.onnx.translate import Translator
from mcuq.frontend.quantized import quantized_graph
from mcuq.frontend.simplify import checked, simplify
from mcuq.ir.graph import Graph, Normalization
from mcuq.ir.quantized import QuantizedGraph
from mcuq.ir.verify import Level

HANDLERS = layers.HANDLERS | arithmetic.HANDLERS | windows.HANDLERS | resizing.HANDLERS | quantization.HANDLERS


CONTRIBUTED = {"com.microsoft": quantization.CONTRIBUTED, **dict.fromkeys(qonnx.DOMAINS, qonnx.HANDLERS)}
"""Handlers of operators outside the standard, by domain."""


def import_onnx(
    path: str | os.PathLike[str],
    input_shape: tuple[int, ...] | None = None,
    normalization: Normalization | None = None,
) -> Graph | QuantizedGraph:
    """The graph of an ONNX model: float and not fused, or quantized when the file holds scales of activations.

    Args:
        input_shape: (H, W, C), (L, C) or (C,), for models whose input has unknown dimensions besides the batch.
        normalization: how raw uint8 pixels become the model's input; kept in the graph's input.

    Raises:
        ModelError: the file is damaged, hostile or over a limit.
        UnsupportedError: operators without counterpart, all of them listed.
        UsageError: ``input_shape`` is missing or does not fit.
    """
    model = load(Path(path))
    translator = Translator(HANDLERS, CONTRIBUTED, opset_of(model))
    outputs = translator.run(model, _input_shape(model, input_shape), normalization)
    builder = translator.builder
    if builder.params:
        return quantized_graph(builder, outputs)
    return checked(simplify(builder.graph(outputs))[0], Level.FLOAT)


def _input_shape(model: ModelProto, given: tuple[int, ...] | None) -> tuple[int, ...]:
    """The input's shape in the model's order, batch 1."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in initializers]
    if len(inputs) != 1:
        names = ", ".join(repr(i.name[:80]) for i in inputs[:10])
        raise ModelError(f"the model has {len(inputs)} inputs ({names}); networks take one tensor. Split the model.")
    tensor = inputs[0].type.tensor_type
    dims = [d.dim_value if d.HasField("dim_value") else 0 for d in tensor.shape.dim]
    if not 2 <= len(dims) <= 4 or tensor.elem_type not in (1, 2, 3, 10, 11):
        raise ModelError(
            f"the input {inputs[0].name[:80]!r} has {len(dims)} dimensions and type {tensor.elem_type}; "
            "[N, C, H, W], [N, C, L] or [N, F] of floats (or quantized bytes) are supported."
        )
    if given is not None:
        return (1, *_given(given, dims))
    if min(dims[1:]) < 1:
        raise UsageError(f"the model's input has unknown dimensions {dims}; give --input-shape H,W,C")
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
