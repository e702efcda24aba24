"""Pictures of weights, activations, steps and confusions, and the numbers behind them."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from nets import integer_net, samples

from mcuq.pipeline import statistics
from mcuq.pipeline.runs import RunFolder
from mcuq.reference import integer
from mcuq.report import (
    ActivationRow,
    WeightRow,
    activations_picture,
    confusion_picture,
    scales_picture,
    weights_picture,
)
from mcuq.report.style import BITS, SERIES

pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")


def share(png: bytes, color: str) -> float:
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return float((np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) == rgb).all(axis=2).mean())


def weight_row(bits: int = 2, codes: tuple[int, ...] = (-2, -1, 0, 1)) -> WeightRow:
    edges = np.linspace(codes[0] - 1.5, codes[-1] + 1.5, 49)
    real = np.histogram(np.random.default_rng(0).uniform(edges[0], edges[-1], 500), edges)[0]
    return WeightRow("$odd$", bits, 1 << bits, edges, real, real[::-1], np.array(codes), np.full(len(codes), 9))


def spikes(png: bytes, bits: int) -> int:
    """Groups of columns that hold the color of the codes."""
    rgb = [int(BITS[bits][i : i + 2], 16) for i in (1, 3, 5)]
    columns = (np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) == rgb).all(axis=2).any(axis=0)
    return int(np.count_nonzero(np.diff(columns.astype(int)) == 1))


def test_n25_the_quantized_histogram_has_a_spike_per_code() -> None:
    assert spikes(weights_picture([weight_row()]), 2) == 4
    assert spikes(weights_picture([weight_row(codes=(-1, 0, 1))]), 2) == 3
    assert spikes(weights_picture([weight_row(4, tuple(range(-8, 8)))]), 4) == 16


def test_saturation_counts_clipped_codes_but_not_zeros_after_a_relu() -> None:
    counts = np.array([40, 30, 20, 10])
    after_relu = ActivationRow("relu", 2, 0.5, 0, 0, counts)
    assert after_relu.saturation() == (0.0, 0.1) and after_relu.real(3) == 1.5
    signed = ActivationRow("signed", 2, 0.5, 1, 0, counts)
    assert signed.saturation() == (0.4, 0.1) and signed.real(0) == -0.5
    assert [signed.quantile(q) for q in (0.4, 0.41, 0.95)] == [-0.5, 0.0, 1.0]


def test_activation_rows_are_the_oracles_codes() -> None:
    graph = integer_net(3)
    x = samples(graph, 3, 4)
    rows, tensors = statistics.activation_rows(graph, x), integer.run(graph, x)
    assert [row.tensor for row in rows] == [op.name for op in graph if op.output.bits != 32]
    for row in rows:
        codes = tensors[row.tensor]
        assert int(row.counts.sum()) == codes.size
        assert (
            row.counts[0] == (codes == row.lowest).sum()
            and row.counts[-1] == (codes == codes.dtype.type(row.lowest + len(row.counts) - 1)).sum()
        )
    assert activations_picture(rows) == activations_picture(rows)


def test_confusion_counts_labels_by_answers(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    scores = np.array([[3, 1, 2], [0, 5, 1], [9, 1, 1], [0, 0, 4]])[:, None, None, :]
    statistics.write_confusion(run, scores, np.array([0, 1, 1, 2]), ("a", "b,c"))
    found = statistics.confusion(run)
    assert found is not None
    matrix, names = found
    assert names == ["a", "b,c", "2"] and matrix.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    picture = confusion_picture(matrix, names)
    assert share(confusion_picture(np.diag([1, 2, 1]), names), SERIES[0]) > 1.3 * share(picture, SERIES[0]) > 0
    assert statistics.confusion(RunFolder(tmp_path / "none")) is None


def test_empty_and_tiny_inputs_still_draw() -> None:
    assert weights_picture([]) and activations_picture([]) and scales_picture({})
    assert scales_picture({"a": [1.0], "b.weight": [0.5, 0.25, 4.0]})
    assert confusion_picture(np.zeros((40, 40), np.int64), [str(i) for i in range(40)])


def test_names_that_the_font_cannot_draw_become_numbers() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = confusion_picture(np.eye(3, dtype=np.int64), ["Äpfel", "いちご", "$x_"])
    assert drawn == confusion_picture(np.eye(3, dtype=np.int64), ["Äpfel", "1", "$x_"])
