"""Weight quantizers: real weights to codes, and gradients of the thresholds or steps.

All work on rows [R, K]: R = output channels for per-channel types, 1 for per-layer ones. Codes are relative
to the zero point (q - Z), so that fake-quantized weights are ``scale * codes``; :meth:`WeightQuantizer.export`
gives stored codes. Codes never take more values than the range has levels (2^bits unless one is given).

A type is named by its parts, for example ``PerChannelsSymMSE``: the granularity, whether the zero point is free, and
the rule for scales. Those of the DoReFa family, which map weights by tanh first, are in ``mcuq.quant.tanh_weights``.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mcuq.errors import UsageError
from mcuq.numerics import weight_range
from mcuq.quant import kernels, ranges
from mcuq.quant.grid import Grid, free_grid, symmetric_grid
from mcuq.quant.rounding import round_half_up

Rule = Literal[
    "AsymPACT",
    "AsymMinMax",
    "SymMinMax",
    "SymMSE",
    "SymLSQ",
    "AsymLSQ",
    "DoReFa",
    "SATDefault",
    "SATSymmetric",
    "SATAsymmetric",
    "SATFullRange",
]
RULES: tuple[Rule, ...] = get_args(Rule)
QUANT_TYPES: tuple[str, ...] = tuple(f"{part}{rule}" for rule in RULES for part in ("PerLayer", "PerChannels"))


class WeightQuantizer(nn.Module):
    """Base: minimum and maximum over rows, zero included (``AsymMinMax``).

    Attributes:
        grid: the codes. bits: 8, 4 or 2, of storage. per_channel: rows are output channels.
        rescales: quantized weights are mapped to another scale than that of the real ones; batch norms follow.
    """

    rescales = False
    _used: tuple[Tensor, Tensor, Tensor] | None = None
    """What ``ends`` gave to :meth:`quantize`, until the gradients of it are taken."""

    def __init__(self, grid: Grid, channels: int, *, per_channel: bool) -> None:
        super().__init__()
        self.grid = grid
        self.bits = grid.bits
        self.channels = channels
        self.per_channel = per_channel
        self.levels = grid.steps

    def rows(self, weight: Tensor) -> Tensor:
        """Weights [O, ...] as rows [R, K]."""
        return weight.reshape(self.channels if self.per_channel else 1, -1)

    def reset(self, weight: Tensor) -> None:
        """Choose thresholds or steps anew for ``weight``; nothing to do for min/max types."""

    def real(self, weight: Tensor) -> Tensor:
        """What ``weight`` would be with infinitely many levels (the clamped weights of SAT's first phase)."""
        return weight

    def limits(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper end of the range per row, zero included; both [R, 1]."""
        return rows.amin(1, keepdim=True).clamp_max(0.0), rows.amax(1, keepdim=True).clamp_min(0.0)

    def scale_zero(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point (counted from the lowest code) per row, [R, 1]; a range of 0 counts as 1."""
        low, high = self.limits(rows)
        span = high - low
        scale = torch.where(span > 0, span, torch.ones_like(span)) / self.levels
        return scale, (-round_half_up(low / scale)).clamp(0, self.levels)

    def ends(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scale, lowest and highest code per row, [R, 1]."""
        scale, zero = self.scale_zero(rows)
        return scale, -zero, self.grid.stride * self.levels - zero

    def codes(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(codes - zero point [R, K], scale [R, 1], zero point from the lowest code [R, 1])."""
        rows = self.rows(weight)
        scale, zero = self.scale_zero(rows)
        return self.grid.nearest(rows / scale, -zero, self.grid.stride * self.levels - zero), scale, zero

    def quantize(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """(fake-quantized weights of the same shape, scale [R])."""
        if self.rescales or self.grid.stride != 1:
            codes, scale, _ = self.codes(weight)
            return (codes * scale).reshape(weight.shape), scale.reshape(-1)
        rows = self.rows(weight).contiguous()
        scale, low, high = self._used = self.ends(rows)
        return kernels.quantize_rows(rows, scale, low, high).reshape(weight.shape), scale.reshape(-1)

    def export(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(int8 codes like ``weight``, scale float64 [R], zero point int64 [R]) for deployment.

        A negative scale is a row stored negated; the device takes the sign into its multiplier.
        """
        codes, scale, zero = self.codes(weight)
        offset = zero.long() + weight_range(self.bits)[0] if self.grid.free else torch.zeros_like(zero.long())
        stored = (codes.long() + offset).reshape(weight.shape)
        return stored.to(torch.int8), scale.reshape(-1).double(), offset.reshape(-1)

    def gradients(self, weight: Tensor, grad: Tensor) -> Tensor:
        """Gradient of the real weights from that of the fake-quantized ones; adds those of own parameters."""
        del weight
        return grad


class PactWeights(WeightQuantizer):
    """``AsymPACT``: learned thresholds; the range is that of the weights clamped between them."""

    def __init__(self, grid: Grid, channels: int, *, per_channel: bool) -> None:
        super().__init__(grid, channels, per_channel=per_channel)
        shape = (channels, 1) if per_channel else ()
        self.min_threshold = nn.Parameter(torch.full(shape, -1.0))
        self.max_threshold = nn.Parameter(torch.full(shape, 1.0))
        self.projection = False  # PPQ instead of min/max at the next reset

    def reset(self, weight: Tensor) -> None:
        with torch.no_grad():
            rows = self.rows(weight.detach())
            ends = [(float(row.min()), float(row.max())) for row in rows]
            if self.projection:
                ends = [ranges.progressive_projection(row, self.levels) for row in rows]
            table = torch.tensor(ends, dtype=weight.dtype)
            self.min_threshold.copy_(table[:, 0].clamp_max(0.0).reshape(self.min_threshold.shape))
            self.max_threshold.copy_(table[:, 1].clamp_min(0.0).reshape(self.max_threshold.shape))

    def thresholds(self) -> tuple[Tensor, Tensor]:
        """Thresholds forced to low <= 0 <= high."""
        return self.min_threshold.detach().clamp_max(0.0), self.max_threshold.detach().clamp_min(0.0)

    def limits(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.thresholds()
        ends = super().limits(rows)
        return torch.maximum(ends[0], low), torch.minimum(ends[1], high)

    def gradients(self, weight: Tensor, grad: Tensor) -> Tensor:
        low, high = self.thresholds()
        rows, g = self.rows(weight), self.rows(grad)
        shape = (len(rows), 1)
        ends = (low.expand(shape).contiguous(), high.expand(shape).contiguous())
        masked, sums = kernels.quantize_rows_gradient(
            rows.contiguous(), g.contiguous(), torch.ones_like(ends[0]), *ends
        )
        accumulate(self.min_threshold, sums[1])
        accumulate(self.max_threshold, sums[2])
        return masked.reshape(grad.shape)


class SymmetricMinMax(WeightQuantizer):
    """``SymMinMax``: the largest magnitude on the largest positive code, zero point 0."""

    def steps(self, rows: Tensor) -> Tensor:
        """Step per row, [R]."""
        largest = rows.abs().amax(1)
        return ranges.fill_empty(largest / self.grid.high, largest > 0, 1.0 / self.grid.high)

    def scale_zero(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        scale = self.steps(rows).unsqueeze(1)
        return scale, torch.full_like(scale, -self.grid.low)


class LearnedSymmetric(SymmetricMinMax):
    """``SymMSE``, ``SymLSQ``: a learned step (LSQ) on its logarithm, which keeps it positive and its rate relative.

    It starts at the least squared error, or (``mean_start``) at LSQ's 2 mean|w| / sqrt(Qp).

    Attributes:
        sign: of each row. Stored codes reach one further below zero than above; a row that fits better the other way
            round (-1) is stored negated, with a negative scale, chosen when the step starts at the least squared error.
    """

    sign: Tensor

    def __init__(self, grid: Grid, channels: int, *, per_channel: bool, mean_start: bool = False) -> None:
        super().__init__(grid, channels, per_channel=per_channel)
        self.mean_start = mean_start
        count = channels if per_channel else 1
        self.log_step = nn.Parameter(torch.zeros(count))
        self.register_buffer("sign", torch.ones(count))

    def reset(self, weight: Tensor) -> None:
        with torch.no_grad():
            rows = self.rows(weight.detach())
            if self.mean_start:
                steps = self.mean_steps(rows)
            else:
                steps, sign = ranges.either_sign_steps(rows, self.grid)
                self.sign.copy_(sign)
            self.log_step.copy_(steps.log())

    def scale_zero(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        scale = self.steps(rows)
        zero = torch.where(self.sign < 0, float(self.grid.high), -float(self.grid.low)).to(scale)
        return scale.unsqueeze(1), zero.unsqueeze(1)

    def export(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        codes, scale, zero = self.codes(weight)
        stored = (codes * self.sign.unsqueeze(1)).reshape(weight.shape).to(torch.int8)
        return stored, scale.reshape(-1).double() * self.sign, torch.zeros_like(zero.reshape(-1), dtype=torch.int64)

    def mean_steps(self, rows: Tensor) -> Tensor:
        """2 mean|w| / sqrt(Qp) per row, mean|w| for binary codes."""
        mean = rows.abs().mean(1)
        factor = 1.0 if self.grid.stride == 2 else 2.0 / self.grid.high**0.5
        return ranges.fill_empty(factor * mean, mean > 0, 1.0 / self.grid.high)

    def steps(self, rows: Tensor) -> Tensor:
        return self.log_step.detach().exp()

    def gradients(self, weight: Tensor, grad: Tensor) -> Tensor:
        rows, g = self.rows(weight).contiguous(), self.rows(grad).contiguous()
        gain = 1.0 / (rows.shape[1] * self.grid.high) ** 0.5
        if self.grid.stride == 1:
            ends, self._used = self._used or self.ends(rows), None
            masked, sums = kernels.quantize_rows_gradient(rows, g, *ends)
            accumulate(self.log_step, sums[0].mul_(gain))
        else:
            codes, step, _ = self.codes(weight)
            masked = g * ((rows > self.grid.low * step) & (rows < self.grid.high * step))
            accumulate(self.log_step, gain * ((g * codes * step).sum(1) - (masked * rows).sum(1)))
        return masked.reshape(grad.shape)


class LearnedAsymmetric(LearnedSymmetric):
    """``AsymLSQ``: LSQ+ (Bhalgat et al., 2020), step and offset learned; the offset is rounded to a zero point.

    Starts at the mean +- 3 standard deviations, but within the extremes. d offset = gain * sum of g outside the range.
    """

    def __init__(self, grid: Grid, channels: int, *, per_channel: bool) -> None:
        super().__init__(grid, channels, per_channel=per_channel)
        self.offset = nn.Parameter(torch.zeros(channels if per_channel else 1))

    def reset(self, weight: Tensor) -> None:
        with torch.no_grad():
            rows = self.rows(weight.detach())
            spread = 3.0 * rows.std(1, correction=0)
            low = torch.maximum(rows.amin(1), rows.mean(1) - spread).clamp_max(0.0)
            high = torch.minimum(rows.amax(1), rows.mean(1) + spread).clamp_min(0.0)
            span = high - low
            self.log_step.copy_((torch.where(span > 0, span, torch.ones_like(span)) / self.levels).log())
            self.offset.copy_(low)

    def scale_zero(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        scale = self.steps(rows).unsqueeze(1)
        return scale, (-round_half_up(self.offset.detach().unsqueeze(1) / scale)).clamp(0, self.levels)

    def export(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return WeightQuantizer.export(self, weight)

    def gradients(self, weight: Tensor, grad: Tensor) -> Tensor:
        codes, step, zero = self.codes(weight)
        rows, g = self.rows(weight), self.rows(grad)
        inside = (rows > -zero * step) & (rows < (self.levels - zero) * step)
        masked = g * inside
        gain = 1.0 / (rows.shape[1] * self.levels) ** 0.5
        term = torch.where(inside, codes * step - rows, (codes + zero) * step)
        accumulate(self.log_step, gain * (g * term).sum(1))
        accumulate(self.offset, gain * (g - masked).sum(1))
        return masked.reshape(grad.shape)


def accumulate(parameter: nn.Parameter, grad: Tensor) -> None:
    """Add ``grad`` to the parameter's gradient."""
    grad = grad.to(parameter.dtype).reshape(parameter.shape)
    parameter.grad = grad if parameter.grad is None else parameter.grad + grad


def make(
    quant_type: str, bits: int, channels: int, *, steps: int | None = None, taps: int = 1, normed: bool = True
) -> WeightQuantizer:
    """The quantizer called ``quant_type`` for ``channels`` output channels.

    Args:
        bits: 8, 4 or 2: levels fill them, as far as the type stores its codes exactly.
        steps: levels less one, 1..255, instead of ``bits``; the quantizer's ``bits`` then tell the storage.
        taps: kernel height * width. normed: a batch norm follows; without one, SAT rescales the weights.

    Raises:
        UsageError: unknown type, bits or steps, or codes that cannot be stored.
    """
    if bits not in (8, 4, 2):
        raise UsageError(f"weight bits must be 8, 4 or 2, got {bits}")
    parts = re.fullmatch(r"Per(Layer|Channels)(\w+)", quant_type)
    if quant_type not in QUANT_TYPES or parts is None:
        raise UsageError(f"quant_type must be one of {', '.join(QUANT_TYPES)}, got {quant_type!r}")
    per_channel, rule = parts[1] == "Channels", parts[2]
    full = (1 << bits) - 1 if steps is None else steps
    match rule:
        case "AsymPACT":
            return PactWeights(free_grid(full), channels, per_channel=per_channel)
        case "AsymMinMax":
            return WeightQuantizer(free_grid(full), channels, per_channel=per_channel)
        case "AsymLSQ":
            return LearnedAsymmetric(free_grid(full), channels, per_channel=per_channel)
        case "SymMinMax":
            return SymmetricMinMax(symmetric_grid(full), channels, per_channel=per_channel)
        case "SymMSE" | "SymLSQ":
            start = rule == "SymLSQ"
            return LearnedSymmetric(symmetric_grid(full), channels, per_channel=per_channel, mean_start=start)
        case _:
            from mcuq.quant.tanh_weights import make_tanh

            fan = 0 if normed or not rule.startswith("SAT") else channels * taps
            return make_tanh(rule, bits, steps, channels, per_channel=per_channel, fan=fan)
