"""Weight quantizers: real weights to codes, and gradients of the thresholds or steps.

All work on rows [R, K]: R = output channels for per-channel types, 1 for per-layer ones. Codes are relative
to the zero point (q - Z), so that fake-quantized weights are ``scale * codes``; :meth:`WeightQuantizer.export`
gives stored codes. Codes never take more than 2^bits values, whatever the range.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mcuq.errors import UsageError
from mcuq.numerics import weight_range
from mcuq.quant import ranges
from mcuq.quant.rounding import round_half_up

QuantType = Literal[
    "PerLayerAsymPACT",
    "PerLayerAsymMinMax",
    "PerChannelsAsymMinMax",
    "PerChannelsSymMinMax",
    "PerChannelsSymMSE",
]
QUANT_TYPES: tuple[QuantType, ...] = get_args(QuantType)


class WeightQuantizer(nn.Module):
    """Base: asymmetric min/max over rows (``PerLayerAsymMinMax``, ``PerChannelsAsymMinMax``).

    Attributes:
        bits: 8, 4 or 2. per_channel: rows are output channels.
    """

    def __init__(self, bits: int, channels: int, *, per_channel: bool) -> None:
        super().__init__()
        weight_range(bits)
        self.bits = bits
        self.channels = channels
        self.per_channel = per_channel
        self.levels = (1 << bits) - 1

    def rows(self, weight: Tensor) -> Tensor:
        """Weights [O, ...] as rows [R, K]."""
        return weight.reshape(self.channels if self.per_channel else 1, -1)

    def reset(self, weight: Tensor) -> None:
        """Choose thresholds or steps anew for ``weight``; nothing to do for min/max types."""

    def limits(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper end of the range per row, zero included; both [R, 1]."""
        return rows.amin(1, keepdim=True).clamp_max(0.0), rows.amax(1, keepdim=True).clamp_min(0.0)

    def scale_zero(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point (counted from the lowest code) per row, [R, 1]; a range of 0 counts as 1."""
        low, high = self.limits(rows)
        span = high - low
        scale = torch.where(span > 0, span, torch.ones_like(span)) / self.levels
        return scale, (-round_half_up(low / scale)).clamp(0, self.levels)

    def codes(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(codes - zero point [R, K], scale [R, 1], zero point from the lowest code [R, 1])."""
        rows = self.rows(weight)
        scale, zero = self.scale_zero(rows)
        codes = torch.minimum(torch.maximum(round_half_up(rows / scale), -zero), self.levels - zero)
        return codes, scale, zero

    def quantize(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """(fake-quantized weights of the same shape, scale [R])."""
        codes, scale, _ = self.codes(weight)
        return (codes * scale).reshape(weight.shape), scale.reshape(-1)

    def export(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(int8 codes like ``weight``, scale float64 [R], zero point int64 [R]) for deployment."""
        codes, scale, zero = self.codes(weight)
        offset = zero.long() + weight_range(self.bits)[0]
        stored = (codes.long() + offset).reshape(weight.shape)
        return stored.to(torch.int8), scale.reshape(-1).double(), offset.reshape(-1)

    def gradients(self, weight: Tensor, grad: Tensor) -> Tensor:
        """Gradient of the real weights from that of the fake-quantized ones; adds those of own parameters."""
        del weight
        return grad


class PactWeights(WeightQuantizer):
    """``PerLayerAsymPACT``: learned thresholds; the range is that of the weights clamped between them."""

    def __init__(self, bits: int, channels: int) -> None:
        super().__init__(bits, channels, per_channel=False)
        self.min_threshold = nn.Parameter(torch.tensor(-1.0))
        self.max_threshold = nn.Parameter(torch.tensor(1.0))
        self.projection = False  # PPQ instead of min/max at the next reset

    def reset(self, weight: Tensor) -> None:
        with torch.no_grad():
            w = weight.detach()
            low, high = float(w.min()), float(w.max())
            if self.projection:
                low, high = ranges.progressive_projection(w, self.bits)
            self.min_threshold.fill_(min(low, 0.0))
            self.max_threshold.fill_(max(high, 0.0))

    def thresholds(self) -> tuple[Tensor, Tensor]:
        """Thresholds forced to low <= 0 <= high."""
        return self.min_threshold.detach().clamp_max(0.0), self.max_threshold.detach().clamp_min(0.0)

    def limits(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.thresholds()
        return super().limits(torch.minimum(torch.maximum(rows, low), high))

    def gradients(self, weight: Tensor, grad: Tensor) -> Tensor:
        low, high = self.thresholds()
        above, below = weight >= high, weight <= low
        _accumulate(self.max_threshold, (grad * above).sum())
        _accumulate(self.min_threshold, (grad * below).sum())
        return grad * ~(above | below)


class SymmetricMinMax(WeightQuantizer):
    """``PerChannelsSymMinMax``: largest magnitude per channel on the largest positive code, zero point 0."""

    def __init__(self, bits: int, channels: int) -> None:
        super().__init__(bits, channels, per_channel=True)

    def steps(self, rows: Tensor) -> Tensor:
        """Step per row, [R]."""
        high = weight_range(self.bits)[1]
        largest = rows.abs().amax(1)
        return ranges.fill_empty(largest / high, largest > 0, 1.0 / high)

    def scale_zero(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        scale = self.steps(rows).unsqueeze(1)
        return scale, torch.full_like(scale, -weight_range(self.bits)[0])


class LearnedSymmetric(SymmetricMinMax):
    """``PerChannelsSymMSE``: MSE-best steps, then learned (LSQ) on their logarithm."""

    def __init__(self, bits: int, channels: int) -> None:
        super().__init__(bits, channels)
        self.log_step = nn.Parameter(torch.zeros(channels))

    def reset(self, weight: Tensor) -> None:
        with torch.no_grad():
            self.log_step.copy_(ranges.symmetric_mse_steps(self.rows(weight.detach()), self.bits).log())

    def steps(self, rows: Tensor) -> Tensor:
        return self.log_step.detach().exp()

    def gradients(self, weight: Tensor, grad: Tensor) -> Tensor:
        codes, step, _ = self.codes(weight)
        low, high = weight_range(self.bits)
        rows, g = self.rows(weight), self.rows(grad)
        inside = (rows > low * step) & (rows < high * step)
        masked = g * inside
        scale = 1.0 / (rows.shape[1] * high) ** 0.5
        _accumulate(self.log_step, scale * ((g * codes * step).sum(1) - (masked * rows).sum(1)))
        return masked.reshape(grad.shape)


def _accumulate(parameter: nn.Parameter, grad: Tensor) -> None:
    grad = grad.detach().to(parameter.dtype).reshape(parameter.shape)
    parameter.grad = grad.clone() if parameter.grad is None else parameter.grad + grad


def make(quant_type: str, bits: int, channels: int) -> WeightQuantizer:
    """The quantizer called ``quant_type`` for ``channels`` output channels.

    Raises:
        UsageError: unknown type or bits.
    """
    if bits not in (8, 4, 2):
        raise UsageError(f"weight bits must be 8, 4 or 2, got {bits}")
    match quant_type:
        case "PerLayerAsymPACT":
            return PactWeights(bits, channels)
        case "PerLayerAsymMinMax":
            return WeightQuantizer(bits, channels, per_channel=False)
        case "PerChannelsAsymMinMax":
            return WeightQuantizer(bits, channels, per_channel=True)
        case "PerChannelsSymMinMax":
            return SymmetricMinMax(bits, channels)
        case "PerChannelsSymMSE":
            return LearnedSymmetric(bits, channels)
        case _:
            raise UsageError(f"quant_type must be one of {', '.join(QUANT_TYPES)}, got {quant_type!r}")
