"""The DoReFa family: weights are squashed by tanh and normalized to -1 .. 1 before they are rounded.

DoReFa (Zhou et al., 2016) in its symmetric form with zero; SAT (Jin et al., 2019) with the quantization modes of N2D2.
Quantized weights do not have the scale of the real ones: a batch norm behind them absorbs it, and where there is none
SAT divides by sqrt(Var * n_out * kh * kw).
"""

from __future__ import annotations

import torch
from torch import Tensor

from mcuq.quant.grid import Grid, centred_grid, symmetric_grid
from mcuq.quant.weights import WeightQuantizer


class TanhWeights(WeightQuantizer):
    """v = tanh(w) / max|tanh(w)| of the row, then the codes nearest to ``(gain * v + shift) / unit``.

    Attributes:
        unit: value of one code. fan: n_out * kh * kw when scales are adjusted, else 0.
        through_max: the gradient goes through the maximum too (DoReFa), instead of taking it as a constant (SAT).
    """

    rescales = True

    def __init__(
        self,
        grid: Grid,
        channels: int,
        *,
        per_channel: bool,
        unit: float,
        gain: float = 1.0,
        shift: float = 0.0,
        fan: int = 0,
        through_max: bool = False,
    ) -> None:
        super().__init__(grid, channels, per_channel=per_channel)
        self.unit, self.gain, self.shift = unit, gain, shift
        self.fan = fan
        self.through_max = through_max

    def _squashed(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(tanh of the rows, its largest magnitude per row [R, 1], 1 for rows of zeros)."""
        t = torch.tanh(rows)
        largest = t.abs().amax(1, keepdim=True)
        return t, torch.where(largest > 0, largest, torch.ones_like(largest))

    def _adjustment(self, levels: Tensor) -> Tensor:
        """What ``levels`` in -1 .. 1 are divided by: sqrt(Var * fan), a scalar; 1 without adjustment."""
        variance = levels.var() if self.fan and levels.numel() > 1 else levels.new_tensor(0.0)
        return torch.where(variance > 0, (variance * self.fan).sqrt(), torch.ones_like(variance))

    def real(self, weight: Tensor) -> Tensor:
        t, largest = self._squashed(self.rows(weight))
        v = t / largest
        return (v / self._adjustment(v)).reshape(weight.shape)

    def codes(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        t, largest = self._squashed(self.rows(weight))
        codes = self.grid.nearest((self.gain * (t / largest) + self.shift) / self.unit, self.grid.low, self.grid.high)
        scale = (self.unit / self._adjustment(codes * self.unit)).expand(len(codes), 1)
        return codes, scale, torch.full_like(scale, -self.grid.low)

    def gradients(self, weight: Tensor, grad: Tensor) -> Tensor:
        """dq * gain * sech^2(w) / (max * adjustment); the maximum's own derivative with ``through_max``."""
        rows, g = self.rows(weight), self.rows(grad)
        t, largest = self._squashed(rows)
        _, scale, _ = self.codes(weight)
        dv = g * self.gain * (scale / self.unit)
        dt = dv / largest
        if self.through_max:
            at = t.abs().argmax(1, keepdim=True)
            pull = (dv * t).sum(1, keepdim=True) / largest.square()
            dt = dt.scatter_add(1, at, -pull * torch.sign(t.gather(1, at)))
        return (dt * (1.0 - t.square())).reshape(grad.shape)


def make_tanh(rule: str, bits: int, steps: int | None, channels: int, *, per_channel: bool, fan: int) -> TanhWeights:
    """The quantizer of ``rule``: DoReFa, SATDefault, SATSymmetric, SATAsymmetric or SATFullRange.

    Without ``steps`` the levels are the most that ``bits`` store exactly.
    """
    n = (1 << bits) - (1 if rule == "SATAsymmetric" else 2) if steps is None else steps
    half = n // 2
    gain, shift = 1.0, 0.0
    if n == 1:  # one step has no zero in any mode
        grid, unit = centred_grid(1), 1.0
    elif rule in ("DoReFa", "SATSymmetric"):
        grid, unit = centred_grid(2 * half), 1.0 / half
    elif rule == "SATAsymmetric":
        grid, unit = symmetric_grid(n), 1.0 / half
        gain, shift = 1.0 + 0.5 / half, -0.5 / half
    else:
        grid = centred_grid(n)
        unit = 1.0 / grid.high
        gain = 1.0 + 0.9998 / n if rule == "SATFullRange" else 1.0
    return TanhWeights(
        grid,
        channels,
        per_channel=per_channel,
        unit=unit,
        gain=gain,
        shift=shift,
        fan=fan,
        through_max=rule == "DoReFa",
    )
