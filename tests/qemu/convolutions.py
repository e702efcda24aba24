"""Grid cases of conv2d, depthwise and fully connected layers, of every combination of bits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from cases import Case, stored_shifts
from exact import Geometry, Ints, convolution_sums, pack_bytes, requantize, requantize_twice

from mcuq.ir.graph import Window
from mcuq.target.kernels import ConvCase, select

RANGES = {8: (-128, 127), 4: (0, 15), 2: (0, 3), 32: (-(2**31), 2**31 - 1)}
KERNELS = ((1, 1), (3, 3), (5, 5), (10, 4))
VECTORS = ("random", "random", "extremes", "one-hot", "lowest", "highest")
CHANNELS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 17)


@dataclass(frozen=True)
class Layer:
    """Shape of one convolution case; the rest of it is drawn from ``seed``.

    ``usual`` is the common kind of layer, for measuring: symmetric weights, scales per channel, shifts above 32.
    """

    input: tuple[int, int, int]
    outputs: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    padding: str  # "same" (TensorFlow's, asymmetric), "valid" or "torch" (kernel // 2 all around)
    input_bits: int
    weight_bits: int
    output_bits: int
    seed: int
    usual: bool = False
    shift: int | None = None
    """Smallest shift of the layer; multipliers are then small where outputs would only saturate."""
    roundings: int = 1


def draw(rng: np.random.Generator, shape: tuple[int, ...], lo: int, hi: int, kind: str) -> Ints:
    """Codes of one kind: random, only the two extremes, all equal to one, or one code away from a base."""
    match kind:
        case "random":
            return rng.integers(lo, hi + 1, shape)
        case "extremes":
            return rng.choice(np.array([lo, hi]), shape)
        case "lowest" | "highest":
            return np.full(shape, lo if kind == "lowest" else hi, dtype=np.int64)
        case "one-hot":
            codes = np.full(shape, max(lo, 0), dtype=np.int64)
            codes.reshape(-1)[rng.integers(codes.size)] = rng.choice([lo, hi, hi])
            return codes
        case _:
            raise ValueError(kind)


def pads(size: int, kernel: int, stride: int, dilation: int, padding: str) -> tuple[int, int, int]:
    """(before, after, output size) along one axis."""
    span = (kernel - 1) * dilation + 1
    match padding:
        case "same":
            out = -(-size // stride)
            total = max((out - 1) * stride + span - size, 0)
            return total // 2, total - total // 2, out
        case "torch":
            pad = span // 2
            return pad, pad, (size + 2 * pad - span) // stride + 1
        case _:
            return 0, 0, (size - span) // stride + 1


def multipliers(
    rng: np.random.Generator, count: int, magnitude: int, bits: int, usual: bool = False
) -> tuple[list[int], list[int]]:
    """Multipliers of both signs and shifts: mostly so that outputs spread over their range, some anywhere.

    Most layers have one shift, as lowering makes them; others one for every channel.
    """
    chosen: list[int] = []
    shifts: list[int] = []
    kind = 2 if usual else int(rng.integers(4))
    one_shift = kind > 1 or (kind == 0 and bool(rng.integers(2)))
    room = {8: 8, 4: 4, 2: 2, 32: 30}[bits]
    for channel in range(count):
        spread = 30 + max(1, int(magnitude).bit_length()) - room + int(rng.integers(0, 3))
        own = int(rng.integers(1, 56)) if kind == 0 else min(max(spread, 1), 55)
        shifts.append(shifts[0] if one_shift and channel else own)
        if kind == 0:
            chosen.append(int(rng.integers(-(2**31) + 1, 2**31)) if rng.integers(8) else 0)
        else:
            smaller = int(rng.choice((0, 0, 0, 1, 2, 9))) if one_shift and channel else 0
            chosen.append(int(rng.integers(2**30, 2**31) >> smaller) * (-1 if rng.integers(4) == 0 else 1))
    return chosen, shifts


def multipliers_from(rng: np.random.Generator, count: int, magnitude: int, bits: int, shift: int) -> list[int]:
    """Multipliers of both signs for shifts near ``shift``: outputs spread over their range, or saturate."""
    spread = max(1, min((1 << (shift + bits)) // magnitude, 2**31 - 1))
    size = [int(rng.integers(spread // 2, spread + 1)) if rng.integers(4) else 2**31 - 1 for _ in range(count)]
    return [max(m, 1) * (-1 if rng.integers(4) == 0 else 1) for m in size]


def full_multipliers(rng: np.random.Generator, count: int, magnitude: int) -> tuple[list[int], list[int]]:
    """Positive multipliers of 31 bits with shifts of their own that spread 8-bit outputs; a power of two makes ties."""
    spread = 30 + max(1, magnitude.bit_length()) - 8
    shifts = [min(max(spread + int(rng.integers(4)), 32 if rng.integers(16) else 1), 54) for _ in range(count)]
    chosen = [int(rng.choice((2**30, 2**31 - 1, int(rng.integers(2**30, 2**31))))) for _ in range(count)]
    return chosen, shifts


def to_boundaries(rng: np.random.Generator, sums: Ints, multiplier: list[int], shift: list[int]) -> Ints:
    """What takes every channel's sum to a boundary between two codes, where one and two roundings differ."""
    step = np.ldexp(1 / np.array(multiplier, np.float64), shift)
    return np.rint(step * (rng.integers(-60, 60, len(sums)) + 0.5)).astype(np.int64) - sums


def build(layer: Layer) -> Case:
    """The case of one layer: data, exact expected bytes, and scratch as kernel selection promises it."""
    rng = np.random.default_rng(layer.seed)
    height, width, channels = layer.input
    top, bottom, rows = pads(height, layer.kernel[0], layer.stride[0], layer.dilation[0], layer.padding)
    left, right, cols = pads(width, layer.kernel[1], layer.stride[1], layer.dilation[1], layer.padding)
    lo, hi = RANGES[layer.input_bits]
    w_lo, w_hi = -(1 << (layer.weight_bits - 1)), (1 << (layer.weight_bits - 1)) - 1
    weight_shape = (layer.outputs, *layer.kernel, channels // layer.groups)
    image = draw(rng, layer.input, lo, hi, str(rng.choice(VECTORS)))
    weights = draw(rng, weight_shape, w_lo, w_hi, str(rng.choice(VECTORS)))
    border = int(rng.integers(lo, hi + 1))
    zeros, stored_zeros = _weight_zeros(rng, layer, w_lo, w_hi)
    geometry = Geometry(layer.kernel, layer.stride, layer.dilation, (top, left), (rows, cols))
    largest_bias = 3000 if layer.shift is None else max(3000 >> (33 - layer.shift), 1)
    bias = rng.integers(-largest_bias, largest_bias + 1, layer.outputs)
    acc = convolution_sums(image, border, weights, zeros, geometry, layer.groups) + bias
    per_channel = layer.usual or bool(rng.integers(2))
    chosen, shifts = multipliers(rng, layer.outputs if per_channel else 1, int(np.abs(acc).max()), layer.output_bits)
    if layer.shift is not None:
        one_shift = bool(rng.integers(9))  # else one for every channel
        shifts = [layer.shift + (0 if one_shift else int(rng.integers(3)) * (i % 2)) for i in range(len(shifts))]
        chosen = multipliers_from(rng, len(shifts), int(np.abs(acc).max()) + 1, layer.output_bits, layer.shift)
    if layer.roundings == 2:
        chosen, shifts = full_multipliers(rng, len(shifts), int(np.abs(acc).max()))
        moved = to_boundaries(rng, acc[0, 0], chosen, shifts)
        bias, acc = bias + moved, acc + moved
    rounded = requantize if layer.roundings == 1 else requantize_twice
    zero, clamp = _output_range(rng, layer.output_bits)
    flat = acc.reshape(-1, layer.outputs)
    codes = [
        [rounded(int(a), chosen[o * per_channel], shifts[o * per_channel], zero, *clamp) for o, a in enumerate(row)]
        for row in flat
    ]
    conv = ConvCase(
        layer.input,
        (rows, cols, layer.outputs),
        weight_shape,
        Window(layer.kernel, layer.stride, (top, left, bottom, right), layer.dilation),
        layer.groups,
        layer.input_bits,
        layer.weight_bits,
        layer.output_bits,
        len(stored_zeros) > 0,
        per_channel,
        layer.roundings,
    )
    kernel = select(conv, "portable")
    shift, own_shifts = stored_shifts(shifts)
    taps_first = weights.transpose(1, 2, 3, 0) if kernel.layout == "taps" else weights.reshape(layer.outputs, -1)
    scalars = (
        *layer.input, layer.input_bits, rows, cols, layer.outputs, layer.output_bits,
        *layer.kernel, *layer.stride, *layer.dilation, top, left,
        layer.groups, per_channel, len(stored_zeros) > 1, border, zero, *clamp, shift,
    )  # fmt: skip
    buffers = (
        (1, pack_bytes(image, layer.input_bits)),
        (1, pack_bytes(taps_first, layer.weight_bits)),
        (4, pack_bytes(bias, 32)),
        (4, pack_bytes(np.array(chosen), 32)),
        own_shifts,
        (1, pack_bytes(stored_zeros, 8) if len(stored_zeros) else b""),
    )
    return Case(
        kernel.function,
        scalars,
        buffers,
        pack_bytes(np.array(codes), layer.output_bits),
        f"{kernel.function} {layer}",
        scratch=kernel.scratch_bytes,
        output_align=4 if layer.output_bits == 32 else 1,
        conv=conv,
        weights=weights,
    )


def _weight_zeros(rng: np.random.Generator, layer: Layer, lo: int, hi: int) -> tuple[Ints, Ints]:
    """Zero points [outputs], and as stored: none (symmetric), one, or one per output channel."""
    outputs = layer.outputs
    match 0 if layer.usual else int(rng.integers(3)):
        case 0:
            return np.zeros(outputs, dtype=np.int64), np.zeros(0, dtype=np.int64)
        case 1:
            one = rng.integers(lo, hi + 1, 1)
            return np.repeat(one, outputs), one
        case _:
            each = rng.integers(lo, hi + 1, outputs)
            return each, each


def _output_range(rng: np.random.Generator, bits: int) -> tuple[int, tuple[int, int]]:
    """Output zero point and clamp: the code range, or narrowed as by a fused ReLU or clip."""
    lo, hi = RANGES[bits]
    if bits == 32:
        return 0, (lo, hi)
    zero = int(rng.integers(lo, hi + 1))
    match int(rng.integers(3)):
        case 0:
            return zero, (lo, hi)
        case 1:
            return zero, (zero, hi)
        case _:
            low, high = sorted(int(v) for v in rng.integers(lo, hi + 1, 2))
            return zero, (low, high)


def _extent(rng: np.random.Generator, kernel: int, stride: int, dilation: int, padding: str) -> int:
    """An input size: at least the kernel's span without padding; with padding also smaller, down to 1 pixel."""
    if padding == "valid":
        return (kernel - 1) * dilation + 1 + int(rng.integers(0, 2 * stride + 1))
    return int(rng.integers(1, 7 if kernel > 1 else 5))


def layers(family: str, seed: int) -> Iterator[Layer]:
    """All layers of a family ("conv2d", "depthwise" or "fully_connected"), every combination of bits."""
    rng = np.random.default_rng(seed)
    outputs = (8, 4, 2) if family == "depthwise" else (8, 4, 2, 32)
    bits = tuple(itertools.product((8, 4, 2), (8, 4, 2), outputs))
    if family == "fully_connected":
        for (xb, wb, yb), channels in itertools.product(bits, CHANNELS):
            size = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
            seed = int(rng.integers(2**31))
            units = int(rng.choice(CHANNELS))
            yield Layer((*size, channels), units, size, (1, 1), (1, 1), 1, "valid", xb, wb, yb, seed)
        return
    for (xb, wb, yb), kernel, stride, padding in itertools.product(bits, KERNELS, (1, 2), ("same", "valid", "torch")):
        spread = int(rng.choice((1, 1, 2)))
        dilation = (spread, int(rng.choice((1, spread))))
        size = tuple(_extent(rng, k, stride, d, padding) for k, d in zip(kernel, dilation, strict=True))
        channels, filters, groups = _channels(rng, family)
        seed = int(rng.integers(2**31))
        yield Layer(
            (size[0], size[1], channels), filters, kernel, (stride, stride), dilation, groups, padding, xb, wb, yb, seed
        )


def _channels(rng: np.random.Generator, family: str) -> tuple[int, int, int]:
    """(input channels, output channels, groups)."""
    if family == "depthwise":
        channels = int(rng.choice(CHANNELS[1:]))
        return channels, channels, channels
    if rng.integers(3) == 0:  # groups of unequal input and output counts, also odd ones
        groups = int(rng.choice((2, 3)))
        depth = int(rng.choice((1, 2, 3, 5)))
        return groups * depth, groups * int(rng.integers(1 + (depth == 1), 5)), groups
    return int(rng.choice(CHANNELS)), int(rng.choice(CHANNELS)), 1


def convolution_cases(family: str, seed: int, every: int = 1) -> list[Case]:
    """Cases of one family; ``every`` keeps each n-th of them, all bit combinations still mixed."""
    return [build(layer) for layer in itertools.islice(layers(family, seed), 0, None, every)]
