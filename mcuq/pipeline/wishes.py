"""What a user fixes before bits are searched: pins, groups, floors, limits of instructions and latency."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from mcuq.errors import ModelError, UsageError
from mcuq.ir.container import parse_json, read_bytes
from mcuq.ir.plans import Limits
from mcuq.target.board import load_board

BITS = (8, 4, 2)
Pins = tuple[tuple[str, int], ...]
LARGEST_FILE = 1 << 20
_KINDS = {"w": ".weight", "weight": ".weight", "a": "", "activation": ""}


def parse_pins(entries: list[str] | None, file: Path | None = None) -> Pins:
    """Pins as (tensor, bits): those of ``file``, then ``NAME=BITS`` texts, which win.

    A file holds ``{"layer": {"w": 8, "a": 4}, ...}``: weights and output of a layer.

    Raises:
        UsageError: what is wrong with which entry.
    """
    found = dict(_read(file)) if file is not None else {}
    for entry in entries or []:
        name, equals, value = entry.rpartition("=")
        if not equals or not name:
            raise UsageError(f"--pin {entry!r} is not understood; write NAME=BITS, conv1.weight=8 or conv1=4")
        found[name.strip()] = _bits(value.strip(), f"--pin {entry!r}")
    return tuple(found.items())


def _read(file: Path) -> Pins:
    try:
        document = parse_json(read_bytes(file, LARGEST_FILE), "pins")
    except ModelError as error:
        raise UsageError(f"--pins {file}: {error}") from error
    if not isinstance(document, dict):
        raise UsageError(f'--pins {file}: an object is needed, {{"layer": {{"w": 8, "a": 4}}}}')
    found: list[tuple[str, int]] = []
    for layer, wanted in cast("dict[str, Any]", document).items():
        if not isinstance(wanted, dict) or not wanted:
            raise UsageError(f'--pins {file}: {layer[:80]!r} needs {{"w": bits, "a": bits}} or one of them')
        for kind, bits in cast("dict[str, Any]", wanted).items():
            if kind not in _KINDS:
                raise UsageError(
                    f"--pins {file}: {layer[:80]!r} has {kind[:40]!r}; w (weights) and a (output) are known"
                )
            found.append((layer + _KINDS[kind], _bits(str(bits), f"--pins {file}: {layer[:80]}.{kind}")))
    return tuple(found)


def _bits(text: str, where: str) -> int:
    if text not in map(str, BITS):
        raise UsageError(f"{where}: {text[:40]!r} bits are not possible; use 8, 4 or 2")
    return int(text)


def wishes(
    most: int | None,
    milliseconds: float | None,
    pins: list[str] | None,
    file: Path | None,
    groups: list[str] | None,
    first_last_bits: int,
    granularity: str | None = None,
) -> dict[str, Any]:
    """What a user fixes before the search, as fields of a BitChoice. Raises as the parsers."""
    return {
        "max_instructions": most,
        "max_latency_ms": milliseconds,
        "pins": parse_pins(pins, file),
        "groups": parse_groups(groups),
        "first_last_bits": first_last_bits,
        "granularity": granularity,
    }


def parse_groups(entries: list[str] | None) -> tuple[tuple[str, ...], ...]:
    """``NAME,NAME,...`` texts: tensors that share bits. Raises UsageError."""
    groups = tuple(tuple(name.strip() for name in entry.split(",")) for entry in entries or [])
    for entry, group in zip(entries or [], groups, strict=True):
        if len(group) < 2 or not all(group):
            raise UsageError(f"--share {entry!r} is not understood; write two tensors or more, conv1,conv2")
    return groups


def instruction_limit(most: int | None, milliseconds: float | None, board: str | None) -> int | None:
    """The smaller of both limits in instructions: a latency counts one instruction per clock of the board.

    Raises:
        UsageError: a limit that is not positive, or a latency without a board.
    """
    limits: list[int] = []
    if most is not None:
        if most <= 0:
            raise UsageError(f"--max-instructions {most} is not positive")
        limits.append(most)
    if milliseconds is not None:
        if not 0 < milliseconds < 1e9:
            raise UsageError(f"--max-latency-ms {milliseconds} is not a time above 0")
        if board is None:
            raise UsageError("--max-latency-ms needs a clock: name a --board, or give --max-instructions")
        limits.append(int(milliseconds / 1000 * load_board(board).clock_hz))
    return min(limits, default=None)


def latency_ms(instructions: int, board: str | None) -> float | None:
    """Time of one inference at one instruction per clock: an estimate. None without a board or a prediction."""
    if board is None or not instructions:
        return None
    return 1000 * instructions / load_board(board).clock_hz


def exceeds(flash: int, ram: int, instructions: int, limits: Limits) -> bool:
    """Some limit is exceeded."""
    most = limits.instructions
    return flash > limits.flash or ram > limits.ram or (most is not None and instructions > most)
