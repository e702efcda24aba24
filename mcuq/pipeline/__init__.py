"""The order of the stages: every command and the Python interface end here.

    module -> Graph -> bits -> quantization-aware training -> IntegerGraph -> MemoryPlan -> C -> ELF

``train`` and ``solve`` need torch and import it when they run; ``emit``, ``verify`` and ``profile`` take a saved
integer network and work without it.
"""

from __future__ import annotations

from mcuq.pipeline.bits import pareto, solve
from mcuq.pipeline.calibration import Preprocessing
from mcuq.pipeline.deploy import emit, profile, verify
from mcuq.pipeline.lists import boards, doctor, models
from mcuq.pipeline.quantizing import QuantizeSettings, quantize
from mcuq.pipeline.settings import (
    BitChoice,
    ModelSpec,
    TrainSettings,
    model_spec,
    parse_integers,
    parse_numbers,
    parse_recipe,
    parse_shape,
)
from mcuq.pipeline.training import demo, train
from mcuq.pipeline.wishes import wishes
from mcuq.target.board import optimized

__all__ = [
    "BitChoice",
    "ModelSpec",
    "Preprocessing",
    "QuantizeSettings",
    "TrainSettings",
    "boards",
    "demo",
    "doctor",
    "emit",
    "model_spec",
    "models",
    "optimized",
    "pareto",
    "parse_integers",
    "parse_numbers",
    "parse_recipe",
    "parse_shape",
    "profile",
    "quantize",
    "solve",
    "train",
    "verify",
    "wishes",
]
