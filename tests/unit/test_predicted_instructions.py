"""Predicted instructions: loop counts in closed form, and models for every kernel that a core can get."""

from __future__ import annotations

from dataclasses import replace

import pytest
from nets import integer_net

from mcuq.errors import UsageError
from mcuq.ir.graph import Window
from mcuq.ir.integer import IntegerGraph, QConv2d
from mcuq.target.core import SIZE
from mcuq.target.footprint import code_bytes
from mcuq.target.instructions import (
    conv_instructions,
    elementwise_instructions,
    graph_instructions,
    measured_cores,
    op_instructions,
)
from mcuq.target.kernels import ConvCase, select
from mcuq.target.work import Elementwise, elementwise_work, family, taps

NAMES = ("cortex-m0", "cortex-m0plus", "cortex-m3", "cortex-m33", "cortex-m4", "cortex-m55", "cortex-m7", "rv32imc")
CORES = tuple(name + goal for name in NAMES for goal in ("", SIZE))


@pytest.mark.parametrize("window", [Window((3, 3), (2, 2), (1, 0, 1, 1)), Window((5, 2), (1, 1), (2, 1, 2, 0), (2, 1))])
def test_taps_are_those_of_the_window(window: Window) -> None:
    size = 11
    for axis in (0, 1):
        outputs = window.output_hw(size, size)[axis]
        found = taps(size, outputs, window, axis)
        kernel, stride, step = window.kernel[axis], window.stride[axis], window.dilation[axis]
        at = [[o * stride - window.padding[axis] + k * step for k in range(kernel)] for o in range(outputs)]
        assert found.counts == tuple(sum(0 <= p < size for p in row) for row in at)
        assert found.inside + found.outside == outputs * kernel
        assert found.whole == sum(all(0 <= p < size for p in row) for row in at)


def test_families_share_a_model_over_plane_sizes_and_zero_points() -> None:
    assert family("mcuq_depthwise3x3_w4_p128_dsp") == "mcuq_depthwise3x3_w4_dsp"
    assert family("mcuq_conv2d_w8z_mve") == family("mcuq_conv2d_w8_mve") == "mcuq_conv2d_w8_mve"
    assert family("mcuq_conv2d_w2_lanes4_dsp") == "mcuq_conv2d_w2_lanes4_dsp"


def test_work_grows_with_the_shape_alone() -> None:
    small, large = (elementwise_work(Elementwise((((n, 4, 8), 8),) * 2, ((n, 4, 8), 8), None)) for n in (3, 6))
    assert large["code"] == 2 * small["code"]
    assert large["call"] == small["call"] == 1


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("bits", [(8, 8), (4, 4), (2, 4)])
def test_every_operator_of_every_core_is_predicted(core: str, bits: tuple[int, int]) -> None:
    assert measured_cores() == tuple(sorted(CORES))
    for tail in ("softmax", "argmax"):
        graph = integer_net(3, *bits, tail=tail, asymmetric=bits == (2, 4))
        counts = [op_instructions(op, graph, core) for op in graph]
        assert all(n >= 0 for n in counts)
        convs = [op for op in graph if isinstance(op, QConv2d)]
        macs = sum(op.output.shape[0] * op.output.shape[1] * op.weight.size for op in convs)
        assert graph_instructions(graph, core) == sum(counts) > macs / 8


@pytest.mark.parametrize("core", CORES)
def test_convolutions_that_round_twice_are_predicted(core: str) -> None:
    graph = integer_net(23, 8, 8)
    ops = (
        replace(op, roundings=2) if isinstance(op, QConv2d) and not op.window.transposed and op.output.bits == 8 else op
        for op in graph
    )
    twice = IntegerGraph(tuple(ops), graph.outputs)
    once, more = graph_instructions(graph, core), graph_instructions(twice, core)
    assert 0.95 * once < more < 1.5 * once
    assert sum(code_bytes(twice, core)) > 0


@pytest.mark.parametrize("core", CORES)
def test_transposed_convolutions_are_predicted(core: str) -> None:
    """Every tap on a pixel is multiplied: twice the inputs and outputs are worth up to four times as much."""
    window, counts = Window((3, 3), (1, 1), (2, 2, 1, 1), (1, 1), (2, 2)), list[int]()
    for channels in (16, 32):
        case = ConvCase((6, 6, channels), (12, 12, channels), (channels, 3, 3, channels), window, 1, 8, 8, 8)
        counts.append(conv_instructions(case, select(case, core), core))
    macs = sum(taps(6, 12, window, 0).counts) * sum(taps(6, 12, window, 1).counts) * 16 * 16
    assert counts[0] > macs and 2.5 < counts[1] / counts[0] < 4.5


def test_unknown_cores_and_functions_are_named() -> None:
    case = Elementwise((((4, 4, 8), 8),), ((4, 4, 8), 8))
    assert elementwise_instructions("", case, "cortex-m7") == 0
    with pytest.raises(UsageError, match=r"not for core z80; run scripts/measure_instructions"):
        elementwise_instructions("mcuq_pad", case, "z80")
    with pytest.raises(UsageError, match=r"instructions of mcuq_dream on cortex-m7 are not known"):
        elementwise_instructions("mcuq_dream", case, "cortex-m7")
