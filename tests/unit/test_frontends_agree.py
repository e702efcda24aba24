"""One network through PyTorch, ONNX and TFLite: the same float graph and the same integer graph but for names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("flatbuffers")
from mcuq.frontend.files import import_model
from mcuq.frontend.torch import capture
from mcuq.ir.fuse import fuse
from mcuq.ir.graph import Graph
from mcuq.ir.integer import IntegerGraph
from mcuq.ir.text import to_text
from mcuq.lower.lower import lower
from mcuq.quant.ptq import ptq
from tests.trio import Trio, Value


def renamed(graph: Graph) -> Graph:
    """``graph`` with positions as names and without places in the source."""
    names = {op.name: f"t{i}" for i, op in enumerate(graph)}
    ops = (replace(op, name=names[op.name], inputs=tuple(names[i] for i in op.inputs), source="") for op in graph)
    return Graph(tuple(ops), tuple(names[name] for name in graph.outputs))


def float_graphs(path: Path, module: Any, shape: tuple[int, ...]) -> list[Graph]:
    """Fused graphs of ``module`` (input as ``capture`` takes it), net.onnx and net.tflite, without names."""
    imported = [import_model(path / name) for name in ("net.onnx", "net.tflite")]
    assert all(isinstance(graph, Graph) for graph in imported)
    return [renamed(fuse(graph)) for graph in (capture(module, shape).graph, *imported)]  # type: ignore[arg-type]


def check_equal(ours: IntegerGraph, theirs: IntegerGraph) -> None:
    """The same text, and the same bytes in every table."""
    assert to_text(ours) == to_text(theirs)
    for a, b in zip(ours, theirs, strict=True):
        for field in ("weight", "bias", "multiplier", "shift", "table", "entries", "row", "column"):
            if hasattr(a, field):
                np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


def plain(t: Trio) -> Value:
    """Convolution, depthwise, residual addition, pool, concatenation, global mean, linear, softmax."""
    a = t.conv(t.input, 8, act="relu6")
    b = t.pool(t.add(t.conv(a, 8, depthwise=True), a, "relu"), "max")
    return t.softmax(t.linear(t.squeeze(t.concat(b, t.conv(b, 4, 1)), keep=False), 5))


def resnet8(t: Trio, norm: bool = False) -> Value:
    x = t.conv(t.input, 8, act="relu", norm=norm)
    for outputs, stride in ((8, 1), (12, 2), (16, 2)):
        y = t.conv(t.conv(x, outputs, stride=stride, act="relu", norm=norm), outputs, norm=norm)
        x = t.add(y, x if outputs == 8 else t.conv(x, outputs, 1, stride), "relu")
    return t.softmax(t.linear(t.flatten(t.pool(x, "avg", 4)), 10))


def mobilenet(t: Trio, norm: bool = False) -> Value:
    """SAME at stride 2 over odd and even sizes: one pixel more below and right."""
    x = t.conv(t.input, 8, 3, 2, "relu6", norm=norm)
    for outputs, stride in ((12, 1), (16, 2), (16, 1)):
        x = t.conv(x, x.shape[0], 3, stride, "relu6", depthwise=True, norm=norm)
        x = t.conv(x, outputs, 1, 1, "relu6", norm=norm)
    return t.softmax(t.linear(t.squeeze(x, keep=False), 5))


def unet(t: Trio, mode: str) -> Value:
    a = t.conv(t.input, 6, act="relu")
    b = t.conv(t.pool(a, "max"), 8, act="relu")
    c = t.conv(t.pool(b, "max"), 12, act="relu")
    b = t.conv(t.concat(t.resize(c, mode), b), 8, act="relu")
    return t.sigmoid(t.conv(t.conv(t.concat(t.resize(b, mode), a), 6, act="relu"), 1, 1))


def squeeze_and_excite(t: Trio) -> Value:
    x = t.hard_swish(t.conv(t.input, 8, 3, 2))
    gate = t.hard_sigmoid(t.conv(t.conv(t.squeeze(x), 4, 1, act="relu"), 8, 1))
    y = t.conv(t.hard_swish(t.conv(t.mul(x, gate), 12, 1)), 12, 5, 1, depthwise=True)
    return t.linear(t.flatten(t.squeeze(y)), 6, of=(12, 1, 1))


def one_dimensional(t: Trio) -> Value:
    x = t.conv(t.conv(t.input, 8, 5, 2, "relu"), 8, 3, act="relu")
    return t.linear(t.squeeze(t.add(x, t.conv(x, 8, 1)), keep=False), 4)


def padded_apart(t: Trio) -> Value:
    """Padding as an operator of its own in TFLite, part of the convolution elsewhere; then a flattened map."""
    x = t.conv(t.input, 6, 3, 1, "relu", padded_apart=True)
    x = t.conv(x, 6, 4, 2, "relu", padded_apart=True, depthwise=True)
    x = t.conv(x, 5, 3, same=False, act="relu6")
    return t.linear(t.flatten(x), 4, "relu", of=x.shape)


def written(path: Path, describe: Callable[[Trio], Value], shape: tuple[int, ...]) -> list[Graph]:
    """Float graphs of what ``describe`` adds to a network with an input [C, H, W] or [C, L] of ``shape``."""
    trio = Trio(*shape)
    describe(trio)
    (path / "net.onnx").write_bytes(trio.onnx())
    (path / "net.tflite").write_bytes(trio.tflite())
    return float_graphs(path, trio.module(), (*shape[1:], shape[0]))


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("describe", "shape"),
    [
        (plain, (3, 8, 8)),
        pytest.param(resnet8, (3, 16, 16), marks=SLOW),
        pytest.param(mobilenet, (3, 17, 18), marks=SLOW),
        pytest.param(lambda t: unet(t, "nearest"), (3, 8, 8), marks=SLOW, id="unet-nearest"),
        pytest.param(lambda t: unet(t, "bilinear"), (3, 8, 8), marks=SLOW, id="unet-bilinear"),
        pytest.param(squeeze_and_excite, (3, 9, 9), marks=SLOW),
        (one_dimensional, (4, 21)),
        (padded_apart, (2, 9, 9)),
    ],
)
def test_one_integer_graph_from_three_front_ends(
    tmp_path: Path, describe: Callable[[Trio], Value], shape: tuple[int, ...]
) -> None:
    graphs = written(tmp_path, describe, shape)
    assert to_text(graphs[1]) == to_text(graphs[2]) == to_text(graphs[0])
    x = np.random.default_rng(0).normal(0, 1, (8, *graphs[0].input.shape))
    for bits in ((8, 8), (4, 8)):
        lowered = [lower(ptq(graph, x, bits)) for graph in graphs]
        check_equal(lowered[1], lowered[0])
        check_equal(lowered[2], lowered[0])


@pytest.mark.slow
@pytest.mark.parametrize("describe", [resnet8, mobilenet])
def test_batch_norms(tmp_path: Path, describe: Callable[..., Value]) -> None:
    """One integer graph from PyTorch and ONNX; TFLite's converter folded them in float32, which changes last digits."""
    graphs = written(tmp_path, lambda t: describe(t, norm=True), (3, 16, 16))
    x = np.random.default_rng(0).normal(0, 1, (8, 16, 16, 3))
    lowered = [lower(ptq(graph, x, (8, 8))) for graph in graphs]
    check_equal(lowered[1], lowered[0])
    for ours, theirs in zip(lowered[2], lowered[0], strict=True):
        assert type(ours) is type(theirs)
        assert (ours.inputs, ours.output.shape, ours.output.bits) == (
            theirs.inputs,
            theirs.output.shape,
            theirs.output.bits,
        )
        assert ours.output.scale == pytest.approx(theirs.output.scale, rel=1e-5)
