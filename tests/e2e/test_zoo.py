"""Every model of the zoo from module to a bit-exact run under QEMU, every tensor compared."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mcuq import zoo
from mcuq.ir.graph import Normalization
from mcuq.ir.verify import Level, verify
from mcuq.lower import lower, remove_dead_channels
from mcuq.parity import compare
from mcuq.plan.memory import plan_memory
from mcuq.quant import QuantOp
from mcuq.target.board import load_board

# (model, width, resolution, weight bits, activation bits, machine): all widths, all cores; small images save time.
CASES = (
    ("mobilenet_v1", 0.25, 96, 4, 4, "mps2-an386"),
    ("mobilenet_v1", 0.5, 64, 2, 8, "mps2-an500"),
    ("mobilenet_v2", 0.5, 64, 4, 8, "mps2-an500"),
    ("mobilenet_v2_cf", 1.0, 16, 8, 4, "mps2-an500"),
    ("resnet8", 1.0, None, 4, 4, "mps2-an385"),
    ("resnet8", 1.0, None, 8, 8, "mps3-an547"),
    ("resnet20", 1.0, None, 2, 2, "mps2-an386"),
    ("resnet20_a", 1.0, None, 4, 4, "mps2-an500"),
    ("resnet18", 0.25, 32, 4, 4, "mps2-an500"),
    ("inception_v1", 0.25, 32, 4, 4, "mps2-an500"),
    ("resnet_tiny", 1.0, None, 4, 4, "rp2040"),
    ("ds_cnn", 1.0, None, 4, 8, "mps2-an505"),
    ("autoencoder", 1.0, None, 8, 8, "mps2-an386"),
    ("autoencoder", 1.0, None, 2, 4, "mps2-an385"),
    ("vww", 1.0, None, 4, 2, "mps3-an547"),
    ("lenet", 1.0, None, 4, 4, "mps2-an386"),
    ("toynet", 1.0, None, 2, 4, "mps2-an505"),
)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "width", "resolution", "weight_bits", "act_bits", "machine"), CASES)
def test_module_to_device(
    name: str, width: float, resolution: int | None, weight_bits: int, act_bits: int, machine: str
) -> None:
    torch.manual_seed(1)
    options = {"resolution": resolution} if resolution else {}
    module = zoo.build(name, width=width, seed=1, **options)
    shape = zoo.input_shape(name, resolution)
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (6, *shape), dtype=np.uint8)
    op = QuantOp(
        module,
        "PerChannelsSymMSE" if weight_bits > 2 else "PerChannelsAsymMinMax",
        weight_bits,
        input_shape=shape,
        act_bits=act_bits,
        normalization=Normalization(1 / 64, 128),
    )
    op.calibrate([torch.from_numpy(pixels).permute(0, 3, 1, 2)])
    graph = remove_dead_channels(lower(op.generate_deployment_model()))
    verify(graph, Level.INTEGER)
    board = load_board(machine)
    result = compare(graph, plan_memory(graph, board.core), board, pixels[:2])
    assert result.exact, result.first
    assert result.compared_bytes > 1000
