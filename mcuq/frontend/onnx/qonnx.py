"""QONNX (fastmachinelearning): Quant, BipolarQuant and Trunc nodes of models trained with few bits.

``Quant(x, scale, zero point, bit width)`` is a float tensor on an integer grid. Weights keep their codes in the
next width that the device packs (2, 4 or 8 bits), activations too, with the codes that the bit width holds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mcuq.frontend.builder import Coded, Constant
from mcuq.frontend.onnx.translate import Handlers, Node, Translator, Value
from mcuq.frontend.views import Refusal, View
from mcuq.ir import graph as ir
from mcuq.ir.quantized import QuantParams

DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
WIDEST_BIAS = 32


def quant(t: Translator, node: Node) -> Value:
    """(x, scale, zero point, bit width); attributes signed, narrow, rounding_mode."""
    scale, zero, width = (_numbers(node, position) for position in (1, 2, 3))
    bits, signed, narrow = int(width.flat[0]), bool(node.get("signed", 1)), bool(node.get("narrow", 0))
    if width.size != 1 or bits != width.flat[0] or not 1 <= bits <= WIDEST_BIAS:
        raise Refusal(f"a bit width of {width.ravel()[:4].tolist()}; whole ones of 1 to {WIDEST_BIAS} are supported")
    if np.any(scale <= 0) or np.any(zero != np.round(zero)) or np.abs(zero).max() > 2**31:
        raise Refusal("scales have to be positive and zero points whole numbers")
    low, high = (-(1 << (bits - 1)) + narrow, (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1 - narrow)
    if isinstance(node.inputs[0], View):
        return t.builder.quantize(node.view(0), _params(t, node, scale, zero, bits, (low, high)), node.where)
    stored = _on_grid(node, scale, zero)
    codes = np.clip(np.rint(stored.value / scale + zero), low, high)
    return _coded(stored, codes, scale, zero, bits, signed)


def bipolar(t: Translator, node: Node) -> Value:
    """(x, scale): sign(x) * scale, for weights; zero counts as positive."""
    scale = _numbers(node, 1)
    if isinstance(node.inputs[0], View):
        raise Refusal("activations of one bit have no code for zero; use Quant with 2 bits")
    stored = _on_grid(node, scale)
    return _coded(stored, np.where(stored.value >= 0, 1.0, -1.0), scale, np.zeros(1), 2, signed=True)


def trunc(t: Translator, node: Node) -> Value:
    raise Refusal("drops low bits of a sum; export average pools instead of sums, and Quant behind them")


def _numbers(node: Node, position: int) -> NDArray[np.float64]:
    array = np.asarray(node.required(position).value, dtype=np.float64)
    if not array.size or not np.isfinite(array).all():
        raise Refusal(f"input {position} has to be finite numbers")
    return array


def _on_grid(node: Node, *grid: NDArray[np.float64]) -> Constant:
    """The constant that is quantized; scales and zero points must fit its shape, lest they enlarge it."""
    stored, shapes = node.required(0), [part.shape for part in grid]
    try:
        fits = np.broadcast_shapes(stored.value.shape, *shapes) == stored.value.shape
    except ValueError:
        fits = False
    if not fits:
        raise Refusal(f"scales of shape {shapes[0]} do not fit a constant of shape {stored.value.shape}")
    return stored


def _params(
    t: Translator,
    node: Node,
    scale: NDArray[np.float64],
    zero: NDArray[np.float64],
    bits: int,
    codes: tuple[int, int],
) -> QuantParams:
    """Stored parameters of an activation; the network's input always takes 8 bits."""
    if scale.size != 1 or zero.size != 1 or not 2 <= bits <= 8:
        raise Refusal(f"activations of {bits} bits with {scale.size} scales; one scale and 2 to 8 bits are supported")
    is_input = isinstance(t.builder.ops[node.view(0).op], ir.Input)
    stored = 8 if is_input else next(width for width in (2, 4, 8) if bits <= width)
    low, high = codes
    offset = -128 if stored == 8 and high > 127 else 0 if stored == 8 or low == 0 else 1 << (stored - 1)
    used, zero_point = (low + offset, high + offset), int(zero.flat[0]) + offset
    if not used[0] <= zero_point <= used[1]:
        raise Refusal(f"zero point {int(zero.flat[0])} is outside the codes {low}..{high}")
    whole = used == ((-128, 127) if stored == 8 else (0, (1 << stored) - 1))
    return QuantParams(stored, float(scale.flat[0]), zero_point, None if whole else used)


def _coded(
    stored: Constant,
    codes: NDArray[np.float64],
    scale: NDArray[np.float64],
    zero: NDArray[np.float64],
    bits: int,
    signed: bool,
) -> Constant:
    """A constant on its grid, with codes where it is narrow enough for weights and has scales along one axis."""
    real = scale * (codes - zero)
    along = [axis for axis, size in enumerate((1,) * (codes.ndim - scale.ndim) + scale.shape) if size > 1]
    if bits > 8 or len(along) > 1 or zero.size not in (1, scale.size):
        return Constant(real, stored.name)
    width = next(width for width in (2, 4, 8) if bits <= width)
    shift = 0 if signed or bits < width else 1 << (width - 1)
    points = np.broadcast_to(zero.ravel(), (scale.size,)).astype(np.int64) - shift
    if np.any(np.abs(points) > 128):
        return Constant(real, stored.name)
    coded = Coded(codes.astype(np.int64) - shift, width, scale.ravel().copy(), points, along[0] if along else 0)
    return Constant(real, stored.name, coded)


HANDLERS: Handlers = {"Quant": quant, "BipolarQuant": bipolar, "Trunc": trunc}
