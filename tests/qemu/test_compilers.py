"""The runtime compiles without a warning everywhere, and keeps to the subset of C that it promises."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from drivers import PORTABLE, ROOT

from mcuq.build.toolchain import WARNINGS, find_program
from mcuq.target.core import CORES

CLANG_TARGETS = {
    "cortex-m0": "thumbv6m-none-eabi",
    "cortex-m0plus": "thumbv6m-none-eabi",
    "cortex-m3": "thumbv7m-none-eabi",
    "cortex-m4": "thumbv7em-none-eabihf",
    "cortex-m7": "thumbv7em-none-eabihf",
    "cortex-m33": "thumbv8m.main-none-eabihf",
    "cortex-m55": "thumbv8.1m.main-none-eabihf",
}
HEADERS = tuple(sorted((ROOT / "include" / "mcuq").glob("*.h")))


def commands() -> dict[str, list[str]]:
    host = {"gcc": ["gcc"], "gcc -m32": ["gcc", "-m32"], "clang": ["clang"]}
    gcc = {f"gcc {core.name}": [core.architecture.tool("gcc"), *core.flags] for core in CORES}
    # Debian's clang has no C library for the target: newlib's headers, which are plain C, serve it.
    newlib = ["-isystem", "/usr/include/newlib"]
    cross = {
        f"clang {core}": ["clang", f"--target={triple}", f"-mcpu={core}", *newlib]
        for core, triple in CLANG_TARGETS.items()
    }
    return host | gcc | cross


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "gcc" else pytest.mark.slow) for n in commands()])
def test_no_warning(name: str, tmp_path: Path) -> None:
    command = commands()[name]
    cast = "-Wcast-align" if command[0] == "clang" else "-Wcast-align=strict"
    warnings = [cast if flag.startswith("-Wcast-align") else flag for flag in WARNINGS]
    for source in PORTABLE:
        arguments = ["-std=c11", "-pedantic", "-O2", *warnings, f"-I{ROOT / 'include'}", "-c", str(source)]
        done = subprocess.run(
            [find_program(command[0]), *command[1:], *arguments, "-o", str(tmp_path / "x.o")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[:2000]


def test_only_three_standard_headers_and_no_float() -> None:
    for file in (*PORTABLE, *(ROOT / "src").glob("*.h"), *HEADERS):
        text = file.read_text(encoding="utf-8")
        included = set(re.findall(r"#include <([^>]+)>", text))
        assert included <= {"stdint.h", "stddef.h", "string.h"}, file.name
        code = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
        assert not re.search(r"\b(float|double|malloc|free|alloca)\b", code), file.name


def test_headers_compile_alone_and_as_cpp(tmp_path: Path) -> None:
    for header in HEADERS:
        unit = tmp_path / "unit.cpp"
        unit.write_text(f'#include "mcuq/{header.name}"\n', encoding="utf-8")
        for language in ("c", "c++"):
            done = subprocess.run(
                ["gcc", "-x", language, "-Wall", "-Werror", f"-I{ROOT / 'include'}", "-fsyntax-only", str(unit)],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{header.name} as {language}: {done.stderr[:1000]}"
