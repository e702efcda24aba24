"""Running an ELF on an emulated core, with arguments, files and exit status by semihosting.

Every run is deterministic (``-icount``), and any access to memory or registers that the machine does not have
is an error: QEMU's reserved regions read as zero without a fault, only its log tells.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mcuq.build.toolchain import find_program
from mcuq.errors import ToolchainError
from mcuq.target.core import Machine

_LOG_LINES = 5


@dataclass(frozen=True, slots=True)
class Run:
    """What a program printed, and its exit status."""

    stdout: str
    exit_code: int


def run_elf(
    elf: Path, machine: Machine, arguments: Sequence[str] = (), *, seconds: float = 120.0, options: Sequence[str] = ()
) -> Run:
    """Run ``elf`` on ``machine`` until it exits.

    Args:
        arguments: argv[1:]; must hold no blank (the command line is one string) and argv[0] is the ELF's name.
        seconds: limit in wall time.
        options: further command line of the emulator.

    Raises:
        ToolchainError: QEMU is missing, refused to run, ran out of time, or the program touched memory or
            registers that the machine lacks.
    """
    words = (elf.stem, *arguments)
    if any(" " in word or not word for word in words):
        raise ToolchainError(f"arguments {words} cannot be passed to the emulator: no blanks or empty words")
    with tempfile.TemporaryDirectory(prefix="mcuq-qemu-") as folder:
        log = Path(folder) / "log"
        command = _command(find_program(machine.architecture.emulator), elf, machine, words, log) + list(options)
        try:
            # Text of the guest only: it may print anything, so decoding errors are replaced.
            done = subprocess.run(command, capture_output=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired as error:
            raise ToolchainError(f"{elf.name} on {machine.name} did not end within {seconds:g} s") from error
        except OSError as error:
            raise ToolchainError(f"{command[0]} cannot be run: {error.strerror}") from error
        complaints = _complaints(log, machine)
    messages = done.stderr.decode("utf-8", "replace").strip()
    if done.returncode < 0 or "fatal" in messages:
        raise ToolchainError(f"{elf.name} crashed {machine.name}: {messages or f'signal {-done.returncode}'}")
    if complaints:
        raise ToolchainError(f"{elf.name} on {machine.name} touched what the machine lacks: {complaints}")
    return Run(done.stdout.decode("utf-8", "replace"), done.returncode)


def _command(qemu: str, elf: Path, machine: Machine, words: Sequence[str], log: Path) -> list[str]:
    # A comma inside an option value is written twice.
    semihosting = "enable=on,target=native" + "".join(f",arg={word.replace(',', ',,')}" for word in words)
    return [
        qemu, "-M", machine.name, *machine.options, "-display", "none", "-monitor", "none", "-serial", "none",
        "-icount", f"shift={machine.icount_shift}",
        "-d", "unimp,guest_errors", "-D", str(log),
        "-semihosting-config", semihosting,
        "-kernel", str(elf),
    ]  # fmt: skip


def _complaints(log: Path, machine: Machine) -> str:
    """First lines of QEMU's log, but for those that a machine always writes; it can be millions of lines."""
    if not log.exists():
        return ""
    # Some machines reset the CPU, which fetches its vectors, once before their code memory is connected.
    boot = [
        f"Invalid read at addr 0x{machine.code[0] + at:X}, size 4, region '(null)', reason: rejected" for at in (0, 4)
    ]
    with log.open(encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for _, line in zip(range(_LOG_LINES + len(boot)), file, strict=False)]
    if lines[: len(boot)] == boot:
        lines = lines[len(boot) :]
    return "; ".join(line for line in lines if line)
