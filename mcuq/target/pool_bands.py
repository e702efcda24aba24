"""Pools by bands: which rows of its input a band of a pool's output rows needs, and how many are held at once."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from mcuq.ir.graph import Window


@dataclass(frozen=True, slots=True)
class Bands:
    """``count`` bands of ``pool_rows`` output rows each, over an input of ``height`` rows.

    Attributes:
        step: input rows from the first row of a band to that of the next.
        span: input rows from a band's first tap to its last.
        top: rows of padding above.
    """

    count: int
    pool_rows: int
    step: int
    span: int
    top: int
    height: int

    def first(self, band: int) -> int:
        """First input row of ``band`` inside the input."""
        return max(band * self.step - self.top, 0)

    def end(self, band: int) -> int:
        """The row behind the last one of ``band`` inside the input."""
        return min(max(band * self.step - self.top + self.span, 0), self.height)

    def computed(self, band: int) -> range:
        """Input rows that no band before needed; rows between bands are never computed."""
        done = self.end(band - 1) if band else 0
        return range(max(self.first(band), done), max(self.end(band), done))

    @property
    def rows(self) -> int:
        """Rows that come into being at once: the most that divide what every band needs."""
        return gcd(*(len(self.computed(band)) for band in range(self.count)))

    @property
    def held(self) -> int:
        """Most rows in use at once."""
        return max(self.end(band) - self.first(band) for band in range(self.count))


def bands_of(window: Window, height: int, pooled: int) -> tuple[Bands, ...]:
    """Every way to cut ``pooled`` output rows of a pool over ``height`` rows into at least two equal bands."""
    reach = (window.kernel[0] - 1) * window.dilation[0] + 1
    found: list[Bands] = []
    for rows in range(1, pooled):
        if pooled % rows == 0:
            step = rows * window.stride[0]
            span = step - window.stride[0] + reach
            found.append(Bands(pooled // rows, rows, step, span, window.padding[0], height))
    return tuple(bands for bands in found if all(bands.end(k) > bands.first(k) for k in range(bands.count)))
