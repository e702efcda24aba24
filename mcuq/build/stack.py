"""Upper bound of the stack from the compiler's call graphs (gcc -fcallgraph-info=su) and the linked code.

Every function of ours has a frame size from the compiler. Functions of libgcc and newlib, which come without,
are read from the disassembly: everything a function ever pushes or subtracts counts once, which bounds its frame
as long as it has no loop around a push; their calls are followed too. A call through a pointer may reach any
function whose address stands in the image's constants or between its code. Recursion has no bound and is an error.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path

from mcuq.build.elf import address_constants, disassembly, read_elf
from mcuq.errors import CheckError
from mcuq.target.core import ARM, RISCV

_NODE = re.compile(r'node: \{ title: "([^"]+)" label: "([^"]*)"')
_EDGE = re.compile(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"')
_BYTES = re.compile(r"\\n(\d+) bytes \((\w+(?:,\w+)?)\)")
_FUNCTION = re.compile(r"^([0-9a-f]+) <([^>]+)>:$")
_PUSH = re.compile(r"\s(v?push)(?:\.w)?\s+\{([^}]*)\}|\sstmdb(?:\.w)?\s+sp!, \{([^}]*)\}")
_STR = re.compile(r"\sstrd?(?:\.w)?\s.*\[sp, #-(\d+)\]!")
_SUB = re.compile(r"\ssub(?:w|\.w)?\s+(?:sp, )?sp, #(\d+)")
_WORD = re.compile(r"\s\.word\s+0x([0-9a-f]+)")
_ADD_NEGATIVE = re.compile(r"\sadd\s+sp,sp,-(\d+)")  # RISC-V
_INDIRECT_CALL = "__indirect_call"  # gcc's name


@dataclass(frozen=True, slots=True)
class _Patterns:
    """How objdump prints calls and branches to a function, and calls through a register."""

    call: re.Pattern[str]
    indirect: re.Pattern[str]


_PATTERNS = {
    ARM: _Patterns(
        re.compile(r"\t(?:b\w*|b\w*\.\w|cbn?z)\t(?:r\d+, )?([0-9a-f]+) <[^>]+>"),
        re.compile(r"\sblx\s+r\d+"),
    ),
    # A far call is AUIPC and JALR; objdump names its target behind a #.
    RISCV: _Patterns(
        re.compile(r"\t(?:jalr?|j|jr|b\w+)\t(?:[^<]*[, ])?([0-9a-f]+) <[^>]+>"),
        re.compile(r"\tjal?r\t(?!.*<)"),
    ),
}


@dataclass(slots=True)
class _Graph:
    frames: dict[str, int] = field(default_factory=dict[str, int])
    calls: dict[str, set[str]] = field(default_factory=dict[str, set[str]])

    def add_call(self, source: str, target: str) -> None:
        self.calls.setdefault(source, set()).add(target)


def stack_bound(objects: Path, elf: Path, root: str) -> int:
    """Most bytes of stack that ``root`` and everything it calls can use.

    Args:
        objects: folder with the ``*.ci`` files of every compiled source.
        elf: the linked image, for functions of the libraries.
        root: function name, for example ``main`` or ``<prefix>_invoke``.

    Raises:
        CheckError: a frame of dynamic size, recursion, or an unknown function; named.
    """
    graph = _read_graphs(objects)
    library = _disassemble(elf)
    graph.frames[_INDIRECT_CALL] = 0
    graph.calls[_INDIRECT_CALL] = {*address_constants(elf), *library.calls.pop(_INDIRECT_CALL)}
    if root not in graph.frames:
        raise CheckError(f"function {root} is not in the call graph of {objects}")
    return _depth(root, graph, library, ())


def _read_graphs(folder: Path) -> _Graph:
    graph = _Graph()
    for path in sorted(folder.glob("*.ci")):
        text = path.read_text(encoding="utf-8", errors="replace")
        for title, label in _NODE.findall(text):
            if found := _BYTES.search(label):
                if found[2] != "static":
                    raise CheckError(f"function {title} has a stack frame of {found[2]} size; its bound is unknown")
                graph.frames[title] = int(found[1])
        for source, target in _EDGE.findall(text):
            graph.add_call(source, target)
    return graph


def _disassemble(elf: Path) -> _Graph:
    """Frames and calls of every function of the linked image, by its symbol; as calls through pointers those whose
    address is a constant between code."""
    image = read_elf(elf)
    patterns = _PATTERNS[image.architecture]
    names: dict[int, list[str]] = {}
    for symbol in image.symbols:
        names.setdefault(symbol.address, []).append(symbol.name)
    graph = _Graph()
    starts: list[tuple[int, str]] = []
    branches: list[tuple[str, int]] = []
    words: set[int] = set()
    name = ""
    for line in disassembly(elf, image.architecture).splitlines():
        if found := _FUNCTION.match(line):
            name = found[2]
            starts.append((int(found[1], 16), name))
            graph.frames[name] = 0
            for alias in names.get(int(found[1], 16), ()):
                if alias != name:  # objdump prints one of a function's names; the others lead to it
                    graph.frames.setdefault(alias, 0)
                    graph.add_call(alias, name)
        elif name:
            graph.frames[name] += _grows(line)
            if word := _WORD.search(line):
                words.add(int(word[1], 16) - image.architecture.thumb)
            if called := patterns.call.search(line):
                branches.append((name, int(called[1], 16)))
            if patterns.indirect.search(line):
                graph.add_call(name, _INDIRECT_CALL)
    graph.calls[_INDIRECT_CALL] = {function for address, function in starts if address in words}
    starts.sort()
    for source, address in branches:  # by address: beside it objdump prints any symbol of that value, also a constant
        target = starts[bisect_right(starts, (address, "\uffff")) - 1][1]
        if target != source:
            graph.add_call(source, target)
    return graph


def _grows(line: str) -> int:
    """Bytes by which an instruction lowers the stack pointer."""
    if found := _PUSH.search(line):
        registers = found[2] if found[1] else found[3]
        return sum(_register_bytes(part.strip()) for part in registers.split(","))
    if found := _STR.search(line) or _SUB.search(line) or _ADD_NEGATIVE.search(line):
        return int(found[1])
    return 0


def _register_bytes(part: str) -> int:
    size = 8 if part.startswith("d") else 4
    if "-" not in part:
        return size
    first, last = (int(re.sub(r"\D", "", end)) for end in part.split("-"))
    return size * (last - first + 1)


def _depth(name: str, graph: _Graph, library: _Graph, above: tuple[str, ...]) -> int:
    if name in above:
        raise CheckError(f"function {name} is recursive ({' -> '.join((*above, name))}); the stack has no bound")
    if name == _INDIRECT_CALL and not graph.calls[name]:
        raise CheckError(f"function {above[-1]} calls through a pointer of unknown origin; the stack has no bound")
    source = graph if name in graph.frames else library
    if name not in source.frames:
        raise CheckError(f"function {name}, called by {above[-1] if above else 'nothing'}, has no known stack frame")
    called = source.calls.get(name, set())
    deepest = max((_depth(target, graph, library, (*above, name)) for target in sorted(called)), default=0)
    return source.frames[name] + deepest
