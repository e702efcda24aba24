"""Parts of networks in common use, from PyTorch and through its ONNX exporter: one integer network, exact in C."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from mcuq.frontend.files import import_model  # noqa: E402
from mcuq.frontend.torch import capture  # noqa: E402
from mcuq.ir.fuse import fuse  # noqa: E402
from mcuq.ir.graph import Graph  # noqa: E402
from mcuq.ir.text import to_text  # noqa: E402
from mcuq.lower.lower import lower  # noqa: E402
from mcuq.parity import compare  # noqa: E402
from mcuq.plan.memory import plan_memory  # noqa: E402
from mcuq.quant.ptq import ptq  # noqa: E402
from mcuq.reference import floating  # noqa: E402


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: Any = nn.ReLU) -> Any:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), act())


class MobileNetV3(nn.Module):
    """Hard swish, depthwise, squeeze and excite with a hard sigmoid, residual."""

    shape = (16, 16, 3)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide = conv(3, 8, 3, 2, act=nn.Hardswish), conv(8, 16, 1, act=nn.Hardswish)
        self.deep, self.narrow = conv(16, 16, 5, 1, 16, act=nn.Hardswish), conv(16, 8, 1, act=nn.Identity)
        self.squeeze, self.excite = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.last, self.head = nn.Linear(8, 12), nn.Linear(12, 5)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        y = self.deep(self.wide(x))
        gate = F.hardsigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        x = x + self.narrow(y * gate)
        return self.head(F.hardswish(self.last(x.mean((2, 3)))))


class Yolo(nn.Module):
    """SiLU, leaky ReLU, upsampling, joined scales, decoded boxes as two outputs."""

    shape = (16, 16, 3)

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = conv(3, 8, 3, 2, act=nn.SiLU), conv(8, 16, 3, 2, act=lambda: nn.LeakyReLU(0.1))
        self.lateral, self.fine, self.coarse = conv(16, 8, 1, act=nn.SiLU), nn.Conv2d(16, 6, 1), nn.Conv2d(16, 6, 1)

    def forward(self, x: Any) -> Any:
        one = self.one(x)
        two = self.two(one)
        joined = torch.cat([F.interpolate(self.lateral(two), scale_factor=2), one], 1)
        return torch.sigmoid(self.fine(joined)), self.coarse(F.max_pool2d(two, 5, 1, 2))


class Autoencoder(nn.Module):
    """ELU, tanh, pixel shuffle, bilinear resizing, sigmoid."""

    shape = (12, 8, 2)

    def __init__(self) -> None:
        super().__init__()
        self.down, self.middle = nn.Conv2d(2, 6, 3, 2, 1), nn.Conv2d(6, 8, 1)
        self.up, self.last = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x: Any) -> Any:
        x = torch.tanh(self.middle(F.elu(self.down(x))))
        x = F.pixel_shuffle(x, 2)
        x = F.gelu(self.up(x))
        x = F.interpolate(x, scale_factor=(0.5, 2), mode="bilinear", align_corners=False)
        return torch.sigmoid(self.last(x))


class Shuffle(nn.Module):
    """Channel split and shuffle, PReLU."""

    shape = (8, 8, 3)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch, self.act = conv(3, 8), conv(4, 4, 3, 1, 4), nn.PReLU(8, 0.1)
        self.head = nn.Linear(8 * 16, 5)
        nn.init.uniform_(self.act.weight, -0.3, 0.5)

    def forward(self, x: Any) -> Any:
        a, b = self.stem(x).chunk(2, 1)
        x = torch.cat([a, self.branch(b)], 1)
        n, c, h, w = x.shape
        x = self.act(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))
        return self.head(F.max_pool2d(x, 2).flatten(1))


class Attention(nn.Module):
    """Gates per pixel from means and maxima over channels; L2-normalized result."""

    shape = (8, 6, 3)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gate, self.head = conv(3, 8), nn.Conv2d(2, 1, 3, padding=1), nn.Conv2d(8, 6, 1)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        facts = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        x = x * torch.sigmoid(self.gate(facts))
        return F.normalize(self.head(x).mean((2, 3)), dim=1)


class TimeSeries(nn.Module):
    """1-D convolutions, dilated, with a residual and softplus."""

    shape = (32, 4)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv1d(4, 8, 5, 2, 2), nn.BatchNorm1d(8)
        self.second, self.head = nn.Conv1d(8, 8, 3, padding=2, dilation=2), nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        x = F.relu(self.norm(self.first(x)))
        x = F.softplus(self.second(x)) - x
        return self.head(F.adaptive_avg_pool1d(x, 1).flatten(1))


class UNet(nn.Module):
    """Transposed convolutions back up, joined with the maps on the way down."""

    shape = (8, 12, 2)

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = conv(2, 6), conv(6, 8, 3, 2), conv(8, 10, 3, 2)
        self.up, self.norm = nn.ConvTranspose2d(10, 8, 2, 2), nn.BatchNorm2d(8)
        self.last_up, self.last = nn.ConvTranspose2d(16, 6, 3, 2, 1, 1, groups=2), nn.Conv2d(12, 2, 1)

    def forward(self, x: Any) -> Any:
        one = self.one(x)
        two = self.two(one)
        x = torch.cat([F.relu(self.norm(self.up(self.three(two)))), two], 1)
        return self.last(torch.cat([self.last_up(x), one], 1))


class ConvNeXt(nn.Module):
    """Depthwise 7x7, layer norms over channels in both layouts, GELU, a scaled branch, group norm."""

    shape = (8, 8, 3)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep, self.group = nn.Conv2d(3, 8, 2, 2), nn.Conv2d(8, 8, 7, 1, 3, groups=8), nn.GroupNorm(2, 8)
        self.inner, self.last, self.scale = nn.LayerNorm(8, 1e-6), nn.LayerNorm(8), nn.Parameter(torch.full((8,), 0.5))
        self.wide, self.narrow, self.head = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        x = self.group(self.stem(x))
        y = self.inner(self.deep(x).permute(0, 2, 3, 1))
        x = x + (self.scale * self.narrow(F.gelu(self.wide(y)))).permute(0, 3, 1, 2)
        return self.head(self.last(x.mean((2, 3))))


NETWORKS = (ConvNeXt, UNet, MobileNetV3, Yolo, Autoencoder, Shuffle, Attention, TimeSeries)


def build(kind: Any) -> Any:
    torch.manual_seed(0)
    module = kind()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d):
            torch.as_tensor(part.running_mean).normal_(0, 0.3)
            torch.as_tensor(part.running_var).uniform_(0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
    return module.eval()


def renamed(graph: Graph) -> Graph:
    """Positions as names, no places in the source."""
    names = {op.name: f"t{i}" for i, op in enumerate(graph)}
    ops = (replace(op, name=names[op.name], inputs=tuple(names[i] for i in op.inputs), source="") for op in graph)
    return Graph(tuple(ops), tuple(names[name] for name in graph.outputs))


def exported(module: Any, x: Any, path: Path) -> Graph:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        preserved = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}  # batch norms stay
        torch.onnx.export(module, (x,), str(path), input_names=["x"], dynamo=False, opset_version=17, **preserved)
    graph = import_model(path)
    assert isinstance(graph, Graph)
    return graph


QUICK = (MobileNetV3,)


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, id=k.__name__, marks=[] if k in QUICK else [pytest.mark.slow]) for k in NETWORKS],
)
def test_network_from_pytorch_and_onnx_to_c(kind: Any, tmp_path: Path) -> None:
    module = build(kind)
    shape = kind.shape if len(kind.shape) == 3 else (1, *kind.shape)
    images = np.random.default_rng(0).normal(0, 1, (8, *shape))
    x = torch.from_numpy(images.transpose(0, 3, 1, 2)).float()
    x = x if len(kind.shape) == 3 else x[:, :, 0]
    wanted = module(x)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    graphs = [fuse(capture(module, kind.shape).graph), fuse(exported(module, x[:1], tmp_path / "net.onnx"))]
    for graph in graphs:
        values = floating.run(graph, images)
        for name, real in zip(graph.outputs, wanted, strict=True):
            expected = real.detach().numpy()
            found = values[name].transpose(0, 3, 1, 2) if expected.ndim == 4 else values[name]
            np.testing.assert_allclose(
                found.reshape(expected.shape), expected, atol=2e-3 if kind is Autoencoder else 2e-5
            )
            assert expected.std() > 1e-3
    integers = [lower(ptq(renamed(graph), images, (8, 8))) for graph in graphs]
    assert to_text(integers[1]) == to_text(integers[0])
    network = lower(ptq(graphs[0], images, (4, 4)))
    codes = np.random.default_rng(1).integers(-128, 128, (2, *shape))
    result = compare(network, plan_memory(network, "portable"), None, codes)
    assert result.exact, result.first
