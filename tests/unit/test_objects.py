"""Objects compiled once: the same again for the same bytes, another for anything that differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcuq.build import objects
from mcuq.build.objects import compile_once
from mcuq.build.toolchain import find_program, run_tool
from mcuq.errors import ToolchainError


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what the compiler was run for."""
    names: list[str] = []

    def run(command: list[str], failure: str) -> str:
        names.append(failure.split()[-1])
        return run_tool(command, failure)

    monkeypatch.setattr(objects, "run_tool", run)
    monkeypatch.setattr(objects, "_compiled", {})
    return names


def build(folder: Path, *flags: str, value: str = "1", name: str = "answer.c") -> bytes:
    """The object of a source that includes a header that includes another."""
    (folder / "include" / "part").mkdir(parents=True)
    (folder / "include" / "part" / "first.h").write_text('#include "second.h"\n')
    (folder / "include" / "part" / "second.h").write_text(f"#define VALUE {value}\n")
    source, target = folder / name, folder / "object.o"
    source.write_text(
        '#include <stdint.h>\n#include "part/first.h"\nint answer(void); int answer(void) { return VALUE; }\n'
    )
    command = [find_program("gcc"), "-std=c11", "-fstack-usage", *flags]
    compile_once(command, {source: target}, (folder / "include",), "gcc failed to compile")
    assert "answer" in (folder / "object.su").read_text()
    return target.read_bytes()


def test_the_same_sources_are_compiled_once(tmp_path: Path, compiled: list[str]) -> None:
    assert build(tmp_path / "a") == build(tmp_path / "b")
    assert compiled == ["answer.c"]


def test_all_that_goes_into_an_object_tells_it_apart(tmp_path: Path, compiled: list[str]) -> None:
    first, header, flag, name = (
        build(tmp_path / "first"),
        build(tmp_path / "header", value="2"),
        build(tmp_path / "flag", "-O2"),
        build(tmp_path / "name", name="other.c"),
    )
    assert compiled == ["answer.c"] * 3 + ["other.c"]
    assert len({first, header, flag, name}) == 4


def test_a_failure_is_not_kept(tmp_path: Path, compiled: list[str]) -> None:
    for attempt in ("a", "b"):
        with pytest.raises(ToolchainError, match=r"^gcc failed to compile answer\.c"):
            build(tmp_path / attempt, value="?")
    assert len(compiled) == 2
