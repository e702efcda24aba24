"""Linked images: promised bytes, limits, stack bounds, integer-only code, two models in one, CMake."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from nets import integer_net, samples, vectors

from mcuq.build.elf import check_limits, flash_by_region, float_uses, ram_by_region, read_elf
from mcuq.build.image import Builder, build_application, build_image, library_sources, overflows, target_toolchain
from mcuq.build.run import stack_used
from mcuq.build.sizes import check_integer_only, measure
from mcuq.build.stack import stack_bound
from mcuq.build.toolchain import find_program, run_tool
from mcuq.build.write import write_files
from mcuq.emit.project import emit_harness, emit_project, toolchain_file
from mcuq.errors import CheckError, LimitError, ToolchainError
from mcuq.ir.integer import IntegerGraph
from mcuq.parity import built, compare_image
from mcuq.plan.memory import plan_memory
from mcuq.target.board import Board, load_board, load_boards
from mcuq.target.core import machine
from mcuq.target.footprint import CODE_TOLERANCE

CORES = ("microbit", "stm32l4r5", "stm32h7", "stm32h7+size", "mps3-an547", "esp32c3")
MORE_CORES = tuple(pytest.param(name, marks=pytest.mark.slow) for name in ("rp2040", "mps2-an385", "rp2350"))


def small_board(flash: int, ram: int) -> Board:
    """stm32h7 with less memory."""
    board = load_board("stm32h7")
    sizes = {"FLASH": flash, "AXI_SRAM": ram}
    return replace(board, regions=tuple(replace(r, length=sizes.get(r.name, r.length)) for r in board.regions))


@pytest.mark.parametrize("name", [*CORES, *MORE_CORES])
def test_promised_data_is_exact_and_code_close(name: str) -> None:
    board = load_board(name)
    graph = integer_net(1, 4, 8, asymmetric=True)
    plan = plan_memory(graph, board.core)
    sizes = measure(emit_project(graph, plan, board), graph, plan, board)
    items = {item.name: item for item in sizes.items}
    for exact in ("weights", "parameters", "arena", "statics", "stack"):
        assert items[exact].promised == items[exact].measured, exact
    assert items["weights"].measured > 1500 and items["arena"].measured == plan.arena_bytes
    promised = sum(items[n].promised for n in ("runtime code", "model code", "startup"))
    measured = sum(items[n].measured for n in ("runtime code", "model code", "startup"))
    assert abs(promised - measured) <= CODE_TOLERANCE * measured, "run scripts/measure_code"
    assert sizes.ram[0] == sizes.ram[1]
    assert 0 < sizes.stack_bound < sizes.stack_bound_main <= items["stack"].measured


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rp2040", "stm32h7", "mps3-an547", "esp32c3"])
def test_the_checksum_takes_flash_and_stack_where_it_is_called(name: str, tmp_path: Path) -> None:
    board = load_board(name)
    graph = integer_net(1, 4, 8, asymmetric=True)
    files = emit_project(graph, plan_memory(graph, board.core), board)
    plain, _ = build_application(files, board, tmp_path / "plain")
    main = next(f for f in files if f.path == "board/main.c")
    called = main.content.replace(b"    if (model_init", b"    if (model_check() != MODEL_OK || model_init")
    assert called != main.content
    files = tuple(replace(f, content=called) if f is main else f for f in files)
    checked, objects = build_application(files, board, tmp_path / "checked")
    images = read_elf(plain), read_elf(checked)
    assert [any(s.name == "model_check" for s in image.symbols) for image in images] == [False, True]
    arrays = len(
        re.findall(r"sizeof model_l", next(f for f in files if f.path == "src/model_check.c").content.decode())
    )
    sizes = [sum(flash_by_region(image, board).values()) for image in images]
    assert 64 + 8 * arrays < sizes[1] - sizes[0] <= 64 + 8 * arrays + 120, "code, 16 remainders, a span an array"
    assert stack_bound(objects, checked, "model_check") <= 32


@pytest.mark.slow
@pytest.mark.parametrize("board", load_boards(), ids=lambda board: board.name)
def test_every_board_links_at_its_addresses(board: Board) -> None:
    graph = integer_net(2, 8, 8)
    plan = plan_memory(graph, board.core)
    sizes = measure(emit_project(graph, plan, board), graph, plan, board)
    assert sizes.flash[1] <= board.limits.flash
    assert sizes.ram[1] <= board.limits.ram + board.region(board.placement.stack).length


def test_too_little_flash_names_section_region_and_bytes() -> None:
    board = small_board(8192, 512 << 10)
    graph = integer_net(1)
    plan = plan_memory(graph, board.core)
    text = r"does not fit board stm32h7: section .+ does not fit region FLASH, \d+ bytes are missing"
    with pytest.raises(LimitError, match=text):
        measure(emit_project(graph, plan, board), graph, plan, board)


def test_too_little_ram_is_one_arena_too_large() -> None:
    graph = integer_net(1)
    plan = plan_memory(graph, "cortex-m7")
    board = small_board(2 << 20, plan.arena_bytes - 4)
    text = r"section .mcuq_arena does not fit region AXI_SRAM, \d+ bytes are missing; lower the flash or RAM limit"
    with pytest.raises(LimitError, match=text):
        measure(emit_project(graph, plan, board), graph, plan, board)


def test_too_little_stack_is_refused() -> None:
    board = load_board("stm32h7")
    graph = integer_net(1)
    plan = plan_memory(graph, board.core)
    files = emit_project(graph, plan, board, stack_bytes=128)
    with pytest.raises(LimitError, match=r"the stack needs \d+ bytes, but section .stack in region DTCM has 128"):
        measure(files, graph, plan, board)


def test_overflows_are_read_from_the_linkers_words() -> None:
    text = (
        "ld: a.elf section `.text' will not fit in region `FLASH'\n"
        "ld: a.elf section `.mcuq_weights' will not fit in region `FLASH'\n"
        "ld: region `FLASH' overflowed by 1234 bytes\n"
    )
    assert overflows(text).startswith(
        "section .text and .mcuq_weights does not fit region FLASH, 1234 bytes are missing; lower"
    )
    assert overflows("ld: undefined reference to `f'") == ""


@pytest.mark.parametrize("name", ["microbit", "stm32h7", "mps3-an547"])
def test_the_stack_bound_holds_and_is_tight(name: str) -> None:
    board = load_board(name)
    graph = integer_net(1, 4, 4)
    with built(graph, plan_memory(graph, board.core), board) as image:
        used = stack_used(image, samples(graph, 1, 1)[0])
        bound = stack_bound(image.plain.parent / "objects", image.plain, "mcuq_port_reset")
    assert used <= bound <= used + 64


def bare(source: str, folder: Path, board: Board, *flags: str) -> tuple[Path, Path]:
    """A program of one C file, linked like an application."""
    graph = integer_net(1)
    write_files(emit_project(graph, plan_memory(graph, board.core), board), folder)
    (folder / "one.c").write_text(source)
    builder = Builder(target_toolchain(board), "model", board, folder)
    objects = builder.compile(["one.c", "board/bare.c", "port/startup.c"], ("-fcallgraph-info=su", *flags))
    return builder.link(objects, "application", folder / f"board/{board.name}.ld"), folder / "objects"


@pytest.mark.parametrize("name", ["microbit", "mps2-an386", "mps3-an547", "virt"])
def test_float_code_is_found(name: str, tmp_path: Path) -> None:
    source = "volatile float x = 2.0f; int main(void) { return (int)(x * x); }\n"
    elf, _ = bare(source, tmp_path, load_board(name))
    assert float_uses(elf)
    with pytest.raises(CheckError, match=r"holds floating-point code: .*mul.*; emitted code must hold none"):
        check_integer_only(elf)


def test_recursion_and_dynamic_frames_have_no_bound(tmp_path: Path) -> None:
    board = load_board("mps2-an386")
    recursive = "int f(int n); __attribute__((noinline)) int f(int n) { return n ? n * f(n - 1) + f(n / 2) : 1; }\n"
    elf, objects = bare(recursive + "int main(void) { return f(5); }\n", tmp_path / "a", board)
    with pytest.raises(CheckError, match=r"function f is recursive \(main -> f -> f\)"):
        stack_bound(objects, elf, "main")
    dynamic = (
        "#include <stdint.h>\nint g(volatile uint8_t *p); int g(volatile uint8_t *p) { return p[0]; }\n"
        "__attribute__((noinline)) static int f(unsigned n) { volatile uint8_t a[n]; a[0] = 1; return g(a); }\n"
        "int main(void) { volatile unsigned n = 3; return f(n); }\n"
    )
    elf, objects = bare(dynamic, tmp_path / "b", board)
    with pytest.raises(CheckError, match="has a stack frame of dynamic"):
        stack_bound(objects, elf, "main")


def test_a_region_overflow_of_a_finished_image_is_named(tmp_path: Path) -> None:
    board = load_board("stm32h7")
    graph = integer_net(1)
    elf, _ = build_application(emit_project(graph, plan_memory(graph, board.core), board), board, tmp_path)
    image = read_elf(elf)
    check_limits(image, board)
    taken = flash_by_region(image, board)["FLASH"]
    with pytest.raises(LimitError, match=r"section .text does not fit region FLASH, 100 bytes are missing"):
        check_limits(image, small_board(taken - 100, 512 << 10))


def test_two_models_in_one_image(tmp_path: Path) -> None:
    """Different prefixes link together, share the runtime, and only their own and the runtime's names are global."""
    first, second = integer_net(1, 4, 4), integer_net(2, 4, 8, tail="argmax")
    objects: dict[str, Path] = {}
    for prefix, graph in (("one", first), ("two", second)):
        folder = tmp_path / prefix
        files = emit_project(graph, plan_memory(graph, "portable"), None, prefix=prefix, vectors=vectors(graph))
        write_files(files, folder)
        builder = Builder(target_toolchain(None), prefix, None, folder)
        sources = [path for path in library_sources(files) if prefix == "one" or path not in objects]
        rename = (f"-Dmain={prefix}_selftest",)
        for path in [*sources, f"test/{prefix}_vectors.c", "test/selftest.c"]:
            key = path if path.startswith("mcuq/") else f"{prefix}/{path}"
            objects[key] = builder.compile([path], rename if path == "test/selftest.c" else ())[0]
    main = tmp_path / "main.c"
    main.write_text(
        "int one_selftest(void); int two_selftest(void);\n"
        "int main(void) { return one_selftest() + 10 * two_selftest(); }\n"
    )
    builder = Builder(target_toolchain(None), "one", None, tmp_path)
    objects["main"] = builder.compile(["main.c"])[0]
    program = builder.link(list(objects.values()), "both")
    assert subprocess.run([str(program)], check=False).returncode == 0
    names = run_tool([find_program("nm"), "-g", "--defined-only", *map(str, objects.values())], "nm failed")
    symbols = [line.split()[2] for line in names.splitlines() if len(line.split()) == 3]
    assert len(symbols) == len(set(symbols))
    assert all(symbol == "main" or symbol.startswith(("one_", "two_", "mcuq_")) for symbol in symbols)


def test_hostile_layer_names_compile_and_compute(tmp_path: Path) -> None:
    graph = integer_net(1, 4, 4)
    hostile = ("*/ int x; /*", "a\nb", "??/", "\\", "%s%n", "int", "main", "y" * 300)
    names = {op.name: hostile[i % len(hostile)] + " " * (i // len(hostile)) for i, op in enumerate(graph)}
    ops = tuple(replace(op, name=names[op.name], inputs=tuple(names[i] for i in op.inputs)) for op in graph)
    wild = IntegerGraph(ops, tuple(names[name] for name in graph.outputs))
    plan = plan_memory(wild, "portable")
    image = build_image(emit_project(wild, plan, None), emit_harness(wild, plan, None), wild, plan, None, tmp_path)
    assert compare_image(image, samples(wild, 1, 2)).exact


def test_the_arena_is_checked(tmp_path: Path) -> None:
    graph = integer_net(1)
    files = emit_project(graph, plan_memory(graph, "portable"), None, prefix="net")
    write_files(files, tmp_path)
    (tmp_path / "main.c").write_text(
        '#include "net.h"\nstatic _Alignas(NET_ARENA_ALIGN) uint8_t a[NET_ARENA_SIZE + 1];\n'
        "int main(void) { net_context c = {0};\n"
        "if (net_invoke(&c) != NET_ERROR_NULL) return 1;\n"
        "if (net_init(NULL, a, sizeof a) != NET_ERROR_NULL || net_init(&c, NULL, 9) != NET_ERROR_NULL) return 2;\n"
        "if (net_init(&c, a, NET_ARENA_SIZE - 1) != NET_ERROR_ARENA_SIZE) return 3;\n"
        "if (net_init(&c, a + 1, NET_ARENA_SIZE) != NET_ERROR_ARENA_ALIGN) return 4;\n"
        "if (net_invoke(&c) != NET_ERROR_NULL || net_invoke(NULL) != NET_ERROR_NULL) return 5;\n"
        "if (net_init(&c, a, NET_ARENA_SIZE) != NET_OK || net_invoke(&c) != NET_OK) return 6;\n"
        "return a[NET_ARENA_SIZE]; }\n"
    )
    builder = Builder(target_toolchain(None), "net", None, tmp_path)
    program = builder.link(builder.compile([*library_sources(files), "main.c"]), "program")
    assert subprocess.run([str(program)], check=False).returncode == 0


def test_the_header_serves_cplusplus(tmp_path: Path) -> None:
    graph = integer_net(1)
    write_files(emit_project(graph, plan_memory(graph, "portable"), None, prefix="net"), tmp_path)
    (tmp_path / "use.cpp").write_text('#include "net.h"\nint use(net_context *c) { return net_invoke(c); }\n')
    objects = tmp_path / "use.o"
    command = [find_program("g++"), "-Wall", "-Wextra", "-Werror", f"-I{tmp_path}/include", "-o", str(objects)]
    run_tool([*command, "-c", str(tmp_path / "use.cpp")], "g++ failed")
    assert " U net_invoke" in run_tool([find_program("nm"), str(objects)], "nm failed")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stm32h7", "rp2040", "mps3-an547", "esp32c3"])
def test_cmake_builds_for_this_computer_and_the_board(name: str, tmp_path: Path) -> None:
    board = load_board(name)
    graph = integer_net(1, 4, 4)
    files = emit_project(graph, plan_memory(graph, board.core), board, prefix="net", vectors=vectors(graph))
    write_files(files, tmp_path)
    cmake = find_program("cmake")
    arm = f"-DCMAKE_TOOLCHAIN_FILE={tmp_path / toolchain_file(board)}"
    if board.core == "cortex-m55":
        with pytest.raises(ToolchainError, match="Helium kernels of this project build for"):
            run_tool([cmake, "-S", str(tmp_path), "-B", str(tmp_path / "host")], "cmake failed")
        builds: tuple[tuple[str, tuple[str, ...]], ...] = (("arm", (arm,)),)
    else:
        builds = (("host", ()), ("arm", (arm,)))
    for build, flags in builds:
        run_tool([cmake, "-S", str(tmp_path), "-B", str(tmp_path / build), *flags], "cmake failed")
        run_tool([cmake, "--build", str(tmp_path / build)], "build failed")
    if board.core != "cortex-m55":
        assert subprocess.run([str(tmp_path / "host" / "net_selftest")], check=False).returncode == 0
    emulator = machine(board.emulation.machine)
    command = [emulator.architecture.emulator, "-M", emulator.name, *emulator.options]
    command += ["-display", "none", "-monitor", "none", "-serial", "none"]
    command += ["-semihosting-config", "enable=on,target=native", "-kernel", str(tmp_path / "arm" / "net_selftest.elf")]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0
    assert (tmp_path / "arm" / "net_app.elf").is_file()


ESP_IDF = """
set(ESP_PLATFORM 1)
function(idf_component_register)
    cmake_parse_arguments(given "" "" "SRCS;INCLUDE_DIRS;PRIV_INCLUDE_DIRS" ${ARGN})
    add_library(component STATIC ${given_SRCS})
    target_include_directories(component PUBLIC ${given_INCLUDE_DIRS} PRIVATE ${given_PRIV_INCLUDE_DIRS})
endfunction()
add_subdirectory(net)
target_link_libraries(app PRIVATE component)
"""
ZEPHYR = """
add_library(zephyr_interface INTERFACE)
target_compile_definitions(zephyr_interface INTERFACE NET_WEIGHTS_ATTR=ZEPHYR_SAYS)
target_compile_options(zephyr_interface INTERFACE "-DZEPHYR_SAYS=__attribute__((section(\\".zephyr\\")))")
add_subdirectory(net)
target_link_libraries(app PRIVATE net::net)
"""


@pytest.mark.parametrize("frame", [ESP_IDF, ZEPHYR], ids=["esp-idf", "zephyr"])
def test_frameworks_take_the_project_as_a_library(frame: str, tmp_path: Path) -> None:
    """What the CMake files of ESP-IDF and Zephyr do with the folder, their own names stood in for."""
    graph = integer_net(1, 4, 4)
    files = emit_project(graph, plan_memory(graph, "portable"), None, prefix="net", vectors=vectors(graph))
    write_files(files, tmp_path / "net")
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(firmware C)\n"
        "add_executable(app net/test/selftest.c net/test/net_vectors.c)\n" + frame
    )
    cmake = find_program("cmake")
    run_tool([cmake, "-S", str(tmp_path), "-B", str(tmp_path / "build")], "cmake failed")
    run_tool([cmake, "--build", str(tmp_path / "build")], "build failed")
    assert subprocess.run([str(tmp_path / "build" / "app")], check=False).returncode == 0
    sections = run_tool([find_program("objdump"), "-h", str(tmp_path / "build" / "app")], "objdump failed")
    assert (" .zephyr " in sections) == (frame is ZEPHYR), "flags of the framework reach the library"
    assert (tmp_path / "net" / "zephyr" / "module.yml").read_text() == "name: net\nbuild:\n  cmake: .\n"


def test_the_manifest_for_platformio_names_all_sources_and_headers(tmp_path: Path) -> None:
    """Compiled as the manifest says: these folders, these flags, nothing else."""
    board = load_board("stm32h7")
    graph = integer_net(1, 4, 4)
    write_files(
        emit_project(graph, plan_memory(graph, board.core), board, prefix="net", vectors=vectors(graph)), tmp_path
    )
    manifest = json.loads((tmp_path / "library.json").read_text())
    assert (manifest["name"], manifest["headers"]) == ("net", "net.h")
    folders = [tmp_path / text.removeprefix("+<").removesuffix(">") for text in manifest["build"]["srcFilter"]]
    sources = sorted(str(path) for folder in folders for path in folder.rglob("*.[cS]"))
    flags = [flag.replace("-I", f"-I{tmp_path}/") for flag in manifest["build"]["flags"]]
    command = [find_program("gcc"), "-std=c11", "-O2", *flags, "-o", str(tmp_path / "app"), *sources]
    run_tool([*command, str(tmp_path / "test/selftest.c"), str(tmp_path / "test/net_vectors.c")], "gcc failed")
    assert subprocess.run([str(tmp_path / "app")], check=False).returncode == 0


@pytest.mark.slow
def test_arena_and_stack_in_other_regions(tmp_path: Path) -> None:
    board = load_board("stm32h7:arena=DTCM,stack=SRAM3")
    graph = integer_net(3, 8, 8)
    plan = plan_memory(graph, board.core)
    files = emit_project(graph, plan, board)
    assert (measure(files, graph, plan, board).ram[0],) * 2 == measure(files, graph, plan, board).ram
    image = read_elf(build_application(files, board, tmp_path)[0])
    assert ram_by_region(image, board) == {"DTCM": plan.arena_bytes, "SRAM3": 2048}
    tight = replace(board, regions=tuple(replace(r, length=1024) if r.name == "DTCM" else r for r in board.regions))
    with pytest.raises(LimitError, match=r"section .mcuq_arena does not fit region DTCM, \d+ bytes are missing"):
        measure(files, graph, plan, tight)
