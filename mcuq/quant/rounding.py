"""Rounding and straight-through gradients in torch, the training-time twin of ``mcuq.numerics``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def round_half_up(x: Tensor) -> Tensor:
    """``floor(x + 1/2)``: the one rounding of docs/NUMERICS.md."""
    return torch.floor(x + 0.5)


def round_straight_through(x: Tensor) -> Tensor:
    """Rounds half up; the gradient is that of the identity."""
    return x + (round_half_up(x) - x).detach()


class LearnedStep(torch.autograd.Function):
    """``s * clamp(floor(x / s + 1/2), low, high)`` with a learned step, s = exp(log_step).

    Learned step size quantization (LSQ, Esser et al., ICLR 2020) on the logarithm of the step, so that steps
    stay positive and an optimizer's learning rate is relative (cf. TQT, Jain et al., MLSys 2020).
    dx = g where low*s < x < high*s (and inside ``clip``), else 0;
    ds = sum g * (code - x/s inside, code outside), which needs y = s * code and the masked gradient only:
    d log_step = gain * (sum g*y - sum dx*x).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, log_step: Tensor, low: float, high: float, clip: tuple[float, float], gain: float
    ) -> Tensor:
        step = log_step.exp()
        y = (x / step).add_(0.5).floor_().clamp_(low, high).mul_(step)
        ctx.save_for_backward(x, y)
        ctx.bounds = (max(low * float(step), clip[0]), min(high * float(step), clip[1]))
        ctx.gain = gain
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grad,) = grads
        x, y = ctx.saved_tensors
        dx = torch.ops.aten.hardtanh_backward(grad, x, *ctx.bounds)  # g where low < x < high, in one pass
        dlog = ctx.gain * ((grad * y).sum() - (dx * x).sum())
        return dx, dlog, None, None, None, None


class LearnedThresholds(torch.autograd.Function):
    """Uniform quantization between learned clipping thresholds (PACT, Choi et al., 2018).

    s = (high - low) / levels, codes relative to the zero point. dx = g where low < x < high, else 0;
    d high = sum of g over x >= high; d low = sum of g over x <= low.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: Tensor, high: Tensor, step: Tensor, bottom: float, top: float) -> Tensor:
        ctx.save_for_backward(x, low, high)
        return (x / step).add_(0.5).floor_().clamp_(bottom, top).mul_(step)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grad,) = grads
        x, low, high = ctx.saved_tensors
        inside = torch.ops.aten.hardtanh_backward(grad, x, float(low), float(high))
        outside = grad - inside
        above = torch.ops.aten.threshold_backward(outside, x, float(low))
        dhigh, total = above.sum(), outside.sum()
        return inside, (total - dhigh).reshape(low.shape), dhigh.reshape(high.shape), None, None, None
