"""Weights as the kernels read them: the one place that orders and packs weight codes.

Layouts of the portable kernels hold weight codes only. Layouts of faster families interleave each block of
weights with its channels' bias, multiplier and shift (``Kernel.packs_parameters``), scaled to the bit position
the block's products are accumulated at; ``docs/kernels.md`` draws them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcuq.numerics import pack


@dataclass(frozen=True, slots=True, eq=False)
class ChannelParameters:
    """What a layout with interleaved parameters needs besides codes; arrays [O] or [1] as in ``QConv2d``."""

    bias: NDArray[np.int32]
    multiplier: NDArray[np.int32]
    shift: NDArray[np.uint8]
    weight_zero_point: NDArray[np.int8]
    input_bits: int


def pack_weights(
    layout: str, codes: NDArray[Any], bits: int, parameters: ChannelParameters | None = None
) -> NDArray[np.uint8]:
    """Weight codes [O, kh, kw, I/groups] as the flat bytes of ``layout``, to be stored 4-byte aligned.

    rows: per output channel one packed row of kh*kw*(I/groups) codes, channels innermost.
    taps: per kernel tap one packed row of O codes (depthwise: I/groups is 1).

    Args:
        parameters: needed by the layouts of kernels with ``packs_parameters``, ignored by the others.

    Raises:
        ValueError: unknown layout, or missing parameters.
    """
    flat = codes.reshape(codes.shape[0], -1)
    match layout:
        case "rows":
            return pack(flat, bits).reshape(-1)
        case "taps":
            return pack(flat.T, bits).reshape(-1)
        case _:
            pass
    if parameters is None:
        raise ValueError(f"weight layout {layout!r} needs the channels' parameters")
    raise ValueError(f"unknown weight layout {layout!r}")
