"""Emitted C against the reference, every tensor of every sample, on this computer and on emulated cores."""

from __future__ import annotations

import numpy as np
import pytest
from nets import further_operators, integer_net, samples

from mcuq.build.run import count, run_samples, stack_used
from mcuq.errors import DataError, UsageError
from mcuq.ir.integer import IntegerGraph
from mcuq.parity import ParityResult, built, compare, compare_image, compare_outputs
from mcuq.plan.memory import plan_memory
from mcuq.reference.integer import run
from mcuq.target.board import Board, load_board
from mcuq.target.fusion import steps

MACHINES = ("microbit", "mps2-an385", "mps2-an386", "mps2-an500", "mps2-an505", "mps3-an547", "virt")
BOARDS = (
    "rp2040", "stm32f4", "stm32f7", "stm32h7", "stm32l4r5", "nrf52840", "nrf5340", "rp2350", "netduinoplus2", "esp32c3",
)  # fmt: skip
BITS = tuple((w, a) for w in (8, 4, 2) for a in (8, 4, 2))


def board_of(name: str) -> Board | None:
    return None if name == "host" else load_board(name)


def check(graph: IntegerGraph, where: str, count_: int = 3) -> ParityResult:
    board = board_of(where)
    plan = plan_memory(graph, board.core if board else "portable")
    return compare(graph, plan, board, samples(graph, 11, count_))


@pytest.mark.parametrize(("weight_bits", "activation_bits"), BITS)
@pytest.mark.parametrize("asymmetric", [False, True])
def test_every_operator_on_this_computer(weight_bits: int, activation_bits: int, asymmetric: bool) -> None:
    graph = integer_net(
        7, weight_bits, activation_bits, tail="argmax" if asymmetric else "softmax", asymmetric=asymmetric,
        per_channel=not asymmetric,
    )  # fmt: skip
    result = check(graph, "host")
    assert result.exact, result.first
    assert result.compared_bytes == 3 * sum(op.output.bytes for op in steps(graph))


@pytest.mark.slow
@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(8, 8), (4, 4), (2, 2)])
def test_further_operators_on_this_computer(weight_bits: int, activation_bits: int) -> None:
    graph = integer_net(9, weight_bits, activation_bits, net=further_operators)
    result = check(graph, "host")
    assert result.exact, result.first


@pytest.mark.parametrize("machine", MACHINES)
def test_every_operator_on_every_core(machine: str) -> None:
    result = check(integer_net(21, 4, 4), machine, 2)
    assert result.exact, result.first


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("activation_bits", [8, 4, 2])
def test_further_operators_on_every_core(machine: str, activation_bits: int) -> None:
    result = check(integer_net(21, 8, activation_bits, net=further_operators), machine, 2)
    assert result.exact, result.first


@pytest.mark.slow
@pytest.mark.parametrize(("weight_bits", "activation_bits"), BITS)
@pytest.mark.parametrize("machine", MACHINES)
def test_every_operator_bits_and_core(machine: str, weight_bits: int, activation_bits: int) -> None:
    for asymmetric in (False, True):
        graph = integer_net(31, weight_bits, activation_bits, tail="none", logits_bits=32, asymmetric=asymmetric)
        result = check(graph, machine)
        assert result.exact, result.first


@pytest.mark.slow
@pytest.mark.parametrize("board", BOARDS)
def test_every_board_runs(board: str) -> None:
    result = check(integer_net(41, 4, 8), board)
    assert result.exact, result.first


@pytest.mark.parametrize("where", ["host", "mps2-an386"])
def test_input_codes_and_32_bit_logits(where: str) -> None:
    graph = integer_net(3, 8, 4, tail="none", normalization=None, logits_bits=32)
    assert graph.input.encoding == "int8" and graph.tensor(graph.outputs[0]).bits == 32
    result = check(graph, where)
    assert result.exact, result.first


def test_several_outputs() -> None:
    graph = integer_net(5, 8, 8)
    two = IntegerGraph(graph.ops, ("fc", "probability", "sum"))
    x = samples(two, 2, 3)
    expected = run(two, x)
    with built(two, plan_memory(two, "portable"), None) as image:
        found = run_samples(image, x)
        assert compare_outputs(image, x)[0].exact
    assert list(found) == ["fc", "probability", "sum"]
    for name, codes in found.items():
        np.testing.assert_array_equal(codes, expected[name])


def test_a_difference_is_found_and_named() -> None:
    """The reference is given another network than the image runs."""
    graph = integer_net(5, 8, 8)
    stem = graph.op("stem")
    bias = stem.bias.copy()
    bias[3] += 1 << 20
    fields = {name: getattr(stem, name) for name in type(stem).__dataclass_fields__}
    other = type(stem)(**{**fields, "bias": bias})
    changed = IntegerGraph(tuple(other if op.name == "stem" else op for op in graph), graph.outputs)
    with built(graph, plan_memory(graph, "portable"), None) as image:
        wrong = type(image)(image.plain, image.hooked, image.machine, changed, image.order)
        result = compare_image(wrong, samples(graph, 1, 2))
    assert not result.exact
    assert result.first is not None and (result.first.sample, result.first.tensor) == (0, "stem")
    assert result.first.byte % 8 == 3
    assert str(result.first).startswith("sample 0, tensor stem, byte ")


def test_instructions_and_stack_repeat_exactly() -> None:
    graph = integer_net(5, 4, 8)
    board = load_board("mps2-an386")
    x = samples(graph, 1, 1)[0]
    with built(graph, plan_memory(graph, board.core), board) as image:
        first, again = count(image, x), count(image, x)
        used = stack_used(image, x)
    assert first == again
    assert [name for name, _ in first.operators] == list(image.order)
    instructions = sum(value for _, value in first.operators)
    # Apart: arguments of the hook, which the empty measurement does not have, and rounding to whole instructions.
    assert abs(instructions - first.total) <= 16 * len(image.order)
    assert dict(first.operators)["stem"] > 36 * 8 * 27 / 4
    assert 100 < used < 2048


def test_the_host_counts_no_instructions() -> None:
    graph = integer_net(5, 8, 8)
    x = samples(graph, 1, 1)[0]
    with built(graph, plan_memory(graph, "portable"), None) as image:
        with pytest.raises(UsageError, match="counted under QEMU; choose a board"):
            count(image, x)
        with pytest.raises(DataError, match=r"has shape \(1, 3, 3, 1\), the network takes \(N, 12, 12, 3\)"):
            run_samples(image, np.zeros((1, 3, 3, 1), np.uint8))
