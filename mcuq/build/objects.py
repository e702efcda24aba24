"""Objects of the runtime, compiled once in the life of a process: all images of a core link the same ones."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mcuq.build.toolchain import run_tool

_INCLUDED = re.compile(rb'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
_compiled: dict[str, dict[str, bytes]] = {}
"""{hash of all that goes into an object: {suffix: content}} of the object and of what the compiler wrote beside it."""


def compile_once(command: Sequence[str], objects: Mapping[Path, Path], include: Sequence[Path], failure: str) -> None:
    """Compile {source: object}; a source that was compiled before, by this command and with the same headers, is not
    compiled again: its object is written as it was.

    Args:
        command: the compiler with its flags, which name no files that matter.
        include: folders with every header that the sources include in quotes.
        failure: how the message starts when it fails; the source's name is added.

    Raises:
        ToolchainError: the compiler failed.
    """
    search = [f"-I{folder}" for folder in include]
    for source, target in objects.items():
        key = _hash([*(word.encode() for word in command), *_texts(source, include)])
        if key not in _compiled:
            run_tool([*command, *search, "-c", str(source), "-o", str(target)], f"{failure} {source.name}")
            _compiled[key] = {path.suffix: path.read_bytes() for path in target.parent.glob(f"{target.stem}.*")}
        for suffix, content in _compiled[key].items():
            target.with_suffix(suffix).write_bytes(content)


def _texts(source: Path, include: Sequence[Path]) -> list[bytes]:
    """Names and contents of the source and of all that it includes in quotes, in the order of their first inclusion."""
    files, texts = [source], list[bytes]()
    for file in files:  # which grows meanwhile
        text = file.read_bytes()
        texts += [file.name.encode(), text]
        for name in _INCLUDED.findall(text):
            places = (folder / name.decode() for folder in (file.parent, *include))
            header = next((place for place in places if place.is_file()), source)
            files += [] if header in files else [header]
    return texts


def _hash(parts: Sequence[bytes]) -> str:
    """Of the parts and of where each ends."""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
