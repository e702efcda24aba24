"""An arena in two regions, which neither alone could hold: promised bytes by region, and every byte of every tensor."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from nets import integer_net, samples, vectors

from mcuq.build.elf import ram_by_region, read_elf
from mcuq.build.image import build_application
from mcuq.build.sizes import measure
from mcuq.build.toolchain import find_program, run_tool
from mcuq.build.write import write_files
from mcuq.emit.project import emit_project, toolchain_file
from mcuq.errors import LimitError
from mcuq.ir.integer import IntegerGraph
from mcuq.ir.plans import MemoryPlan
from mcuq.parity import compare
from mcuq.plan.memory import plan_memory
from mcuq.target.board import Board, load_board
from mcuq.target.core import machine


def resized(board: Board, sizes: dict[str, int]) -> Board:
    return replace(board, regions=tuple(replace(r, length=sizes.get(r.name, r.length)) for r in board.regions))


def board_for(graph: IntegerGraph, share: float) -> tuple[Board, MemoryPlan]:
    """stm32h7 with the arena in DTCM, beside the stack, and in AXI_SRAM: neither would hold it alone."""
    board = load_board("stm32h7:arena=DTCM+AXI_SRAM")
    whole = plan_memory(graph, board.core).arena_bytes
    sizes = {"DTCM": 2048 + int(share * whole) // 16 * 16, "AXI_SRAM": whole - 16}
    board = resized(board, sizes)
    assert board.cuts[0] < whole > sizes["AXI_SRAM"]
    return board, plan_memory(graph, board.core, cuts=board.cuts)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.4, 0.7])
def test_promised_bytes_by_region_and_every_byte_on_the_device(share: float, tmp_path: Path) -> None:
    graph = integer_net(3, 8, 8)
    board, plan = board_for(graph, share)
    first, second = plan.blocks
    files = emit_project(graph, plan, board)
    sizes = measure(files, graph, plan, board)
    assert sizes.ram == (first.size + second.size + 2048,) * 2
    image = read_elf(build_application(files, board, tmp_path)[0])
    assert ram_by_region(image, board) == {"DTCM": first.size + 2048, "AXI_SRAM": second.size}
    roomy = resized(board, {"AXI_SRAM": 2048})  # the harness has variables of its own
    assert compare(graph, plan, roomy, samples(graph, 5, 3)).exact


def test_an_array_too_large_for_its_region_is_named() -> None:
    graph = integer_net(3, 8, 8)
    board, plan = board_for(graph, 0.4)
    tight = resized(board, {"AXI_SRAM": 512})
    with pytest.raises(LimitError, match=r"section .mcuq_arena1 does not fit region AXI_SRAM, \d+ bytes are missing"):
        measure(emit_project(graph, plan, tight), graph, plan, tight)


@pytest.mark.slow
def test_the_project_builds_by_cmake_and_tests_itself(tmp_path: Path) -> None:
    graph = integer_net(3, 4, 8)
    board, plan = board_for(graph, 0.5)
    board = resized(board, {"AXI_SRAM": 2048})
    write_files(emit_project(graph, plan, board, prefix="net", vectors=vectors(graph)), tmp_path)
    arm = f"-DCMAKE_TOOLCHAIN_FILE={tmp_path / toolchain_file(board)}"
    for build, flags in (("host", ()), ("arm", (arm,))):
        run_tool([find_program("cmake"), "-S", str(tmp_path), "-B", str(tmp_path / build), *flags], "cmake failed")
        run_tool([find_program("cmake"), "--build", str(tmp_path / build)], "build failed")
    assert subprocess.run([str(tmp_path / "host" / "net_selftest")], check=False).returncode == 0
    emulator = machine(board.emulation.machine)
    command = [emulator.architecture.emulator, "-M", emulator.name, *emulator.options]
    command += ["-display", "none", "-monitor", "none", "-serial", "none"]
    command += ["-semihosting-config", "enable=on,target=native", "-kernel", str(tmp_path / "arm" / "net_selftest.elf")]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0
