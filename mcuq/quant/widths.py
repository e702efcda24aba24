"""Widths that calibration knows: 8, 4 and 2 bits as the device packs them, and 6 bits, stored in tensors of 8.

Six bits are the second width of CHaiDNN's accelerators: codes -32 .. 31 with zero point 0. On the device they are int8
codes whose clamp is narrower, so that every kernel serves them.
"""

from __future__ import annotations

from mcuq.ir.quantized import QuantParams
from mcuq.numerics import code_range, weight_range

SIX = (-32, 31)
WIDTHS = (8, 6, 4, 2)


def stored_bits(width: int) -> int:
    """Bits of the tensor that holds codes of ``width``."""
    return 8 if width == 6 else width


def activation_codes(width: int) -> tuple[int, int]:
    """Lowest and highest code of an activation."""
    return SIX if width == 6 else code_range(width)


def weight_codes(width: int) -> tuple[int, int]:
    """Lowest and highest code of a weight."""
    return SIX if width == 6 else weight_range(width)


def symmetric_params(width: int, scale: float, zero_point: int) -> QuantParams:
    """Parameters of a tensor of ``width`` on a symmetric grid."""
    return QuantParams(stored_bits(width), scale, zero_point, SIX if width == 6 else None)


def width_of(params: QuantParams) -> int:
    """The width that :func:`symmetric_params` was given; for others the bits."""
    return 6 if params.codes == SIX else params.bits


def used_codes(params: QuantParams) -> tuple[int, int]:
    """Lowest and highest code that a tensor uses."""
    return params.codes or code_range(params.bits)
