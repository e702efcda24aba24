"""Promised and measured bytes of an image side by side."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mcuq.build.elf import Elf, check_limits, flash_by_region, float_uses, ram_by_region, read_elf
from mcuq.build.image import build_application
from mcuq.build.stack import stack_bound
from mcuq.errors import CheckError, LimitError
from mcuq.ir.integer import IntegerGraph
from mcuq.ir.plans import MemoryPlan
from mcuq.ir.sources import SourceFile
from mcuq.target.board import Board
from mcuq.target.footprint import Footprint, footprint

_STARTUP = re.compile(r"vectors|main|mcuq_port_\w+|unexpected|sleep_forever")


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the size table, bytes."""

    name: str
    promised: int
    measured: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """An application linked at the part's addresses.

    Attributes:
        items: weights, parameters, runtime code, model code, startup; arena, statics, stack.
        flash, ram: (promised, measured) sums of the items; measured ones equal the ELF's segments.
        stack_bound: most stack of one inference, ``<prefix>_invoke`` and all below it.
        stack_bound_main: the same from reset, the application skeleton included.
    """

    items: tuple[Item, ...]
    flash: tuple[int, int]
    ram: tuple[int, int]
    stack_bound: int
    stack_bound_main: int


def measure(
    files: Sequence[SourceFile], graph: IntegerGraph, plan: MemoryPlan, board: Board, *, prefix: str = "model"
) -> Sizes:
    """Build the project's application for ``board`` and hold the promise against it.

    Raises:
        ToolchainError: compiling or linking failed.
        LimitError: the image exceeds a region; names section, region and bytes missing.
        CheckError: float code in the image, or no bound of the stack.
    """
    with tempfile.TemporaryDirectory(prefix="mcuq-size-") as folder:
        elf, objects = build_application(files, board, Path(folder), prefix=prefix)
        check_integer_only(elf)
        image = read_elf(elf)
        check_limits(image, board)
        bound = stack_bound(objects, elf, f"{prefix}_invoke")
        whole = stack_bound(objects, elf, "mcuq_port_reset")
        sizes = _sizes(image, elf, board, footprint(graph, plan, board.core), prefix, (bound, whole))
    if whole > image.section_bytes(".stack"):
        raise LimitError(
            f"the stack needs {whole} bytes, but section .stack in region {board.placement.stack} has "
            f"{image.section_bytes('.stack')}; emit with a larger stack"
        )
    return sizes


def check_integer_only(elf: Path) -> None:
    """Raises CheckError when the image holds float helpers or instructions; names them."""
    if found := float_uses(elf):
        raise CheckError(f"{elf.name} holds floating-point code: {', '.join(found[:8])}; emitted code must hold none")


def code_by_origin(elf: Path, prefix: str) -> dict[str, int]:
    """Bytes of code and its constants, {"runtime", "model", "startup", "structs"}; padding counts as runtime."""
    image = read_elf(elf)
    model = re.compile(rf"{re.escape(prefix)}_\w+")
    taken = {"model": 0, "startup": 0, "structs": 0}
    for symbol in image.symbols:
        if symbol.section not in (".vectors", ".text", ".rodata"):
            continue
        if model.fullmatch(symbol.name):
            taken["structs" if symbol.section == ".rodata" else "model"] += _round4(symbol.size)
        elif _STARTUP.fullmatch(symbol.name):
            taken["startup"] += _round4(symbol.size)
    whole = sum(image.section_bytes(name) for name in (".vectors", ".text", ".rodata", ".ARM.exidx", ".data"))
    return {**taken, "runtime": whole - sum(taken.values())}


def _sizes(image: Elf, elf: Path, board: Board, promise: Footprint, prefix: str, bounds: tuple[int, int]) -> Sizes:
    code = code_by_origin(elf, prefix)
    weight_name = re.compile(rf"{re.escape(prefix)}_l\d+c?_weights")
    arrays = image.section_bytes(".mcuq_weights")
    weights = sum(_round4(symbol.size) for symbol in image.symbols if weight_name.fullmatch(symbol.name))
    flash = (
        Item("weights", promise.weights, weights),
        Item("parameters", promise.parameters, arrays - weights + code["structs"]),
        Item("runtime code", promise.runtime, code["runtime"]),
        Item("model code", promise.model, code["model"]),
        Item("startup", promise.startup, code["startup"]),
    )
    arenas = [f".mcuq_arena{number or ''}" for number in range(len(board.placement.arena))]
    ram = (
        Item("arena", promise.arena, sum(map(image.section_bytes, arenas))),
        Item("statics", promise.statics, image.section_bytes(".data") + image.section_bytes(".bss")),
        Item("stack", promise.stack, image.section_bytes(".stack")),
    )
    programmed, used = sum(flash_by_region(image, board).values()), sum(ram_by_region(image, board).values())
    measured_flash, measured_ram = sum(i.measured for i in flash), sum(i.measured for i in ram)
    # Nothing may be left out of the table; alignment between sections is all that can differ.
    if abs(programmed - measured_flash) > 16 or abs(used - measured_ram) > 32:
        raise CheckError(
            f"the size table sums to {measured_flash} + {measured_ram} bytes, but the image takes {programmed} + {used}"
        )
    return Sizes((*flash, *ram), (promise.flash, programmed), (promise.ram, used), *bounds)


def _round4(size: int) -> int:
    return (size + 3) & ~3
