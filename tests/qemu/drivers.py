"""Building and running the kernel test driver on this computer and on emulated cores."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cases import Case, mismatches, ticks, write_cases

from mcuq.build.qemu import run_elf
from mcuq.build.toolchain import Toolchain, compile_program, host_clang, host_gcc, link_program
from mcuq.target.core import core, machine
from mcuq.target.files import product_dir

ROOT = product_dir("runtime_c")
INCLUDE = (ROOT / "include", ROOT / "port", ROOT / "tests", ROOT / "src")
PORTABLE = tuple(sorted((ROOT / "src").glob("*.c")))


@dataclass(frozen=True)
class Host:
    """A compiler of this computer. ``heap`` gives every buffer a block of its own, for address sanitizers."""

    name: str
    compiler: str
    flags: tuple[str, ...] = ()
    heap: bool = False


@dataclass(frozen=True)
class Target:
    """A core on a QEMU machine; ``arena`` bytes of memory for one case."""

    core: str
    machine: str
    arena: int = 256 << 10
    stack: int = 4096

    @property
    def name(self) -> str:
        return f"{self.core} on {self.machine}"


SANITIZERS = ("-O1", "-g", "-fsanitize=address,undefined,alignment", "-fno-sanitize-recover=all")
HOSTS = (
    Host("gcc", "gcc", ("-O2",)),
    Host("clang", "clang", ("-O2",)),
    Host("gcc -m32", "gcc", ("-O2", "-m32")),
    Host("sanitizers", "gcc", SANITIZERS, heap=True),
    Host("gcc -Os", "gcc", ("-Os",)),
)
TARGETS = (
    Target("cortex-m4", "mps2-an386"),
    Target("cortex-m0plus", "mps2-an385"),
    Target("cortex-m0", "microbit", arena=10 << 10, stack=2048),
    Target("cortex-m3", "mps2-an385"),
    Target("cortex-m4", "netduinoplus2", arena=64 << 10),
    Target("cortex-m7", "mps2-an500"),
    Target("cortex-m33", "mps2-an505"),
    Target("cortex-m55", "mps3-an547"),
    Target("rv32imc", "virt"),
)


def _sources(heap: bool, kernels: Sequence[Path], extra: Path | None) -> list[Path]:
    tests = ROOT / "tests"
    table = extra or tests / "grid_extra_none.c"
    return [*kernels, tests / "grid.c", table, tests / ("grid_heap.c" if heap else "grid_arena.c")]


@cache
def _host_program(host: Host, kernels: tuple[Path, ...], extra: Path | None) -> Path:
    """The driver for this computer, built once for a test session."""
    folder = Path(tempfile.mkdtemp(prefix="mcuq-grid-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    toolchain: Toolchain = host_clang() if host.compiler == "clang" else host_gcc()
    sources = [*_sources(host.heap, kernels, extra), ROOT / "port" / "host.c"]
    return compile_program(toolchain, sources, folder / "grid", include=INCLUDE, flags=host.flags)


def check_on_host(
    host: Host,
    cases: list[Case],
    folder: Path,
    *,
    kernels: Sequence[Path] = PORTABLE,
    extra: Path | None = None,
) -> list[str]:
    """Run the cases on this computer; returns what is wrong (see :func:`cases.mismatches`)."""
    program = _host_program(host, tuple(kernels), extra)
    files = folder / "cases", folder / "results"
    write_cases(cases, files[0])
    done = subprocess.run([program, *files], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        return [f"driver ended with {done.returncode}: {done.stdout}{done.stderr[:2000]}"]
    return mismatches(cases, files[1].read_bytes())


@cache
def _target_program(target: Target, kernels: tuple[Path, ...], extra: Path | None, flags: tuple[str, ...]) -> Path:
    """The driver for a target, built once for a test session."""
    folder = Path(tempfile.mkdtemp(prefix="mcuq-grid-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return link_program(
        core(target.core),
        machine(target.machine),
        _sources(False, kernels, extra),
        folder / "grid.elf",
        include=INCLUDE,
        flags=(*flags, f"-DGRID_ARENA_BYTES={target.arena}u"),
        stack_bytes=target.stack,
    )


def run_on_target(
    target: Target,
    cases: list[Case],
    folder: Path,
    *,
    kernels: Sequence[Path] = PORTABLE,
    extra: Path | None = None,
    flags: Sequence[str] = ("-O2",),
    seconds: float = 120.0,
) -> bytes:
    """Run the cases under QEMU; returns the driver's results. ``kernels`` and the table ``extra`` add a family."""
    board = machine(target.machine)
    elf = _target_program(target, tuple(kernels), extra, tuple(flags))
    files = folder / "cases", folder / "results"
    write_cases(cases, files[0])
    done = run_elf(elf, board, [str(file) for file in files], seconds=seconds)
    if done.exit_code != 0:
        raise AssertionError(f"driver on {target.name} ended with {done.exit_code}: {done.stdout}")
    return files[1].read_bytes()


def check_on_target(
    target: Target, cases: list[Case], folder: Path, *, kernels: Sequence[Path] = PORTABLE, extra: Path | None = None
) -> list[str]:
    """Run the cases under QEMU; returns what is wrong (see :func:`cases.mismatches`)."""
    return mismatches(cases, run_on_target(target, cases, folder, kernels=kernels, extra=extra))


def instructions(
    target: Target, cases: list[Case], folder: Path, *, kernels: Sequence[Path] = PORTABLE, extra: Path | None = None
) -> list[int]:
    """Executed instructions of each case's call, all bytes checked.

    Raises:
        AssertionError: a byte is wrong.
    """
    results = run_on_target(target, cases, folder, kernels=kernels, extra=extra)
    wrong = mismatches(cases, results)
    if wrong:
        raise AssertionError("\n".join(wrong))
    return [machine(target.machine).instructions(t) for t in ticks(cases, results)]


def that_fit(cases: list[Case], target: Target) -> list[Case]:
    """The cases for which the target has memory (each of up to ten buffers carries 36 bytes of canaries)."""
    return [case for case in cases if case.bytes + 400 < target.arena]
