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
from mcuq.parity import compare  # noqa: E402
from mcuq.plan.memory import plan_memory  # noqa: E402
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
    model: Any = op.model
    trained = (model.gate.weight, model.up.weight, model.act.weight)
    before = [parameter.detach().clone() for parameter in trained]
    for _ in range(2):
        optimizer.zero_grad()
        with op.quantized():
            F.cross_entropy(op(images), torch.arange(16) % 5).backward()
        optimizer.step()
    for parameter, old in zip(trained, before, strict=True):
        assert not torch.equal(parameter, old)
    op.eval()
    with torch.no_grad(), op.quantized():
        simulated = op(images).numpy()
    graph = lower(op.generate_deployment_model())
    codes = run(graph, images.permute(0, 2, 3, 1).numpy())[graph.outputs[0]].reshape(simulated.shape)
    tensor = graph.tensor(graph.outputs[0])
    np.testing.assert_allclose(tensor.scale * (codes - tensor.zero_point), simulated, atol=tensor.scale / 100)
    assert len(np.unique(codes)) > 8


class Upsampling(nn.Module):
    """An auto-encoder with learned upsampling of every kind: overlapping, grouped, dilated, plain, 1-D below."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.down = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.PReLU())
        self.narrow = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.PReLU(8))
        self.up = nn.Sequential(nn.ConvTranspose2d(8, 8, 3, 2, 1, 1, groups=2), nn.BatchNorm2d(8), nn.PReLU(8))
        self.same = nn.Sequential(nn.ConvTranspose2d(16, 8, 3, 1, 2, dilation=2), nn.ReLU())
        self.last = nn.ConvTranspose2d(8, 1, 4, 2, 1)

    def forward(self, x: Any) -> Any:
        wide = self.down(x)
        return self.last(self.same(torch.cat([self.up(self.narrow(wide)), wide], 1)))


def blobs(count: int) -> Any:
    """Images [N, 1, 16, 16] of one soft spot each."""
    generator = torch.Generator().manual_seed(2)
    centre = 3 + 9 * torch.rand(count, 2, 1, generator=generator)
    square = (torch.arange(16) - centre) ** 2
    return torch.exp(-(square[:, 0, :, None] + square[:, 1, None, :]) / 8)[:, None]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fold_type", "quant_type"), [("folding_weights", "PerChannelsSymMSE"), ("ICN", "PerLayerAsymPACT")]
)
def test_learned_upsampling_trains_at_four_bits(fold_type: str, quant_type: str) -> None:
    op = QuantOp(Upsampling(), quant_type, 4, act_bits=4, input_shape=(16, 16, 1), fold_type=fold_type, fold_delay=1)
    x = blobs(32)
    held = dict(op.model.named_parameters())
    before = {name: value.detach().clone() for name, value in held.items()}
    optimizer = torch.optim.Adam(op.param_groups(lr=1e-2))
    losses: list[float] = []
    for step in range(60):
        if step in (0, 30):
            op.start_epoch(step // 30)
        optimizer.zero_grad()
        with op.quantized():
            loss = F.mse_loss(op(x), x)
            loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.25 * losses[0] and losses[-1] < 0.25 * float(x.var())
    assert all(not torch.equal(held[name], old) for name, old in before.items() if name.endswith("weight"))
    op.eval()
    with torch.no_grad(), op.quantized():
        simulated = op(x).permute(0, 2, 3, 1).numpy()
    graph = lower(op.generate_deployment_model())
    tensor, source = graph.tensor(graph.outputs[0]), graph.input.output
    real = x.permute(0, 2, 3, 1).double().numpy()
    codes = np.clip(np.floor(real / source.scale + 0.5) + source.zero_point, -128, 127).astype(np.int64)
    found = run(graph, codes)[graph.outputs[0]]
    difference = np.abs(tensor.scale * (found - tensor.zero_point) - simulated)
    assert (difference < tensor.scale / 100).mean() > 0.999 and difference.max() < 2 * tensor.scale
    result = compare(graph, plan_memory(graph, "portable"), None, codes[:4])
    assert result.exact, result.first


def test_a_transposed_layer_keeps_the_users_order() -> None:
    model: Any = nn.Sequential(nn.ConvTranspose2d(4, 6, (3, 2), 2, groups=2), nn.ConvTranspose2d(6, 3, 2, 2))
    nn.init.uniform_(model[0].weight, -1, 1)
    op = QuantOp(model, "PerChannelsSymMinMax", 8, input_shape=(3, 3, 4))
    real = model[0].weight.detach().clone()
    layer = next(iter(op.layers.values()))
    assert torch.equal(layer.in_users_order(layer.ordered(real)), real)
    op.store_and_quantize()
    stored = model[0].weight.detach().clone()
    op.restore_real_value()
    assert torch.equal(model[0].weight, real) and not torch.equal(stored, real)
    steps = 2 * real.reshape(2, 2, 3, 3, 2).abs().amax((1, 3, 4)).reshape(2, 1, 3, 1, 1) / 254
    assert bool(((stored - real).reshape(2, 2, 3, 3, 2).abs() <= 0.51 * steps).all())
