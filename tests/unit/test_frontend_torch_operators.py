"""Operators of ATen in groups: each module returns many results, every one equal to PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from mcuq.frontend.torch import HANDLERS, capture  # noqa: E402
from mcuq.ir.fuse import fuse  # noqa: E402
from mcuq.reference import floating  # noqa: E402

Case = Callable[[Any], Any]


class Many(nn.Module):
    """Every function of the first convolution's output."""

    def __init__(self, functions: dict[str, Case]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 1)
        self.functions = functions

    def forward(self, x: Any) -> Any:
        y = self.conv(x)
        return tuple(function(y) for function in self.functions.values())


def boxes(x: Any) -> Any:
    """[N, anchors, H, W, 4], as detectors view their last map."""
    return x.view(len(x), 2, 4, 6, 10).permute(0, 1, 3, 4, 2)


def assigned(x: Any) -> Any:
    x = x.clone()
    x[:, :4] = F.relu(x[:, :4])
    x[:, 6] = 0.25
    return x


def shifted(x: Any) -> Any:
    """One column to the left, zeros behind, as temporal shift modules do it."""
    y = torch.zeros_like(x)
    y[..., :-1] = x[..., 1:]
    return y


def coordinates(x: Any) -> Any:
    """Places of pixels as further channels."""
    grid = torch.meshgrid(torch.arange(6.0), torch.arange(10.0), indexing="ij")
    return torch.cat([x[:, :2], *(g.expand(len(x), 1, 6, 10) for g in grid)], 1)


FUNCTIONS: dict[str, Case] = {
    "sigmoid": torch.sigmoid, "tanh": torch.tanh, "gelu": F.gelu, "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu, "mish": F.mish, "hard swish": F.hardswish, "hard sigmoid": F.hardsigmoid, "elu": F.elu,
    "selu": F.selu, "celu": lambda x: F.celu(x, 0.5), "softplus": lambda x: F.softplus(x, 2.0),
    "softsign": F.softsign, "log sigmoid": F.logsigmoid, "leaky relu": lambda x: F.leaky_relu(x, 0.2),
    "threshold": lambda x: F.threshold(x, 0.1, 2.0), "exp": torch.exp, "log": lambda x: torch.log(x.abs() + 1),
    "sqrt": lambda x: torch.sqrt(x.abs()), "rsqrt": lambda x: torch.rsqrt(x.abs() + 1), "square": torch.square,
    "reciprocal": lambda x: 1 / (x.abs() + 1), "erf": torch.erf, "power": lambda x: (x.abs() + 0.1) ** 1.5,
    "power of a constant": lambda x: 2.0**x, "clamp": lambda x: x.clamp(-0.3, 0.4), "relu6": F.relu6,
    "hardtanh": F.hardtanh, "neg": lambda x: -x,
    "choice": lambda x: torch.where(x > 0, x, 0.1 * x), "mask": lambda x: x * (x != 0).float() * (x >= -0.5).float(),
    "hard shrink": F.hardshrink, "soft shrink": F.softshrink,
    "power of a tensor": lambda x: x.abs() ** torch.tensor(2.5),
    "swish with a factor": lambda x: x * torch.sigmoid(1.5 * x),
}  # fmt: skip
TWO: dict[str, Case] = {
    "product": lambda x: x * F.relu(x[:, :8].flip(3)),
    "quotient": lambda x: x / (1 + torch.sigmoid(x.flip(2))),
    "difference": lambda x: x - x.flip(3),
    "reversed difference": lambda x: 2 - x,
    "maximum": lambda x: torch.maximum(x, x.flip(2)),
    "minimum": lambda x: torch.minimum(x, x.flip(2)),
    "squeeze and excite": lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
    "sum with a pooled map": lambda x: x + x.amax((2, 3), keepdim=True),
    "gate per pixel": lambda x: x * torch.sigmoid(x.mean(1, keepdim=True)),
    "constants per channel": lambda x: x * torch.arange(8).reshape(8, 1, 1) / 4 - 0.5,
    "crelu": lambda x: torch.relu(torch.cat([x, -x], 1)),
    "constants per column": lambda x: x * torch.linspace(0.5, 2, 10) - torch.arange(10.0),
    "constants per row": lambda x: torch.arange(6.0).reshape(6, 1) - x,
    "constants per element": lambda x: x / torch.linspace(0.5, 2, 480).reshape(1, 8, 6, 10),
    "larger": lambda x: torch.max(x, x.flip(2)), "smaller": lambda x: torch.min(x, x.flip(2)),
    "copies of a channel with their own constants": lambda x: x[:, :1].repeat(1, 3, 1, 1) * torch.arange(3.0).reshape(
        3, 1, 1
    ),
    "mask of another map": lambda x: torch.where(x > 0.1, x.flip(2), 2.0) * (x.flip(3) <= x),
    "masked fill": lambda x: x.masked_fill(x.flip(3) < 0, -1.0), "not": lambda x: torch.logical_not(x >= 0) * 1.0,
    "a multiple": lambda x: torch.add(x, x.flip(3), alpha=2), "gated linear unit": lambda x: F.glu(x, 1),
    "prelu": lambda x: F.prelu(x, torch.full((1,), 0.25)),
}  # fmt: skip
MOVES: dict[str, Case] = {
    "permute": lambda x: F.relu(x.permute(0, 2, 1, 3)), "transpose": lambda x: F.relu(x.transpose(1, 3)),
    "crop": lambda x: x[:, :, 1:5, 2:], "steps": lambda x: x[:, ::2, ::3, 1::2], "flip": lambda x: x.flip(1, 3),
    "chunk": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1), "split": lambda x: x.split([3, 5], 1)[1],
    "select": lambda x: x.select(2, 1), "narrow": lambda x: x.narrow(1, 2, 4), "unbind": lambda x: x.unbind(3)[2],
    "pixel shuffle": lambda x: F.pixel_shuffle(x, 2), "pixel unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "channel shuffle": lambda x: F.channel_shuffle(x, 2),
    "repeat": lambda x: x.repeat(1, 1, 2, 1), "index select": lambda x: x.index_select(1, torch.tensor([5, 0, 2])),
    "concat along rows": lambda x: torch.cat([x, x.abs()], 2), "stack": lambda x: torch.stack([x[:, 0], x[:, 1]], 1),
    "pieces of rows": lambda x: torch.cat(x.split([1, 2, 7], 3)[::-1], 3), "roll": lambda x: x.roll(2, 2),
    "halves of a vector as channels": lambda x: torch.cat(
        x.permute(0, 2, 3, 1).flatten(1).unflatten(1, (2, 2, 12, 10)).unbind(1)[::-1], 1
    ),
    "boxes": lambda x: torch.cat([torch.sigmoid(boxes(x)[..., :1]), boxes(x)[..., 1:] * torch.ones(1, 2, 1, 1, 3)], 4),
    "weights of two maps": lambda x: (torch.stack([x, x.abs()], 1) * x.mean((2, 3)).view(-1, 2, 4, 1, 1).repeat(
        1, 1, 2, 1, 1).softmax(1)).sum(1),
    "pixels as samples": lambda x: F.softmax(x.permute(0, 2, 3, 1).reshape(-1, 8), 1),
    "assigned slices": assigned, "shifted": shifted,
    "joined constants": coordinates,
    "list": lambda x: x[:, :, [0, 3, -1]], "crop and pad": lambda x: F.pad(x, (-1, 2, 0, -2), value=0.5),
    "flatten": lambda x: x.flatten(1), "pad": lambda x: F.pad(x, (1, 2, 0, 1)),
    "pad with 1": lambda x: F.pad(x, (1, 1), value=1.0), "reflect": lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"),
    "replicate": lambda x: F.pad(x, (1, 2, 2, 1), mode="replicate"),
    "circular": lambda x: F.pad(x, (1, 2, 2, 1), mode="circular"),
}  # fmt: skip
SHAPES: dict[str, Case] = {
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "nearest to a size": lambda x: F.interpolate(x, size=(5, 13)),
    "nearest exact": lambda x: F.interpolate(x, size=(5, 13), mode="nearest-exact"),
    "bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "bilinear, corners": lambda x: F.interpolate(x, size=(11, 15), mode="bilinear", align_corners=True),
    "l2 normalization": lambda x: F.normalize(x, dim=1), "softmax": lambda x: torch.softmax(x, 1),
    "softmax over columns": lambda x: torch.softmax(x, 3),
    "softmax of paths": lambda x: torch.softmax(x.unflatten(1, (2, -1)), 1).flatten(1, 2),
    "mean of channels": lambda x: x.mean(1),
    "sum": lambda x: x.sum((2, 3)), "mean of rows": lambda x: x.mean(2), "largest of channels": lambda x: x.amax(1),
    "adaptive max": lambda x: F.adaptive_max_pool2d(x, (2, 5)), "mean of channels and rows": lambda x: x.mean((1, 2)),
    "log softmax": lambda x: torch.log_softmax(x, 1), "smallest of channels": lambda x: x.amin(1),
    "largest of rows": lambda x: x.max(2, keepdim=True).values, "smallest of columns": lambda x: x.min(3)[0],
    "ceil counting padding": lambda x: F.avg_pool2d(x, (3, 2), (2, 3), 1, True),
    "ceil without padding": lambda x: F.avg_pool2d(x, 4, 4, 0, True),
    "divisor": lambda x: F.avg_pool2d(x, 2, 2, 1, divisor_override=3),
    "uneven windows": lambda x: F.adaptive_avg_pool2d(x, (4, 3)), "more windows": lambda x: F.adaptive_avg_pool2d(x, 7),
    "uneven maxima": lambda x: F.adaptive_max_pool2d(x, (4, 7)),
    "variance": lambda x: x.var((2, 3)), "deviation": lambda x: x.flatten(2).std(2, unbiased=False),
    "cosine": lambda x: F.cosine_similarity(x[:, :, 0], x[:, :, 1]), "length": lambda x: x.norm(dim=1),
    "distance": lambda x: F.pairwise_distance(x[:, :, 0, 0], x[:, :, 5, 9]),
    "norm of all": lambda x: x.norm(dim=(2, 3)),
    "log sum exp": lambda x: torch.logsumexp(x, 1), "sum of 480": lambda x: x.flatten(2).repeat(1, 1, 8).sum(2),
    "argmax of pixels": lambda x: x.argmax(1, keepdim=True).float(), "argmin of rows": lambda x: x.argmin(2).float(),
    "matrix": lambda x: x.mean((2, 3)) @ torch.linspace(-1, 1, 24).reshape(8, 3),
    "argmax": lambda x: x.mean((2, 3)).argmax(1).float(),
}  # fmt: skip


@pytest.mark.parametrize("functions", [FUNCTIONS, TWO, MOVES, SHAPES], ids=["functions", "two", "moves", "shapes"])
def test_c15_operators_equal_pytorchs(functions: dict[str, Case]) -> None:
    module = Many({k: f for k, f in functions.items() if k != "argmax"}).eval()
    images = np.random.default_rng(3).normal(0, 1, (2, 6, 10, 3))
    graph = fuse(capture(module, (6, 10, 3)).graph)
    found = floating.run(graph, images)
    x = torch.from_numpy(images.transpose(0, 3, 1, 2)).float()
    wanted = dict(zip(module.functions, module(x), strict=True))
    assert len(graph.outputs) == len(wanted)
    for name, output in zip(wanted, graph.outputs, strict=True):
        expected = wanted[name].detach().numpy()
        value = found[output]
        if value.size == expected.size and expected.ndim == 4 and value.shape != expected.shape:
            value = value.transpose(0, 3, 1, 2)
        elif expected.ndim == 3 and value.shape[1] == 1 and value.shape[2:] != expected.shape[1:]:  # [N, C, L]: one row
            value = value[:, 0].transpose(0, 2, 1)
        atol = 2e-3 if "bilinear" in name else 1e-5
        np.testing.assert_allclose(value.reshape(expected.shape), expected, atol=atol, rtol=1e-4, err_msg=name)


class Transposed(nn.Module):
    """Every option of a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.one = nn.ConvTranspose2d(4, 6, (3, 2), (2, 3), (1, 0), (1, 2), groups=2, dilation=(1, 2))
        self.two = nn.ConvTranspose1d(4, 5, 4, 2, 1)

    def forward(self, x: Any) -> Any:
        return self.one(x), self.two(x[:, :, 0])


def test_transposed_convolutions() -> None:
    module, images = Transposed().eval(), np.random.default_rng(3).normal(0, 1, (2, 3, 4, 4))
    graph = fuse(capture(module, (3, 4, 4)).graph)
    found = floating.run(graph, images)
    for output, real in zip(graph.outputs, module(torch.from_numpy(images.transpose(0, 3, 1, 2)).float()), strict=True):
        expected = real.detach().numpy()
        value = found[output].transpose(0, 3, 1, 2)
        np.testing.assert_allclose(value.reshape(expected.shape), expected, atol=1e-5)


def test_n19_layers_of_the_table_are_read() -> None:
    """Activation, element-wise, padding, pools, reshape, resize, scaling, threshold, transpose, conv, deconv, fc."""
    names = {name.split(".")[1] for name in HANDLERS}
    assert names >= {
        "conv2d", "conv_transpose2d", "linear", "batch_norm", "relu", "add", "sub", "mul", "maximum", "pad",
        "max_pool2d", "avg_pool2d", "view", "upsample_nearest2d", "upsample_bilinear2d", "threshold", "permute",
    }  # fmt: skip
