"""Grid cases of every operator that is not a convolution."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
from cases import Case
from convolutions import CHANNELS, KERNELS, RANGES, VECTORS, draw, multipliers, pads
from exact import (
    Geometry,
    Ints,
    average_sums,
    blend,
    l2_normalize,
    max_pool,
    pack_bytes,
    requantize,
    rescale,
    softmax,
)
from transposed import transposed_cases

BITS = (8, 4, 2)


def _image(rng: np.random.Generator, shape: tuple[int, ...], bits: int) -> Ints:
    return draw(rng, shape, *RANGES[bits], str(rng.choice(VECTORS)))


def _size(rng: np.random.Generator, limit: int = 5) -> tuple[int, int]:
    return int(rng.integers(1, limit)), int(rng.integers(1, limit))


def _channels(rng: np.random.Generator) -> int:
    """Odd counts, and some beyond the kernels' chunk of 32."""
    return int(rng.choice((*CHANNELS, 31, 32, 33, 70)))


def _clamp(rng: np.random.Generator, bits: int) -> tuple[int, int]:
    lo, hi = RANGES[bits]
    if rng.integers(2):
        return lo, hi
    low, high = sorted(int(v) for v in rng.integers(lo, hi + 1, 2))
    return low, high


def _affine(rng: np.random.Generator, bits: tuple[int, ...], out_bits: int) -> tuple[list[int], int, int]:
    """(multipliers, constant, shift): the output spreads over its range, no partial sum leaves int32."""
    if rng.integers(8) == 0 and bits == (out_bits,):
        return [1], 0, 0
    span = sum(max(abs(v) for v in RANGES[b]) for b in bits)
    ratio = (1 << out_bits) / span * float(rng.uniform(0.3, 1.5))
    for shift in range(24, 0, -1):
        factors = [math.floor(ratio * float(rng.uniform(0.5, 1.0)) * 2**shift) for _ in bits]
        factors = [-f if rng.integers(6) == 0 else f for f in factors]
        constant = (int(rng.integers(*RANGES[out_bits])) << shift) + (1 << (shift - 1))
        bound = abs(constant) + sum(abs(f) * max(map(abs, RANGES[b])) for f, b in zip(factors, bits, strict=True))
        if bound < 2**31:
            return factors, constant, shift
    raise AssertionError("no shift fits int32")


def _rescaled(images: tuple[Ints, ...], factors: list[int], constant: int, shift: int, clamp: tuple[int, int]) -> Ints:
    total = sum(image * factor for image, factor in zip(images, factors, strict=True))
    flat = [rescale(int(t), constant, shift, *clamp) for t in np.asarray(total).reshape(-1)]
    return np.array(flat, dtype=np.int64).reshape(images[0].shape)


def _fits_in_place(channels: int, source_bits: int, out_bits: int) -> bool:
    return (channels * out_bits + 7) // 8 <= (channels * source_bits + 7) // 8


def add_cases(rng: np.random.Generator) -> Iterator[Case]:
    for (a_bits, b_bits, bits), _ in itertools.product(itertools.product(BITS, repeat=3), range(8)):
        shape = (*_size(rng), _channels(rng))
        a, b = _image(rng, shape, a_bits), _image(rng, shape, b_bits)
        factors, constant, shift = _affine(rng, (a_bits, b_bits), bits)
        clamp = _clamp(rng, bits)
        in_place = bool(rng.integers(2)) and _fits_in_place(shape[2], a_bits, bits)
        yield Case(
            "mcuq_add",
            (*shape, bits, a_bits, b_bits, shift, *factors, constant, *clamp),
            ((1, pack_bytes(a, a_bits)), (1, pack_bytes(b, b_bits))),
            pack_bytes(_rescaled((a, b), factors, constant, shift, clamp), bits),
            f"add {shape} bits {a_bits}+{b_bits}->{bits} in_place={in_place}",
            in_place=in_place,
        )


def rescale_cases(rng: np.random.Generator) -> Iterator[Case]:
    for (x_bits, bits), _ in itertools.product(itertools.product(BITS, repeat=2), range(16)):
        shape = (*_size(rng), _channels(rng))
        x = _image(rng, shape, x_bits)
        factors, constant, shift = _affine(rng, (x_bits,), bits)
        clamp = _clamp(rng, bits)
        in_place = bool(rng.integers(2)) and _fits_in_place(shape[2], x_bits, bits)
        yield Case(
            "mcuq_rescale_copy",
            (*shape, x_bits, *shape, bits, *factors, constant, shift, *clamp),
            ((1, pack_bytes(x, x_bits)),),
            pack_bytes(_rescaled((x,), factors, constant, shift, clamp), bits),
            f"rescale {shape} bits {x_bits}->{bits} in_place={in_place}",
            in_place=in_place,
        )


def pad_cases(rng: np.random.Generator) -> Iterator[Case]:
    for (x_bits, bits), _ in itertools.product(itertools.product(BITS, repeat=2), range(10)):
        shape = (*_size(rng), _channels(rng))
        top, left, bottom, right = (int(v) for v in rng.integers(0, 4, 4))
        x = _image(rng, shape, x_bits)
        factors, constant, shift = _affine(rng, (x_bits,), bits)
        clamp = _clamp(rng, bits)
        zero = int(rng.integers(RANGES[bits][0], RANGES[bits][1] + 1))
        inner = _rescaled((x,), factors, constant, shift, clamp)
        padded = np.pad(inner, ((top, bottom), (left, right), (0, 0)), constant_values=zero)
        yield Case(
            "mcuq_pad",
            (*shape, x_bits, *padded.shape, bits, top, left, zero, *factors, constant, shift, *clamp),
            ((1, pack_bytes(x, x_bits)),),
            pack_bytes(padded, bits),
            f"pad {shape} by {(top, left, bottom, right)} bits {x_bits}->{bits}",
        )


def concat_cases(rng: np.random.Generator) -> Iterator[Case]:
    """Inputs written in any order; where its bits allow, the first one written lies in the output's place."""
    for bits, count, kept in itertools.product(BITS, (1, 2, 3, 4), range(10)):
        size = _size(rng)
        clamp = _clamp(rng, bits)
        parts: list[Ints] = []
        buffers: list[tuple[int, bytes]] = []
        own: list[tuple[int, ...]] = []
        for _ in range(count):
            x_bits, channels = int(rng.choice(BITS)), _channels(rng)
            x = _image(rng, (*size, channels), x_bits)
            factors, constant, shift = ([1], 0, 0) if x_bits == bits and kept < 3 else _affine(rng, (x_bits,), bits)
            parts.append(_rescaled((x,), factors, constant, shift, clamp))
            buffers.append((1, pack_bytes(x, x_bits)))
            own.append((channels, x_bits, *factors, constant, shift, sum(row[0] for row in own)))
        expected = pack_bytes(np.concatenate(parts, axis=2), bits)
        order = [int(k) for k in rng.permutation(count)]
        in_place = bool(rng.integers(2)) and own[order[0]][1] <= bits
        moved = [buffers[k] for k in order]
        if in_place:  # room for the output behind the input
            moved[0] = (1, moved[0][1] + rng.bytes(len(expected) - len(moved[0][1])))
        yield Case(
            "mcuq_concat",
            (*size, sum(row[0] for row in own), bits, *clamp, count, *(n for k in order for n in own[k])),
            tuple(moved),
            expected,
            f"concat {[p.shape for p in parts]} bits {[row[1] for row in own]}->{bits} {order} in_place={in_place}",
            in_place=in_place,
        )


def _pool_geometry(
    rng: np.random.Generator, kernel: tuple[int, int], stride: int, padding: str, dilated: bool
) -> tuple[tuple[int, int], Geometry]:
    """Input size and geometry; PyTorch and TensorFlow pad a pool by at most half its kernel."""
    spread = 2 if dilated and padding == "valid" and rng.integers(3) == 0 else 1
    size: list[int] = []
    before: list[int] = []
    out: list[int] = []
    for k in kernel:
        extent = (k - 1) * spread + 1 + int(rng.integers(0, 4))
        lead, _, positions = pads(extent, k, stride, spread, padding)
        if padding == "torch":
            lead = k // 2
            positions = (extent + 2 * lead - k) // stride + 1
        size.append(extent)
        before.append(lead)
        out.append(positions)
    geometry = Geometry(kernel, (stride, stride), (spread, spread), (before[0], before[1]), (out[0], out[1]))
    return (size[0], size[1]), geometry


def _window(g: Geometry) -> tuple[int, ...]:
    return (*g.kernel, *g.stride, *g.dilation, *g.pad)


def max_pool_cases(rng: np.random.Generator) -> Iterator[Case]:
    pairs = itertools.product(itertools.product(BITS, repeat=2), (*KERNELS, (2, 2)), (1, 2), ("same", "valid", "torch"))
    for (x_bits, bits), kernel, stride, padding in pairs:
        size, g = _pool_geometry(rng, kernel, stride, padding, dilated=True)
        shape = (*size, _channels(rng))
        x = _image(rng, shape, x_bits)
        factors, constant, shift = _affine(rng, (x_bits,), bits)
        clamp = _clamp(rng, bits)
        y = _rescaled((max_pool(x, g),), factors, constant, shift, clamp)
        yield Case(
            "mcuq_max_pool",
            (*shape, x_bits, *y.shape, bits, *_window(g), *factors, constant, shift, *clamp),
            ((1, pack_bytes(x, x_bits)),),
            pack_bytes(y, bits),
            f"max_pool {shape} {g} bits {x_bits}->{bits}",
        )


def avg_pool_cases(rng: np.random.Generator) -> Iterator[Case]:
    pairs = itertools.product(itertools.product(BITS, repeat=2), (*KERNELS, (2, 2)), (1, 2), ("same", "valid", "torch"))
    for (x_bits, bits), kernel, stride, padding in pairs:
        size, g = _pool_geometry(rng, kernel, stride, padding, dilated=False)
        shape = (*size, _channels(rng))
        x = _image(rng, shape, x_bits)
        x_zero = int(rng.integers(RANGES[x_bits][0], RANGES[x_bits][1] + 1))
        sums, counts = average_sums(x, x_zero, g)
        entries = 1 if rng.integers(3) == 0 else kernel[0] * kernel[1]
        chosen, shifts = multipliers(rng, entries, max(1, int(np.abs(sums).max())), bits)
        zero = int(rng.integers(RANGES[bits][0], RANGES[bits][1] + 1))
        clamp = _clamp(rng, bits)
        y = np.zeros_like(sums)
        for row, col in np.ndindex(*counts.shape):
            entry = int(counts[row, col]) - 1 if entries > 1 else 0
            y[row, col] = [requantize(int(v), chosen[entry], shifts[entry], zero, *clamp) for v in sums[row, col]]
        yield Case(
            "mcuq_avg_pool",
            (*shape, x_bits, *y.shape, bits, *_window(g), entries, x_zero, zero, *clamp),
            ((1, pack_bytes(x, x_bits)), (4, pack_bytes(np.array(chosen), 32)), (1, bytes(shifts))),
            pack_bytes(y, bits),
            f"avg_pool {shape} {g} bits {x_bits}->{bits}",
        )


def softmax_cases(rng: np.random.Generator) -> Iterator[Case]:
    for bits, _ in itertools.product(BITS, range(25)):
        shape = (*_size(rng, 3), int(rng.choice((1, 2, 3, 10, 12, 100))))
        x = _image(rng, shape, bits)
        scale = 10.0 ** rng.uniform(-3, 1)
        table = [math.floor(2**15 * math.exp(-d * scale) + 0.5) for d in range(256)]
        y = np.array([softmax([int(v) for v in row], table) for row in x.reshape(-1, shape[2])])
        yield Case(
            "mcuq_softmax",
            (*shape, bits),
            ((1, pack_bytes(x, bits)), (4, b"".join(e.to_bytes(2, "little") for e in table))),
            pack_bytes(y, 8),
            f"softmax {shape} bits {bits} scale {scale}",
        )


def argmax_cases(rng: np.random.Generator) -> Iterator[Case]:
    for bits, _ in itertools.product((*BITS, 32), range(25)):
        shape = (*_size(rng, 3), _channels(rng))
        x = _image(rng, shape, bits)
        rows = x.reshape(-1, shape[2]).tolist()
        y = np.array([[row.index(max(row))] for row in rows])
        yield Case(
            "mcuq_argmax",
            (*shape, bits),
            ((4 if bits == 32 else 1, pack_bytes(x, bits)),),
            pack_bytes(y, 32),
            f"argmax {shape} bits {bits}",
            output_align=4,
        )


def reshape_cases(rng: np.random.Generator) -> Iterator[Case]:
    for bits, _ in itertools.product((*BITS, 32), range(15)):
        shape = (*_size(rng), _channels(rng))
        x = _image(rng, shape, bits)
        order = [int(v) for v in rng.permutation(shape)]
        target = tuple(order) if rng.integers(2) else (1, 1, x.size)
        yield Case(
            "mcuq_reshape",
            (*shape, bits, *target, bits),
            ((4 if bits == 32 else 1, pack_bytes(x, bits)),),
            pack_bytes(x.reshape(target), bits),
            f"reshape {shape}->{target} bits {bits}",
            output_align=4 if bits == 32 else 1,
        )


def table_cases(rng: np.random.Generator) -> Iterator[Case]:
    for (x_bits, bits), _ in itertools.product(itertools.product(BITS, repeat=2), range(10)):
        shape = (*_size(rng), _channels(rng))
        x = _image(rng, shape, x_bits)
        entries = _image(rng, (1 << x_bits,), bits)
        y = np.array([entries[v - RANGES[x_bits][0]] for v in x.ravel()]).reshape(shape)
        in_place = bool(rng.integers(2)) and _fits_in_place(shape[2], x_bits, bits)
        yield Case(
            "mcuq_table",
            (*shape, x_bits, *shape, bits),
            ((1, pack_bytes(x, x_bits)), (1, bytes(int(e) % 256 for e in entries))),
            pack_bytes(y, bits),
            f"table {shape} bits {x_bits}->{bits} in_place={in_place}",
            in_place=in_place,
        )


def prelu_cases(rng: np.random.Generator) -> Iterator[Case]:
    for (x_bits, bits), _ in itertools.product(itertools.product(BITS, repeat=2), range(10)):
        shape = (*_size(rng), _channels(rng))
        x, zero = _image(rng, shape, x_bits), int(rng.integers(RANGES[x_bits][0], RANGES[x_bits][1] + 1))
        factors, constant, shift = _affine(rng, (x_bits, x_bits), bits)
        slopes = [int(v) for v in rng.integers(-abs(factors[1]), abs(factors[1]) + 1, shape[2])]
        clamp = _clamp(rng, bits)
        y = np.zeros(shape, dtype=np.int64)
        for at in np.ndindex(*shape):
            d = int(x[at]) - zero
            y[at] = rescale(d * (factors[0] if d >= 0 else slopes[at[2]]), constant, shift, *clamp)
        in_place = bool(rng.integers(2)) and _fits_in_place(shape[2], x_bits, bits)
        yield Case(
            "mcuq_prelu",
            (*shape, x_bits, *shape, bits, factors[0], constant, shift, *clamp, zero),
            ((1, pack_bytes(x, x_bits)), (4, pack_bytes(np.array(slopes), 32))),
            pack_bytes(y, bits),
            f"prelu {shape} bits {x_bits}->{bits} in_place={in_place}",
            in_place=in_place,
        )


def mul_cases(rng: np.random.Generator) -> Iterator[Case]:
    for (a_bits, b_bits, bits), repeat in itertools.product(itertools.product(BITS, repeat=3), range(6)):
        shape = (*_size(rng), _channels(rng))
        other = [shape, (1, 1, shape[2]), (shape[0], shape[1], 1), (1, shape[1], shape[2]), (shape[0], 1, 1)][
            repeat % 5
        ]
        a, b = _image(rng, shape, a_bits), _image(rng, other, b_bits)
        zeros = [int(rng.integers(RANGES[n][0], RANGES[n][1] + 1)) for n in (a_bits, b_bits, bits)]
        product = (a - zeros[0]) * (b - zeros[1])
        (multiplier,), (shift,) = multipliers(rng, 1, max(1, int(np.abs(product).max())), bits)
        clamp = _clamp(rng, bits)
        y = [requantize(int(v), multiplier, shift, zeros[2], *clamp) for v in product.ravel()]
        in_place = bool(rng.integers(2)) and _fits_in_place(shape[2], a_bits, bits)
        yield Case(
            "mcuq_mul",
            (*shape, a_bits, *other, b_bits, multiplier, *clamp, *zeros, shift, bits),
            ((1, pack_bytes(a, a_bits)), (1, pack_bytes(b, b_bits))),
            pack_bytes(np.array(y).reshape(shape), bits),
            f"mul {shape} x {other} bits {a_bits}x{b_bits}->{bits} in_place={in_place}",
            in_place=in_place,
        )


def extremum_cases(rng: np.random.Generator) -> Iterator[Case]:
    for (a_bits, b_bits, bits), smallest in itertools.product(itertools.product(BITS, repeat=3), (0, 1) * 2):
        shape = (*_size(rng), _channels(rng))
        a, b = _image(rng, shape, a_bits), _image(rng, shape, b_bits)
        clamp = _clamp(rng, bits)
        rules = [_affine(rng, (x_bits,), bits) for x_bits in (a_bits, b_bits)]
        both = [_rescaled((x,), *rule, clamp) for x, rule in zip((a, b), rules, strict=True)]
        y = np.minimum(*both) if smallest else np.maximum(*both)
        own = [v for factors, constant, shift in rules for v in (*factors, constant, shift)]
        in_place = bool(rng.integers(2)) and _fits_in_place(shape[2], a_bits, bits)
        yield Case(
            "mcuq_extremum",
            (*shape, bits, a_bits, b_bits, smallest, *own, *clamp),
            ((1, pack_bytes(a, a_bits)), (1, pack_bytes(b, b_bits))),
            pack_bytes(y, bits),
            f"extremum {shape} bits {a_bits},{b_bits}->{bits} smallest={smallest} in_place={in_place}",
            in_place=in_place,
        )


def _moved(rng: np.random.Generator, x: Ints) -> tuple[Ints, list[int], list[int], int]:
    """A transposed, stepped, reversed or repeated part of ``x``, with the counters that copy it."""
    h, w, c = x.shape
    index = np.arange(x.size).reshape(x.shape)
    kind = int(rng.integers(5))
    if kind == 0:
        axes = [int(v) for v in rng.permutation(3)]
        strides = [(w * c, c, 1)[axis] for axis in axes]
        return x.transpose(axes), [x.shape[axis] for axis in axes], strides, 0
    if kind == 1:
        steps = [int(v) for v in rng.integers(1, 4, 3)]
        part = index[:: steps[0], :: steps[1], :: steps[2]]
        strides = [w * c * steps[0], c * steps[1], steps[2]]
        return x.reshape(-1)[part], list(part.shape), strides, 0
    if kind == 2:
        part = index[::-1, :, ::-1]
        return x.reshape(-1)[part], [h, w, c], [-w * c, c, -1], int(part[0, 0, 0])
    if kind == 3:  # every pixel twice in both directions
        part = index.repeat(2, 0).repeat(2, 1)
        return x.reshape(-1)[part], [h, 2, w, 2, c], [w * c, 0, c, 0, 1], 0
    part = np.concatenate([index.reshape(h, w, 1, c)] * 3, axis=2).reshape(h, w, 3 * c)
    return x.reshape(-1)[part], [h, w, 3, c], [w * c, c, 0, 1], 0


def copy_cases(rng: np.random.Generator) -> Iterator[Case]:
    for bits, _ in itertools.product(BITS, range(40)):
        x = _image(rng, (*_size(rng), _channels(rng)), bits)
        y, sizes, strides, offset = _moved(rng, x)
        spare = 6 - len(sizes)
        yield Case(
            "mcuq_copy",
            (*x.shape, bits, *y.shape, bits, *(1,) * spare, *sizes, *(0,) * spare, *strides, offset),
            ((1, pack_bytes(x, bits)),),
            pack_bytes(y, bits),
            f"copy {x.shape} sizes {sizes} strides {strides} bits {bits}",
        )


def _shorts(values: list[int]) -> tuple[int, bytes]:
    return 4, b"".join(v.to_bytes(2, "little") for v in values)


def choose_cases(rng: np.random.Generator) -> Iterator[Case]:
    for bits, _ in itertools.product(BITS, range(20)):
        x = _image(rng, (*_size(rng), _channels(rng)), bits)
        rows, columns = ([int(v) for v in rng.integers(0, n, rng.integers(1, 8))] for n in x.shape[:2])
        y = np.array([[x[r, c] for c in columns] for r in rows])
        yield Case(
            "mcuq_choose",
            (*x.shape, bits, *y.shape, bits),
            ((1, pack_bytes(x, bits)), _shorts(rows), _shorts(columns)),
            pack_bytes(y, bits),
            f"choose {x.shape} rows {rows} columns {columns} bits {bits}",
        )


def blend_cases(rng: np.random.Generator) -> Iterator[Case]:
    for (x_bits, bits), _ in itertools.product(itertools.product(BITS, repeat=2), range(8)):
        x = _image(rng, (*_size(rng), _channels(rng)), x_bits)
        zero, out_zero = (int(rng.integers(RANGES[n][0], RANGES[n][1] + 1)) for n in (x_bits, bits))
        axes: list[list[tuple[int, int]]] = []
        for n in x.shape[:2]:
            first = [int(v) for v in rng.integers(0, n, rng.integers(1, 8))]
            axes.append([(f, int(rng.choice((0, 1, 512, 1024, 2047))) if f + 1 < n else 0) for f in first])
        sums = blend(x, zero, *axes)
        (multiplier,), (shift,) = multipliers(rng, 1, max(1, int(np.abs(sums).max())), bits)
        clamp = _clamp(rng, bits)
        y = [requantize(int(v), multiplier, shift, out_zero, *clamp) for v in sums.ravel()]
        yield Case(
            "mcuq_blend",
            (*x.shape, x_bits, *sums.shape, bits, multiplier, zero, out_zero, shift, *clamp),
            ((1, pack_bytes(x, x_bits)), *(_shorts([p[k] for p in axis]) for k in (0, 1) for axis in axes)),
            pack_bytes(np.array(y).reshape(sums.shape), bits),
            f"blend {x.shape}->{sums.shape} bits {x_bits}->{bits}",
        )


def l2_normalize_cases(rng: np.random.Generator) -> Iterator[Case]:
    for bits, _ in itertools.product(BITS, range(25)):
        shape = (*_size(rng, 3), int(rng.choice((1, 2, 3, 10, 33))))
        x, zero = _image(rng, shape, bits), int(rng.integers(RANGES[bits][0], RANGES[bits][1] + 1))
        if rng.integers(6) == 0:
            x[0, 0] = zero
        y = np.array([l2_normalize([int(v) for v in row], zero) for row in x.reshape(-1, shape[2])])
        yield Case(
            "mcuq_l2_normalize",
            (*shape, bits, zero),
            ((1, pack_bytes(x, bits)),),
            pack_bytes(y, 8),
            f"l2_normalize {shape} bits {bits} zero {zero}",
        )


def pixels_cases(rng: np.random.Generator) -> Iterator[Case]:
    for count in (1, 2, 3, 255, 256, 784):
        pixels = rng.integers(0, 256, count)
        yield Case(
            "mcuq_pixels_to_int8",
            (count,),
            ((1, bytes(int(p) for p in pixels)),),
            pack_bytes(pixels - 128, 8),
            f"pixels {count}",
            in_place=True,
        )


FAMILIES = {
    "add": add_cases,
    "rescale": rescale_cases,
    "pad": pad_cases,
    "concat": concat_cases,
    "max_pool": max_pool_cases,
    "avg_pool": avg_pool_cases,
    "softmax": softmax_cases,
    "argmax": argmax_cases,
    "reshape": reshape_cases,
    "pixels": pixels_cases,
    "table": table_cases,
    "prelu": prelu_cases,
    "mul": mul_cases,
    "extremum": extremum_cases,
    "copy": copy_cases,
    "choose": choose_cases,
    "blend": blend_cases,
    "l2_normalize": l2_normalize_cases,
    "transposed": transposed_cases,
}


def elementwise_cases(seed: int, every: int = 1) -> list[Case]:
    """Cases of all families; ``every`` keeps each n-th of them."""
    rng = np.random.default_rng(seed)
    cases = itertools.chain.from_iterable(family(rng) for family in FAMILIES.values())
    return list(itertools.islice(cases, 0, None, every))
