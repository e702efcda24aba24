"""Networks of random shape through every pass: fused, quantized, lowered, narrowed, saved and loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from builders import RELU, RELU6, Net
from quantizers import assert_rounded, quantize_graph, real_output, simulate

from mcuq.ir.files import load_integer, save_integer
from mcuq.ir.fuse import fuse
from mcuq.ir.graph import Graph, Normalization, Window
from mcuq.ir.verify import Level, verify
from mcuq.lower import lower, simplified
from mcuq.numerics import quantize
from mcuq.reference import floating
from mcuq.reference.integer import evaluate, run, run_outputs

Step = Callable[[Net, str, str], str]


def random_graph(seed: int) -> Graph:
    """8 to 16 operators, each on a random earlier tensor it fits, then a classifier."""
    net = Net((9, 8, 3), seed, Normalization(1 / 64, 120) if seed % 2 else None)
    names = [net.conv("stem", "x", 6, padding=(1, 1, 1, 1))]
    for index in range(int(net.rng.integers(8, 17))):
        step = STEPS[int(net.rng.integers(len(STEPS)))]
        source = names[int(net.rng.integers(max(0, len(names) - 4), len(names)))]
        names.append(step(net, f"op{index}", source))
    net.avg_pool("pool", names[-1])
    net.conv("fc", "pool", 5, (1, 1))
    return net.graph(*(("fc", names[2]) if seed % 3 == 0 else ("fc",)))


def padding(net: Net, most: int = 2) -> tuple[int, int, int, int]:
    top, left, bottom, right = (int(p) for p in net.rng.integers(0, most, 4))
    return top, left, bottom, right


def conv(net: Net, name: str, source: str) -> str:
    groups = int(net.rng.choice([g for g in (1, 2, 3) if net.shape(source)[2] % g == 0]))
    outputs = groups * int(net.rng.integers(1, 4))
    kernel = (min(3, net.shape(source)[0]), 1)
    norm, bias = bool(net.rng.random() < 0.5), bool(net.rng.random() < 0.5)
    return net.conv(name, source, outputs, kernel, padding=padding(net), groups=groups, norm=norm, bias=bias)


def depthwise(net: Net, name: str, source: str) -> str:
    channels = net.shape(source)[2]
    return net.conv(name, source, channels, (3, 3), padding=(1, 1, 1, 1), groups=channels, clamp=RELU6)


def alike(net: Net, source: str) -> str:
    """Any tensor of the same shape."""
    equal = [op.name for op in net.ops if op.shape == net.shape(source)]
    return equal[int(net.rng.integers(len(equal)))]


def add(net: Net, name: str, source: str) -> str:
    return net.add(name, source, alike(net, source))


def product(net: Net, name: str, source: str) -> str:
    """With a tensor whose sizes are the same or 1."""
    shape = net.shape(source)
    fitting = [op.name for op in net.ops if all(b in (1, a) for a, b in zip(shape, op.shape, strict=True))]
    return net.mul(name, source, fitting[int(net.rng.integers(len(fitting)))])


def concat(net: Net, name: str, source: str) -> str:
    fitting = [op.name for op in net.ops if op.shape[:2] == net.shape(source)[:2] and op.shape[2] < 12]
    chosen = [fitting[int(i)] for i in net.rng.integers(len(fitting), size=1)] if fitting else []
    return net.concat(name, source, *chosen)


def pool(net: Net, name: str, source: str) -> str:
    size = int(min(net.rng.integers(2, 4), *net.shape(source)[:2]))
    window = Window((size, size), (1, 1), padding(net) if size > 1 else (0, 0, 0, 0))
    if net.rng.random() < 0.5:
        return net.max_pool(name, source, window)
    return net.avg_pool(name, source, window, include=bool(net.rng.random() < 0.5))


def reshape(net: Net, name: str, source: str) -> str:
    height, width, channels = net.shape(source)
    return net.reshape(name, source, (width, height, channels))


STEPS: tuple[Step, ...] = (
    conv,
    conv,
    depthwise,
    add,
    concat,
    pool,
    reshape,
    lambda net, name, source: net.clip(name, source, RELU),
    lambda net, name, source: net.clip(name, source, (-0.75, None)),
    lambda net, name, source: net.batch_norm(name, source),
    lambda net, name, source: net.pad(name, source, padding(net)),
    lambda net, name, source: net.pad(name, source, padding(net), 0.5),
    lambda net, name, source: net.activation(name, source, str(net.rng.choice(["silu", "tanh", "gelu", "abs"]))),
    lambda net, name, source: net.prelu(name, source),
    product,
    lambda net, name, source: net.extremum(name, source, alike(net, source), bool(net.rng.random() < 0.5)),
    lambda net, name, source: net.add(name, source, alike(net, source), subtract=True),
    lambda net, name, source: net.transpose(name, source, tuple(int(a) for a in net.rng.permutation(3))),
    lambda net, name, source: net.upsample(name, source, linear=bool(net.rng.random() < 0.5)),
    lambda net, name, source: net.l2_normalize(name, source),
)


@pytest.mark.parametrize("seed", range(60))
def test_random_network(seed: int, tmp_path: Path) -> None:
    graph = random_graph(seed)
    verify(graph, Level.FLOAT)
    fused = fuse(graph)
    verify(fused, Level.FUSED)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 9, 8, 3), dtype=np.uint8)
    x = (pixels.astype(np.float64) - 120) / 64
    before, after = floating.run(graph, x), floating.run(fused, x)
    for old, new in zip(graph.outputs, fused.outputs, strict=True):
        np.testing.assert_allclose(after[new], before[old], rtol=1e-9, atol=1e-9)

    bits = (8, 4, 2)[seed % 3]
    q = quantize_graph(fused, x, activation_bits=bits, weight_bits=(8, 8, 4, 2)[seed % 4], icn=bool(seed % 5))
    integer, simulated = lower(q), simulate(q, x)
    stored = {
        a.tensor: quantize(simulated[a.tensor], a.params.scale, a.params.zero_point, a.params.bits)
        for a in q.activations
    }
    for op in integer.ops[1:]:
        tensors = tuple(integer.tensor(name) for name in op.inputs)
        found = evaluate(op, tuple(stored[name] for name in op.inputs), tensors)
        real = real_output(q, fused.op(op.name), tuple(simulated[name] for name in op.inputs))
        assert_rounded(found, real, q.params(op.name), op.name)

    codes = pixels if integer.input.encoding == "uint8" else stored["x"]
    wanted = run_outputs(integer, codes)
    narrowed = simplified(integer)
    for name, value in run_outputs(narrowed, codes).items():
        np.testing.assert_array_equal(value, wanted[name])
    save_integer(narrowed, tmp_path / "net.mcuq", {"seed": str(seed)})
    loaded, metadata = load_integer(tmp_path / "net.mcuq")
    assert metadata == {"seed": str(seed)}
    again = run(loaded, codes)
    for name, value in run(narrowed, codes).items():
        np.testing.assert_array_equal(again[name], value)
