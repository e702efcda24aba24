"""The torch front end: shapes, layouts, names, and one error for everything unsupported."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from mcuq.errors import ModelError, UnsupportedError, UsageError  # noqa: E402
from mcuq.frontend.torch import capture  # noqa: E402
from mcuq.ir import graph as ir  # noqa: E402


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.same = nn.Conv2d(8, 8, (4, 2), padding="same")
        self.drop = nn.Dropout()
        self.fc = nn.Linear(8 * 4 * 3, 10)

    def forward(self, x: Any) -> Any:
        x = F.pad(x, (0, 1, 0, 2))
        y = self.relu(self.bn(self.conv(x)))
        z = self.same(y)
        z += y
        z = F.relu(z, inplace=True)
        z = F.max_pool2d(torch.cat([z, y], 1)[:, :] if False else z, 2, ceil_mode=True)
        return self.fc(self.drop(z.flatten(1)))


def test_residual_network() -> None:
    model = Residual()
    model.bn.eval()
    captured = capture(model, (15, 11, 3))
    kinds = [(type(op).__name__, op.name) for op in captured.graph]
    assert kinds == [
        ("Input", "input"),
        ("Pad", "pad"),
        ("Conv2d", "conv"),
        ("BatchNorm", "bn"),
        ("Clip", "relu"),
        ("Conv2d", "same"),
        ("Add", "add"),
        ("Clip", "relu_2"),
        ("MaxPool", "max_pool"),
        ("Conv2d", "fc"),
    ]
    pad, same, pool = (captured.graph.op(n) for n in ("pad", "same", "max_pool"))
    assert isinstance(pad, ir.Pad) and pad.padding == (0, 0, 2, 1)
    assert isinstance(same, ir.Conv2d) and same.window.padding == (1, 0, 2, 1)
    assert isinstance(pool, ir.MaxPool) and pool.shape == (4, 3, 8)
    assert captured.parameters["bn"]["variance"] == "bn.running_var"
    assert captured.parameters["conv"] == {"weight": "conv.weight"}
    assert model.training and not model.bn.training and model.drop.training


def test_weights_keep_their_meaning_after_permutation() -> None:
    model = Residual()
    graph = capture(model, (15, 11, 3)).graph
    conv, fc = graph.op("conv"), graph.op("fc")
    assert isinstance(conv, ir.Conv2d) and isinstance(fc, ir.Conv2d)
    np.testing.assert_array_equal(conv.weight[1, 2, 0], model.conv.weight[1, :, 2, 0].detach().numpy())
    assert fc.weight.shape == (10, 4, 3, 8)
    x = torch.randn(1, 8, 4, 3)
    expected = model.fc(x.flatten(1)).detach().numpy()[0]
    actual = np.einsum("ohwc,chw->o", fc.weight, x[0].numpy()) + fc.bias
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_vectors_and_sequences() -> None:
    vector = nn.Sequential(nn.Linear(16, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 16))
    for shape in ((16,), (1, 1, 16)):
        graph = capture(vector, shape).graph
        assert graph.input.shape == (1, 1, 16)
        assert [op.name for op in graph.convs] == ["0", "3"]
    sequence = nn.Sequential(nn.Conv1d(2, 4, 5, 2, 1, 2), nn.MaxPool1d(2), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    graph = capture(sequence, (20, 2)).graph
    conv = graph.op("0")
    assert isinstance(conv, ir.Conv2d)
    assert conv.window == ir.Window((1, 5), (1, 2), (0, 1, 0, 1), (1, 2))
    assert graph.op(graph.outputs[0]).shape == (1, 1, 4)


class Unfit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Any) -> Any:
        x = torch.sort(self.conv(x), 1)[0]
        x = torch.cumsum(x, 2)
        return F.scaled_dot_product_attention(*[self.conv(x[:, :3])] * 3)


def test_every_unsupported_operator_in_one_error() -> None:
    with pytest.raises(UnsupportedError) as caught:
        capture(Unfit(), (9, 9, 3))
    text = str(caught.value)
    assert text.startswith("3 operators") and "aten.cumsum" in text and "aten.scaled_dot_product_attention" in text
    assert "aten.sort" in text and "run it on the network's outputs" in text
    assert "test_frontend_torch.py:" in text and "torch.sort(self.conv(x), 1)" in text


@pytest.mark.parametrize(
    ("module", "shape", "words"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3, padding=2, padding_mode="reflect")), (2, 2, 1), "cannot capture"),
        (nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False)), (6, 6, 2), "running statistics"),
        (nn.Sequential(nn.Conv2d(3, 2, 3)), (6, 6, 2), "torch.export cannot capture Sequential"),
    ],
)
def test_refusals_say_why(module: nn.Module, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        capture(module, shape)


def test_nan_weights_name_layer_and_count() -> None:
    conv = nn.Conv2d(3, 2, 3)
    model = nn.Sequential(conv)
    with torch.no_grad():
        conv.weight[1, 2, 0] = float("nan")
    with pytest.raises(ModelError, match=r"0\.weight \(3 of 54 values\)"):
        capture(model, (6, 6, 3))


def test_hostile_names_are_refused_before_torch_runs_them() -> None:
    model = nn.Sequential()
    model.add_module('x"; system("ls") #', nn.Conv2d(1, 1, 1))
    with pytest.raises(ModelError, match=r"name 'x\"; system\(\"ls\"\) #' is not a plain name"):
        capture(model, (2, 2, 1))


def test_odd_but_plain_names() -> None:
    model = nn.ModuleDict({"3x3": nn.Conv2d(1, 1, 3), "a-b": nn.ReLU()})
    graph = capture(nn.Sequential(model["3x3"], model["a-b"]), (4, 4, 1)).graph
    assert graph.op(graph.outputs[0]).shape == (2, 2, 1)
    sequential = nn.Sequential()
    sequential.add_module("conv-1", nn.Conv2d(1, 1, 1))
    assert capture(sequential, (2, 2, 1)).graph.outputs == ("conv-1",)


def test_a_module_called_twice_gives_two_layers_with_one_parameter() -> None:
    conv = nn.Conv2d(2, 2, 1)
    captured = capture(nn.Sequential(conv, conv), (2, 2, 2))
    first, second = (op.name for op in captured.graph.convs)
    assert first != second
    assert captured.parameters[first] == captured.parameters[second]


def test_shape_is_checked() -> None:
    with pytest.raises(UsageError, match="positive integers"):
        capture(nn.Identity(), (0, 1, 2))
