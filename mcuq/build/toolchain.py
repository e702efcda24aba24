"""Finding and running C compilers: one call compiles and links a list of C files for the host or a core."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mcuq.errors import ToolchainError
from mcuq.target.core import Core, Machine
from mcuq.target.files import product_file

WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wcast-align=strict", "-Werror")
_PACKAGES = {
    "gcc": "gcc libc6-dev",
    "clang": "clang",
    "arm-none-eabi-gcc": "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "qemu-system-arm": "qemu-system-arm",
    "riscv64-unknown-elf-gcc": "gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf",
    "riscv64-unknown-elf-objdump": "binutils-riscv64-unknown-elf",
    "qemu-system-riscv32": "qemu-system-misc",
}
_COMPILE_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A compiler driver and the flags that select its target."""

    name: str
    compiler: str
    flags: tuple[str, ...] = ()


def find_program(name: str) -> str:
    """Absolute path of ``name``.

    Raises:
        ToolchainError: it is not installed; the text names the Debian packages.
    """
    path = shutil.which(name)
    if path is None:
        packages = _PACKAGES.get(name, name)
        raise ToolchainError(f"{name} was not found; on Debian: sudo apt-get install {packages}")
    return path


def host_gcc(*flags: str) -> Toolchain:
    """gcc of this computer; ``flags`` such as ``-m32`` (needs gcc-multilib) or ``-fsanitize=address``."""
    return Toolchain(" ".join(("gcc", *flags)), find_program("gcc"), flags)


def host_clang(*flags: str) -> Toolchain:
    """clang of this computer."""
    return Toolchain(" ".join(("clang", *flags)), find_program("clang"), flags)


def cross_gcc(core: Core) -> Toolchain:
    """gcc for ``core``; one section per function, so that the linker drops what is unused."""
    flags = (*core.flags, "-ffunction-sections", "-fdata-sections")
    compiler = core.architecture.tool("gcc")
    return Toolchain(f"{compiler} {core.name}", find_program(compiler), flags)


def compile_program(
    toolchain: Toolchain,
    sources: Sequence[Path],
    output: Path,
    *,
    include: Sequence[Path] = (),
    flags: Sequence[str] = ("-O2",),
    link: Sequence[str] = (),
) -> Path:
    """Compile and link C11 ``sources`` into ``output`` with warnings as errors.

    Raises:
        ToolchainError: the compiler failed; the text holds its first lines.
    """
    command = [toolchain.compiler, "-std=c11", *toolchain.flags, *flags, *WARNINGS]
    if "clang" in toolchain.compiler:
        command = [flag.replace("-Wcast-align=strict", "-Wcast-align") for flag in command]
    command += [f"-I{folder}" for folder in include]
    command += [*map(str, sources), "-o", str(output), *link]
    run_tool(command, f"{toolchain.name} failed to build {output.name}")
    return output


def link_program(
    core: Core,
    machine: Machine,
    sources: Sequence[Path],
    output: Path,
    *,
    include: Sequence[Path] = (),
    flags: Sequence[str] = ("-O2",),
    stack_bytes: int = 4096,
) -> Path:
    """Build an ELF for a QEMU machine: ``sources`` plus startup, semihosting and counter of the port.

    ``main(argc, argv)`` is called with the emulator's arguments; see ``runtime_c/port/port.h``. A linker script is
    written beside ``output``.

    Raises:
        ToolchainError: compiling or linking failed.
    """
    port = ("startup.c", "semihost.c", machine.counter)
    files = [*sources, *(product_file("runtime_c", "port", name) for name in port)]
    script = output.with_suffix(".ld")
    script.write_text(linker_script(machine, stack_bytes), encoding="ascii", newline="\n")
    sections = product_file("runtime_c", "port", "sections.ld").parent
    link = (
        f"-T{script}",
        f"-L{sections}",
        "-nostartfiles",
        "-Wl,--gc-sections",
        "-Wl,--fatal-warnings",
        *core.architecture.libraries,
    )
    return compile_program(cross_gcc(core), files, output, include=(*include, sections), flags=flags, link=link)


def linker_script(machine: Machine, stack_bytes: int) -> str:
    """Linker script text: the machine's memory, then the sections of ``runtime_c/port/sections.ld``."""
    code, ram = machine.code, machine.ram
    return (
        f"/* {machine.name} */\n"
        "MEMORY\n{\n"
        f"    FLASH (rx) : ORIGIN = 0x{code[0]:08x}, LENGTH = {code[1]}\n"
        f"    RAM (rwx) : ORIGIN = 0x{ram[0]:08x}, LENGTH = {ram[1]}\n"
        "}\n"
        f"__stack_bytes = {stack_bytes};\n"
        "INCLUDE sections.ld\n"
    )


def run_tool(command: Sequence[str], failure: str) -> str:
    """Run a build tool and return its standard output.

    Raises:
        ToolchainError: exit status not 0, or it ran longer than five minutes; the text starts with ``failure``.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(f"{failure}: no result after {_COMPILE_SECONDS} s") from error
    except OSError as error:
        raise ToolchainError(f"{failure}: {command[0]} cannot be run: {error.strerror}") from error
    if done.returncode != 0:
        lines = "\n".join((done.stderr or done.stdout).splitlines()[:20])
        raise ToolchainError(f"{failure} (exit status {done.returncode}):\n{lines}")
    return done.stdout
