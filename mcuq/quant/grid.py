"""Weight codes: any number of levels, and the 2, 4 or 8 bits that store them.

A range of n steps has n + 1 levels (N2D2's ``Range``): 1 is binary, 2 ternary, 255 eight bits. Codes are integers
relative to the zero point, and weights are ``scale * code``. Levels that lie symmetric about zero without holding it
are the odd integers -n, -n + 2 .. n; they need a bit more than their count tells (16 such levels take 8 bits).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mcuq.errors import UsageError
from mcuq.numerics import weight_range
from mcuq.quant.rounding import round_half_up

LARGEST_RANGE = 255
STORED_BITS = (2, 4, 8)


@dataclass(frozen=True, slots=True)
class Grid:
    """``steps`` + 1 codes ``low``, ``low + stride`` ..; with ``free`` the zero point is chosen and ``low`` 0 to -steps.

    Attributes:
        bits: of storage, the least of 2, 4 and 8 that hold every code.
    """

    steps: int
    low: int
    stride: int = 1
    free: bool = False

    @property
    def high(self) -> int:
        return self.low + self.stride * self.steps

    @property
    def bits(self) -> int:
        for bits in STORED_BITS:
            first, last = weight_range(bits)
            if self.steps <= last - first if self.free else first <= self.low and self.high <= last:
                return bits
        raise UsageError(
            f"range {self.steps} makes the codes {self.low}, {self.low + self.stride} .. {self.high}, the device "
            f"stores -128 .. 127; take range {self.steps - 1} (even ones fit), one of at most 127, or symmetric or "
            "asymmetric levels"
        )

    def nearest(self, values: Tensor, low: Tensor | int, high: Tensor | int) -> Tensor:
        """The codes nearest to real ``values`` within ``low`` .. ``high``; halves go up."""
        codes = round_half_up(values) if self.stride == 1 else torch.floor(values / 2).mul_(2).add_(1)
        if isinstance(low, Tensor) or isinstance(high, Tensor):
            return torch.minimum(torch.maximum(codes, torch.as_tensor(low)), torch.as_tensor(high))
        return codes.clamp_(low, high)


def free_grid(steps: int) -> Grid:
    """Codes about a free zero point."""
    return Grid(_checked(steps), 0, free=True)


def symmetric_grid(steps: int) -> Grid:
    """-n/2 .. n/2 for even n, -(n+1)/2 .. (n-1)/2 for odd n (two's complement); -1 and 1 for n = 1."""
    if _checked(steps) == 1:
        return centred_grid(1)
    return Grid(steps, -((steps + 1) // 2))


def centred_grid(steps: int) -> Grid:
    """As many codes on either side: -n/2 .. n/2 for even n, the odd integers -n .. n for odd n."""
    return Grid(steps, -steps, 2) if _checked(steps) % 2 else Grid(steps, -(steps // 2))


def _checked(steps: int) -> int:
    if isinstance(steps, bool) or not 1 <= steps <= LARGEST_RANGE:
        raise UsageError(f"a range of {steps} steps; 1 (binary) to {LARGEST_RANGE} are allowed")
    return steps
