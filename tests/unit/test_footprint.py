"""The table of code sizes: complete for the runtime's sources, and what happens when it is not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from nets import integer_net

from mcuq.errors import UsageError
from mcuq.target import code_table, footprint
from mcuq.target.board import load_boards
from mcuq.target.files import product_dir, product_file
from mcuq.target.kernels_dsp import CORES as DSP_CORES
from mcuq.target.kernels_mve import MVE_CORES


def table() -> dict:
    return code_table._table()["cores"]


def test_every_kernel_of_the_runtime_was_measured() -> None:
    parameters = r"(?:const mcuq_\w+_params \*p, const void|mcuq_shape input, |const uint16_t \*table, |void \*data, )"
    declared = re.compile(rf"^void (mcuq_\w+)\({parameters}", re.MULTILINE)
    for folder, cores in (("src", set(table())), ("src/armv7em", DSP_CORES), ("src/mve", MVE_CORES)):
        for path in sorted((product_dir("runtime_c") / folder).glob("*.c")):
            for name in declared.findall(path.read_text()):
                for core in cores:
                    assert name in table()[core]["needs"], f"{name} on {core}: run scripts/measure_code"


def test_kernels_compiled_once_more_were_measured() -> None:
    named = re.compile(r"^#define mcuq_(?:conv2d|depthwise)_w\d (mcuq_\w+)$", re.MULTILINE)
    paths = sorted((product_dir("runtime_c") / "src").glob("*_twice.c"))
    names = [name for path in paths for name in named.findall(path.read_text())]
    assert len(names) == 6
    assert all(name in entry["needs"] for name in names for entry in table().values()), "run scripts/measure_code"


def test_every_board_has_a_measured_core() -> None:
    assert {board.core for board in load_boards()} <= set(table())


def test_an_unmeasured_function_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = integer_net(1)
    entry = {**table()["cortex-m3"], "needs": {}}
    monkeypatch.setattr(code_table, "_table", lambda: {"cores": {"cortex-m3": entry}})
    text = r"code size of mcuq_\w+ on cortex-m3 is not known; run scripts/measure_code"
    with pytest.raises(UsageError, match=text):
        footprint.code_bytes(graph, "cortex-m3")


def test_files_of_the_product_are_found_or_named() -> None:
    assert product_file("boards", "stm32h7.toml").is_file()
    with pytest.raises(UsageError, match=r"the file boards/none.toml of mcuq was not found in .*; reinstall mcuq"):
        product_file("boards", "none.toml")
    with pytest.raises(UsageError, match="the folder nothing of mcuq was not found"):
        product_dir("nothing")


def test_the_wheel_carries_what_the_code_reads() -> None:
    """setup.py copies the folders that ``mcuq.target.files`` looks for; pyproject names the templates."""
    root = Path(__file__).parents[2]
    assert '("boards", "runtime_c")' in (root / "setup.py").read_text()
    assert '"*/templates/*"' in (root / "pyproject.toml").read_text()


@pytest.mark.slow
def test_the_table_holds_what_the_sources_take() -> None:
    script = Path(__file__).parents[2] / "scripts" / "measure_code"
    run = subprocess.run(
        [sys.executable, script, "--check", "cortex-m0plus", "cortex-m4", "cortex-m55", "cortex-m4+size", "rv32imc"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
