"""The oracle against plain Python loops over unbounded integers, written from docs/NUMERICS.md alone."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from nets import further_operators, integer_net
from sample_networks import integer, pixels

from mcuq.errors import CheckError, DataError
from mcuq.ir.graph import Window
from mcuq.ir.integer import IntegerGraph, QArgmax, QAvgPool, QConv2d, QInput, QMaxPool, QTensor
from mcuq.ir.verify import Level, verify
from mcuq.numerics import Affine, code_range, quantize_multiplier
from mcuq.reference.integer import encode_input, run, run_outputs


def clamp(value: int, lo: int, hi: int) -> int:
    return min(max(value, lo), hi)


def requantized(acc: int, m: int, s: int, zero: int, bounds: tuple[int, int]) -> int:
    return clamp(zero + (acc * m + 2 ** (s - 1)) // 2**s, *bounds)


def taps(window: Window, height: int, width: int, y: int, x: int) -> list[tuple[int, int, int, int]]:
    """(kernel row, kernel column, image row, image column) of the taps inside the image."""
    found = []
    for i, j in itertools.product(range(window.kernel[0]), range(window.kernel[1])):
        row = y * window.stride[0] - window.padding[0] + i * window.dilation[0]
        column = x * window.stride[1] - window.padding[1] + j * window.dilation[1]
        if 0 <= row < height and 0 <= column < width:
            found.append((i, j, row, column))
    return found


def slow_conv(op: QConv2d, x: Any, source: QTensor) -> Any:
    """Padding taps add Zx * (w - Zw), as the equation says."""
    height, width, channels = op.output.shape
    fan, per_group = op.weight.shape[3], channels // op.groups
    y = np.zeros(op.output.shape, dtype=object)
    weight, zeros = op.weight.tolist(), op.weight_zero_point.tolist()
    for row, column, o in itertools.product(range(height), range(width), range(channels)):
        inside = {(i, j): (r, c) for i, j, r, c in taps(op.window, *source.shape[:2], row, column)}
        zero, acc = zeros[o % len(zeros)], int(op.bias[o])
        for i, j, k in itertools.product(range(op.window.kernel[0]), range(op.window.kernel[1]), range(fan)):
            code = source.zero_point
            if (i, j) in inside:
                code = int(x[inside[i, j]][o // per_group * fan + k])
            acc += code * (weight[o][i][j][k] - zero)
        entry = o if op.multiplier.size > 1 else 0
        m, s = int(op.multiplier[entry]), int(op.shift[entry])
        y[row, column, o] = requantized(acc, m, s, op.output.zero_point, op.clamp)
    return y


def slow_pool(op: QMaxPool | QAvgPool, x: Any, source: QTensor) -> Any:
    y = np.zeros(op.output.shape, dtype=object)
    height, width, channels = op.output.shape
    for row, column, c in itertools.product(range(height), range(width), range(channels)):
        codes = [int(x[r, k][c]) for _, _, r, k in taps(op.window, *source.shape[:2], row, column)]
        if isinstance(op, QMaxPool):
            a = op.affine
            y[row, column, c] = clamp((max(codes) * a.multipliers[0] + a.constant) // 2**a.shift, *op.clamp)
        else:
            entry = 0 if op.multiplier.size == 1 else len(codes) - 1
            total = sum(code - source.zero_point for code in codes)
            m, s = int(op.multiplier[entry]), int(op.shift[entry])
            y[row, column, c] = requantized(total, m, s, op.output.zero_point, op.clamp)
    return y


def random_conv(rng: np.random.Generator, bits: tuple[int, int, int], depthwise: bool) -> IntegerGraph:
    """One convolution with every parameter drawn, accumulators far beyond 2^24 included."""
    source_bits, weight_bits, output_bits = bits
    groups = int(rng.integers(2, 6)) if depthwise else int(rng.choice([1, 1, 2]))
    channels = groups if depthwise else groups * int(rng.integers(1, 4))
    outputs = groups if depthwise else groups * int(rng.integers(1, 4))
    kernel = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    pads = tuple(int(p) for p in rng.integers(0, 3, 4))
    window = Window(
        kernel,
        (int(rng.integers(1, 3)), int(rng.integers(1, 3))),
        pads,
        (int(rng.integers(1, 3)), int(rng.integers(1, 3))),
    )  # type: ignore[arg-type]
    shape = (int(rng.integers(5, 8)), int(rng.integers(5, 8)), channels)
    lo, hi = code_range(source_bits)
    half = 2 ** (weight_bits - 1)
    entries = outputs if rng.random() < 0.5 else 1
    pairs = [quantize_multiplier(float(f)) for f in rng.choice([-1, 1], entries) * 10.0 ** rng.uniform(-4, 0, entries)]
    out_lo, out_hi = code_range(output_bits)
    low = int(rng.integers(out_lo, out_hi + 1)) if rng.random() < 0.3 else out_lo
    height, width = window.output_hw(shape[0], shape[1])
    zero = 0 if output_bits == 32 else int(rng.integers(out_lo, out_hi + 1))
    source = QInput(name="x", inputs=(), output=QTensor(shape, source_bits, 1.0, int(rng.integers(lo, hi + 1))))
    conv = QConv2d(
        name="conv",
        inputs=("x",),
        output=QTensor((height, width, outputs), output_bits, 1.0, zero),
        weight=rng.integers(-half, half, (outputs, *kernel, channels // groups)).astype(np.int8),
        weight_bits=weight_bits,
        weight_zero_point=rng.integers(-half, half, outputs if rng.random() < 0.5 else 1).astype(np.int8),
        bias=rng.integers(-(2**30), 2**30, outputs).astype(np.int32) >> int(rng.integers(0, 28)),
        multiplier=np.array([m for m, _ in pairs], np.int32),
        shift=np.array([s for _, s in pairs], np.uint8),
        window=window,
        groups=groups,
        clamp=(low, out_hi),
    )
    return IntegerGraph((source, conv), ("conv",))


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("bits", [(8, 8, 8), (8, 4, 4), (4, 2, 8), (2, 8, 2), (4, 4, 32), (2, 2, 2)])
def test_convolutions_against_loops(bits: tuple[int, int, int], depthwise: bool) -> None:
    rng = np.random.default_rng(sum(bits))
    for _ in range(4):
        graph = random_conv(rng, bits, depthwise)
        verify(graph, Level.INTEGER)
        lo, hi = code_range(bits[0])
        x = rng.integers(lo, hi + 1, (2, *graph.input.output.shape))
        x[1] = rng.choice([lo, hi], x[1].shape)
        found = run(graph, x)["conv"]
        conv: Any = graph.op("conv")
        for image, y in zip(x, found, strict=True):
            np.testing.assert_array_equal(y, slow_conv(conv, image, graph.input.output))


def test_a_whole_network_against_loops() -> None:
    """Every operator, each on the codes of the ones before it."""
    graph = integer(activation_bits=8, asymmetric=True, icn=True)
    x = pixels(2)
    values = run(graph, x)
    np.testing.assert_array_equal(values["x"], x.astype(int) - 128)
    for op in graph.ops[1:]:
        for image in range(2):
            inputs = [values[name][image] for name in op.inputs]
            wanted = slow(graph, op, inputs)
            np.testing.assert_array_equal(values[op.name][image], wanted, err_msg=op.name)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_further_operators_against_loops(bits: int) -> None:
    graph = integer_net(5, 8, bits, net=further_operators)
    values = run(graph, pixels(2, shape=(8, 9, 3)))
    for op in graph.ops[1:]:
        tensors = [graph.tensor(name) for name in op.inputs]
        for image in range(2):
            inputs = [values[name][image] for name in op.inputs]
            wanted = slower(op, inputs, tensors)
            if wanted is not None:
                np.testing.assert_array_equal(values[op.name][image], wanted, err_msg=op.name)


def slower(op: Any, inputs: list[Any], tensors: list[QTensor]) -> Any:
    """Output codes of the newer operators by loops over elements; None for the others."""
    kind, out = type(op).__name__, np.zeros(op.output.shape, dtype=object)
    x, zero = inputs[0], tensors[0].zero_point

    def affine(code: int, a: Affine, factor: int | None = None) -> int:
        return clamp((code * (a.multipliers[0] if factor is None else factor) + a.constant) // 2**a.shift, *op.clamp)

    for at in np.ndindex(*op.output.shape):
        if kind == "QMul":
            other = inputs[1][tuple(i if n > 1 else 0 for i, n in zip(at, inputs[1].shape, strict=True))]
            product = (int(x[at]) - zero) * (int(other) - tensors[1].zero_point)
            out[at] = requantized(product, int(op.multiplier[0]), int(op.shift[0]), op.output.zero_point, op.clamp)
        elif kind == "QExtremum":
            both = [affine(int(y[at]), a) for y, a in zip(inputs, op.affines, strict=True)]
            out[at] = min(both) if op.smallest else max(both)
        elif kind == "QTable":
            out[at] = int(op.entries[int(x[at]) - code_range(tensors[0].bits)[0]])
        elif kind == "QPrelu":
            d = int(x[at]) - zero
            out[at] = affine(d, op.affine, None if d >= 0 else int(op.multiplier[at[2]]))
        elif kind == "QResample":
            row, column = int(op.row[at[0]]), int(op.column[at[1]])
            down, right = int(op.row_weight[at[0]]), int(op.column_weight[at[1]])
            if op.chooses:
                out[at] = int(x[row, column, at[2]])
                continue
            total = 0
            for i, j in itertools.product(range(2), range(2)):
                weight = (down if i else 2048 - down) * (right if j else 2048 - right)
                total += weight * (int(x[row + i, column + j, at[2]]) - zero) if weight else 0
            out[at] = requantized(total, int(op.multiplier[0]), int(op.shift[0]), op.output.zero_point, op.clamp)
        elif kind == "QCopy":
            number, index = int(np.ravel_multi_index(at, op.output.shape)), op.offset
            for size, stride in zip(op.sizes[::-1], op.strides[::-1], strict=True):
                number, counter = divmod(number, size)
                index += counter * stride
            out[at] = int(x.ravel()[index])
        elif kind == "QL2Normalize":
            row = [int(v) - zero for v in x[at[0], at[1]]]
            length = sum(d * d for d in row)
            real = Decimal(128 * row[at[2]]) / Decimal(max(length, 1)).sqrt()  # 28 digits
            out[at] = min(math.floor(real + Decimal("0.5")), 127)
        else:
            return None
    return out


def slow(graph: IntegerGraph, op: Any, inputs: list[Any]) -> Any:
    kind, source = type(op).__name__, graph.tensor(op.inputs[0])

    def rescale(code: Any, a: Any) -> int:
        return clamp((int(code) * a.multipliers[0] + a.constant) // 2**a.shift, *op.clamp)

    x = inputs[0]
    if kind == "QConv2d":
        return slow_conv(op, x, source)
    if kind in ("QMaxPool", "QAvgPool"):
        return slow_pool(op, x, source)
    if kind == "QAdd":
        a = op.affine
        sums = zip(inputs[0].ravel().tolist(), inputs[1].ravel().tolist(), strict=True)
        flat = [p * a.multipliers[0] + q * a.multipliers[1] + a.constant for p, q in sums]
        return np.array([clamp(v // 2**a.shift, *op.clamp) for v in flat]).reshape(x.shape)
    if kind == "QConcat":
        parts = [np.vectorize(lambda v, a=a: rescale(v, a))(part) for part, a in zip(inputs, op.affines, strict=True)]
        return np.concatenate(parts, axis=2)
    if kind == "QRescale":
        return np.vectorize(lambda v: rescale(v, op.affine))(x)
    if kind == "QPad":
        top, left, _, _ = op.padding
        y = np.full(op.output.shape, op.output.zero_point)
        for row, column in itertools.product(range(x.shape[0]), range(x.shape[1])):
            y[top + row, left + column] = [rescale(v, op.affine) for v in x[row, column]]
        return y
    if kind == "QReshape":
        return np.array(x.ravel().tolist()).reshape(op.output.shape)
    if kind == "QSoftmax":
        codes = x[0, 0].tolist()
        e = [int(op.table[max(codes) - code]) for code in codes]
        return np.array([min(127, (256 * v + sum(e) // 2) // sum(e) - 128) for v in e]).reshape(1, 1, -1)
    assert kind == "QArgmax"
    codes = x[0, 0].tolist()
    return np.array([[[codes.index(max(codes))]]])


def test_outputs_alone_in_batches() -> None:
    graph = integer()
    x = pixels(7)
    every = run(graph, x)
    for batch in (1, 3, 7, 100):
        found = run_outputs(graph, x, batch=batch)
        assert list(found) == ["chances", "best"]
        for name, value in found.items():
            np.testing.assert_array_equal(value, every[name])
    assert run_outputs(graph, x[:0])["best"].shape == (0, 1, 1, 1)


def test_argmax_takes_the_lowest_index_of_ties() -> None:
    source = QInput(name="x", inputs=(), output=QTensor((1, 1, 4), 8, 1.0, 0))
    best = QArgmax(name="best", inputs=("x",), output=QTensor((1, 1, 1), 32, 1.0, 0))
    x = np.array([[3, 9, 9, 1], [-128, -128, -128, -128], [0, 1, 2, 3]]).reshape(3, 1, 1, 4)
    found = run(IntegerGraph((source, best), ("best",)), x)["best"]
    assert found.ravel().tolist() == [1, 0, 3]


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (np.zeros((2, 8, 8, 4), np.uint8), r"input x has shape \(2, 8, 8, 4\), the network takes \(N, 8, 8, 3\)"),
        (np.zeros((8, 8, 3), np.uint8), "input x has shape"),
        (np.zeros((1, 8, 8, 3), np.float32), "input holds float32, the integer network takes integers"),
        (np.full((1, 8, 8, 3), 256), r"input values 256\.\.256 are outside 0\.\.255"),
        (np.full((1, 8, 8, 3), -1), r"input values -1\.\.-1 are outside 0\.\.255"),
    ],
)
def test_inputs_that_do_not_fit(x: Any, text: str) -> None:
    with pytest.raises(DataError, match=text):
        run(integer(), x)


def test_codes_of_an_int8_input() -> None:
    op = QInput(name="x", inputs=(), output=QTensor((1, 1, 1), 4, 1.0, 0))
    assert encode_input(op, np.array([[[[15]]]])).item() == 15
    with pytest.raises(DataError, match=r"16\.\.16 are outside 0\.\.15"):
        encode_input(op, np.array([[[[16]]]]))


def test_a_wrong_graph_fails_instead_of_wrapping() -> None:
    graph = integer()
    conv: Any = graph.op("conv")
    bias = np.full_like(conv.bias, 2**31 - 1)
    broken = tuple(replace(op, bias=bias) if op.name == "conv" else op for op in graph.ops)
    with pytest.raises(CheckError, match=r"conv: accumulators .* leave int32"):
        run(IntegerGraph(broken, graph.outputs), pixels(1))  # type: ignore[arg-type]
    low = tuple(replace(op, clamp=(-128, 200)) if op.name == "conv" else op for op in graph.ops)
    loud = tuple(
        replace(op, multiplier=np.full_like(op.multiplier, 2**31 - 1)) if op.name == "conv" else op for op in low
    )  # type: ignore[union-attr]
    with pytest.raises(CheckError, match=r"conv: codes .* leave -128\.\.127 \(8 bits\)"):
        run(IntegerGraph(loud, graph.outputs), pixels(1))  # type: ignore[arg-type]


def test_sums_beyond_two_to_the_24_are_exact() -> None:
    """Odd sums up to 2^25, which float32 cannot hold."""
    rng = np.random.default_rng(3)
    source = QInput(name="x", inputs=(), output=QTensor((1, 1, 2001), 8, 1.0, 0))
    conv = QConv2d(
        name="conv",
        inputs=("x",),
        output=QTensor((1, 1, 3), 32, 1.0, 0),
        weight=rng.integers(115, 128, (3, 1, 1, 2001)).astype(np.int8),
        weight_bits=8,
        weight_zero_point=np.zeros(1, np.int8),
        bias=np.array([1, -1, 0], np.int32),
        multiplier=np.array([2**30], np.int32),
        shift=np.array([30], np.uint8),
        window=Window(),
        groups=1,
        clamp=code_range(32),
    )
    x = rng.integers(110, 128, (50, 1, 1, 2001))
    found = run(IntegerGraph((source, conv), ("conv",)), x)["conv"].reshape(50, 3)
    rows, weights = x.reshape(50, -1).tolist(), conv.weight.reshape(3, -1).tolist()
    for row, codes in zip(rows, found.tolist(), strict=True):
        wanted = [sum(p * w for p, w in zip(row, o, strict=True)) + b for o, b in zip(weights, (1, -1, 0), strict=True)]
        assert codes == wanted
        assert min(wanted) > 2**24


def test_padding_never_wins_a_max_pool() -> None:
    for bits, code in ((8, -100), (4, 0), (2, 1)):
        tensor = QTensor((3, 3, 1), bits, 1.0, 0)
        source = QInput(name="x", inputs=(), output=tensor)
        window = Window((3, 3), (1, 1), (1, 1, 1, 1))
        bounds = code_range(bits)
        pool = QMaxPool(name="max", inputs=("x",), output=tensor, window=window, affine=Affine.identity(), clamp=bounds)
        x = np.full((1, 3, 3, 1), code)
        np.testing.assert_array_equal(run(IntegerGraph((source, pool), ("max",)), x)["max"], x)
