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
from mcuq.quant import distributed, ranges
from mcuq.quant.fake_quant import Learned, Rule, fake_quantize
from mcuq.quant.grid import STORED_BITS

ActType = Literal["LSQ", "LSQ+", "PACT", "PACT-floor", "CG-PACT", "mPACT", "Clipped", "ScaleClip", "DoReFa", "none"]
ACT_TYPES: tuple[ActType, ...] = get_args(ActType)
CLIPPED_TOP = 6.0
"""Upper clip of ``Clipped`` quantizers, that of ReLU6, and where learned clips start without calibration."""
FIXED_TOPS = {"Clipped": CLIPPED_TOP, "ScaleClip": 2.0, "DoReFa": 10.0}
"""Constant clips: ReLU6's; the fixed scale of modified PACT; DoReFa's clip(0.1 x, 0, 1), in the unit of x."""
MPACT_DECAY = 2e-4
"""mPACT adds this times the squares of its clips to the loss."""


class ActivationQuantizer(nn.Module):
    """Base: a fixed range. ``signed``: the tensor can be negative, so the zero point is free.

    Attributes:
        steps: codes in use less one, counted from the lowest; None is all that ``bits`` hold.
        rounding: steps added before rounding down; 1/2 rounds to nearest.
        ready: a range has been set (by calibration, or a checkpoint).
    """

    scale_value: Tensor
    zero: Tensor
    ready_flag: Tensor
    rounding = 0.5

    def __init__(self, bits: int, *, signed: bool, steps: int | None = None) -> None:
        super().__init__()
        self.bits = bits
        self.signed = signed
        self.steps = steps
        self.qmin, self.qmax = code_range(bits)
        if steps is not None:
            self.qmax = self.qmin + steps
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

    def shift(self) -> float:
        """What rounding to nearest wants added to a value, so that it rounds as this quantizer does."""
        return (self.rounding - 0.5) * float(self.scale())

    def params(self) -> QuantParams:
        """Scale and zero point as the device gets them."""
        used = (self.qmin, self.qmax)
        codes = None if used == code_range(self.bits) else used
        return QuantParams(self.bits, float(self.scale()), self.zero_point(), codes)

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
        chosen = ranges.activation_range(values, self.bits, signed=self.signed, method=method, steps=self.steps)
        self.set_range(*chosen)

    def regularize(self) -> None:
        """Add the gradient of the quantizer's own share of the loss; none for most."""

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
        with torch.no_grad():
            low, high = distributed.extremes(x.detach().amin(), x.detach().amax())
            if not bool(torch.isfinite(high - low)):
                return  # the loss will be NaN too, and training stops with the layer's name
            self.low.lerp_(low.clamp_max(0.0).to(self.low.dtype), weight)
            self.high.lerp_(high.clamp_min(0.0).to(self.high.dtype), weight)
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


class FloatActivation(ActivationQuantizer):
    """``none``: activations stay real in training (weights-only quantization); the device stores 8 bits."""

    def forward(self, x: Tensor, clamp: Clamp = NO_CLAMP) -> Tensor:
        return clip(x, clamp)

    def rule(self, clamp: Clamp, count: int) -> Rule | None:
        return None


class LearnedStepActivation(ActivationQuantizer):
    """``LSQ``: the logarithm of the step is learned, the zero point is set by calibration."""

    def __init__(self, bits: int, *, signed: bool, steps: int | None = None) -> None:
        super().__init__(bits, signed=signed, steps=steps)
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


class LearnedOffsetActivation(LearnedStepActivation):
    """``LSQ+`` of a signed tensor: step and offset learned, the offset rounded to a zero point."""

    def __init__(self, bits: int, *, signed: bool, steps: int | None = None) -> None:
        super().__init__(bits, signed=signed, steps=steps)
        self.offset = nn.Parameter(torch.tensor(0.0))

    def zero_point(self) -> int:
        below = math.floor(-float(self.offset.detach()) / float(self.scale()) + 0.5)
        return min(max(self.qmin + below, self.qmin), self.qmax)

    def _store(self, scale: float, zero_point: int) -> None:
        super()._store(scale, zero_point)
        self.offset.fill_((self.qmin - zero_point) * scale)

    def rule(self, clamp: Clamp, count: int) -> Rule | None:
        """LSQ+: as LSQ, but codes count from the lowest end, and d offset = sum of g outside, scaled."""
        step = float(self.scale())
        low, high = self.bounds(clamp, step)
        lowest = (self.qmin - self.zero_point()) * step
        bottom = max(low * step, -math.inf if clamp[0] is None else clamp[0])
        top = min(high * step, math.inf if clamp[1] is None else clamp[1])
        gain = 1.0 / math.sqrt(max(1, count) * (self.qmax - self.qmin))
        learned = (
            Learned(self.log_step, gain, gain * (low * step - lowest), gain * (high * step - lowest)),
            Learned(self.offset, 0.0, gain, gain),
        )
        return Rule(step, low, high, bottom, top, learned)


class PactActivation(ActivationQuantizer):
    """``PACT``: learned upper threshold and, for signed tensors, a learned lower one.

    ``calibrated``: the gradient counts rounding too (``CG-PACT``). ``rounding`` 0 rounds down (``PACT-floor``), as
    arXiv 1905.13082 trains; the device, which rounds to nearest, gets biases half a step lower.
    """

    def __init__(
        self, bits: int, *, signed: bool, steps: int | None = None, calibrated: bool = False, rounding: float = 0.5
    ) -> None:
        super().__init__(bits, signed=signed, steps=steps)
        self.calibrated = calibrated
        self.rounding = rounding
        self.high = nn.Parameter(torch.tensor(CLIPPED_TOP))
        self.low = nn.Parameter(torch.tensor(-CLIPPED_TOP if signed else 0.0), requires_grad=signed)

    def scale(self) -> Tensor:
        span = self.high.detach().clamp_min(0.0) - self.low.detach().clamp_max(0.0)
        return torch.where(span <= 0, torch.ones_like(span), span) / (self.qmax - self.qmin)  # NaN stays

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
        """PACT: d high = sum of g over x >= high, d low over x <= low, unless the clamp is narrower.

        CG-PACT (Jin et al., 2020) adds what rounding does inside, where y = step * code: sum of g * (y - x) / (high -
        low) to d high, its negative to d low.
        """
        del count
        step = float(self.scale())
        low, high = self.bounds(clamp, step)
        bottom, below, top, above = _ends(clamp, float(self.low.detach()), float(self.high.detach()), self.signed)
        inside = 1.0 / (step * (self.qmax - self.qmin)) if self.calibrated else 0.0
        learned = Learned(self.high, inside, 0.0, above), Learned(self.low, -inside, below, 0.0)
        return Rule(step, low, high, bottom, top, learned, self.rounding)


class ModifiedPact(ActivationQuantizer):
    """``mPACT`` of a signed tensor: one learned clip, -|a| .. |a|, codes symmetric about zero.

    da = sum g * (1[x >= |a|] - 1[x <= -|a|]), and 2e-4 a^2 is part of the loss. Unsigned tensors take PACT's
    codes from 0 to a, with the same share of the loss.
    """

    def __init__(self, bits: int, *, signed: bool, steps: int | None = None) -> None:
        every = code_range(bits)[1] - code_range(bits)[0] if steps is None else steps
        positive = max(1, every // 2) if signed else every
        super().__init__(bits, signed=signed, steps=2 * positive if signed else steps)
        self.positive = positive
        self.scale_coef = nn.Parameter(torch.tensor(CLIPPED_TOP))

    def scale(self) -> Tensor:
        size = self.scale_coef.detach().abs()
        return torch.where(size > 0, size, torch.ones_like(size)) / self.positive

    def zero_point(self) -> int:
        return self.qmin + (self.positive if self.signed else 0)

    def _store(self, scale: float, zero_point: int) -> None:
        self.scale_coef.fill_(scale * self.positive)

    def calibrate(self, values: Tensor, method: str = "mse") -> None:
        zero = self.zero_point()
        if method == "mse":
            below = zero - self.qmin
            scale, _ = ranges.mse_activation_range(
                values, self.bits, signed=self.signed, steps=self.steps, fixed_zero=below
            )
        else:
            chosen = ranges.activation_range(values.abs(), self.bits, signed=False, method=method, steps=self.positive)
            scale = chosen[0]
        self.set_range(scale, zero)

    def regularize(self) -> None:
        share = 2.0 * MPACT_DECAY * self.scale_coef.detach()
        self.scale_coef.grad = share if self.scale_coef.grad is None else self.scale_coef.grad + share

    def rule(self, clamp: Clamp, count: int) -> Rule | None:
        del count
        step, size = float(self.scale()), float(self.scale_coef.detach())
        low, high = self.bounds(clamp, step)
        bottom, below, top, above = _ends(clamp, -abs(size) if self.signed else 0.0, abs(size), self.signed)
        sign = math.copysign(1.0, size)
        learned = Learned(self.scale_coef, 0.0, -sign * below if self.signed else 0.0, sign * above)
        return Rule(step, low, high, bottom, top, (learned,))


class ClippedActivation(ActivationQuantizer):
    """``Clipped``, ``ScaleClip``, ``DoReFa``: a constant clip, 0 .. top or, for signed tensors, -top .. top."""

    def __init__(self, bits: int, *, signed: bool, steps: int | None = None, top: float = CLIPPED_TOP) -> None:
        super().__init__(bits, signed=signed, steps=steps)
        self.top = top

    def calibrate(self, values: Tensor, method: str = "mse") -> None:
        levels = self.qmax - self.qmin
        low = -self.top if self.signed else 0.0
        step = (self.top - low) / levels
        self.set_range(step, self.qmin + math.floor(-low / step + 0.5))


def _ends(clamp: Clamp, bottom: float, top: float, signed: bool) -> tuple[float, float, float, float]:
    """(bottom, 1, top, 1) of learned ends; where the operator's own clamp is narrower, its bound and 0."""
    above = below = 1.0
    if clamp[1] is not None and clamp[1] < top:
        top, above = clamp[1], 0.0
    if signed and clamp[0] is not None and clamp[0] > bottom:
        bottom, below = clamp[0], 0.0
    return bottom, below, top, above


def clip(x: Tensor, clamp: Clamp) -> Tensor:
    """``x`` clamped; either bound may be None."""
    return x if clamp == NO_CLAMP else torch.clamp(x, clamp[0], clamp[1])


def make(act_type: str, bits: int, *, signed: bool, steps: int | None = None) -> ActivationQuantizer:
    """The quantizer called ``act_type``.

    Args:
        bits: 8, 4 or 2. steps: codes less one, 1..255, instead; the quantizer's ``bits`` then tell the storage.

    Raises:
        UsageError: unknown type, bits or steps.
    """
    if bits not in (8, 4, 2):
        raise UsageError(f"activation bits must be 8, 4 or 2, got {bits}")
    if steps is not None:
        bits, steps = _storage(steps)
    match act_type:
        case "LSQ":
            return LearnedStepActivation(bits, signed=signed, steps=steps)
        case "LSQ+":
            kind = LearnedOffsetActivation if signed else LearnedStepActivation
            return kind(bits, signed=signed, steps=steps)
        case "PACT" | "CG-PACT":
            return PactActivation(bits, signed=signed, steps=steps, calibrated=act_type == "CG-PACT")
        case "PACT-floor":
            return PactActivation(bits, signed=signed, steps=steps, rounding=0.0)
        case "mPACT":
            return ModifiedPact(bits, signed=signed, steps=steps)
        case "Clipped" | "ScaleClip" | "DoReFa":
            return ClippedActivation(bits, signed=signed, steps=steps, top=FIXED_TOPS[act_type])
        case "none":
            return FloatActivation(8, signed=signed)
        case _:
            raise UsageError(f"act_type must be one of {', '.join(ACT_TYPES)}, got {act_type!r}")


def _storage(steps: int) -> tuple[int, int | None]:
    """(bits that store ``steps`` + 1 codes, steps or None when they use all of them)."""
    if isinstance(steps, bool) or not 1 <= steps <= 255:
        raise UsageError(f"an activation range of {steps} steps; 1 to 255 are allowed")
    bits = next(b for b in STORED_BITS if steps < 1 << b)
    return bits, None if steps == (1 << bits) - 1 else steps
