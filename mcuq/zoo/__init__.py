"""Model definitions the commands know by name, and a way to bring one's own.

``models``, ``card`` and ``input_shape`` work without torch; ``build``, ``build_meta`` and ``load`` need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mcuq.errors import UsageError
from mcuq.zoo.cards import CARDS, ModelCard, card, input_shape

if TYPE_CHECKING:
    from mcuq.zoo.modules import build, build_meta, load

__all__ = ["ModelCard", "build", "build_meta", "card", "input_shape", "load", "models"]


def models() -> tuple[ModelCard, ...]:
    """The cards of all models."""
    return CARDS


def __getattr__(name: str) -> Any:
    if name not in ("build", "build_meta", "load"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from mcuq.zoo import modules
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise UsageError("building a model needs torch: pip install 'mcuq[train]'") from error
    return getattr(modules, name)
