"""Dead channels planted in a trained network are found and removed through depthwise, addition and concatenation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mcuq import data
from mcuq.data import Dataset
from mcuq.frontend.torch import capture
from mcuq.ir.fuse import fuse
from mcuq.ir.graph import Conv2d, Graph
from mcuq.ir.integer import IntegerGraph, QConv2d
from mcuq.lower import lower
from mcuq.lower.dead_channels import remove_dead_channels
from mcuq.quant.ptq import PtqOptions, ptq
from mcuq.reference.integer import run_outputs

CHANNELS = 8


class Branches(nn.Module):
    """stem -> depthwise -> pointwise -> + stem's twin -> concatenated with the twin -> pool -> fc."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, CHANNELS, 3, padding=1)
        self.dw = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS)
        self.pw = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.twin = nn.Conv2d(1, CHANNELS, 3, padding=1)
        self.fc = nn.Linear(2 * CHANNELS * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.pw(torch.relu(self.dw(torch.relu(self.stem(x))))))
        z = torch.relu(self.twin(x))
        joined = torch.cat([torch.relu(y + z), z], dim=1)
        return self.fc(torch.flatten(nn.functional.max_pool2d(joined, 4), 1))


def trained(digits: Dataset) -> nn.Module:
    torch.manual_seed(0)
    net = Branches()
    scale, zero = digits.normalization.scale, digits.normalization.zero_point
    x = (torch.tensor(digits.x_train).permute(0, 3, 1, 2).float() - zero) * scale
    y = torch.tensor(digits.y_train)
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    for batch in torch.randperm(len(x)).split(64) * 6:
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
        optimizer.step()
    return net.eval()


def planted(graph: Graph, **dead: tuple[int, ...]) -> Graph:
    """Biases far below zero: the ReLU behind gives 0 for every input."""
    ops: list[Any] = []
    for op in graph:
        if isinstance(op, Conv2d) and op.name in dead:
            bias = op.bias.copy()
            bias[list(dead[op.name])] = -1000.0
            op = replace(op, bias=bias)
        ops.append(op)
    return Graph(tuple(ops), graph.outputs)


def widths(graph: IntegerGraph) -> dict[str, int]:
    return {op.name: op.output.shape[2] for op in graph if isinstance(op, QConv2d)}


@pytest.mark.slow
def test_planted_channels_go_and_ten_thousand_outputs_stay() -> None:
    digits = data.load("digits")
    graph = fuse(capture(trained(digits), digits.input_shape, digits.normalization).graph)

    def integer(net: Graph) -> IntegerGraph:
        return lower(ptq(net, digits.x_train, (8, 8), PtqOptions(rounding="nearest", images=64, activations="absmax")))

    plain = integer(graph)
    scores = run_outputs(plain, digits.x_test)[plain.outputs[0]].reshape(len(digits.x_test), -1)
    assert np.mean(scores.argmax(axis=1) == digits.y_test) > 0.85, "the network must be trained"
    alive = widths(remove_dead_channels(plain))  # training itself leaves a dead depthwise channel
    assert alive == {**widths(plain), "stem": 7, "dw": 7}
    # stem 1 dies through dw; pw 3 and twin 3 die in the sum and in the concatenation, pw 5 alone lives on in the sum.
    before = integer(planted(graph, stem=(1,), pw=(3, 5), twin=(3,)))
    after = remove_dead_channels(before)
    assert widths(after) == {**alive, "stem": 6, "dw": 6, "pw": 7, "twin": 7}
    shape, rng = digits.input_shape, np.random.default_rng(1)
    extremes = [np.full(shape, 0), np.full(shape, 255), np.indices(shape).sum(axis=0) % 2 * 255]
    for pixel in range(int(np.prod(shape))):
        for code in (0, 255):
            image = np.full(shape, 255 - code)
            image.flat[pixel] = code
            extremes.append(image)
    x = np.concatenate([rng.integers(0, 256, (10_000, *shape)), np.stack(extremes)]).astype(np.uint8)
    for name, codes in run_outputs(before, x, 500).items():
        np.testing.assert_array_equal(run_outputs(after, x, 500)[name], codes)
