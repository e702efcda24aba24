"""TFLite files, full-integer int8 or float, to the quantized or the float graph."""

from __future__ import annotations

import os
from pathlib import Path

from mcuq.errors import ModelError
from mcuq.frontend.quantized import quantized_graph
from mcuq.frontend.simplify import checked, simplify
from mcuq.frontend.source import read_file
from mcuq.frontend.tflite import arithmetic, layers
from mcuq.frontend.tflite.double_rounding import with_one_rounding, with_two_roundings
from mcuq.frontend.tflite.model import parse
from mcuq.frontend.tflite.translate import Translator
from mcuq.frontend.views import Refusal
from mcuq.ir.graph import Graph, Normalization
from mcuq.ir.quantized import QuantizedGraph
from mcuq.ir.verify import Level

HANDLERS = layers.HANDLERS | arithmetic.HANDLERS


def import_tflite(
    path: str | os.PathLike[str],
    normalization: Normalization | tuple[Normalization | None, ...] | None = None,
    roundings: int = 2,
) -> Graph | QuantizedGraph:
    """The graph of a TFLite model: quantized with the file's scales and codes, or float and not fused.

    Args:
        normalization: for float models: how raw uint8 pixels become the model's input; of several inputs one for all,
            or one for each. A uint8 input of a quantized model brings its own.
        roundings: of a quantized model's convolutions: 2 as in TFLite's reference kernels, or 1 with scales and biases
            that come close to them.

    Raises:
        ModelError: the file is damaged, hostile or over a limit.
        UnsupportedError: operators without counterpart, all of them listed.
    """
    data = read_file(Path(path))
    try:
        translator = Translator(parse(data), HANDLERS)
        outputs = translator.run(normalization)
        builder = translator.builder
        if builder.params:
            rounded = with_two_roundings if roundings == 2 else with_one_rounding
            return rounded(quantized_graph(builder, outputs), translator.convolutions)
        return checked(simplify(builder.graph(outputs))[0], Level.FLOAT)
    except Refusal as refusal:
        raise ModelError(f"{Path(path).name}: {refusal}") from refusal
    except ModelError as error:
        raise type(error)(f"{Path(path).name}: {error}") from error
