"""Measuring what every runtime function adds to an image: the table behind promised code bytes."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile

from mcuq.build.image import Builder, build_application, target_toolchain
from mcuq.build.sizes import code_by_origin
from mcuq.build.toolchain import run_tool
from mcuq.ir.sources import SourceFile
from mcuq.target.board import Board
from mcuq.target.files import product_dir

_KERNEL = re.compile(
    r"mcuq_(?:(?:conv2d|depthwise|fully_connected)\w*_w\w+"
    r"|(?:add|argmax|avg_pool|band_start|band_next|blend|choose|concat|copy|extremum|l2_normalize|max_pool|mul|pad"
    r"|pixels_to_int8|pool_band_call|pool_band_next|pool_band_start|prelu|rescale_copy|reshape|rows_next|rows_start|softmax"
    r"|table)(?:_\w+)?)"
)

Emitted = Callable[[int], tuple[SourceFile, ...]]
"""A project of a chain with the given number of operators, prefix ``model``."""


def measure_core(board: Board, families: tuple[str, ...], project: Emitted, folder: Path) -> dict[str, Any]:
    """The table's entry for the board's core.

    Args:
        families: folders under ``runtime_c/src`` whose kernels the core may run, besides the portable ones.
        project: emits chains, for the code per operator.
        folder: empty, for objects and images.
    """
    builder = Builder(target_toolchain(board), "model", board, folder)
    root = product_dir("runtime_c") / "src"
    sources = [path for where in ("", *families) for path in sorted((root / where).glob("*.[cS]"))]
    include = (f"-I{root}", f"-I{root.parent / 'include'}")
    objects = builder.compile(sources, include)
    sizes: dict[str, int] = {}
    needs: dict[str, list[str]] = {}
    for name in _functions(objects):
        image = folder / "one"
        command = [builder.toolchain.compiler, *builder.toolchain.flags, *map(str, objects), "-o", str(image)]
        command += ["-nostartfiles", "-Wl,--gc-sections", f"-Wl,-e,{name}", "-Wl,-z,noexecstack", "-lc", "-lgcc"]
        run_tool(command, f"linking {name} for {board.core} failed")
        found = code_symbols(image)
        sizes.update(found)
        needs[name] = sorted(found)
    few, many = (_application(board, project(count), folder / f"chain{count}") for count in (5, 45))
    operator = (many[0] - few[0]) // 40
    return {
        "bytes": dict(sorted(sizes.items())),
        "needs": dict(sorted(needs.items())),
        "model": few[0] - 5 * operator,
        "operator": operator,
        "startup": few[1],
    }


def _functions(objects: list[Path]) -> list[str]:
    names: set[str] = set()
    for path in objects:
        with path.open("rb") as stream:
            table: Any = ELFFile(stream).get_section_by_name(".symtab")
            names.update(s.name for s in table.iter_symbols() if s["st_shndx"] != "SHN_UNDEF")
    return sorted(name for name in names if _KERNEL.fullmatch(name))


def code_symbols(image: Path) -> dict[str, int]:
    """Bytes of every function and constant of a linked image; local ones as ``file:name``.

    Assembly without sizes extends to the next symbol, or to the end of its section.
    """
    placed: dict[int, tuple[str, int]] = {}
    with image.open("rb") as stream:
        file = ELFFile(stream)
        table: Any = file.get_section_by_name(".symtab")
        ends = [s["sh_addr"] + s["sh_size"] for s in file.iter_sections() if s.name in (".text", ".rodata")]
        source = ""
        for symbol in table.iter_symbols():
            kind, binding = symbol["st_info"]["type"], symbol["st_info"]["bind"]
            if kind == "STT_FILE":
                source = symbol.name
            elif kind in ("STT_FUNC", "STT_OBJECT") and symbol["st_shndx"] != "SHN_UNDEF":
                name = f"{source}:{symbol.name}" if binding == "STB_LOCAL" else symbol.name
                address = symbol["st_value"] & ~1 if kind == "STT_FUNC" else symbol["st_value"]
                # A second name of one place (an alias) adds nothing; the sized one counts.
                if symbol["st_size"] > placed.get(address, ("", -1))[1]:
                    placed[address] = (name, symbol["st_size"])
    marks = sorted([*placed, *ends])
    following = dict(pairwise(marks))
    return {name: size or following.get(address, address) - address for address, (name, size) in placed.items()}


def _application(board: Board, files: tuple[SourceFile, ...], folder: Path) -> tuple[int, int]:
    """Code bytes of (model, startup) in a linked application."""
    folder.mkdir()
    elf, _ = build_application(files, board, folder)
    by_origin = code_by_origin(elf, "model")
    return by_origin["model"], by_origin["startup"]
