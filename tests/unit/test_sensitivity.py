"""Sensitivity tables: what they cover, how they order, and that KL is what it says."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from mcuq.errors import DataError  # noqa: E402
from mcuq.frontend.torch import capture  # noqa: E402
from mcuq.ir.graph import Graph, Normalization  # noqa: E402
from mcuq.ir.plans import Sensitivity  # noqa: E402
from mcuq.quant import data_free, fit, kl, sqnr  # noqa: E402
from mcuq.quant.curvature import hessian, loss_increase  # noqa: E402
from mcuq.quant.float_model import FloatModel  # noqa: E402
from mcuq.quant.sensitivity import quantized_weights  # noqa: E402
from mcuq.reference import floating  # noqa: E402

MEASURES = {"kl": kl, "sqnr": sqnr, "fit": fit}


def graph() -> Graph:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 6, 3, groups=3),
        nn.ReLU6(),
        nn.Flatten(),
        nn.Linear(24, 4),
        nn.Softmax(1),
    )
    nn.init.uniform_(net[1].weight, 0.5, 2.0)
    nn.init.normal_(net[1].running_mean)
    return capture(net, (8, 8, 2), Normalization(1 / 64, 128)).graph


def images(count: int = 24) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 2), dtype=np.uint8)


def test_float_model_is_the_captured_graph() -> None:
    model = FloatModel(graph())
    x = images(4)
    values = model.run(model.inputs(x))
    expected = floating.run(graph(), (x.astype(float) - 128) / 64)
    np.testing.assert_allclose(values["8"].permute(0, 2, 3, 1).numpy(), expected["8"], atol=1e-6)
    assert model.scores() == "7"


@pytest.mark.parametrize("method", ["kl", "sqnr", "fit", "data-free"])
def test_tables_cover_every_tensor_and_fewer_bits_cost_more(method: str) -> None:
    table = data_free(graph()) if method == "data-free" else MEASURES[method](graph(), images())
    assert table.method == method
    found = {(e.layer, e.kind, e.bits) for e in table.losses}
    weights = {(layer, "weight", b) for layer in "047" for b in (8, 4, 2)}
    activations = {(name, "activation", b) for name in "034" for b in (8, 4, 2)}
    assert found == weights | activations | {("input", "activation", 8), ("7", "activation", 8)}
    for layer, kind, bits in found:
        loss = table.loss(layer, kind, bits)  # type: ignore[arg-type]
        assert loss >= 0
        if bits != 8:
            assert loss >= table.loss(layer, kind, 8)  # type: ignore[arg-type]
    assert table.loss("0", "weight", 2) > 3 * table.loss("0", "weight", 8) > 0
    assert table.loss("input", "activation", 8) < 1e-9, "pixels are exact"


def test_kl_equals_its_definition() -> None:
    x = images(10)
    model = FloatModel(graph())
    values = model.run(model.inputs(x))
    p = values["8"].flatten(1).double()
    model.weights["4"] = quantized_weights(model.weights["4"], 2)
    q = model.run(model.inputs(x))["8"].flatten(1).double()
    expected = float((p * (p.log() - q.log())).sum(1).mean())
    assert kl(graph(), x, batch_size=4).loss("4", "weight", 2) == pytest.approx(expected, rel=1e-4)


def test_wrong_images_are_refused() -> None:
    with pytest.raises(DataError, match="at least one image"):
        kl(graph(), images(0))
    with pytest.raises(DataError, match="the network takes"):
        kl(graph(), images(2)[:, :4])


@pytest.mark.parametrize("method", ["kl", "sqnr", "fit", "hessian", "loss", "data-free"])
def test_layers_are_measured_with_one_step_too(method: str) -> None:
    x, labels = images(), np.arange(24) % 4
    measures = {
        **MEASURES,
        "hessian": hessian,
        "loss": lambda graph, x, **more: loss_increase(graph, x, labels, **more),
        "data-free": lambda graph, x, **more: data_free(graph, **more),
    }
    both, plain = (measures[method](graph(), x, **more) for more in ({"per_layer": ("0", "7")}, {}))
    assert {k: v for k, v in losses(both).items() if k[2] > 0} == losses(plain)
    assert {(layer, bits) for layer, _, bits in losses(both) if bits < 0} == {(n, -b) for n in "07" for b in (8, 4, 2)}
    for layer in "07":
        rising = [both.loss(layer, "weight", -b) for b in (8, 4, 2)]
        assert rising == sorted(rising)
        assert all(both.loss(layer, "weight", -b) >= both.loss(layer, "weight", b) for b in (8, 4, 2))
    if method in ("kl", "sqnr", "data-free"):
        assert both.loss("0", "weight", -2) > both.loss("0", "weight", 2)


def losses(table: Sensitivity) -> dict[tuple[str, str, int], float]:
    return {(e.layer, e.kind, e.bits): e.loss for e in table.losses}


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_one_step_for_the_layer_is_that_of_one_long_row(bits: int) -> None:
    weight = torch.randn((6, 5, 3, 3), generator=torch.Generator().manual_seed(bits))
    weight *= torch.tensor([0.1, 0.5, 1.0, 1.0, 2.0, 3.0])[:, None, None, None]
    single = quantized_weights(weight.reshape(1, -1), bits).reshape(weight.shape)
    assert torch.equal(quantized_weights(weight, -bits), single)
    assert len(quantized_weights(weight, -bits).unique()) <= 1 << bits
