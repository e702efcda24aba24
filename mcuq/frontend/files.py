"""One door for model files: what a file is, is decided by its content, never by its name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mcuq.errors import ModelError, UsageError
from mcuq.frontend.source import read_file
from mcuq.frontend.tflite.model import IDENTIFIER, parse
from mcuq.ir.graph import Graph, Normalization
from mcuq.ir.quantized import QuantizedGraph
from mcuq.ir.samples import InputShape


def import_model(
    path: str | os.PathLike[str],
    input_shape: InputShape | None = None,
    normalization: Normalization | tuple[Normalization | None, ...] | None = None,
    roundings: int | None = None,
) -> Graph | QuantizedGraph:
    """The graph in an ONNX or TFLite file: float and not fused, or quantized with the file's scales.

    Args:
        input_shape: (H, W, C), for ONNX models whose input has unknown dimensions; one for each of several inputs.
        normalization: how raw uint8 pixels become the model's input; of several inputs one for all, or one for each.
        roundings: of the convolutions of a quantized TFLite model: 2, the default, as in that format's reference
            kernels, or 1.

    Raises:
        ModelError: not a model, damaged, hostile or over a limit; UnsupportedError: operators without counterpart;
            UsageError: two roundings of an ONNX model.
    """
    file = Path(path)
    data = read_file(file)
    found = _container(data)
    if found:
        raise ModelError(f"{file.name}: {found}")
    if data[4:8] == IDENTIFIER:
        from mcuq.frontend.tflite import import_tflite

        return import_tflite(file, normalization, 2 if roundings is None else roundings)
    if roundings == 2:
        raise UsageError(f"{file.name}: two roundings are those of TFLite models, this is ONNX; round once")
    return _onnx(file).import_onnx(file, input_shape, normalization)


def input_names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """What an ONNX or TFLite file calls its inputs, in order. Raises ModelError."""
    data = read_file(Path(path))
    if data[4:8] == IDENTIFIER:
        model = parse(data)
        return tuple(model.tensors[index].name for index in model.inputs if index >= 0)
    if _container(data):
        return ()  # refused on import, with reasons
    return _onnx(Path(path)).input_names(Path(path))


def _onnx(file: Path) -> Any:
    try:
        from mcuq.frontend import onnx
    except ImportError as error:
        raise ModelError(f"{file.name}: reading ONNX files needs the onnx package: pip install 'mcuq[onnx]'") from error
    return onnx


def _container(data: bytes) -> str:
    """What to do with files of other kinds; empty for those that may be models."""
    if data[:4] == b"PK\x03\x04":
        return "a zip archive, perhaps a PyTorch checkpoint; it holds no graph. Export the module to ONNX."
    if data[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return "a Python pickle, which can run code when loaded; refused. Export the module to ONNX."
    if data[:8] == b"\x89HDF\r\n\x1a\n":
        return "an HDF5 file, perhaps of Keras. Convert it to TFLite or ONNX."
    if data[:6] == b"\x93NUMPY":
        return "a numpy array; it holds no graph. Give an ONNX or TFLite file."
    return ""
