"""What people see: tables that lose nothing in a narrow terminal, lines that stay whole."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Protocol

import pytest
from rich.console import Console

from mcuq.build.hotspots import Loop
from mcuq.ir.plans import BitPlan, Limits, TensorBits
from mcuq.pipeline.lists import boards, models
from mcuq.pipeline.outcomes import ProfiledLayer, ProfileOutcome, SolveOutcome
from mcuq.pipeline.settings import UNLIMITED
from mcuq.pipeline.tables import say
from mcuq.target.board import load_boards


class Outcome(Protocol):
    def show(self, console: Console) -> None: ...


def shown(outcome: Outcome, width: int = 80) -> str:
    """What ``outcome`` prints on a terminal of ``width`` columns."""
    stream = io.StringIO()
    outcome.show(Console(file=stream, width=width))
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 200])
def test_names_and_numbers_of_lists_are_whole(width: int) -> None:
    text = shown(boards(), width)
    assert "…" not in text + shown(models(), width)
    for board in load_boards():
        assert board.name in text and board.core in text and f"{board.limits.flash:,}" in text
    assert ("netduinoplus2" in text) and ("machine" in text) == (width == 200)


def test_a_profile_keeps_its_columns() -> None:
    layers = (ProfiledLayer("blocks.11.shortcut.conv", "mcuq_conv2d_w8_dsp + add", 12_345_678, 9_437_184, 16_384),)
    loop = Loop("mcuq_gemm_w8+0x60", 52_226, 9_546_913, tuple(f"smlad r{i % 8}, sl, lr, r0" for i in range(100)))
    outcome = ProfileOutcome("stm32f4", "cortex-m4", 12_563_509, layers, (), (), (loop,))
    narrow, wide = shown(outcome), shown(outcome, 140)
    assert "…" not in narrow and "12,345,678" in narrow and "1.31" in narrow
    assert "9,437,184" in wide and "conv2d_w8_dsp + add" in wide and "mcuq_conv" not in wide
    assert wide.count("smlad") == 16 and "... 84 more; --json has all" in wide


PLAN = BitPlan(
    (TensorBits("conv.weight", "conv", "weight", 4, 72), TensorBits("conv", "conv", "activation", 4, 512)),
    "OPTIMAL", 0.25, 0.25, 55_320, 4_864, Limits(56_000, 5_600), "exact",
)  # fmt: skip


def test_a_plan_says_what_is_proved_and_which_limits_were_given() -> None:
    def text(plan: BitPlan) -> str:
        return shown(SolveOutcome(plan, {}, ""))

    exact = text(PLAN)
    assert "Bits, proved optimal" in exact and "proved: at least 0.25" in exact
    assert "flash 55,320 of 56,000 bytes, RAM 4,864 of 5,600 bytes" in exact
    assert "proved optimal" not in text(replace(PLAN, status="FEASIBLE"))
    uniform = text(replace(PLAN, method="uniform 4/4", limits=UNLIMITED))
    assert "Bits, uniform 4/4" in uniform and "proved" not in uniform
    assert "flash 55,320 bytes, RAM 4,864 bytes" in uniform


def test_lines_are_printed_as_they_are() -> None:
    stream = io.StringIO()
    line = "run saved in runs/[bold]" + "x" * 100
    say(Console(file=stream, width=40), line)
    assert stream.getvalue() == line + "\n"
