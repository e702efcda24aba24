"""The rules of the house, read from the sources with ``ast``: who imports whom, which libraries live where, sizes."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = (
    ("errors",),
    ("numerics",),
    ("ir",),
    ("target", "reference"),
    ("zoo", "data", "frontend", "quant", "plan", "lower", "emit", "build"),
    ("parity", "report"),
    ("pipeline", "options"),
    ("cli",),
    ("__init__", "__main__"),
)
"""Rooms from the ground up. A module imports from its own room and from lower floors."""
NEIGHBOURS = {"quant": {"zoo", "data", "frontend", "build"}}
"""Rooms of the same floor that a room may see. QuantOp takes any module, hence captures it by the front end; its loops
are compiled on the machine that trains."""
LIBRARIES = {
    "torch": {"frontend", "quant", "zoo", "data"},
    "ortools": {"plan"},
    "jinja2": {"emit"},
    "subprocess": {"build"},
    "elftools": {"build"},
}
"""Libraries and the only rooms that import them."""
SOLVER_FREE = ("plan/validate.py", "plan/validate_overlap.py", "plan/brute_force.py")
"""Checks of the solver's answers, which must not share its code."""
FILE_LINES, FUNCTION_LINES = 500, 60
WITHOUT_TORCH = (
    "mcuq.reference.integer",
    "mcuq.ir.files",
    "mcuq.ir.bits_file",
    "mcuq.lower",
    "mcuq.plan.memory",
    "mcuq.emit.project",
    "mcuq.build.image",
    "mcuq.build.qemu",
    "mcuq.parity",
    "mcuq.pipeline",
)


def room_of(module: str) -> str:
    """``ir`` for ``mcuq.ir.graph``, ``__init__`` for ``mcuq`` itself."""
    return ([*module.split("."), "__init__"])[1]


def floor_of(room: str) -> int:
    return next(index for index, rooms in enumerate(FLOORS) if room in rooms)


def imports(tree: ast.AST, module: str, *, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """(line, full name) of everything a module imports, also inside functions, relative or by literal name."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, origin if origin != "mcuq" else f"mcuq.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def broken_imports(source: str, path: str) -> list[str]:
    """Every broken import rule of the module at ``path`` (relative to the package, ``ir/graph.py``)."""
    module = "mcuq." + path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    module = "mcuq" if path == "__init__.py" else module
    room, broken = room_of(module), []
    if not any(room in rooms for rooms in FLOORS):
        return [f"mcuq/{path}:1: room '{room}' has no floor; add it to FLOORS"]
    for line, name in imports(ast.parse(source), module, is_package=path.endswith("__init__.py")):
        top = name.split(".")[0]
        if top in LIBRARIES and room not in LIBRARIES[top]:
            broken.append(f"mcuq/{path}:{line}: imports {name}; only {', '.join(sorted(LIBRARIES[top]))} may")
        if top == "ortools" and path in SOLVER_FREE:
            broken.append(f"mcuq/{path}:{line}: imports {name}; a validator never imports a solver")
        if top != "mcuq" or name == "mcuq.__version__":
            continue
        target = room_of(name)
        if target == room or target in NEIGHBOURS.get(room, ()):
            continue
        if not any(target in rooms for rooms in FLOORS):
            broken.append(f"mcuq/{path}:{line}: imports {name}, a room without a floor; add it to FLOORS")
        elif floor_of(target) >= floor_of(room):
            broken.append(f"mcuq/{path}:{line}: imports {name}; {room} may not see {target} (same or higher floor)")
    return broken


def too_long(source: str, path: str) -> list[str]:
    """Files and functions over the limits."""
    lines, broken = source.count("\n"), []
    if lines > FILE_LINES:
        broken.append(f"mcuq/{path}: {lines} lines; {FILE_LINES} are allowed")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.body[0].lineno + 1  # without the signature
            if length > FUNCTION_LINES:
                broken.append(
                    f"mcuq/{path}:{node.lineno}: {node.name} has {length} lines; {FUNCTION_LINES} are allowed"
                )
    return broken


def sources() -> list[tuple[str, str]]:
    package = ROOT / "mcuq"
    return [(str(p.relative_to(package)), p.read_text(encoding="utf-8")) for p in sorted(package.rglob("*.py"))]


def test_imports_keep_to_the_floors() -> None:
    broken = [text for path, source in sources() for text in broken_imports(source, path)]
    assert not broken, "\n" + "\n".join(broken)


def test_files_and_functions_stay_small() -> None:
    broken = [text for path, source in sources() for text in too_long(source, path)]
    assert not broken, "\n" + "\n".join(broken)


@pytest.mark.parametrize(
    ("path", "source", "text"),
    [
        ("ir/graph.py", "from mcuq.lower import lower\n", "ir/graph.py:1: imports mcuq.lower; ir may not see lower"),
        (
            "lower/lower.py",
            "\nimport mcuq.emit.project\n",
            "lower/lower.py:2: imports mcuq.emit.project; lower may not",
        ),
        ("emit/project.py", "from ..plan import memory\n", "emit/project.py:1: imports mcuq.plan; emit may not"),
        ("emit/__init__.py", "from ..plan import memory\n", "emit/__init__.py:1: imports mcuq.plan; emit may not"),
        ("emit/project.py", "from mcuq import plan\n", "imports mcuq.plan; emit may not see plan"),
        (
            "lower/lower.py",
            "def f():\n    import torch.nn\n",
            ":2: imports torch.nn; only data, frontend, quant, zoo may",
        ),
        ("plan/validate.py", "from ortools.sat.python import cp_model\n", "a validator never imports a solver"),
        ("emit/project.py", "import subprocess\n", "only build may"),
        ("cli.py", "from elftools.elf import elffile\n", "only build may"),
        ("cli.py", "import importlib\nimportlib.import_module('torch')\n", ":2: imports torch; only"),
        ("build/image.py", "import jinja2\n", "only emit may"),
        ("errors.py", "import mcuq.numerics\n", "errors may not see numerics"),
        ("attic/old.py", "", "room 'attic' has no floor"),
        ("lower/lower.py", "import mcuq.attic.old\n", "a room without a floor"),
    ],
)
def test_the_checker_finds_broken_imports(path: str, source: str, text: str) -> None:
    assert text in "\n".join(broken_imports(source, path))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("quant/loop.py", "import torch\nfrom mcuq.zoo import build\nfrom mcuq.data import load\n"),
        ("lower/lower.py", "from mcuq.lower.requantization import Channels\nfrom .requantization import x\n"),
        ("pipeline.py", "from mcuq import emit, plan\nfrom mcuq.parity import compare\n"),
        ("plan/exact.py", "from ortools.sat.python import cp_model\n"),
        ("cli.py", "from mcuq import __version__\n"),
    ],
)
def test_the_checker_allows_what_is_right(path: str, source: str) -> None:
    assert broken_imports(source, path) == []


def test_the_checker_finds_long_files_and_functions() -> None:
    body = "    x = 1\n" * 61
    assert too_long(f"def f():\n{body}", "ir/a.py") == ["mcuq/ir/a.py:1: f has 61 lines; 60 are allowed"]
    assert too_long("x = 1\n" * 501, "ir/a.py") == ["mcuq/ir/a.py: 501 lines; 500 are allowed"]
    assert too_long(f"def f():\n{body[10:]}", "ir/a.py") == []


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_integer_models_need_no_torch(module: str) -> None:
    """The module imports in a process that has no torch."""
    if importlib.util.find_spec(module.rpartition(".")[0]) is None or importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} does not exist")
    block = "import sys; sys.modules['torch'] = None\n"
    command = [sys.executable, "-c", f"{block}import {module}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
