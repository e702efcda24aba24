"""Forms that requantization factors may be restricted to.

The device multiplies every accumulator by ``multiplier / 2^shift`` (docs/NUMERICS.md). "exact" rounds a factor to a
multiplier of 31 bits. The other forms are those of accelerators and of earlier tools; each of their factors is one of
the device's too (those of more than 31 bits are rounded to 31), so a restricted layer runs on the same integer operator
and only its factors are coarser.

=================  ============================================  ==========================================
form               factor                                        largest relative error of a factor f
=================  ============================================  ==========================================
exact              m / 2^s, 2^30 <= m < 2^31                     2^-31 of the layer's largest factor
mantissa16         m / 2^s, 2^14 <= m < 2^15                     2^-15
fixed16, fixed32   m / 2^16, m / 2^32                            2^-17 / f, 2^-33 / f
single-shift       2^-k                                          1/3
double-shift       2^-b + 2^-a or 2^-b                           1/7
fixed<B,I>         m / 2^(B-I), m of B bits, saturated           2^-(B-I+1) / f
=================  ============================================  ==========================================

The fixed and shift forms are those of the fused export of N2D2 (CEA-LIST); ``fixed<B,I>``, B bits of which I are the
integer part, is the ``ap_fixed`` of high-level synthesis.
"""

from __future__ import annotations

import re

import numpy as np

from mcuq.errors import UsageError
from mcuq.ir.graph import FloatArray

SCALINGS = ("exact", "mantissa16", "fixed16", "fixed32", "single-shift", "double-shift", "fixed<B,I>")


def check_scaling(form: str) -> None:
    """Raises UsageError when there is no such form."""
    if form not in SCALINGS[:-1]:
        _fixed(form)


def restricted(factors: FloatArray, form: str) -> FloatArray:
    """``factors`` rounded to ``form``; float64 holds every result but those of "exact", which stay as they are.

    Raises:
        UsageError: no such form.
    """
    match form:
        case "exact":
            return factors
        case "mantissa16":
            fraction, exponent = np.frexp(factors)
            return np.ldexp(_rounded(fraction, 15), exponent)
        case "fixed16" | "fixed32":
            return _rounded(factors, int(form[5:]))
        case "single-shift":
            return _nearest(factors, (1.0, 2.0))
        case "double-shift":
            return _nearest(factors, (1.0, *(1.0 + 2.0**-k for k in range(1, 24)), 2.0))
        case _:
            bits, fraction = _fixed(form)
            top = 2.0 ** (bits - 1)
            return np.clip(_rounded(factors, fraction), -top / 2.0**fraction, (top - 1) / 2.0**fraction)


def _rounded(factors: FloatArray, fraction: int) -> FloatArray:
    """Half up in magnitude, as the device's multipliers are."""
    return np.sign(factors) * np.ldexp(np.floor(np.ldexp(np.abs(factors), fraction) + 0.5), -fraction)


def _nearest(factors: FloatArray, mantissas: tuple[float, ...]) -> FloatArray:
    """The nearest ``mantissa * 2^k``; ``mantissas`` span 1 to 2. Zero stays zero."""
    fraction, exponent = np.frexp(np.abs(factors))
    choices = np.array(mantissas)
    best = choices[np.abs(2 * fraction[..., None] - choices).argmin(axis=-1)]
    return np.where(factors == 0, 0.0, np.sign(factors) * np.ldexp(best, exponent - 1))


def _fixed(form: str) -> tuple[int, int]:
    """(bits, fractional bits) of ``fixed<B,I>``. Raises UsageError."""
    found = re.fullmatch(r"fixed<(\d+),(\d+)>", form.replace(" ", ""))
    if found is None:
        raise UsageError(f"scaling must be one of {', '.join(SCALINGS)} (for example fixed<32,10>), got {form!r}")
    bits, integer = int(found[1]), int(found[2])
    if not (2 <= bits <= 32 and 1 <= integer <= bits):
        raise UsageError(f"scaling {form}: B bits of 2..32 and an integer part I of 1..B bits are allowed")
    return bits, bits - integer
