"""An integer graph and its memory plan as a C project, byte for byte the same for the same arguments."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import jinja2
import numpy as np

from mcuq.emit.arrays import ConstArray
from mcuq.emit.names import check_prefix
from mcuq.emit.view import ModelView, build_view
from mcuq.errors import CheckError
from mcuq.ir.integer import IntegerGraph, QTensor
from mcuq.ir.plans import MemoryPlan
from mcuq.ir.sources import SourceFile, TestVector
from mcuq.numerics import pack
from mcuq.target.board import Board, emulated
from mcuq.target.core import machine, optimize_flag
from mcuq.target.files import product_file
from mcuq.target.footprint import STACK_BYTES
from mcuq.target.runtime import runtime_files

ABI = 1
"""Version of ``runtime_c/include/mcuq/mcuq.h`` (MCUQ_ABI) that emitted models are written against."""

PACKAGES = ("library.json", "zephyr/module.yml")
"""Files by which PlatformIO and Zephyr take the project as a library; for ESP-IDF ``CMakeLists.txt`` is enough."""


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("mcuq.emit"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )


def _render(template: str, **values: Any) -> bytes:
    return _environment().get_template(f"{template}.j2").render(**values).encode("ascii")


def emit_project(
    graph: IntegerGraph,
    plan: MemoryPlan,
    board: Board | None,
    *,
    prefix: str = "model",
    vectors: Sequence[TestVector] = (),
    stack_bytes: int = STACK_BYTES,
) -> tuple[SourceFile, ...]:
    """The project's files, sorted by path.

    Args:
        board: None emits portable C for this computer, without linker script and startup.
        prefix: starts every public name; ``[a-z][a-z0-9_]{0,30}``.
        vectors: inputs and expected outputs for the self-test.
        stack_bytes: stack that the linker script sets aside and the header names.

    Raises:
        UsageError: the prefix is no C name, or the board's machine has no room.
        CheckError: plan or vectors do not belong to the graph.
        UnsupportedError: a dimension exceeds what the runtime's structs hold.
    """
    check_prefix(prefix)
    core = "portable" if board is None else board.core
    view = build_view(graph, plan, core, prefix)
    runtime = runtime_files(graph, core)
    files = (
        _model_files(view, stack_bytes if board else None)
        + _runtime_copies(runtime)
        + _test_files(view, graph, vectors)
    )
    if board is not None:
        files += _board_files(view, board, stack_bytes)
    files.append(_cmake(view, board, runtime, selftest=bool(vectors)))
    files += [SourceFile(path, _render(path.split("/")[-1], m=view)) for path in PACKAGES]
    arenas = " and ".join(board.placement.arena) if board else ""
    texts = {"arenas": arenas, "run": _run_view(board), "emulator": _emulator(board)}
    values = {"stack_bytes": stack_bytes, "target_only": _target_only(runtime), **texts}
    readme = _render("README.md", m=view, board=board, **values)
    files.append(SourceFile("README.md", readme))
    return tuple(sorted(files, key=lambda file: file.path))


def emit_harness(
    graph: IntegerGraph, plan: MemoryPlan, board: Board | None, *, prefix: str = "model"
) -> tuple[SourceFile, ...]:
    """A program that runs the emitted model over a file of samples, for parity checks and profiles.

    ``harness/harness.c`` needs ``runtime_c/port``; ``harness/hook.h`` is for the model's ``-include``. Arguments as
    of :func:`emit_project`.
    """
    check_prefix(prefix)
    view = build_view(graph, plan, "portable" if board is None else board.core, prefix)
    return tuple(SourceFile(f"harness/{name}", _render(name, m=view)) for name in ("harness.c", "hook.h"))


def _model_files(view: ModelView, stack_bytes: int | None) -> list[SourceFile]:
    """``stack_bytes``: what the header promises; None without a board, whose compiler nobody knows."""
    name = view.prefix
    return [
        SourceFile(f"include/{name}.h", _render("model.h", m=view, stack_bytes=stack_bytes)),
        SourceFile(f"src/{name}.c", _render("model.c", m=view, abi=ABI)),
        SourceFile(f"src/{name}_check.c", _render("check.c", m=view)),
        SourceFile(f"src/{name}_weights.h", _render("weights.h", m=view)),
        SourceFile(f"src/{name}_weights.c", _render("weights.c", m=view)),
    ]


def _runtime_copies(runtime: tuple[str, ...]) -> list[SourceFile]:
    return [SourceFile(f"mcuq/{path}", product_file("runtime_c", *path.split("/")).read_bytes()) for path in runtime]


def stored_bytes(codes: Any, tensor: QTensor, *, pixels: bool = False) -> bytes:
    """Codes [H, W, C] (or raw pixels) as the bytes of the tensor's buffer."""
    values = np.asarray(codes).astype(np.int64)
    if values.shape != tensor.shape:
        raise CheckError(f"a test vector has shape {values.shape}, but its tensor {tensor.shape}; give (H, W, C)")
    return values.astype(np.uint8).tobytes() if pixels else pack(values, tensor.bits).tobytes()


def _lines(content: bytes) -> tuple[str, ...]:
    return tuple(ConstArray("", "uint8_t", np.frombuffer(content, dtype=np.uint8), "").lines())


def _test_files(view: ModelView, graph: IntegerGraph, vectors: Sequence[TestVector]) -> list[SourceFile]:
    if not vectors:
        return []
    rows = [_vector_lines(graph, vector) for vector in vectors]
    name = view.prefix
    return [
        SourceFile(f"test/{name}_vectors.h", _render("vectors.h", m=view, vectors=rows)),
        SourceFile(f"test/{name}_vectors.c", _render("vectors.c", m=view, vectors=rows)),
        SourceFile("test/selftest.c", _render("selftest.c", m=view)),
    ]


def _vector_lines(graph: IntegerGraph, vector: TestVector) -> list[tuple[str, ...]]:
    """Initializer lines of every input, then of every output."""
    inputs = zip(vector.inputs, graph.inputs, strict=True)
    stored = [stored_bytes(codes, op.output, pixels=op.encoding == "uint8") for codes, op in inputs]
    outputs = zip(vector.outputs, graph.outputs, strict=True)
    stored += [stored_bytes(codes, graph.tensor(name)) for codes, name in outputs]
    return [_lines(content) for content in stored]


def _script(view: ModelView, board: Board, what: str, stack_bytes: int) -> bytes:
    regions = [board.region(name) for name in board.placement.regions]
    return _render("board.ld", m=view, board=board, regions=regions, what=what, stack_bytes=stack_bytes)


def linker_scripts(board: Board) -> tuple[str, str]:
    """Paths of the script for the part's addresses and of the one that runs under QEMU (often the same)."""
    link = f"board/{board.name}.ld"
    if board.emulation.mode != "same-lengths":
        return link, link
    return link, f"board/{board.name}-{board.emulation.machine}.ld"


def toolchain_file(board: Board) -> str:
    """Name of the emitted CMake toolchain file."""
    return f"{board.architecture.tools}.cmake"


def _board_files(view: ModelView, board: Board, stack_bytes: int) -> list[SourceFile]:
    link, run = linker_scripts(board)
    files = [
        SourceFile(link, _script(view, board, "the addresses of the part", stack_bytes)),
        SourceFile("board/main.c", _render("main.c", m=view)),
        SourceFile("board/bare.c", _render("bare.c")),
        SourceFile(toolchain_file(board), _render("toolchain.cmake", board=board)),
    ]
    if run != link:
        what = f"regions of the part's lengths at addresses of QEMU's {board.emulation.machine}"
        files.append(SourceFile(run, _script(view, emulated(board), what, stack_bytes)))
    for name in ("port.h", "startup.c", "semihost.c"):
        files.append(SourceFile(f"port/{name}", product_file("runtime_c", "port", name).read_bytes()))
    return files


def _cmake(view: ModelView, board: Board | None, runtime: tuple[str, ...], *, selftest: bool) -> SourceFile:
    library = [f"src/{view.prefix}{part}.c" for part in ("", "_check", "_weights")]
    library += [f"mcuq/{path}" for path in runtime if path.endswith((".c", ".S"))]
    link, run = linker_scripts(board) if board else ("", "")
    content = _render(
        "CMakeLists.txt",
        m=view,
        board=board,
        library=library,
        optimize=optimize_flag(view.core),
        languages="C ASM" if any(path.endswith(".S") for path in library) else "C",
        link_script=link,
        run_script=run,
        selftest=selftest,
        target_only=_target_only(runtime),
    )
    return SourceFile("CMakeLists.txt", content)


def _target_only(runtime: tuple[str, ...]) -> bool:
    """Whether kernels are for one core alone: those of Helium have no twins in portable C, unlike the DSP family."""
    return any("/mve/" in path for path in runtime)


def _emulator(board: Board | None) -> str:
    """The emulator's name and machine on the command line."""
    if board is None:
        return ""
    found = machine(board.emulation.machine)
    return " ".join((found.architecture.emulator, "-M", found.name, *found.options))


def _run_view(board: Board | None) -> str:
    return "" if board is None else linker_scripts(board)[1]
