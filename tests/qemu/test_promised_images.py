"""Plans of every kind of network against linked images: data to the byte, code itemized, on three boards."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from builders import RELU, Net

from mcuq import zoo
from mcuq.build.sizes import measure
from mcuq.emit.project import emit_project
from mcuq.frontend.torch import capture
from mcuq.ir.fuse import fuse
from mcuq.ir.graph import Graph, Normalization, Window
from mcuq.ir.plans import Limits
from mcuq.lower import lower
from mcuq.plan.exact import solve
from mcuq.plan.memory import plan_memory
from mcuq.plan.pareto import references
from mcuq.quant.data_free import data_free
from mcuq.quant.ptq import ptq
from mcuq.target.board import load_board
from mcuq.target.footprint import CODE_TOLERANCE

PIXELS = Normalization(1 / 64, 128)
BOARDS = ("stm32h7", "rp2040", "mps3-an547")
MODELS = ("resnet8", "mobilenet_v1", "ds_cnn", "autoencoder", "lenet", "dense", "unet")
CODE = ("runtime code", "model code", "startup")


def dense() -> Graph:
    """Every layer reads all before it (DenseNet)."""
    net = Net((16, 16, 3), 1, PIXELS)
    layers = [net.conv("stem", "x", 8, padding=(1, 1, 1, 1), norm=True, clamp=RELU)]
    for k in range(4):
        source = layers[0] if k == 0 else net.concat(f"join{k}", *layers)
        layers.append(net.conv(f"grow{k}", source, 6, padding=(1, 1, 1, 1), norm=True, clamp=RELU))
    net.conv("fc", net.avg_pool("pool", net.concat("last", *layers), Window((16, 16))), 10, (1, 1))
    return fuse(net.graph())


def unet() -> Graph:
    """Skips from the way down to the way up."""
    net, same, half = Net((16, 16, 3), 2, PIXELS), (1, 1, 1, 1), Window((2, 2), (2, 2))
    wide = net.conv("down1", "x", 8, padding=same, norm=True, clamp=RELU)
    narrow = net.conv("down2", net.max_pool("pool1", wide, half), 12, padding=same, clamp=RELU)
    deep = net.conv("down3", net.max_pool("pool2", narrow, half), 16, padding=same, clamp=RELU)
    joined = net.concat("skip2", net.upsample("grow2", deep), narrow)
    mixed = net.conv("mix2", joined, 12, padding=same, clamp=RELU)
    joined = net.concat("skip1", net.upsample("grow1", mixed, linear=True), wide)
    net.conv("mask", net.conv("mix1", joined, 8, padding=same, clamp=RELU), 2, (1, 1))
    return fuse(net.graph())


@cache
def network(name: str) -> Graph:
    if name in ("dense", "unet"):
        return dense() if name == "dense" else unet()
    torch.manual_seed(0)
    if name == "mobilenet_v1":
        module, shape = zoo.build(name, seed=0, width=0.25, resolution=64), zoo.input_shape(name, 64)
    else:
        module, shape = zoo.build(name, seed=0), zoo.input_shape(name)
    return fuse(capture(module, shape, PIXELS).graph)


@pytest.mark.slow
@pytest.mark.parametrize("board_name", BOARDS)
@pytest.mark.parametrize("name", MODELS)
def test_promise_is_the_image(name: str, board_name: str) -> None:
    board, graph = load_board(board_name), network(name)
    table = data_free(graph)
    eight, four, *_ = references(graph, table, Limits(10**9, 10**9), board.core)
    limits = Limits((eight.flash_used + four.flash_used) // 2, (eight.ram_used + four.ram_used) // 2)
    plan = solve(graph, table, limits, board.core)
    assert {t.bits for t in plan.tensors} > {8}
    images = np.random.default_rng(0).integers(0, 256, (4, *graph.input.shape)).astype(np.uint8)
    integer = lower(ptq(graph, images, plan))
    memory = plan_memory(integer, board.core)
    sizes = measure(emit_project(integer, memory, board), integer, memory, board)
    items = {item.name: item for item in sizes.items}
    text = ", ".join(f"{i.name} {i.promised}/{i.measured}" for i in sizes.items)
    print(f"{name} {board_name}: flash {sizes.flash[0]} promised {sizes.flash[1]} linked; RAM {sizes.ram}; {text}")
    for item in items.values():
        if item.name not in CODE:
            assert item.promised == item.measured, item.name
    promised, measured = (sum(getattr(items[c], kind) for c in CODE) for kind in ("promised", "measured"))
    assert abs(promised - measured) <= CODE_TOLERANCE * measured
    assert sizes.ram[0] == sizes.ram[1] and sizes.flash[0] == plan.flash_used
