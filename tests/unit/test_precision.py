"""Precision files: written, edited, read back; thresholds, fixed point and warnings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mcuq.errors import ModelError, UsageError  # noqa: E402
from mcuq.ir.integer import QConv2d  # noqa: E402
from mcuq.lower.lower import lower  # noqa: E402
from mcuq.quant.precision import LayerPrecision, Precision, precision_of, uniform_fixed  # noqa: E402
from mcuq.quant.precision_file import load_precision, precision_text, save_precision  # noqa: E402
from mcuq.quant.ptq import PtqOptions, ptq  # noqa: E402
from tests.unit.test_ptq import images, network  # noqa: E402


@pytest.mark.parametrize("mode", ["threshold", "fixed"])
def test_written_and_read_back_identically(tmp_path: Path, mode: str) -> None:
    graph, x = network(), images(48)
    q = ptq(graph, x, (8, 8), PtqOptions(grid=mode))  # type: ignore[arg-type]
    precision = precision_of(q, mode)  # type: ignore[arg-type]
    path = tmp_path / "precision.json"
    save_precision(precision, path)
    again = load_precision(path)
    assert again == precision and precision_text(again) == path.read_text()
    assert {b.layer for b in precision.layers} == {op.name for op in graph}


@pytest.mark.parametrize("mode", ["threshold", "fixed"])
def test_a_file_gives_the_same_network_again(mode: str) -> None:
    graph, x = network(), images(48)
    first = ptq(graph, x, (8, 8), PtqOptions(grid=mode))  # type: ignore[arg-type]
    second = ptq(graph, x[:4], (8, 8), PtqOptions(precision=precision_of(first, mode), bias_correction=False))  # type: ignore[arg-type]
    for a, b in zip(first.activations, second.activations, strict=True):
        assert (a.tensor, a.params.bits, a.params.zero_point) == (b.tensor, b.params.bits, b.params.zero_point)
        assert a.params.scale == pytest.approx(b.params.scale, rel=1e-12)
    for ours, theirs in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(ours.codes, theirs.codes)


def test_edited_thresholds_are_used() -> None:
    graph, x = network(), images(32)
    thresholds = tuple(np.linspace(0.1, 0.8, 8))
    block = LayerPrecision("a", bw_layer_out=4, layer_out=3.5, bw_params=4, params=thresholds)
    q = ptq(graph, x, (8, 8), PtqOptions(precision=Precision("threshold", (block,)), rounding="nearest"))
    np.testing.assert_allclose(q.weight("a").scale, np.array(thresholds) / 7)
    assert q.weight("a").bits == 4
    assert (q.params("a").bits, q.params("a").scale, q.params("a").zero_point) == (4, 3.5 / 7, 8)
    lower(q)


def test_missing_weight_thresholds_are_the_largest_magnitudes() -> None:
    graph = network()
    q = ptq(graph, images(16), (8, 8), PtqOptions(precision=Precision("threshold", ())))
    weight = q.graph.convs[1].weight
    np.testing.assert_allclose(q.weight("b").scale, np.abs(weight).reshape(8, -1).max(axis=1) / 127, rtol=1e-6)


def test_number_of_thresholds_has_to_be_that_of_channels() -> None:
    precision = Precision("threshold", (LayerPrecision("a", params=(0.1, 0.2, 0.3)),))
    with pytest.raises(UsageError, match="a has 8 output channels, its precision block 3 thresholds"):
        ptq(network(), images(8), (8, 8), PtqOptions(precision=precision))


def test_fractional_bits_as_triple() -> None:
    """Defaults of the three: inputs 2, params 5, outputs 2 fractional bits."""
    graph = network()
    q = ptq(graph, images(16), (8, 8), PtqOptions(precision=uniform_fixed(graph, (2, 5, 2))))
    assert q.params("x").scale == 0.25 and q.params("x").zero_point == 0
    assert all(q.params(op.name).scale == 0.25 for op in graph.ops[1:])
    assert all(set(w.scale.tolist()) == {2.0**-5} for w in q.weights)
    multipliers = np.concatenate([op.multiplier for op in lower(q) if isinstance(op, QConv2d)])
    assert set(multipliers.tolist()) == {1 << 30}, "all scale ratios are powers of two"


def test_contradictions_and_idle_blocks_are_warned_about() -> None:
    graph = network()
    blocks = (
        LayerPrecision("a", layer_out=2.0),
        LayerPrecision("b", layer_in=2.5, layer_out=1.0),
        LayerPrecision("e", params=(1.0,)),
        LayerPrecision("gone", layer_out=1.0),
    )
    found = Precision("threshold", blocks).warnings(graph)
    assert any("b reads a with range 2.5, but it is written with 2.0: a drop in accuracy" in text for text in found)
    assert any("gone: the network has no such layer" in text for text in found)
    assert any("e: only convolutions" in text for text in found)
    assert len(found) == 3
    fitting = (replace(blocks[0]), replace(blocks[1], layer_in=2.0))
    assert Precision("threshold", fitting).warnings(graph) == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "JSON|json|not"),
        ("[]", "not a precision file"),
        ('{"version": 1, "mode": "best", "layers": []}', "threshold or fixed"),
        ('{"version": 1, "mode": "fixed", "layers": {}}', "list of blocks"),
        ('{"version": 1, "mode": "fixed", "layers": [{"layer": "a", "th_params": 1}]}', "found .'th_params'"),
        ('{"version": 1, "mode": "fixed", "layers": [{"layer": "a", "fl_params": 1.5}]}', "whole number"),
        ('{"version": 1, "mode": "fixed", "layers": [{"layer": "a", "fl_params": 1e99}]}', "whole number"),
        ('{"version": 1, "mode": "threshold", "layers": [{"layer": "a", "th_layer_out": 0}]}', "above 0"),
        ('{"version": 1, "mode": "threshold", "layers": [{"layer": "a", "th_params": [1, "x"]}]}', "above 0"),
        ('{"version": 1, "mode": "threshold", "layers": [{"layer": "a", "bw_params": 5}]}', "8, 6, 4 and 2 bits"),
        ('{"version": 1, "mode": "fixed", "layers": [{"layer": "a"}, {"layer": "a"}]}', "two blocks for a"),
    ],
)
def test_damaged_files(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "precision.json"
    path.write_text(text)
    with pytest.raises(ModelError, match=words):
        load_precision(path)
