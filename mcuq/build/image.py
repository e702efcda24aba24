"""From the files of a project to linked programs: for this computer, for a board, and for QEMU.

Objects are compiled once per project and linked several times: the application at the part's addresses
(measured, never run), and the harness at addresses of the QEMU machine, with and without hooks. Those of the runtime
are the same in every project of a core and serve all that a process builds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mcuq.build.objects import compile_once
from mcuq.build.toolchain import WARNINGS, Toolchain, find_program, host_gcc, run_tool
from mcuq.build.write import write_files
from mcuq.errors import LimitError, ToolchainError
from mcuq.ir.integer import IntegerGraph
from mcuq.ir.plans import MemoryPlan
from mcuq.ir.sources import SourceFile
from mcuq.target.board import Board, emulated
from mcuq.target.core import Machine, machine, optimize_flag
from mcuq.target.files import product_file

_BARE = ("-nostartfiles", "-Wl,--gc-sections", "-Wl,--fatal-warnings", "-Wl,--nmagic", "-Wl,-z,noexecstack")
"""nmagic: segments start where their sections do, not at a page that may lie below the region. noexecstack: newlib's
assembly says nothing of its stack."""
_CALL_GRAPH = ("-fstack-usage", "-fcallgraph-info=su")
_INCLUDE = ("include", "src", "mcuq/include", "mcuq/src", "test", "harness")


@dataclass(frozen=True, slots=True)
class Image:
    """A program that runs samples: ``plain`` and ``hooked`` harness, on this computer when ``machine`` is None.

    ``order`` are the operators in execution order, the order in which the hooked harness reports.
    """

    plain: Path
    hooked: Path
    machine: Machine | None
    graph: IntegerGraph
    order: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Builder:
    """Compiles and links the C files of one project folder with one compiler."""

    toolchain: Toolchain
    prefix: str
    board: Board | None
    folder: Path

    def compile(self, sources: Sequence[str | Path], flags: Sequence[str] = (), suffix: str = "") -> list[Path]:
        """Objects of ``sources`` (relative to the project, or absolute) in ``folder/objects``.

        Raises:
            ToolchainError: the compiler failed.
        """
        output = self.folder / "objects"
        output.mkdir(exist_ok=True)
        optimize = optimize_flag(self.board.core if self.board else "portable")
        base = [self.toolchain.compiler, "-std=c11", *self.toolchain.flags, optimize, *_warnings(self.toolchain)]
        base += [*_section_flags(self.prefix, self.board), *flags]
        failure = f"{self.toolchain.name} failed to compile"
        port = product_file("runtime_c", "port", "port.h").parent
        objects: dict[Path, Path] = {}
        for source in map(Path, sources):
            parts = source.with_suffix("").parts[-2:] if source.is_absolute() else source.with_suffix("").parts
            objects[self.folder / source] = output / f"{'_'.join(parts)}{suffix}.o"
        runtime = {s: o for s, o in objects.items() if s.is_relative_to(self.folder / "mcuq") or s.parent == port}
        compile_once(base, runtime, (self.folder / "mcuq" / "include", self.folder / "mcuq" / "src", port), failure)
        base += [f"-I{folder}" for folder in (*(self.folder / name for name in _INCLUDE), port)]
        for source, target in objects.items():
            if source not in runtime:
                run_tool([*base, "-c", str(source), "-o", str(target)], f"{failure} {source.name}")
        return list(objects.values())

    def link(self, objects: Sequence[Path], output: str, script: Path | None = None) -> Path:
        """Program ``folder/output``.

        Raises:
            ToolchainError: the linker failed. LimitError: a region of the board overflows.
        """
        target = self.folder / output
        command = [self.toolchain.compiler, *self.toolchain.flags, *map(str, objects), "-o", str(target)]
        if script is not None:
            command += [f"-T{script}", *_BARE, "-lc", "-lgcc"]
        try:
            run_tool(command, f"{self.toolchain.name} failed to link {output}")
        except ToolchainError as error:
            if self.board is not None and (lines := overflows(str(error))):
                raise LimitError(f"the image does not fit board {self.board.name}: {lines}") from error
            raise
        return target


def _warnings(toolchain: Toolchain) -> tuple[str, ...]:
    clang = "clang" in toolchain.compiler
    return tuple(flag.removesuffix("=strict") if clang else flag for flag in WARNINGS)


def _section_flags(prefix: str, board: Board | None) -> tuple[str, ...]:
    if board is None:
        return ()
    upper = prefix.upper()
    numbers = [str(number or "") for number in range(len(board.placement.arena))]
    return (
        "-ffunction-sections",
        "-fdata-sections",
        f'-D{upper}_WEIGHTS_ATTR=__attribute__((section(".mcuq_weights")))',
        *(f'-D{upper}_ARENA{n}_ATTR=__attribute__((section(".bss.mcuq_arena{n}")))' for n in numbers),
    )


def overflows(text: str) -> str:
    """The linker's complaints about full regions, readable: section, region, bytes missing; "" when none."""
    sections: dict[str, list[str]] = {}
    missing: dict[str, str] = {}
    for line in text.splitlines():
        if "will not fit in region" in line:
            section, region = line.split("section `", 1)[1].split("' will not fit in region `", 1)
            sections.setdefault(region.split("'", 1)[0], []).append(section)
        elif "overflowed by" in line:
            region, rest = line.split("region `", 1)[1].split("' overflowed by ", 1)
            missing[region] = rest.split(" ", 1)[0]
    return "; ".join(
        f"section {' and '.join(dict.fromkeys(sections.get(region, ['?'])))} does not fit region {region}, "
        f"{count} bytes are missing; lower the flash or RAM limit of the bits, or choose a larger board"
        for region, count in missing.items()
    )


def target_toolchain(board: Board | None) -> Toolchain:
    """gcc of this computer, or of the board's core with the board's flags."""
    if board is None:
        return host_gcc()
    compiler = board.architecture.tool("gcc")
    return Toolchain(f"{compiler} for {board.name}", find_program(compiler), board.flags)


def library_sources(files: Sequence[SourceFile]) -> tuple[str, ...]:
    """The C and assembly files of the model and of the runtime."""
    return tuple(f.path for f in files if f.path.startswith(("src/", "mcuq/src/")) and f.path.endswith((".c", ".S")))


def build_image(
    files: Sequence[SourceFile],
    harness: Sequence[SourceFile],
    graph: IntegerGraph,
    plan: MemoryPlan,
    board: Board | None,
    folder: Path,
    *,
    prefix: str = "model",
    toolchain: Toolchain | None = None,
) -> Image:
    """Compile a project with its harness in ``folder`` (existing, empty) for this computer or the board's machine.

    Args:
        files: of ``emit_project``; harness: of ``emit_harness``, both for ``board``.
        toolchain: another compiler than the default, for this computer only.

    Raises:
        ToolchainError: compiling or linking failed. LimitError: the image exceeds the board.
    """
    write_files([*files, *harness], folder)
    builder = Builder(toolchain or target_toolchain(board), prefix, board, folder)
    simulator = None if board is None else machine(emulated(board).emulation.machine)
    port = ["host.c"] if simulator is None else ["startup.c", "semihost.c", simulator.counter]
    model = f"src/{prefix}.c"
    graphs = () if board is None else _CALL_GRAPH
    shared = builder.compile([path for path in library_sources(files) if path != model], graphs)
    shared += builder.compile([product_file("runtime_c", "port", name) for name in port], graphs)
    shared += builder.compile(["harness/harness.c"], graphs)
    hook = ("-include", str(folder / "harness" / "hook.h"))
    script = None if board is None else folder / _run_script(board)
    return Image(
        plain=builder.link([*shared, *builder.compile([model], graphs)], "harness-plain", script),
        hooked=builder.link([*shared, *builder.compile([model], hook, "-hooked")], "harness-hooked", script),
        machine=simulator,
        graph=graph,
        order=plan.order,
    )


def _run_script(board: Board) -> str:
    if board.emulation.mode == "same-lengths":
        return f"board/{board.name}-{board.emulation.machine}.ld"
    return f"board/{board.name}.ld"


def build_application(
    files: Sequence[SourceFile], board: Board, folder: Path, *, prefix: str = "model"
) -> tuple[Path, Path]:
    """Compile and link the project's own application at the part's addresses: what sizes are measured on.

    Returns:
        (ELF, folder with the compiler's call graphs ``*.ci`` for the stack bound).

    Raises:
        ToolchainError: compiling or linking failed. LimitError: a region overflows.
    """
    write_files(files, folder)
    builder = Builder(target_toolchain(board), prefix, board, folder)
    sources = [*library_sources(files), "board/main.c", "board/bare.c", "port/startup.c"]
    objects = builder.compile(sources, _CALL_GRAPH)
    return builder.link(objects, "application", folder / f"board/{board.name}.ld"), folder / "objects"
