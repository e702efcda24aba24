"""The emitted project as text: names, packing, determinism, what it refuses."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nets import integer_net, samples, vectors

from mcuq.build.write import MANIFEST, write_project
from mcuq.emit.arrays import const_arrays
from mcuq.emit.names import check_prefix, comment_name
from mcuq.emit.project import emit_project
from mcuq.errors import CheckError, UnsupportedError, UsageError
from mcuq.ir.integer import IntegerGraph, QConv2d, QTensor
from mcuq.ir.plans import Buffer, MemoryPlan
from mcuq.ir.sources import TestVector
from mcuq.plan.memory import plan_memory
from mcuq.target.board import load_board
from mcuq.target.footprint import STACK_BYTES, data_bytes

ROOT = Path(__file__).parents[3]


def text_of(graph: IntegerGraph, path: str, board: str | None = None, prefix: str = "tiny") -> str:
    where = load_board(board) if board else None
    files = emit_project(graph, plan_memory(graph, where.core if where else "portable"), where, prefix=prefix)
    return next(file.content for file in files if file.path == path).decode("ascii")


@pytest.fixture(scope="module")
def graph() -> IntegerGraph:
    return integer_net(1, 4, 4)


@pytest.mark.parametrize("good", ["a", "model", "m0", "net_2", "x" * 31])
def test_prefixes_taken(good: str) -> None:
    assert check_prefix(good) == good


@pytest.mark.parametrize("bad", ["", "Model", "1a", "_a", "a-b", "a b", "../x", "a\n", "é", "x" * 32, 'a"b'])
def test_prefixes_that_are_no_names(bad: str) -> None:
    with pytest.raises(UsageError, match="cannot be a C prefix; use a lower-case letter, then at most 30 of a-z 0-9 _"):
        check_prefix(bad)


@pytest.mark.parametrize("bad", ["int", "class", "main", "co_await", "mcuq", "mcuq_add"])
def test_prefixes_that_are_taken(bad: str) -> None:
    with pytest.raises(UsageError, match=f"'{bad}' is a word of C, C\\+\\+ or the runtime; choose another"):
        check_prefix(bad)


HOSTILE = (
    "*/ int x; /*", "a\nb", "??/", "\\", "%s%n", "\u202e", "int", "main", "x" * 300, "a b", "a_b", "#include <x>",
)  # fmt: skip


def renamed(graph: IntegerGraph) -> IntegerGraph:
    """Every layer gets a hostile name."""
    names = {op.name: HOSTILE[i % len(HOSTILE)] + " " * (i // len(HOSTILE)) for i, op in enumerate(graph)}
    ops = tuple(replace(op, name=names[op.name], inputs=tuple(names[i] for i in op.inputs)) for op in graph)
    return IntegerGraph(ops, tuple(names[name] for name in graph.outputs))


def test_hostile_layer_names_stay_in_comments_and_are_reduced(graph: IntegerGraph) -> None:
    source = text_of(renamed(graph), "src/tiny.c")
    plain = text_of(graph, "src/tiny.c")
    assert source.count("/*") == plain.count("/*") and source.count("*/") == plain.count("*/")
    for word in ("int x", "%s", "??", "\\", "#include <x>", "x" * 49):
        assert word not in source
    code = [line.split("/*")[0] for line in source.splitlines() if not line.startswith((" *", "/*"))]
    assert [line.split("/*")[0] for line in plain.splitlines() if not line.startswith((" *", "/*"))] == code
    assert comment_name("a*/b\n") == "a__b_"


def test_the_same_bytes_in_another_process(graph: IntegerGraph, tmp_path: Path) -> None:
    script = (
        "import hashlib\n"
        "from nets import integer_net, vectors\n"
        "from mcuq.emit.project import emit_project\n"
        "from mcuq.plan.memory import plan_memory\n"
        "from mcuq.target.board import load_board\n"
        "g = integer_net(1, 4, 4); b = load_board('stm32h7')\n"
        "h = hashlib.sha256()\n"
        "for f in emit_project(g, plan_memory(g, b.core), b, vectors=vectors(g)):\n"
        "    h.update(f.path.encode() + b'\\0' + f.content)\n"
        "print(h.hexdigest())\n"
    )
    seen: set[str] = set()
    for seed, zone, folder in (("1", "UTC", ROOT), ("2", "Asia/Tokyo", tmp_path)):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone}
        environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=True
        )
        seen.add(done.stdout)
    assert len(seen) == 1


def test_no_path_date_or_version_control_state(graph: IntegerGraph) -> None:
    board = load_board("stm32h7")
    for file in emit_project(graph, plan_memory(graph, board.core), board, vectors=vectors(graph)):
        content = file.content.decode("ascii")
        assert str(ROOT) not in content and "__DATE__" not in content and "__FILE__" not in content
        assert "\r" not in content and content.endswith("\n") and "\n\n\n" not in content, file.path
        assert not Path(file.path).is_absolute() and ".." not in file.path


def test_only_the_runtime_files_in_use(graph: IntegerGraph) -> None:
    paths = {file.path for file in emit_project(graph, plan_memory(graph, "portable"), None)}
    assert {"mcuq/src/conv2d.c", "mcuq/src/softmax.c", "mcuq/src/pixels.c"} <= paths
    assert "mcuq/src/argmax.c" not in paths
    small = IntegerGraph(graph.ops[:2], ("stem",))
    paths = {file.path for file in emit_project(small, plan_memory(small, "portable"), None)}
    assert {"mcuq/src/conv2d.c", "mcuq/src/pixels.c"} <= paths
    assert not paths & {"mcuq/src/add.c", "mcuq/src/concat.c", "mcuq/src/depthwise.c", "mcuq/src/softmax.c"}


def test_array_bytes_are_the_promised_ones(graph: IntegerGraph) -> None:
    for core in ("portable", "cortex-m4"):
        arrays = [array for op in graph for array in const_arrays(op, graph, core)]
        stored = sum((a.values.nbytes + 3) & ~3 for a in arrays if a.role == "weights")
        assert stored == data_bytes(graph, core)[0]


def test_the_checksum_is_that_of_the_arrays_as_they_are_written() -> None:
    """CRC-32 over the numbers in the weights' source, as the C types in front of them store those."""
    layouts = {"uint8_t": "B", "int8_t": "b", "uint16_t": "H", "int32_t": "i"}
    sums = set()
    for seed, core in ((1, None), (2, None), (1, "stm32h7"), (1, "mps3-an547")):
        graph = integer_net(seed, 4, 8, asymmetric=True)
        source = text_of(graph, "src/tiny_weights.c", core)
        crc, found = 0, re.findall(r"const (\w+) tiny_\w+\[(\d+)\] = \{([^}]*)\}", source)
        for kind, count, numbers in found:
            values = [int(v) for v in numbers.replace(",", " ").split()]
            assert len(values) == int(count)
            crc = zlib.crc32(struct.pack(f"<{count}{layouts[kind]}", *values), crc)
        assert len(found) > 10
        assert f"#define TINY_WEIGHTS_CRC32 0x{crc:08X}u\n" in text_of(graph, "include/tiny.h", core)
        sums.add(crc)
    assert len(sums) == 4, "other weights and other layouts have other sums"


def test_stack_is_promised_for_a_board_alone(graph: IntegerGraph) -> None:
    assert f"#define TINY_STACK_SIZE {STACK_BYTES}\n" in text_of(graph, "include/tiny.h", "stm32h7")
    assert "STACK_SIZE" not in text_of(graph, "include/tiny.h") + text_of(graph, "README.md")


def test_weights_are_packed_low_bits_first() -> None:
    graph = integer_net(1, 4, 8)
    stem = graph.op("stem")
    assert isinstance(stem, QConv2d)
    weights = const_arrays(stem, graph, "portable")[0].values
    row = stem.weight[0].reshape(-1)
    assert weights[0] == (int(row[0]) & 15) | (int(row[1]) & 15) << 4
    assert weights[13] >> 4 == 0, "27 codes leave the high nibble of byte 13 unused"


def test_a_plan_of_another_graph_or_core_is_refused(graph: IntegerGraph) -> None:
    plan = plan_memory(graph, "portable")
    with pytest.raises(CheckError, match="orders other operators than the graph has"):
        emit_project(IntegerGraph(graph.ops[:3], ("dw",)), plan, None)
    with pytest.raises(CheckError, match=r"the memory plan gives layer \w+ \d+ bytes at \d+ of \d+, but its \w+ needs"):
        emit_project(graph, plan, load_board("stm32h7"))
    buffers = tuple(b for b in plan.buffers if b.kind == "activation")
    with pytest.raises(CheckError, match="no scratch buffer for layer stem; plan for core portable"):
        emit_project(graph, replace(plan, buffers=buffers), None)


def test_what_the_runtime_cannot_hold_is_refused_by_name() -> None:
    graph = integer_net(1)
    pool = graph.op("max")
    window = replace(pool.window, kernel=(300, 3))
    ops = tuple(replace(op, window=window) if op.name == "max" else op for op in graph)
    wide = IntegerGraph(ops, graph.outputs)
    with pytest.raises(UnsupportedError, match=r"kernel_height of layer max is 300, but the runtime holds 0\.\.255"):
        emit_project(wide, plan_memory(graph, "portable"), None)


def test_vectors_of_another_shape_are_refused(graph: IntegerGraph) -> None:
    wrong = TestVector((np.zeros((3, 3, 1)),), (np.zeros((1, 1, 7)),))
    with pytest.raises(CheckError, match=r"a test vector has shape \(3, 3, 1\), but its tensor \(12, 12, 3\)"):
        emit_project(graph, plan_memory(graph, "portable"), None, vectors=(wrong,))


def test_the_readme_says_how_to_call_it(graph: IntegerGraph) -> None:
    text = text_of(graph, "README.md", "stm32h7")
    for words in (
        "tiny_init(&net, arena, sizeof arena)", "tiny_invoke(&net);", "TINY_INPUT_SIZE", "TINY_WEIGHTS_ATTR",
        "raw pixels 0..255", "the arena in AXI_SRAM", "add_subdirectory(tiny)", "-M mps2-an500", "TINY_AFTER_OP",
        "tiny_check()", f"| stack, at most | {STACK_BYTES} |",
    ):  # fmt: skip
        assert words in text
    assert "INPUT_ZERO_POINT" in text_of(integer_net(1, normalization=None), "README.md")


def test_the_arena_chart_marks_every_step_of_a_life() -> None:
    tensor = QTensor((1, 1, 4), 8, 0.1, 0)
    graph = integer_net(1, tail="none")
    small = IntegerGraph((replace(graph.ops[0], output=tensor, name="x"),), ("x",))
    plan = MemoryPlan(("x",), (Buffer("x", 16, 4, 0, 0),), 32, 32)
    source = next(f for f in emit_project(small, plan, None) if f.path == "src/model.c").content.decode()
    assert " *   l0                  16        4  0-0      #\n" in source
    assert "L0_OFFSET = 16, /* x, 1x1x4, 8 bits */" in source


def test_projects_are_written_whole_and_over_nobody(graph: IntegerGraph, tmp_path: Path) -> None:
    files = emit_project(graph, plan_memory(graph, "portable"), None)
    folder = tmp_path / "out"
    write_project(files, folder)
    assert (folder / "src" / "model.c").is_file() and (folder / MANIFEST).is_file()
    write_project(files[:3], folder)
    assert not (folder / "src" / "model.c").exists()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds notes.txt, which mcuq did not write; name a new or empty folder"):
        write_project(files, folder)
    assert (folder / "notes.txt").read_text() == "mine"
    with pytest.raises(UsageError, match="is a file; name a new or empty folder"):
        write_project(files, folder / "notes.txt")
    with pytest.raises(UsageError, match=r"cannot be written: (File exists|Not a directory)"):
        write_project(files, folder / "notes.txt" / "below")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_samples_cover_the_input_range(graph: IntegerGraph) -> None:
    assert samples(graph, 1, 4).max() > 250
