"""Values as C text, checked against the width of the field they go to."""

from __future__ import annotations

from mcuq.errors import UnsupportedError
from mcuq.ir.graph import Window
from mcuq.ir.integer import QTensor
from mcuq.numerics import INT32_MAX, INT32_MIN, Affine

_FIELD_RANGES = {"uint8_t": (0, 255), "uint16_t": (0, 65535), "int16_t": (-32768, 32767)}

Fields = list[tuple[str, str]]
"""Designated initializers: member and value."""


def number(value: int, c_type: str, what: str) -> str:
    """``value`` as an initializer of a ``c_type`` member.

    Raises:
        UnsupportedError: the runtime's field cannot hold it; ``what`` names layer and quantity.
    """
    lo, hi = _FIELD_RANGES[c_type]
    if not lo <= value <= hi:
        raise UnsupportedError(f"{what} is {value}, but the runtime holds {lo}..{hi}; change the model")
    return str(value)


def int32(value: int) -> str:
    """An int32 literal; the limits by name, because -2147483648 is not an int in C."""
    if value == INT32_MIN:
        return "INT32_MIN"
    return "INT32_MAX" if value == INT32_MAX else str(value)


def braces(fields: Fields) -> str:
    """``{.a = 1, .b = 2}``."""
    return "{" + ", ".join(f".{name} = {value}" for name, value in fields) + "}"


def shape(tensor: QTensor, layer: str) -> str:
    """Initializer of an ``mcuq_shape``."""
    names = ("height", "width", "channels")
    fields = [
        (name, number(value, "uint16_t", f"{name} of layer {layer}"))
        for name, value in zip(names, tensor.shape, strict=True)
    ]
    return braces([*fields, ("bits", str(tensor.bits))])


def window(value: Window, layer: str) -> str:
    """Initializer of an ``mcuq_window``."""
    stride = value.input_dilation if value.transposed else value.stride  # of a transposed convolution
    pairs = (("kernel", value.kernel), ("stride", stride), ("dilation", value.dilation))
    numbers = [(f"{name}_{axis}", pair[i]) for name, pair in pairs for i, axis in enumerate(("height", "width"))]
    numbers += [("pad_top", value.padding[0]), ("pad_left", value.padding[1])]
    return braces([(name, number(entry, "uint8_t", f"{name} of layer {layer}")) for name, entry in numbers])


def affine(value: Affine) -> str:
    """Initializer of an ``mcuq_affine`` (one input)."""
    return braces(
        [
            ("multiplier", int32(value.multipliers[0])),
            ("constant", int32(value.constant)),
            ("shift", str(value.shift)),
        ]
    )


def clamp(value: tuple[int, int]) -> Fields:
    return [("clamp_lo", int32(value[0])), ("clamp_hi", int32(value[1]))]
