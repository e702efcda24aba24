"""The profiler: counts of single instructions agree with the timer, and loops and kinds are what the code says."""

from __future__ import annotations

import pytest
from nets import integer_net, samples

from mcuq.build.hotspots import hotspots, kind
from mcuq.build.run import count
from mcuq.errors import UsageError
from mcuq.parity import built
from mcuq.plan.memory import plan_memory
from mcuq.target.board import load_board

KINDS = {
    "load": ("ldr.w", "ldrsb.w", "ldrd", "ldm", "pop", "vldrb.u8", "vldrbt.u16", "vld20.8", "lw", "lbu"),
    "store": ("str", "strb.w", "strd", "push", "stmia.w", "vstrb.8", "vst21.8", "sw", "sb"),
    "multiply": ("mul", "mla", "smlad", "smmla", "smull", "umull", "vmladava.s8", "vmul.i32", "vqdmulh.s32", "mulh"),
    "vector": ("vadd.i32", "vqmovnb.s16", "vpst", "vctp.8", "vshl.s32", "vmov", "vand"),
    "branch": ("b.n", "bne.w", "bl", "bx", "cbz", "le", "letp", "dlstp.8", "wls", "bnez", "jal", "jr", "ret"),
    "arithmetic": ("add", "bic.w", "bfi", "sub", "asr.w", "ssat", "it", "sbc", "lsl", "li", "sll", "uxtb16", "sxtab16"),
}


def test_kinds_of_instructions() -> None:
    for name, mnemonics in KINDS.items():
        assert [m for m in mnemonics if kind(m) != name] == [], name


@pytest.mark.parametrize(
    "board_name", ["mps2-an386", *(pytest.param(n, marks=pytest.mark.slow) for n in ("mps3-an547", "rp2040", "virt"))]
)
def test_counts_agree_with_the_timer(board_name: str) -> None:
    board = load_board(board_name)
    graph = integer_net(5, 4, 8)
    x = samples(graph, 1, 1)[0]
    with built(graph, plan_memory(graph, board.core), board) as image:
        found, again, timed = hotspots(image, x), hotspots(image, x), count(image, x).total
    assert found == again
    assert abs(found.total - timed) <= 16  # the harness around the call
    assert sum(n for _, n in found.mix) == sum(n for _, n in found.functions) == found.total
    assert dict(found.mix)["multiply"] > 0 and "unknown" not in dict(found.mix)
    assert dict(found.functions)["model_invoke"] < 1000
    for loop in found.loops:
        assert 0 < loop.turns < loop.instructions and len(loop.code) > 1
    assert found.loops[0].instructions > found.total / 50


def test_this_computer_has_no_profile() -> None:
    graph = integer_net(5, 8, 8)
    with built(graph, plan_memory(graph, "portable"), None) as image, pytest.raises(UsageError, match="under QEMU"):
        hotspots(image, samples(graph, 1, 1)[0])
