"""Small integer networks with their inputs, for tests of emission, build and parity."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from builders import RELU, RELU6, Net
from quantizers import quantize_graph

from mcuq.ir.fuse import fuse
from mcuq.ir.graph import Graph, Normalization, Window
from mcuq.ir.integer import IntegerGraph, QInput
from mcuq.ir.sources import TestVector
from mcuq.lower import lower
from mcuq.reference.integer import run

PIXELS = Normalization(1 / 64, 120)


def every_operator(seed: int, normalization: Normalization | None = PIXELS, tail: str = "softmax") -> Graph:
    """Every operator in 12x12x3: plain, strided, depthwise, grouped, dilated, pools, add, concat, pad, reshape."""
    net = Net((12, 12, 3), seed, normalization)
    net.conv("stem", "x", 8, stride=(2, 2), padding=(0, 0, 1, 1), norm=True, clamp=RELU6)
    net.conv("dw", "stem", 8, groups=8, padding=(1, 1, 1, 1), norm=True, clamp=RELU)
    net.conv("pw", "dw", 8, (1, 1))
    net.add("sum", "pw", "stem", RELU)
    net.max_pool("max", "sum", Window((3, 3), (1, 1), (1, 1, 1, 1)))
    net.avg_pool("avg", "sum", Window((3, 3), (1, 1), (1, 1, 1, 1)))
    net.conv("grouped", "sum", 6, groups=2, padding=(2, 2, 2, 2), dilation=(2, 2))
    net.concat("cat", "max", "avg", "grouped")
    net.clip("band", "cat", (-1.0, 1.5))
    net.pad("pad", "band", (1, 0, 0, 1))
    net.avg_pool("include", "pad", Window((3, 3), (2, 2), (1, 1, 1, 1)), include=True)
    net.reshape("rows", "include", (4, 1, 88))
    net.conv("fc", "rows", 7, (4, 1))
    if tail == "softmax":
        net.softmax("probability", "fc")
    elif tail == "argmax":
        net.argmax("class", "fc")
    return fuse(net.graph())


def further_operators(seed: int, normalization: Normalization | None = PIXELS, tail: str = "none") -> Graph:
    """Operators beyond :func:`every_operator`: tables, products, extremes, differences, moves, resizing, norms."""
    net = Net((8, 9, 3), seed, normalization)
    net.conv("stem", "x", 6, padding=(1, 1, 1, 1))
    net.activation("silu", "stem", "silu")
    net.avg_pool("pool", "silu")
    net.conv("excite", "pool", 6, (1, 1))
    net.activation("gate", "excite", "sigmoid")
    net.mul("scaled", "silu", "gate")
    net.conv("spot", "scaled", 1, (1, 1))
    net.activation("attention", "spot", "hard_sigmoid", 1 / 6, 0.5)
    net.mul("attended", "scaled", "attention", RELU)
    net.prelu("prelu", "stem")
    net.extremum("largest", "prelu", "attended")
    net.add("difference", "largest", "stem", subtract=True)
    net.extremum("smallest", "difference", "silu", smallest=True)
    net.transpose("turned", "smallest", (1, 0, 2))
    net.transpose("mixed", "turned", (2, 0, 1))
    net.max_pool("small", "turned", Window((3, 2), (3, 2)))
    net.upsample("linear", "small", linear=True)
    net.upsample("nearest", "small")
    net.concat("cat", "linear", "nearest")
    net.pad("framed", "cat", (1, 0, 0, 2), 0.75)
    net.conv("narrow", "framed", 5, (3, 3), stride=(2, 2))
    net.l2_normalize("unit", "narrow")
    net.conv("last", "unit", 4, (1, 1))
    net.activation("tanh", "mixed", "tanh")
    return fuse(net.graph("last", "tanh"))


def pixels(seed: int, count: int, shape: tuple[int, int, int] = (12, 12, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.uint8)


def integer_net(
    seed: int,
    weight_bits: int = 8,
    activation_bits: int = 8,
    *,
    tail: str = "softmax",
    normalization: Normalization | None = PIXELS,
    logits_bits: int = 8,
    net: Callable[[int, Normalization | None, str], Graph] = every_operator,
    **options: bool,
) -> IntegerGraph:
    """``net`` (:func:`every_operator`), calibrated on a few images and lowered."""
    graph = net(seed, normalization, tail)
    x = pixels(seed + 1, 4, graph.input.shape)
    real = (x.astype(np.float64) - PIXELS.zero_point) * PIXELS.scale
    q = quantize_graph(graph, real, weight_bits=weight_bits, activation_bits=activation_bits, **options)
    return lower(q, logits_bits=logits_bits)


def samples(graph: IntegerGraph, seed: int, count: int) -> np.ndarray:
    """Inputs [N, H, W, C] as ``reference.integer.run`` takes them."""
    source: QInput = graph.input
    shape = (count, *source.output.shape)
    if source.encoding == "uint8":
        return pixels(seed, count, source.output.shape)
    lo, hi = {8: (-128, 127), 4: (0, 15), 2: (0, 3)}[source.output.bits]
    return np.random.default_rng(seed).integers(lo, hi + 1, shape)


def vectors(graph: IntegerGraph, seed: int = 5, count: int = 3) -> tuple[TestVector, ...]:
    x = samples(graph, seed, count)
    values = run(graph, x)
    return tuple(TestVector((x[i],), tuple(values[name][i] for name in graph.outputs)) for i in range(count))
