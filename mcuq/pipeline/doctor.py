"""What is installed and what is missing, with the command that installs it."""

from __future__ import annotations

import importlib.metadata
import platform
import re

from mcuq.build.toolchain import find_program, run_tool
from mcuq.errors import ToolchainError
from mcuq.pipeline.outcomes import ListOutcome

PROGRAMS = (
    ("gcc", "host builds", True),
    ("arm-none-eabi-gcc", "Cortex-M builds", True),
    ("qemu-system-arm", "running Cortex-M images", True),
    ("riscv64-unknown-elf-gcc", "RISC-V builds", False),
    ("qemu-system-riscv32", "running RISC-V images", False),
    ("clang", "tests only", False),
    ("cmake", "building emitted projects as their users do", False),
)
PACKAGES = (
    ("torch", "training", "pip install torch==2.13.0"),
    ("ortools", "solver", "pip install mcuq"),
    ("sklearn", "the embedded digits", "pip install 'mcuq[train]'"),
    ("matplotlib", "pictures", "pip install 'mcuq[train]'"),
)
_DISTRIBUTIONS = {"sklearn": "scikit-learn"}


def examine() -> ListOutcome:
    """Every program and package mcuq can use; ``healthy`` is False when a needed one is missing."""
    rows = [("Python", True, platform.python_version(), "")]
    healthy = True
    for name, use, needed in PROGRAMS:
        try:
            printed = run_tool([find_program(name), "--version"], f"{name} does not run").splitlines()[0]
            version = _number(printed)
            rows.append((f"{name} ({use})", True, version, ""))
        except ToolchainError as error:
            rows.append((f"{name} ({use})", False, "missing", str(error).partition("; ")[2] or str(error)))
            healthy = healthy and not needed
    for name, use, cure in PACKAGES:
        try:
            rows.append((f"{name} ({use})", True, importlib.metadata.version(_DISTRIBUTIONS.get(name, name)), ""))
        except importlib.metadata.PackageNotFoundError:
            rows.append((f"{name} ({use})", False, "missing", cure))
            healthy = healthy and name != "ortools"
    return ListOutcome("findings", ("name", "found", "version", "cure"), tuple(rows), "mcuq doctor", healthy)


def _number(printed: str) -> str:
    """The version in what ``--version`` prints, without the distribution's own in brackets."""
    found = re.search(r"\d+(\.\d+)+", re.sub(r"\(.*?\)", "", printed))
    return found.group() if found else printed
