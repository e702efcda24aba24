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
    from mcuq.lower import lower as to_integers
    from mcuq.pipeline import BitChoice, ModelSpec, TrainSettings, train, verify
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
    "fuse",
    "load_integer",
    "run",
    "save_integer",
    "solve",
    "to_integers",
    "train",
    "verify",
]
_HOMES = {
    "capture": "mcuq.frontend.torch:capture",
    "fuse": "mcuq.ir.fuse:fuse",
    "load_integer": "mcuq.ir.files:load_integer",
    "save_integer": "mcuq.ir.files:save_integer",
    "to_integers": "mcuq.lower:lower",
    "solve": "mcuq.plan.exact:solve",
    "QuantOp": "mcuq.quant:QuantOp",
    "run": "mcuq.reference.integer:run",
}
"""Homes of public names; those not listed live in ``mcuq.pipeline``. No public name is a subpackage's."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES.get(name, f"mcuq.pipeline:{name}").split(":")
    return getattr(importlib.import_module(module), attribute)
