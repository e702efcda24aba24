"""Grid cases of transposed convolutions: every combination of bits, strides, dilations, groups and paddings."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from cases import Case, stored_shifts
from convolutions import CHANNELS, RANGES, VECTORS, draw, multipliers
from exact import Geometry, Ints, convolution_sums, pack_bytes, requantize

from mcuq.ir.graph import Window
from mcuq.target.kernels import ConvCase, select


def transposed_cases(rng: np.random.Generator) -> Iterator[Case]:
    bits = itertools.product((8, 4, 2), (8, 4, 2), (8, 4, 2, 32))
    kinds = itertools.product(((2, 2), (3, 3), (4, 3)), ((2, 2), (3, 1), (2, 3)))
    for (x_bits, w_bits, y_bits), (kernel, stride) in itertools.product(bits, kinds):
        groups = int(rng.choice((1, 1, 2)))
        depth, filters = int(rng.choice(CHANNELS)), int(rng.choice(CHANNELS))
        dilation = (int(rng.choice((1, 1, 2))), int(rng.choice((1, 1, 2))))
        size = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
        yield _case(
            rng, (*size, depth * groups), filters * groups, kernel, stride, dilation, groups, x_bits, w_bits, y_bits
        )


def _case(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    outputs: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    x_bits: int,
    w_bits: int,
    y_bits: int,
) -> Case:
    image = draw(rng, shape, *RANGES[x_bits], str(rng.choice(VECTORS)))
    border = int(rng.integers(RANGES[x_bits][0], RANGES[x_bits][1] + 1))
    spread = [(n - 1) * s + 1 for n, s in zip(shape[:2], stride, strict=True)]
    wide: Ints = np.full((*spread, shape[2]), border, dtype=np.int64)
    wide[:: stride[0], :: stride[1]] = image
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    before = [int(rng.integers(0, span)) for span in spans]
    after = [int(rng.integers(max(0, s - n - b), s)) for s, n, b in zip(spans, spread, before, strict=True)]
    rows, cols = (n + b + a - s + 1 for n, b, a, s in zip(spread, before, after, spans, strict=True))
    half = 1 << (w_bits - 1)
    weights = draw(rng, (outputs, *kernel, shape[2] // groups), -half, half - 1, str(rng.choice(VECTORS)))
    asymmetric = int(rng.integers(3))
    stored = rng.integers(-half, half, (0, 1, outputs)[asymmetric])
    zeros = np.broadcast_to(stored if asymmetric else np.zeros(1, dtype=np.int64), (outputs,))
    bias = rng.integers(-3000, 3001, outputs)
    geometry = Geometry(kernel, (1, 1), dilation, (before[0], before[1]), (rows, cols))
    acc = convolution_sums(wide, border, weights, zeros, geometry, groups) + bias
    per_channel = bool(rng.integers(2))
    chosen, shifts = multipliers(rng, outputs if per_channel else 1, int(np.abs(acc).max()), y_bits)
    zero = 0 if y_bits == 32 else int(rng.integers(RANGES[y_bits][0], RANGES[y_bits][1] + 1))
    codes = [
        [requantize(int(a), chosen[o * per_channel], shifts[o * per_channel], zero, *RANGES[y_bits])
         for o, a in enumerate(row)]
        for row in acc.reshape(-1, outputs)
    ]  # fmt: skip
    window = Window(kernel, (1, 1), (before[0], before[1], after[0], after[1]), dilation, stride)
    conv = ConvCase(
        shape, (rows, cols, outputs), weights.shape, window, groups, x_bits, w_bits, y_bits,  # type: ignore[arg-type]
        asymmetric > 0, per_channel,
    )  # fmt: skip
    chosen_kernel = select(conv, "portable")
    shift, own_shifts = stored_shifts(shifts)
    scalars = (
        *shape, x_bits, rows, cols, outputs, y_bits, *kernel, *stride, *dilation, *before,
        groups, per_channel, len(stored) > 1, border, zero, *RANGES[y_bits], shift,
    )  # fmt: skip
    buffers = (
        (1, pack_bytes(image, x_bits)),
        (1, pack_bytes(weights.reshape(-1, weights.shape[3]), w_bits)),
        (4, pack_bytes(bias, 32)),
        (4, pack_bytes(np.array(chosen), 32)),
        own_shifts,
        (1, pack_bytes(stored, 8) if asymmetric else b""),
    )
    return Case(
        chosen_kernel.function,
        scalars,
        buffers,
        pack_bytes(np.array(codes), y_bits),
        f"{chosen_kernel.function} {shape}->{(rows, cols, outputs)} {kernel} {stride} {dilation} groups {groups}",
        scratch=chosen_kernel.scratch_bytes,
        output_align=4 if y_bits == 32 else 1,
        conv=conv,
        weights=weights,
    )
