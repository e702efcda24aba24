"""Sensitivities of the loss itself, their cache, and how well sums of a table predict whole plans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from builders import RELU, Net  # noqa: E402

from mcuq.data import Dataset  # noqa: E402
from mcuq.errors import DataError  # noqa: E402
from mcuq.ir.fuse import fuse  # noqa: E402
from mcuq.ir.graph import Graph, Normalization  # noqa: E402
from mcuq.pipeline import measures  # noqa: E402
from mcuq.quant import kl  # noqa: E402
from mcuq.quant.curvature import hessian, loss_increase  # noqa: E402
from mcuq.quant.float_model import FloatModel  # noqa: E402
from mcuq.quant.prediction import check, divergences, spearman  # noqa: E402
from mcuq.quant.sensitivity import quantized_weights  # noqa: E402

PIXELS = Normalization(1 / 64, 128)


def network() -> Graph:
    net = Net((6, 6, 2), 4, PIXELS)
    net.conv("a", "x", 6, (3, 3), padding=(1, 1, 1, 1), norm=True, clamp=RELU)
    net.conv("b", "a", 6, (3, 3), groups=2, clamp=RELU)
    net.conv("c", "b", 5, (4, 4))
    return fuse(net.graph())


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 2), dtype=np.uint8)


def test_hessian_is_half_the_mean_eigenvalue_times_the_error() -> None:
    """Against the exact Hessian of the last layer's weights, whose loss is a small softmax regression."""
    graph, x = network(), images(12)
    table = hessian(graph, np.concatenate([x] * 40), batch_size=12)  # many probes: the estimate settles
    model = FloatModel(graph)
    values = model.run(model.inputs(x))
    weight, bias, column = model.weights["c"], model.biases["c"], values["b"].flatten(1)
    labels = values["c"].flatten(1).argmax(1)

    def loss(flat: torch.Tensor) -> torch.Tensor:
        scores = column @ flat.reshape(5, -1).T + bias
        return torch.nn.functional.cross_entropy(scores, labels, reduction="sum") / len(x)

    exact = torch.autograd.functional.hessian(loss, weight.reshape(-1))
    error = (quantized_weights(weight, 2) - weight).square().sum()
    expected = 0.5 * exact.trace() / weight.numel() * error
    assert table.loss("c", "weight", 2) == pytest.approx(float(expected), rel=0.1)
    assert table.loss("a", "weight", 2) > table.loss("a", "weight", 8) >= 0


def test_loss_increase_is_the_loss_of_the_swapped_network() -> None:
    graph, x = network(), images(40)
    model = FloatModel(graph)
    labels = model.run(model.inputs(x))["c"].flatten(1).argmax(1).numpy()
    table = loss_increase(graph, x, labels)
    values = model.run(model.inputs(x))
    swapped = model.rerun(values, "b", weight=quantized_weights(model.weights["b"], 2))
    wanted = torch.as_tensor(labels)
    before, after = (torch.nn.functional.cross_entropy(v["c"].flatten(1), wanted) for v in (values, swapped))
    assert table.loss("b", "weight", 2) == pytest.approx(max(0.0, float(after - before)), rel=1e-4)
    with pytest.raises(DataError, match="needs a label for every image"):
        loss_increase(graph, x, np.full(40, -1))


def test_sums_of_kl_rank_random_plans() -> None:
    graph = network()
    found = check(graph, kl(graph, images(128)), images(96, 1), 24)
    assert len(found.predicted) == len(found.measured) == 24
    assert found.spearman > 0.8
    assert found == check(graph, kl(graph, images(128)), images(96, 1), 24)


def test_one_swap_has_the_divergence_of_the_table() -> None:
    graph, x = network(), images(64)
    table = kl(graph, x)
    found = divergences(graph, x, [{(n, "weight"): 8 if n != "b" else 2 for n in "abc"}])[0]
    assert found == pytest.approx(table.loss("b", "weight", 2), rel=0.2)


def test_spearman_with_ties() -> None:
    assert spearman([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert spearman([1, 1, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.9486832980505138)
    assert spearman([1, 1], [1, 2]) == 0


def test_tables_are_read_from_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    x, y = images(32), np.zeros(32, np.int64)
    data = Dataset("d", x, y, x, y, ("a",), PIXELS)
    graph = network()
    found = measures.sensitivity(graph, "kl", data)
    files = list((tmp_path / "mcuq" / "sensitivity").iterdir())
    assert len(files) == 1
    monkeypatch.setattr(measures, "_measured", lambda *_: pytest.fail("measured again"))
    assert measures.sensitivity(graph, "kl", data) == found
    files[0].write_text("[")
    for other in (("fit", data), ("kl", Dataset("d", images(32, 1), y, x, y, ("a",), PIXELS)), ("kl", data)):
        with pytest.raises(pytest.fail.Exception, match="measured again"):
            measures.sensitivity(graph, *other)
