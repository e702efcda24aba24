"""Modules as users write them, through PyTorch's own ONNX exporter: the import computes what the module does."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from mcuq.frontend.files import import_model  # noqa: E402
from mcuq.ir.fuse import fuse  # noqa: E402
from mcuq.ir.graph import Graph  # noqa: E402
from mcuq.reference import floating  # noqa: E402


def block(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class Shuffle(nn.Module):
    """Half of the channels pass by, then channels are shuffled."""

    shape = (3, 16, 16)

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 16, 3, 2)
        self.branch = nn.Sequential(block(8, 8, 1), block(8, 8, 3, 1, 8), block(8, 8, 1))
        self.head = nn.Linear(16, 10)

    def forward(self, x: Any) -> Any:
        first, second = self.stem(x).chunk(2, 1)
        x = torch.cat([first, self.branch(second)], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(x.mean([2, 3]))


class Dense(nn.Module):
    """Normalization of the input, norms before layers, joined maps, a flattened map."""

    shape = (3, 16, 16)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.norm2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(16)
        self.squeeze, self.head = nn.Conv2d(16, 8, 1), nn.Linear(8 * 8 * 8, 10)

    def forward(self, x: Any) -> Any:
        x = self.first((x - 0.4) / 0.25)
        x = torch.cat([x, self.second(F.relu(self.norm(x)))], 1)
        x = F.avg_pool2d(self.squeeze(F.relu(self.norm2(x))), 2)
        return F.softmax(self.head(x.flatten(1)), -1)


class Shortcut(nn.Module):
    """A residual whose shortcut subsamples and pads channels with zeros."""

    shape = (3, 16, 16)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = block(3, 8), block(8, 16, 3, 2)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        x = F.relu(self.body(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)))
        return F.avg_pool2d(x, 8).flatten(1)


class Sequence(nn.Module):
    """One-dimensional convolutions over a time series."""

    shape = (2, 64)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv1d(2, 8, 5, 2, 2), nn.BatchNorm1d(8)
        self.second, self.head = nn.Conv1d(8, 16, 3, dilation=2), nn.Linear(16, 4)

    def forward(self, x: Any) -> Any:
        x = F.relu(self.second(F.max_pool1d(F.relu(self.norm(self.first(x))), 2)))
        return self.head(F.adaptive_avg_pool1d(x, 1).squeeze(-1))


def build(kind: Any) -> Any:
    torch.manual_seed(0)
    module = kind()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d):
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
    return module.eval()


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("kind", [Shuffle, Dense, Shortcut, Sequence])
def test_exported_module(tmp_path: Path, kind: Any, dynamic: bool) -> None:
    module, path = build(kind), tmp_path / "module.onnx"
    x = torch.randn(1, *kind.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = {"x": {0: "batch"}} if dynamic else None
        torch.onnx.export(module, (x,), str(path), input_names=["x"], dynamo=False, dynamic_axes=axes)
    graph = import_model(path)
    assert isinstance(graph, Graph)
    graph = fuse(graph)
    images = x.numpy().astype(np.float64)
    images = images.transpose(0, 2, 3, 1) if images.ndim == 4 else images.transpose(0, 2, 1)[:, None]
    expected = module(x).detach().numpy()
    actual = floating.run(graph, images)[graph.outputs[0]].reshape(expected.shape)
    np.testing.assert_allclose(actual, expected, atol=2e-5)
    assert expected.std() > 1e-3
