"""What one inference executes, instruction by instruction: the mix, and the loops that take most of it.

A plugin of the emulator (``runtime_c/port/profile_plugin.c``, built with the host's gcc) counts every instruction
between the entry of ``<prefix>_invoke`` and the harness's next look at its counter; objdump names them.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mcuq.build.elf import disassembly, read_elf
from mcuq.build.image import Image
from mcuq.build.run import run_with_options
from mcuq.build.toolchain import find_program, run_tool
from mcuq.errors import CheckError, UsageError
from mcuq.target.core import ARM
from mcuq.target.files import product_file

LOOPS = 8
"""Loops that a profile lists."""


@dataclass(frozen=True, slots=True)
class Loop:
    """An innermost loop.

    Attributes:
        where: function and offset of its first instruction.
        turns: times its closing branch was executed. instructions: executed inside it. code: its disassembly.
    """

    where: str
    turns: int
    instructions: int
    code: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hotspots:
    """Executed instructions of one inference, by kind (most first), by function, and the hottest loops."""

    total: int
    mix: tuple[tuple[str, int], ...]
    functions: tuple[tuple[str, int], ...]
    loops: tuple[Loop, ...]


@dataclass(frozen=True, slots=True)
class _Line:
    """An instruction of the image: text, function, and where it branches back to inside the function."""

    mnemonic: str
    text: str
    function: str
    offset: int
    back: int | None


def hotspots(image: Image, sample: NDArray[Any], *, prefix: str = "model", seconds: float = 600.0) -> Hotspots:
    """Profile one inference of ``sample`` [H, W, C].

    Raises:
        UsageError: the image runs on this computer. CheckError: the plugin counted nothing.
        ToolchainError: the plugin could not be built or the program failed.
    """
    if image.machine is None:
        raise UsageError("instructions are counted under QEMU; choose a board instead of the host")
    counts = _counts(image, sample, prefix, seconds)
    lines = _lines(image.plain)
    return Hotspots(sum(counts.values()), *_by_kind_and_function(counts, lines), _loops(counts, lines))


def _counts(image: Image, sample: NDArray[Any], prefix: str, seconds: float) -> dict[int, int]:
    """{address: executions}."""
    symbols = {symbol.name: symbol.address for symbol in read_elf(image.plain).symbols}
    assert image.machine is not None
    base, size = image.machine.code
    with tempfile.TemporaryDirectory(prefix="mcuq-profile-") as folder:
        plugin, counted = Path(folder, "profile.so"), Path(folder, "counts")
        source = str(product_file("runtime_c", "port", "profile_plugin.c"))
        command = [find_program("gcc"), "-O2", "-shared", "-fPIC", source, "-o", str(plugin)]
        run_tool(command, "building the profiler's plugin failed")
        between = f"from={symbols[f'{prefix}_invoke']:x},to={symbols['mcuq_port_counter']:x}"
        options = ("-plugin", f"{plugin},{between},base={base:x},bytes={size:x},out={counted}")
        run_with_options(image, "count", sample[None], seconds, options)
        if not counted.is_file():
            raise CheckError("the profiler's plugin wrote no counts; the emulator must support TCG plugins")
        rows = (line.split() for line in counted.read_text(encoding="ascii").splitlines())
        return {int(address, 16): int(count) for address, count in rows}


_FUNCTION = re.compile(r"^[0-9a-f]+ <([^>]+)>:$")
_INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\t[0-9a-f ]+\t([^\t\s]+)(?:\s+(.*?))?(?:\s+[;#@] .*)?$")
_TARGET = re.compile(r"([0-9a-f]+) <[^>]+>$")
_NOT_BRANCHES = ("bic", "bfi", "bfc", "bset", "bclr")
_BRANCH = re.compile(r"(b|cb|le\b|letp|dls|wls|j|ret|tb[bh])")
_KINDS = (
    ("load", re.compile(r"(v?ldr|v?ldm|v?ld[24]|v?pop|l[bhw]u?$)")),
    ("store", re.compile(r"(v?str|v?stm|v?st[24]|v?push|s[bhw]$)")),
    ("multiply", re.compile(r"(mul|ml[as]|sm[lmu]|um[lu]|vm(ul|la|ls)|vqr?dm)")),
    ("vector", re.compile(r"v")),
)


def kind(mnemonic: str) -> str:
    """ "load", "store", "multiply" (with or without accumulation), "vector" (other), "branch" or "arithmetic"."""
    if _BRANCH.match(mnemonic) and not mnemonic.startswith(_NOT_BRANCHES):
        return "branch"
    return next((name for name, pattern in _KINDS if pattern.match(mnemonic)), "arithmetic")


def _lines(elf: Path) -> dict[int, _Line]:
    found: dict[int, _Line] = {}
    function, start = "", 0
    architecture = read_elf(elf).architecture
    # Images say nothing of their Arm architecture; the largest of Cortex-M has the others' instructions.
    options = ("-m", "armv8.1-m.main") if architecture is ARM else ()
    for text in disassembly(elf, architecture, options).splitlines():
        if match := _FUNCTION.match(text):
            function, start = match[1], int(text.split(" ", 1)[0], 16)
        elif match := _INSTRUCTION.match(text):
            address, operands = int(match[1], 16), (match[3] or "").strip()
            mnemonic = match[2]
            jump = _TARGET.search(operands) if kind(mnemonic) == "branch" else None
            back = int(jump[1], 16) if jump and start <= int(jump[1], 16) <= address else None
            found[address] = _Line(mnemonic, f"{mnemonic} {operands}".strip(), function, address - start, back)
    return found


def _by_kind_and_function(
    counts: dict[int, int], lines: dict[int, _Line]
) -> tuple[tuple[tuple[str, int], ...], tuple[tuple[str, int], ...]]:
    kinds: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    for address, count in counts.items():
        line = lines.get(address)
        kinds[kind(line.mnemonic) if line else "unknown"] += count
        functions[line.function if line else "unknown"] += count
    return tuple(kinds.most_common()), tuple(functions.most_common())


def _loops(counts: dict[int, int], lines: dict[int, _Line]) -> tuple[Loop, ...]:
    """Loops without a loop inside, those that executed most first."""
    ends = [(line.back, at) for at, line in lines.items() if line.back is not None and counts.get(at)]
    inner = [pair for pair in ends if not any(other != pair and _within(other, pair) for other in ends)]
    loops: list[Loop] = []
    for first, last in inner:
        inside = sorted(at for at in lines if first <= at <= last)
        where = f"{lines[first].function}+0x{lines[first].offset:x}"
        executed = sum(counts.get(at, 0) for at in inside)
        loops.append(Loop(where, counts[last], executed, tuple(lines[at].text for at in inside)))
    return tuple(sorted(loops, key=lambda loop: -loop.instructions)[:LOOPS])


def _within(inner: tuple[int, int], outer: tuple[int, int]) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]
