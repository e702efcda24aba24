"""Shared libraries for this computer, compiled once and kept: the loops that training spends its time in."""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from mcuq.build.toolchain import find_program, run_tool
from mcuq.errors import ToolchainError

FLAGS = ("-std=c11", "-O3", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
"""IEEE arithmetic without contraction: the same bits as the loops written in torch. ``-fno-finite-math-only`` and
``-ffast-math`` stay away: the first stops GCC from vectorizing minima, the second loses NaN."""
OPENMP = ("libgomp", "libiomp5")
"""OpenMP libraries that code compiled by GCC runs on."""


def host_library(sources: Sequence[Path], folder: Path) -> Path:
    """The shared library of C ``sources``, optimized for this processor; compiled unless ``folder`` has it.

    It is linked against the OpenMP library that this process has loaded, so that there is one pool of threads; without
    one, or with a compiler that is not GCC, it runs on one thread.

    Args:
        sources: ``.c`` files; ``.h`` files beside them count as sources too.
        folder: of compiled libraries; each is named after a hash of sources, compiler, flags and processor.

    Raises:
        ToolchainError: there is no compiler, it failed, or the folder cannot be written.
    """
    compiler = _compiler()
    runtime = loaded_openmp() if Path(compiler).name == "gcc" else None
    flags = [*FLAGS, "-march=native", "-fopenmp" if runtime else "-fopenmp-simd"]
    texts = [path.read_bytes() for path in (*sources, *sorted(sources[0].parent.glob("*.h")))]
    version = run_tool([compiler, "--version"], f"{compiler} does not run").splitlines()[0]
    key = hashlib.sha256(b"\0".join([*texts, "\n".join([version, *flags, runtime or "", _processor()]).encode()]))
    target = folder / f"{sources[0].parent.name}-{key.hexdigest()[:16]}.so"
    if not target.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                os.replace(_compile(compiler, flags, sources, runtime, Path(scratch)), target)
        except OSError as error:
            raise ToolchainError(f"cannot write {target}: {error.strerror}") from error
    return target


def _compile(compiler: str, flags: Sequence[str], sources: Sequence[Path], runtime: str | None, folder: Path) -> Path:
    objects: list[str] = []
    for source in sources:
        objects.append(str(folder / f"{source.stem}.o"))
        run_tool([compiler, *flags, "-c", str(source), "-o", objects[-1]], f"cannot compile {source.name}")
    library = folder / "library.so"
    # Compiled with, but linked without -fopenmp, which would add the compiler's own OpenMP library.
    link = [compiler, "-shared", *objects, *([runtime] if runtime else []), "-lm", "-o", str(library)]
    run_tool(link, f"cannot link {library.name}")
    return library


def _compiler() -> str:
    try:
        return find_program("gcc")
    except ToolchainError:
        return find_program("clang")


def loaded_openmp() -> str | None:
    """Path of the OpenMP library in this process, None when there is none that GCC's code can use.

    Packages bring libraries of their own (scikit-learn does): torch's comes first, whose threads are to be shared.
    """
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    files = [Path(line.split(maxsplit=5)[5]) for line in lines if line.count("/")]
    found = sorted((file for file in files if file.name.startswith(OPENMP)), key=lambda file: "torch" not in file.parts)
    return str(found[0]) if found else None


@cache
def _processor() -> str:
    """Name of the processor and what it can do; ``-march=native`` depends on it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    facts = {line.partition(":")[0].strip(): line for line in lines if line.startswith(("model name", "flags", "Feat"))}
    return "\n".join([platform.machine(), *facts.values()])
