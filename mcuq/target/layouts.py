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

from mcuq.numerics import IntArray, code_range, common_shift, pack
from mcuq.target.layouts_dsp import HIGH_WORD_SHIFT, PANELS, normalized_scales, pack_nines, pack_panels
from mcuq.target.layouts_mve import HELIUM, NINES, pack_helium, pack_helium_nines


@dataclass(frozen=True, slots=True, eq=False)
class ChannelParameters:
    """What a layout with interleaved parameters needs besides codes; arrays [O] or [1] as in ``QConv2d``."""

    bias: NDArray[np.int32]
    multiplier: NDArray[np.int32]
    shift: NDArray[np.uint8]
    weight_zero_point: NDArray[np.int8]
    input_bits: int
    roundings: int = 1


def pack_weights(
    layout: str, codes: NDArray[Any], bits: int, parameters: ChannelParameters | None = None
) -> NDArray[np.uint8]:
    """Weight codes [O, kh, kw, I/groups] as the flat bytes of ``layout``, to be stored 4-byte aligned.

    rows: per output channel one packed row of kh*kw*(I/groups) codes, channels innermost.
    taps: per kernel tap one packed row of O codes (depthwise: I/groups is 1).
    segments: per output channel and kernel tap one packed row of I/groups codes.
    nines and the panels: see layouts_dsp; helium: see layouts_mve.

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
        case "segments":
            return pack(codes.reshape(-1, codes.shape[3]), bits).reshape(-1)
        case "nines":
            return pack_nines(flat.astype(np.int64), bits)
        case _:
            pass
    if parameters is None:
        raise ValueError(f"weight layout {layout!r} needs the channels' parameters")
    if layout in PANELS or layout in HELIUM or layout in NINES:
        return _panels(layout, codes, parameters)
    raise ValueError(f"unknown weight layout {layout!r}")


def _panels(layout: str, codes: NDArray[Any], p: ChannelParameters) -> NDArray[np.uint8]:
    channels = len(codes)
    flat = codes.reshape(channels, -1).astype(np.int64)
    zero, bias, multiplier, shift = (
        np.broadcast_to(np.asarray(a, np.int64), (channels,))
        for a in (p.weight_zero_point, p.bias, p.multiplier, p.shift)
    )
    bound = largest_accumulator(flat, zero, bias, p.input_bits)
    shared = layout in PANELS and PANELS[layout].direct and p.multiplier.size == 1
    one_shift = common_shift(shift)
    if not shared:
        multiplier, shift = normalized_scales(bound, multiplier, shift, p.roundings)
    if layout in NINES:
        return pack_helium_nines(layout, flat, zero, bias, multiplier, shift)
    if layout in HELIUM:
        return pack_helium(layout, flat, zero, bias, multiplier, shift)
    own = shift if PANELS[layout].shifts else None
    one_shift = HIGH_WORD_SHIFT if own is not None else one_shift
    if one_shift is None:
        raise ValueError(f"layout {layout}: channels have shifts {shift.min()}..{shift.max()}; one for all is allowed")
    return pack_panels(layout, flat, zero, bias, multiplier, one_shift, p.input_bits, shared=shared, shifts=own)


def largest_accumulator(codes: IntArray, zero: IntArray, bias: IntArray, input_bits: int) -> IntArray:
    """Per channel the largest |bias + sum x * (w - z)| that any input codes reach. codes [O, K]."""
    low, high = code_range(input_bits)
    centred = codes - zero.reshape(-1, 1)
    up, down = np.maximum(centred, 0).sum(axis=1), np.minimum(centred, 0).sum(axis=1)
    return np.maximum(np.abs(bias + high * up + low * down), np.abs(bias + low * up + high * down))
