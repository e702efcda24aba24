"""What a linked image takes: bytes per region and section, sizes of symbols, and that it holds no float."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from mcuq.build.toolchain import find_program, run_tool
from mcuq.errors import CheckError, LimitError
from mcuq.target.board import Board
from mcuq.target.core import ARM, RISCV, Architecture

_LOADED = 2  # SHF_ALLOC
_FLOAT_SYMBOL = re.compile(
    r"__aeabi_(?:[fd](?:add|sub|rsub|mul|div|neg|2|cmp|rcmp|un)|c[fd](?:cmp|rcmp)|u?[il]2[fd])|"
    r"__(?:add|sub|mul|div|neg|extend|trunc|fix|fixuns|float|floatun|cmp|unord|eq|ne|lt|le|gt|ge)\w*[sdt]f\d?"
)
_FLOAT_INSTRUCTION = re.compile(
    r"\t(v\w+\.(?:\w+\.)?f(?:16|32|64)(?:\.\w+)?"  # Arm
    r"|f\w+\.[sd](?:\.\w+)?|f[ls][wd](?:sp)?)\t"  # RISC-V
)
"""objdump separates address, bytes, mnemonic and operands by tabs."""


@dataclass(frozen=True, slots=True)
class Section:
    """A section that takes memory: ``file_bytes`` is 0 for what is only reserved."""

    name: str
    address: int
    size: int
    file_bytes: int


@dataclass(frozen=True, slots=True)
class Symbol:
    """A function or object with its size in bytes; ``section`` is where it lies."""

    name: str
    address: int
    size: int
    section: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A loadable segment: bytes to program at ``load``, bytes taken at ``address`` when running."""

    load: int
    address: int
    file_bytes: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Elf:
    """A linked image as far as sizes go."""

    segments: tuple[Segment, ...]
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
    architecture: Architecture = ARM

    def section_bytes(self, name: str) -> int:
        """Bytes of section ``name``, 0 when there is none."""
        return sum(section.size for section in self.sections if section.name == name)


def read_elf(path: Path) -> Elf:
    """Read a linked image.

    Raises:
        CheckError: the file is no ELF.
    """
    try:
        with path.open("rb") as stream:
            file = ELFFile(stream)
            sections = tuple(_sections(file))
            return Elf(tuple(_segments(file)), sections, tuple(_symbols(file)), _architecture(file))
    except (ELFError, OSError) as error:
        raise CheckError(f"{path} is no ELF image: {error}") from error


def _architecture(file: Any) -> Architecture:
    return RISCV if file["e_machine"] == "EM_RISCV" else ARM


def _segments(file: Any) -> list[Segment]:
    return [
        Segment(s["p_paddr"], s["p_vaddr"], s["p_filesz"], s["p_memsz"])
        for s in file.iter_segments("PT_LOAD")
        if s["p_memsz"]
    ]


def _sections(file: Any) -> list[Section]:
    return [
        Section(s.name, s["sh_addr"], s["sh_size"], 0 if s["sh_type"] == "SHT_NOBITS" else s["sh_size"])
        for s in file.iter_sections()
        if s["sh_flags"] & _LOADED and s["sh_size"]
    ]


def _symbols(file: Any) -> list[Symbol]:
    found: dict[tuple[str, int], Symbol] = {}
    for table in file.iter_sections():
        if not isinstance(table, SymbolTableSection):
            continue
        for symbol in table.iter_symbols():
            index = symbol["st_shndx"]
            kind = symbol["st_info"]["type"]
            if kind in ("STT_FUNC", "STT_OBJECT") and isinstance(index, int):
                address = symbol["st_value"] & ~1 if kind == "STT_FUNC" else symbol["st_value"]  # Thumb bit
                section = file.get_section(index).name
                found[symbol.name, address] = Symbol(symbol.name, address, symbol["st_size"], section)
    return sorted(found.values(), key=lambda symbol: symbol.address)


def address_constants(path: Path) -> tuple[str, ...]:
    """Functions whose address (with the Thumb bit on Arm) is a word of the image's data, the vector table apart."""
    with path.open("rb") as stream:
        file = ELFFile(stream)
        thumb = int(_architecture(file).thumb)
        functions = {symbol.address | thumb: symbol.name for symbol in _symbols(file) if symbol.section == ".text"}
        words: set[int] = set()
        for section in file.iter_sections():
            if section.name in (".rodata", ".data"):  # weights are bytes that only look like addresses
                data = section.data()
                words.update(memoryview(data[: len(data) // 4 * 4]).cast("I"))
    return tuple(sorted(functions[word] for word in words & functions.keys()))


def disassembly(path: Path, architecture: Architecture, options: Sequence[str] = ()) -> str:
    """What objdump prints of an image's code.

    Raises:
        ToolchainError: objdump is missing or failed.
    """
    command = [find_program(architecture.tool("objdump")), "-d", *options, str(path)]
    return run_tool(command, f"disassembling {path.name} failed")


def flash_by_region(elf: Elf, board: Board) -> dict[str, int]:
    """Bytes to program, by the region of their load address.

    Raises:
        CheckError: bytes load outside every region of the board.
    """
    return _by_region(board, [(s.load, s.file_bytes) for s in elf.segments if s.file_bytes])


def ram_by_region(elf: Elf, board: Board) -> dict[str, int]:
    """Bytes taken while running in regions that are RAM, by the region of their address.

    Raises:
        CheckError: memory outside every region of the board is taken.
    """
    taken = _by_region(board, [(s.address, s.memory_bytes) for s in elf.segments])
    return {name: size for name, size in taken.items() if board.region(name).kind == "ram"}


def _by_region(board: Board, runs: list[tuple[int, int]]) -> dict[str, int]:
    taken: dict[str, int] = {}
    for address, size in runs:
        region = board.region_at(address)
        if region is None:
            raise CheckError(f"{size} bytes at 0x{address:08x} are in no region of {board.name}; check boards/*.toml")
        taken[region.name] = taken.get(region.name, 0) + size
    return taken


def check_limits(elf: Elf, board: Board) -> None:
    """Every region holds what the image puts there.

    Raises:
        LimitError: naming the largest section there, the region and the bytes missing.
    """
    for taken in (flash_by_region(elf, board), ram_by_region(elf, board)):
        for name, size in taken.items():
            region = board.region(name)
            if size > region.length:
                inside = [s for s in elf.sections if region.origin <= s.address < region.end]
                largest = max(inside, key=lambda s: s.size).name if inside else "?"
                raise LimitError(
                    f"the image does not fit board {board.name}: section {largest} does not fit region {name}, "
                    f"{size - region.length} bytes are missing; lower the limits or choose a larger board"
                )


def float_uses(path: Path) -> tuple[str, ...]:
    """Float helper functions and float instructions in the image, sorted; empty for an integer-only image."""
    image = read_elf(path)
    symbols = {symbol.name for symbol in image.symbols if _FLOAT_SYMBOL.fullmatch(symbol.name)}
    text = disassembly(path, image.architecture)
    return tuple(sorted(symbols | set(_FLOAT_INSTRUCTION.findall(text))))
