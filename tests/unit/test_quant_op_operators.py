"""Training with operators beyond convolutions: the simulation is the integer network, to the code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from mcuq.ir.graph import Normalization  # noqa: E402
from mcuq.lower import lower  # noqa: E402
from mcuq.quant import QuantOp  # noqa: E402
from mcuq.reference.integer import run  # noqa: E402


class Net(nn.Module):
    """Constants, PReLU, gates, differences, copies, resizing, a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.act = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.PReLU(8)
        self.gate, self.second = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.up, self.head = nn.ConvTranspose2d(8, 4, 2, 2), nn.Linear(4 * 16, 5)
        nn.init.uniform_(self.act.weight, -0.3, 0.5)

    def forward(self, x: Any) -> Any:
        x = self.act(self.norm(self.first((x - 0.4) / 0.25))) * 0.5 + 0.1
        a, b = x.chunk(2, 1)
        x = torch.cat([b, F.silu(a)], 1)
        x = x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        x = torch.maximum(F.hardswish(self.second(x)) - x, x)
        x = F.max_pool2d(self.up(F.interpolate(x, scale_factor=2)), 4)
        return self.head(x.permute(0, 2, 3, 1).flatten(1))


@pytest.mark.parametrize(("weight_bits", "act_bits"), [(8, 8), (4, 4)])
def test_simulation_equals_the_integer_network(weight_bits: int, act_bits: int) -> None:
    op = QuantOp(
        Net(),
        weight_bits=weight_bits,
        act_bits=act_bits,
        input_shape=(8, 8, 3),
        normalization=Normalization(1 / 64, 128),
    )
    optimizer = torch.optim.AdamW(op.param_groups(lr=1e-3))
    images = torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    before = op.model.gate.weight.detach().clone()
    for _ in range(2):
        optimizer.zero_grad()
        with op.quantized():
            F.cross_entropy(op(images), torch.arange(16) % 5).backward()
        optimizer.step()
    assert not torch.equal(op.model.gate.weight, before)
    op.eval()
    with torch.no_grad(), op.quantized():
        simulated = op(images).numpy()
    graph = lower(op.generate_deployment_model())
    codes = run(graph, images.permute(0, 2, 3, 1).numpy())[graph.outputs[0]].reshape(simulated.shape)
    tensor = graph.tensor(graph.outputs[0])
    np.testing.assert_allclose(tensor.scale * (codes - tensor.zero_point), simulated, atol=tensor.scale / 100)
    assert len(np.unique(codes)) > 8
