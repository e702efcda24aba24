"""The port and the emulator runs themselves: arguments, exit status, counter, stack paint, wild accesses."""

from __future__ import annotations

from pathlib import Path

import pytest
from drivers import TARGETS, Target

from mcuq.build import toolchain
from mcuq.build.qemu import run_elf
from mcuq.build.toolchain import compile_program, find_program, host_gcc, link_program
from mcuq.errors import ToolchainError, UsageError
from mcuq.target.core import core, machine
from mcuq.target.files import product_file

PROBE = product_file("runtime_c", "tests", "probe.c")
M4 = TARGETS[0]


def probe(target: Target, folder: Path) -> Path:
    board = machine(target.machine)
    return link_program(core(target.core), board, [PROBE], folder / "probe.elf", stack_bytes=target.stack)


@pytest.mark.parametrize(
    "target", [pytest.param(t, id=t.name, marks=() if t is M4 else pytest.mark.slow) for t in TARGETS]
)
def test_machine(target: Target, tmp_path: Path) -> None:
    elf, board = probe(target, tmp_path), machine(target.machine)
    said = run_elf(elf, board, ["arguments", "a,b", "--n=3"])
    assert (said.stdout, said.exit_code) == ("a,b\n--n=3\n", 7)
    counted = [board.instructions(int(run_elf(elf, board, ["count"]).stdout)) for _ in range(2)]
    assert counted[0] == counted[1]
    assert 500_000 <= counted[0] <= 500_012  # 100,000 turns of 5 instructions and the calls around them
    # A frame of 512 bytes, of which up to 32 lie in the words that painting leaves alone.
    assert 480 <= int(run_elf(elf, board, ["stack"]).stdout) < 600


def test_a_wild_access_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match=r"touched what the machine lacks: Invalid read at addr 0xA8000000"):
        run_elf(probe(M4, tmp_path), machine(M4.machine), ["wild"])


def test_a_program_that_does_not_end_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match=r"probe.elf on mps2-an386 did not end within 1 s"):
        run_elf(probe(M4, tmp_path), machine(M4.machine), ["forever"], seconds=1)


def test_arguments_with_blanks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="no blanks"):
        run_elf(tmp_path / "x.elf", machine(M4.machine), ["a b"])


def test_a_missing_program_names_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain.shutil, "which", lambda _name: None)
    with pytest.raises(ToolchainError, match=r"apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi"):
        find_program("arm-none-eabi-gcc")
    with pytest.raises(ToolchainError, match=r"apt-get install qemu-system-arm"):
        find_program("qemu-system-arm")
    with pytest.raises(ToolchainError, match=r"apt-get install gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf"):
        find_program("riscv64-unknown-elf-gcc")


def test_a_compiler_error_is_quoted(tmp_path: Path) -> None:
    source = tmp_path / "x.c"
    source.write_text("int main(void) { return y; }\n", encoding="ascii")
    with pytest.raises(ToolchainError, match=r"gcc failed to build x \(exit status 1\):\n[^$]*undeclared"):
        compile_program(host_gcc(), [source], tmp_path / "x")


def test_unknown_cores_and_machines_name_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"cortex-m1.*cortex-m0plus"):
        core("cortex-m1")
    with pytest.raises(UsageError, match=r"mps2-an521.*mps2-an505"):
        machine("mps2-an521")
