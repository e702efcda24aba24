"""The order of the stages: every command and the Python interface end here.

    module -> Graph -> bits -> quantization-aware training -> IntegerGraph -> MemoryPlan -> C -> ELF

``train`` and ``solve`` need torch and import it when they run; ``emit``, ``verify`` and ``profile`` take a saved
integer network and work without it. Names are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Before the function of its name, which the module would replace when it is first imported.
import mcuq.pipeline.models  # noqa: F401  # pyright: ignore[reportUnusedImport]
from mcuq.pipeline.lists import boards, doctor, models
from mcuq.pipeline.wishes import wishes

if TYPE_CHECKING:
    from mcuq.pipeline.bits import pareto, solve
    from mcuq.pipeline.calibration import Preprocessing
    from mcuq.pipeline.deploy import emit, profile, verify
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
_HOMES = {
    "BitChoice": "mcuq.pipeline.settings",
    "ModelSpec": "mcuq.pipeline.settings",
    "Preprocessing": "mcuq.pipeline.calibration",
    "QuantizeSettings": "mcuq.pipeline.quantizing",
    "TrainSettings": "mcuq.pipeline.settings",
    "demo": "mcuq.pipeline.training",
    "emit": "mcuq.pipeline.deploy",
    "model_spec": "mcuq.pipeline.settings",
    "optimized": "mcuq.target.board",
    "pareto": "mcuq.pipeline.bits",
    "parse_integers": "mcuq.pipeline.settings",
    "parse_numbers": "mcuq.pipeline.settings",
    "parse_recipe": "mcuq.pipeline.settings",
    "parse_shape": "mcuq.pipeline.settings",
    "profile": "mcuq.pipeline.deploy",
    "quantize": "mcuq.pipeline.quantizing",
    "solve": "mcuq.pipeline.bits",
    "train": "mcuq.pipeline.training",
    "verify": "mcuq.pipeline.deploy",
}
"""Modules of the names above: a command loads what it needs."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
