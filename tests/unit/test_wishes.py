"""Pins, groups, floors and limits of instructions, from texts and files to the search."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcuq.errors import UsageError
from mcuq.ir.plans import Limits
from mcuq.pipeline.settings import UNLIMITED, BitChoice
from mcuq.pipeline.wishes import exceeds, instruction_limit, latency_ms, parse_groups, parse_pins
from mcuq.target.board import load_board


def test_pins_of_a_file_and_of_texts_that_win(tmp_path: Path) -> None:
    file = tmp_path / "pins.json"
    file.write_text('{"conv": {"w": 8, "a": 4}, "blocks.0.add": {"activation": 2}}')
    assert dict(parse_pins(["conv=8", "fc.weight=2"], file)) == {
        "conv.weight": 8,
        "conv": 8,
        "blocks.0.add": 2,
        "fc.weight": 2,
    }
    assert parse_pins(None) == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", r"an object is needed"),
        ('{"conv": 8}', r"'conv' needs \{\"w\": bits"),
        ('{"conv": {}}', r"'conv' needs"),
        ('{"conv": {"q": 8}}', r"'conv' has 'q'; w \(weights\) and a \(output\)"),
        ('{"conv": {"w": 3}}', r"conv.w: '3' bits are not possible; use 8, 4 or 2"),
        ('{"conv": {"w": true}}', r"'True' bits"),
        ("{", r"not JSON"),
    ],
)
def test_faulty_files_are_answered(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "pins.json"
    file.write_text(text)
    with pytest.raises(UsageError, match=words):
        parse_pins(None, file)
    with pytest.raises(UsageError, match="cannot be read"):
        parse_pins(None, tmp_path / "none.json")


@pytest.mark.parametrize("entry", ["conv", "=8", "conv=", "conv=16"])
def test_faulty_pins_are_answered(entry: str) -> None:
    with pytest.raises(UsageError, match="--pin"):
        parse_pins([entry])


def test_groups() -> None:
    assert parse_groups(["a, b,c", "d,e"]) == (("a", "b", "c"), ("d", "e"))
    for faulty in ("a", "a,,b", ""):
        with pytest.raises(UsageError, match="--share"):
            parse_groups([faulty])


def test_latency_is_instructions_at_the_boards_clock() -> None:
    clock = load_board("stm32f4").clock_hz
    assert instruction_limit(None, 10.0, "stm32f4") == clock // 100
    assert instruction_limit(5, 10.0, "stm32f4") == 5
    assert latency_ms(clock, "stm32f4") == 1000
    assert latency_ms(0, "stm32f4") is None and latency_ms(5, None) is None
    with pytest.raises(UsageError, match="needs a clock"):
        instruction_limit(None, 1.0, None)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="is not a time above 0"):
            instruction_limit(None, wrong, "stm32f4")


def test_limits_carry_instructions() -> None:
    assert BitChoice(max_instructions=7).limits() == Limits(UNLIMITED.flash, UNLIMITED.ram, 7)
    assert BitChoice("1000,500", max_instructions=7).limits() == Limits(1000, 500, 7)
    assert BitChoice().limits() is None
    assert exceeds(10, 10, 8, Limits(10, 10, 7)) and not exceeds(10, 10, 8, Limits(10, 10))


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (BitChoice("1000,500", mixed="MixPL", pins=(("a", 8),)), "--pin holds for the exact search"),
        (BitChoice("1000,500", weight_bits=4, max_instructions=9), "--max-instructions holds for the exact search"),
        (BitChoice("1000,500", bits=Path("b.json"), groups=(("a", "b"),)), "--share holds for the exact search"),
        (BitChoice(first_last_bits=8), "--first-last-bits needs limits"),
        (BitChoice("1000,500", first_last_bits=3), "--first-last-bits 3 is not possible"),
    ],
)
def test_wishes_that_nothing_can_fulfil(choice: BitChoice, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        choice.check()
