"""Rounding and straight-through gradients in torch, the training-time twin of ``mcuq.numerics``."""

from __future__ import annotations

import torch
from torch import Tensor


def round_half_up(x: Tensor) -> Tensor:
    """``floor(x + 1/2)``: the one rounding of docs/NUMERICS.md."""
    return torch.floor(x + 0.5)


def round_straight_through(x: Tensor) -> Tensor:
    """Rounds half up; the gradient is that of the identity."""
    return x + (round_half_up(x) - x).detach()
