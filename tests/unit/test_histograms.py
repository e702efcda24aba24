"""Histograms of weights: complete, in the steps of the quantizer, as many codes as are deployed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mcuq.pipeline import statistics
from mcuq.pipeline.runs import RunFolder

torch = pytest.importorskip("torch")
from test_train import op_of, small_data, small_net  # noqa: E402

from mcuq.errors import UsageError  # noqa: E402
from mcuq.quant import QuantOp  # noqa: E402
from mcuq.quant.histograms import real_weights, weight_histograms  # noqa: E402
from mcuq.quant.settings import TrainConfig  # noqa: E402
from mcuq.quant.train import train_qat  # noqa: E402


def test_histograms_count_every_weight_and_survive_the_disk(tmp_path: Path) -> None:
    op = op_of(small_net(), bits=2, fold_type="ICN")
    before = real_weights(op)
    with torch.no_grad():
        for layer in op.layers.values():
            layer.weight.mul_(1.5)
    found = weight_histograms(op, before)
    statistics.write_weights(RunFolder(tmp_path), found)
    rows = statistics.weight_rows(RunFolder(tmp_path))
    assert [row.layer for row in rows] == list(op.layers)
    for row, layer in zip(rows, op.layers.values(), strict=True):
        size = layer.weight.numel()
        assert row.before.sum() == row.after.sum() == row.counts.sum() == size
        deployed = layer.deployed()
        assert len(row.codes) == len(np.unique(deployed.codes)) == row.levels == 4
        assert not np.array_equal(row.before, row.after)
    assert statistics.weight_rows(RunFolder(tmp_path / "none")) == []


def test_histograms_of_rescaled_weights_are_in_their_own_scale() -> None:
    pixels = small_data().normalization
    rescaled = QuantOp(small_net(), "PerLayerDoReFa", 2, input_shape=(8, 8, 1), normalization=pixels, fold_type="ICN")
    for histogram in weight_histograms(rescaled, real_weights(rescaled)).values():
        assert np.array_equal(histogram.before, histogram.after) and len(histogram.codes) <= histogram.levels
        middle = (histogram.edges[:-1] + histogram.edges[1:]) / 2
        assert np.average(middle, weights=histogram.after) == pytest.approx(
            np.average(histogram.codes, weights=histogram.counts), abs=0.35
        ), "real weights and codes lie in the same place"
    config = TrainConfig(1, batch_size=16, freezing=0.01)
    with pytest.raises(UsageError, match=r"another scale in '0' \(PerLayerDoReFa\)"):
        train_qat(rescaled, small_data(), config)
