"""Convolutions that round twice, as TFLite's reference kernels: exact integers, oracle, host C and every core agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nets import integer_net, samples
from test_parity import MACHINES, board_of

from mcuq.errors import CheckError
from mcuq.ir.graph import Window
from mcuq.ir.integer import IntegerGraph, QConv2d, QInput, QTensor
from mcuq.ir.verify import Level, verify
from mcuq.parity import compare
from mcuq.plan.memory import plan_memory
from mcuq.reference import integer

SHIFTS = (20, 31, 32, 33, 34, 38, 45, 55)


def twice_rounded(acc: int, multiplier: int, shift: int) -> int:
    """The product to a multiple of 2^31, half up; then by a power of two, half away from zero."""
    if shift <= 31:
        return (acc * multiplier + (1 << (shift - 1))) >> shift
    high = (acc * multiplier + (1 << 30)) >> 31
    exponent = shift - 31
    magnitude = (abs(high) + (1 << (exponent - 1))) >> exponent
    return magnitude if high >= 0 else -magnitude


def channels_of_all_shifts(multiplier: int) -> IntegerGraph:
    """Every code of an input of one channel, in channels of all shifts; biases put sums on and around ties."""
    source, output = QTensor((16, 16, 1), 8, 0.1, 0), QTensor((16, 16, 3 * len(SHIFTS)), 8, 0.1, 3)
    shift = np.repeat(np.array(SHIFTS, np.uint8), 3)
    halves = np.array([1 << max(0, int(s) - 31) for s in shift], np.int64)
    bias = np.clip(halves * np.tile([-3, 0, 1], len(SHIFTS)), -(2**30), 2**30)
    conv = QConv2d(
        name="y",
        inputs=("x",),
        output=output,
        weight=np.ones((len(shift), 1, 1, 1), np.int8),
        weight_bits=8,
        weight_zero_point=np.zeros(1, np.int8),
        bias=bias.astype(np.int32),
        multiplier=np.full(len(shift), multiplier, np.int32),
        shift=shift,
        window=Window(),
        groups=1,
        clamp=(-128, 127),
        roundings=2,
    )
    return IntegerGraph((QInput(name="x", inputs=(), output=source), conv), ("y",))


@pytest.mark.parametrize("multiplier", [1 << 30, (1 << 31) - 1, 1518500250, -1234567891])
def test_exact_integers(multiplier: int) -> None:
    """2^30 makes every half an exact tie."""
    graph = channels_of_all_shifts(multiplier)
    verify(graph, Level.INTEGER)
    x = np.arange(-128, 128).reshape(1, 16, 16, 1)
    conv = graph.op("y")
    assert isinstance(conv, QConv2d)
    wanted = [
        [min(127, max(-128, 3 + twice_rounded(code + int(b), multiplier, int(s))))
         for b, s in zip(conv.bias, conv.shift, strict=True)]
        for code in x.ravel().tolist()
    ]  # fmt: skip
    np.testing.assert_array_equal(integer.run_outputs(graph, x)["y"].reshape(256, -1), wanted)
    result = compare(graph, plan_memory(graph, "portable"), None, x)
    assert result.exact, result.first


def rounding_twice(weight_bits: int, asymmetric: bool) -> IntegerGraph:
    graph = integer_net(23, weight_bits, 8, asymmetric=asymmetric)
    ops = (
        replace(op, roundings=2) if isinstance(op, QConv2d) and not op.window.transposed and op.output.bits == 8 else op
        for op in graph
    )
    return IntegerGraph(tuple(ops), graph.outputs)


@pytest.mark.parametrize(("weight_bits", "asymmetric"), [(8, False), (4, True)])
def test_networks_on_this_computer(weight_bits: int, asymmetric: bool) -> None:
    graph = rounding_twice(weight_bits, asymmetric)
    result = compare(graph, plan_memory(graph, "portable"), None, samples(graph, 11, 2))
    assert result.exact, result.first


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES)
def test_networks_on_every_core(machine: str) -> None:
    graph, board = rounding_twice(8, False), board_of(machine)
    assert board is not None
    result = compare(graph, plan_memory(graph, board.core), board, samples(graph, 11, 2))
    assert result.exact, result.first


def test_only_codes_of_eight_bits() -> None:
    graph = integer_net(23, 8, 4)
    ops = tuple(replace(op, roundings=2) if isinstance(op, QConv2d) else op for op in graph)
    with pytest.raises(CheckError, match="roundings"):
        verify(IntegerGraph(ops, graph.outputs), Level.INTEGER)
