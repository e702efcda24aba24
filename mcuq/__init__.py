"""mcuq: a deployment compiler for microcontrollers.

The public names. They are loaded on first use, so that integer networks are deployed without torch installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcuq.frontend.torch import capture
    from mcuq.ir.files import load_integer, save_integer
    from mcuq.ir.fuse import fuse
    from mcuq.lower import lower
    from mcuq.pipeline import BitChoice, ModelSpec, TrainSettings, emit, profile, train, verify
    from mcuq.plan.exact import solve
    from mcuq.quant import QuantOp
    from mcuq.reference.integer import run

__version__ = "0.1.0"
__all__ = [
    "BitChoice",
    "ModelSpec",
    "QuantOp",
    "TrainSettings",
    "capture",
    "emit",
    "fuse",
    "load_integer",
    "lower",
    "profile",
    "run",
    "save_integer",
    "solve",
    "train",
    "verify",
]
_HOMES = {
    "capture": "mcuq.frontend.torch",
    "load_integer": "mcuq.ir.files",
    "save_integer": "mcuq.ir.files",
    "fuse": "mcuq.ir.fuse",
    "lower": "mcuq.lower",
    "solve": "mcuq.plan.exact",
    "QuantOp": "mcuq.quant",
    "run": "mcuq.reference.integer",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES.get(name, "mcuq.pipeline")), name)
