"""Predicted instructions against counts under QEMU, on shapes that the fit did not see, and on whole networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from counting import CORES, SMALLEST, counted, shapes

from mcuq import zoo
from mcuq.build.run import count
from mcuq.ir.graph import Normalization
from mcuq.lower import lower, remove_dead_channels
from mcuq.parity import built
from mcuq.plan.memory import plan_memory
from mcuq.quant import QuantOp
from mcuq.target.board import load_board
from mcuq.target.core import SIZE
from mcuq.target.instructions import graph_instructions, predict

TAIL = {"cortex-m55": 0.15}
"""Error that 95 % of layers keep. Helium kernels that fall back for some row lengths are predicted less well."""


# Smallest code is portable code: two instruction sets stand for all.
@pytest.mark.slow
@pytest.mark.parametrize("core", [*(c for c in CORES if not c.endswith(SIZE)), "cortex-m0plus+size", "cortex-m7+size"])
def test_layers_within_3_percent_on_average(core: str) -> None:
    chosen = shapes(core, 77, 5)
    errors: list[float] = []
    for shape, instructions in zip(chosen, counted(core, chosen), strict=True):
        if instructions >= SMALLEST:
            errors.append(abs(predict(shape.family, shape.work, core) / instructions - 1))
    assert np.mean(errors) < 0.03, "run scripts/measure_instructions"
    assert np.quantile(errors, 0.95) < TAIL.get(core, 0.09)


# (model, weight bits, activation bits, board)
NETWORKS = (
    ("resnet8", 8, 8, "mps2-an500"),
    ("resnet8", 4, 4, "mps2-an385"),
    ("ds_cnn", 8, 8, "mps2-an500"),
    ("ds_cnn", 2, 4, "mps2-an505"),
    ("ds_cnn", 8, 8, "mps3-an547"),
    ("lenet", 4, 8, "mps2-an386"),
    ("autoencoder", 8, 8, "mps2-an500"),
    ("resnet_tiny", 4, 4, "rp2040"),
    ("ds_cnn", 8, 8, "virt"),
    ("ds_cnn", 4, 8, "mps2-an386+size"),
    ("resnet_tiny", 8, 8, "rp2040+size"),
)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "weight_bits", "act_bits", "machine"), NETWORKS)
def test_networks_within_3_percent(name: str, weight_bits: int, act_bits: int, machine: str) -> None:
    torch.manual_seed(1)
    shape = zoo.input_shape(name)
    pixels = np.random.default_rng(2).integers(0, 256, (6, *shape), dtype=np.uint8)
    op = QuantOp(
        zoo.build(name, seed=1),
        "PerChannelsSymMSE",
        weight_bits,
        input_shape=shape,
        act_bits=act_bits,
        normalization=Normalization(1 / 64, 128),
    )
    op.calibrate([torch.from_numpy(pixels).permute(0, 3, 1, 2)])
    graph = remove_dead_channels(lower(op.generate_deployment_model()))
    board = load_board(machine)
    with built(graph, plan_memory(graph, board.core), board) as image:
        measured = count(image, pixels[0])
    predicted = graph_instructions(graph, board.core)
    print(f"{name} {weight_bits}/{act_bits} {board.core}: {predicted} predicted, {measured.total} counted")
    assert abs(predicted / measured.total - 1) < 0.03
