"""Networks with every operator, float and integer, shared by tests of files, emission and interpreters."""

from __future__ import annotations

import numpy as np
from builders import RELU, RELU6, Net
from quantizers import quantize_graph

from mcuq.ir.fuse import fuse
from mcuq.ir.graph import Graph, Normalization, Window
from mcuq.ir.integer import IntegerGraph
from mcuq.ir.quantized import QuantizedGraph
from mcuq.lower import lower

PIXELS = Normalization(1 / 64, 120)


def every_operator(seed: int = 1, normalization: Normalization | None = PIXELS) -> Graph:
    """An unfused 8 x 8 x 3 network with two outputs that uses every float operator."""
    net = Net((8, 8, 3), seed, normalization)
    net.conv("conv", "x", 4, padding=(1, 1, 1, 1), bias=False)
    net.batch_norm("bn", "conv")
    net.clip("relu", "bn", RELU)
    net.conv("dw", "relu", 4, groups=4, padding=(1, 1, 1, 1), norm=True, clamp=RELU6)
    net.conv("grouped", "relu", 4, (3, 1), groups=2, padding=(2, 0, 2, 0), dilation=(2, 1))
    net.add("sum", "dw", "grouped")
    net.max_pool("max", "sum", Window((2, 2), (2, 2)))
    net.avg_pool("avg", "max", Window((3, 3), (1, 1), (1, 1, 1, 1)))
    net.concat("cat", "max", "avg")
    net.batch_norm("scale", "cat")
    net.pad("pad", "scale", (1, 0, 0, 0))
    net.clip("band", "pad", (-1.0, 1.5))
    net.avg_pool("global", "band")
    net.reshape("flat", "global", (1, 1, 8))
    net.conv("fc", "flat", 3, (1, 1))
    net.softmax("chances", "fc")
    net.argmax("best", "fc")
    return net.graph("chances", "best")


def quantized(seed: int = 1, **options: object) -> QuantizedGraph:
    """``every_operator`` fused and quantized; options are ``quantize_graph``'s."""
    graph = fuse(every_operator(seed))
    x = np.random.default_rng(seed).normal(size=(8, *graph.input.shape))
    return quantize_graph(graph, x, **options)  # type: ignore[arg-type]


def integer(seed: int = 1, **options: object) -> IntegerGraph:
    """``quantized`` lowered."""
    return lower(quantized(seed, **options))


def pixels(count: int, seed: int = 0, shape: tuple[int, int, int] = (8, 8, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
