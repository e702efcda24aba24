"""At 4 bits on a depthwise net whose batch norms have widely spread gammas, folding per layer collapses.

Rusci, Capotondi and Benini (arXiv 1905.13082): PL+FB << PL+ICN < PC+ICN. Small nets trained for minutes do not spread
their gammas as MobileNets trained for weeks do, so they are spread here, without changing the function: a depthwise
channel is scaled by gamma and beta, and the next convolution's weights undo it.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from mcuq import data  # noqa: E402
from mcuq.quant import QuantOp  # noqa: E402
from mcuq.quant import train as loops  # noqa: E402

SPREAD = 4.0
STRATEGIES = {
    "PL+FB": ("PerLayerAsymPACT", "folding_weights"),
    "PL+ICN": ("PerLayerAsymPACT", "ICN"),
    "PC+ICN": ("PerChannelsAsymMinMax", "ICN"),
}


def depthwise_net() -> nn.Sequential:
    def stage(inputs: int, outputs: int, kernel: int, groups: int = 1, stride: int = 1) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]

    layers, channels = stage(1, 16, 3), 16
    for outputs, stride in ((32, 2), (32, 1), (64, 2), (64, 1)):
        layers += [*stage(channels, channels, 3, channels, stride), *stage(channels, outputs, 1)]
        channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def spread_gammas(net: nn.Sequential) -> None:
    """Depthwise gammas and betas times 1/4 .. 4; the network computes the same."""
    generator = torch.Generator().manual_seed(3)
    layers = list(net)
    with torch.no_grad():
        for index, norm in enumerate(layers):
            if isinstance(norm, nn.BatchNorm2d) and layers[index - 1].groups > 1:
                factor = torch.exp((torch.rand(len(norm.weight), generator=generator) * 2 - 1) * math.log(SPREAD))
                norm.weight.mul_(factor)
                norm.bias.mul_(factor)
                layers[index + 2].weight.div_(factor.reshape(1, -1, 1, 1))


@pytest.mark.slow
def test_r32_folding_per_layer_collapses_and_channels_win() -> None:
    digits = data.load("digits")
    torch.manual_seed(0)
    net = depthwise_net()
    loops.train_float(net, digits, loops.float_preset(12), validate=False)

    def float_accuracy() -> float:
        scores = lambda x: net(loops.real_inputs(x, digits.normalization))  # noqa: E731
        return loops.evaluate(scores, digits.x_test, digits.y_test)

    before = float_accuracy()

    def trained(name: str, bits: int, seed: int) -> float:
        quant_type, fold_type = STRATEGIES[name]
        op = QuantOp(
            copy.deepcopy(net),
            quant_type,
            bits,
            act_bits=bits,
            input_shape=digits.input_shape,
            fold_type=fold_type,
            act_type="PACT",
            normalization=digits.normalization,
        )
        loops.train_qat(op, digits, replace(loops.qat_preset(2, bits), lr=1e-3, augment=0, seed=seed), validate=False)
        return loops.accuracy(op, digits.x_test, digits.y_test)

    assert trained("PC+ICN", 8, 0) >= before - 0.01
    spread_gammas(net)
    assert float_accuracy() == pytest.approx(before, abs=0.005)
    mean = {name: sum(trained(name, 4, seed) for seed in (0, 1, 2)) / 3 for name in STRATEGIES}
    assert mean["PL+FB"] < mean["PL+ICN"] - 0.1, mean
    assert mean["PL+ICN"] < mean["PC+ICN"], mean
