"""Activation quantizers: one per stored tensor (or per group of tensors that share codes).

Each maps real values to fake-quantized ones on the grid ``scale * (q - zero_point)`` of docs/NUMERICS.md, with
the operator's own clamp (ReLU, ReLU6, clip) fused: rounding and clipping in one pass. A quantizer states a rule
(``mcuq.quant.fake_quant.Rule``); one that is more than a rule overrides ``forward`` and returns None as its rule.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mcuq.errors import UsageError
from mcuq.ir.graph import NO_CLAMP, Clamp
from mcuq.ir.quantized import QuantParams
from mcuq.numerics import code_range
from mcuq.quant import ranges
from mcuq.quant.fake_quant import Learned, Rule, fake_quantize

ActType = Literal["LSQ", "PACT", "Clipped"]
ACT_TYPES: tuple[ActType, ...] = get_args(ActType)
CLIPPED_TOP = 6.0
"""Upper clip of ``Clipped`` quantizers, that of ReLU6."""


class ActivationQuantizer(nn.Module):
    """Base: a fixed range. ``signed``: the tensor can be negative, so the zero point is free.

    Attributes:
        ready: a range has been set (by calibration, or a checkpoint).
    """

    scale_value: Tensor
    zero: Tensor
    ready_flag: Tensor

    def __init__(self, bits: int, *, signed: bool) -> None:
        super().__init__()
        self.bits = bits
        self.signed = signed
        self.qmin, self.qmax = code_range(bits)
        self.register_buffer("scale_value", torch.tensor(1.0))
        self.register_buffer("zero", torch.tensor(float(self.qmin)))
        self.register_buffer("ready_flag", torch.tensor(False))

    @property
    def ready(self) -> bool:
        return bool(self.ready_flag)

    def scale(self) -> Tensor:
        """Scale, a scalar tensor without gradient."""
        return self.scale_value

    def zero_point(self) -> int:
        return int(self.zero)

    def params(self) -> QuantParams:
        """Scale and zero point as the device gets them."""
        return QuantParams(self.bits, float(self.scale()), self.zero_point())

    def set_range(self, scale: float, zero_point: int) -> None:
        """Set scale and zero point.

        Raises:
            UsageError: the scale is not a positive number.
        """
        if not (math.isfinite(scale) and scale > 0):
            raise UsageError(f"an activation scale must be positive, got {scale}")
        with torch.no_grad():
            self.zero.fill_(zero_point)
            self.ready_flag.fill_(True)
            self._store(scale, zero_point)

    def _store(self, scale: float, zero_point: int) -> None:
        self.scale_value.fill_(scale)

    def calibrate(self, values: Tensor, method: str = "mse") -> None:
        """Choose the range for ``values`` (a vector of samples) by a method of ``ranges.activation_range``."""
        self.set_range(*ranges.activation_range(values, self.bits, signed=self.signed, method=method))

    def bounds(self, clamp: Clamp, step: float) -> tuple[float, float]:
        """Lowest and highest code relative to the zero point under ``clamp``."""
        zero = self.zero_point()
        low, high = float(self.qmin - zero), float(self.qmax - zero)
        if not math.isfinite(step):  # the loss will be NaN, and training stops with the layer's name
            return low, high
        if clamp[0] is not None:
            low = min(max(low, math.floor(clamp[0] / step + 0.5)), high)
        if clamp[1] is not None:
            high = max(min(high, math.floor(clamp[1] / step + 0.5)), low)
        return low, high

    def rule(self, clamp: Clamp, count: int) -> Rule | None:
        """Grid and gradients under ``clamp`` for tensors of ``count`` values per image; a batch norm is fused with it.

        None where ``forward`` does something else than applying a rule.
        """
        del count
        step = float(self.scale())
        low, high = self.bounds(clamp, step)
        return Rule(step, low, high, low * step, high * step)

    def forward(self, x: Tensor, clamp: Clamp = NO_CLAMP) -> Tensor:
        """Fake-quantize ``x`` after ``clamp``; straight-through where the value is inside the range."""
        rule = self.rule(clamp, x.numel() // max(1, len(x)))
        assert rule is not None
        return fake_quantize(x, rule)


class Observed(ActivationQuantizer):
    """Range of the network's outputs: a moving average of minimum and maximum, gradients pass unchanged."""

    low: Tensor
    high: Tensor

    def __init__(self, bits: int, *, signed: bool, momentum: float = 0.05) -> None:
        super().__init__(bits, signed=signed)
        self.momentum = momentum
        self.register_buffer("low", torch.tensor(0.0))
        self.register_buffer("high", torch.tensor(0.0))

    def calibrate(self, values: Tensor, method: str = "mse") -> None:
        self._observe(values, 1.0)

    def _observe(self, x: Tensor, weight: float) -> None:
        if not bool(torch.isfinite(x).all()):
            return  # the loss will be NaN too, and training stops with the layer's name
        with torch.no_grad():
            self.low.lerp_(x.detach().amin().clamp_max(0.0).to(self.low.dtype), weight)
            self.high.lerp_(x.detach().amax().clamp_min(0.0).to(self.high.dtype), weight)
            span = float(self.high - self.low)
            step = (span if span > 0 else 1.0) / (self.qmax - self.qmin)
            zero = min(max(self.qmin + math.floor(-float(self.low) / step + 0.5), self.qmin), self.qmax)
            self.set_range(step, zero)

    def forward(self, x: Tensor, clamp: Clamp = NO_CLAMP) -> Tensor:
        x = clip(x, clamp)
        if self.training and torch.is_grad_enabled():
            self._observe(x, self.momentum)
        step = float(self.scale())
        return fake_quantize(x, Rule(step, *self.bounds(clamp, step), -math.inf, math.inf))

    def rule(self, clamp: Clamp, count: int) -> Rule | None:
        return None


class LearnedStepActivation(ActivationQuantizer):
    """``LSQ``: the logarithm of the step is learned, the zero point is set by calibration."""

    def __init__(self, bits: int, *, signed: bool) -> None:
        super().__init__(bits, signed=signed)
        self.log_step = nn.Parameter(torch.tensor(0.0))

    def scale(self) -> Tensor:
        return self.log_step.detach().exp()

    def _store(self, scale: float, zero_point: int) -> None:
        self.log_step.fill_(math.log(scale))

    def rule(self, clamp: Clamp, count: int) -> Rule | None:
        """LSQ: d step = sum of g * (code - x / step) inside, g * code outside; d log_step = step * d step, scaled."""
        step = float(self.scale())
        low, high = self.bounds(clamp, step)
        bottom = max(low * step, -math.inf if clamp[0] is None else clamp[0])
        top = min(high * step, math.inf if clamp[1] is None else clamp[1])
        gain = 1.0 / math.sqrt(max(1, count) * max(abs(low), abs(high), 1.0))
        learned = Learned(self.log_step, gain, gain * low * step, gain * high * step)
        return Rule(step, low, high, bottom, top, (learned,))


class PactActivation(ActivationQuantizer):
    """``PACT``: learned upper threshold and, for signed tensors, a learned lower one."""

    def __init__(self, bits: int, *, signed: bool) -> None:
        super().__init__(bits, signed=signed)
        self.high = nn.Parameter(torch.tensor(CLIPPED_TOP))
        self.low = nn.Parameter(torch.tensor(-CLIPPED_TOP if signed else 0.0), requires_grad=signed)

    def scale(self) -> Tensor:
        span = self.high.detach().clamp_min(0.0) - self.low.detach().clamp_max(0.0)
        return torch.where(span > 0, span, torch.ones_like(span)) / (self.qmax - self.qmin)

    def zero_point(self) -> int:
        low, step = float(self.low.detach()), float(self.scale())
        if not (math.isfinite(low) and math.isfinite(step)):
            return self.qmin
        offset = math.floor(-min(low, 0.0) / step + 0.5)
        return min(max(self.qmin + offset, self.qmin), self.qmax)

    def _store(self, scale: float, zero_point: int) -> None:
        self.high.fill_((self.qmax - zero_point) * scale)
        self.low.fill_((self.qmin - zero_point) * scale)

    def rule(self, clamp: Clamp, count: int) -> Rule | None:
        """PACT: d high = sum of g over x >= high, d low over x <= low, unless the clamp is narrower."""
        del count
        step = float(self.scale())
        low, high = self.bounds(clamp, step)
        bottom, top = float(self.low.detach()), float(self.high.detach())
        if clamp[1] is not None and clamp[1] < top:
            top, above = clamp[1], 0.0
        else:
            above = 1.0
        if self.signed and clamp[0] is not None and clamp[0] > bottom:
            bottom, below = clamp[0], 0.0
        else:
            below = 1.0
        learned = Learned(self.high, 0.0, 0.0, above), Learned(self.low, 0.0, below, 0.0)
        return Rule(step, low, high, bottom, top, learned)


class ClippedActivation(ActivationQuantizer):
    """``Clipped``: fixed clip at the operator's own clamp, else at 6; signed tensors -6 .. 6."""

    def calibrate(self, values: Tensor, method: str = "mse") -> None:
        levels = self.qmax - self.qmin
        low = -CLIPPED_TOP if self.signed else 0.0
        step = (CLIPPED_TOP - low) / levels
        self.set_range(step, self.qmin + math.floor(-low / step + 0.5))


def clip(x: Tensor, clamp: Clamp) -> Tensor:
    """``x`` clamped; either bound may be None."""
    return x if clamp == NO_CLAMP else torch.clamp(x, clamp[0], clamp[1])


def make(act_type: str, bits: int, *, signed: bool) -> ActivationQuantizer:
    """The quantizer called ``act_type``.

    Raises:
        UsageError: unknown type or bits.
    """
    if bits not in (8, 4, 2):
        raise UsageError(f"activation bits must be 8, 4 or 2, got {bits}")
    match act_type:
        case "LSQ":
            return LearnedStepActivation(bits, signed=signed)
        case "PACT":
            return PactActivation(bits, signed=signed)
        case "Clipped":
            return ClippedActivation(bits, signed=signed)
        case _:
            raise UsageError(f"act_type must be one of {', '.join(ACT_TYPES)}, got {act_type!r}")
