"""Writing a generated project: whole or not at all, and never over somebody else's files."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mcuq.errors import UsageError
from mcuq.ir.sources import SourceFile

MANIFEST = "mcuq-files.txt"
"""Lists the files mcuq wrote into a folder; a folder without it is somebody else's."""


def write_files(files: Sequence[SourceFile], folder: Path) -> None:
    """Write ``files`` under ``folder`` as they are."""
    for file in files:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)


def write_project(files: Sequence[SourceFile], folder: Path) -> tuple[Path, ...]:
    """Write a project into ``folder``, replacing an earlier one; nothing is left half written.

    Raises:
        UsageError: the folder holds something that mcuq did not write, or cannot be written.
    """
    _refuse_foreign(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            write_files(files, temporary)
            listing = "".join(f"{path}\n" for path in sorted(file.path for file in files))
            (temporary / MANIFEST).write_text(listing, encoding="ascii", newline="\n")
            temporary.chmod(0o755)
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise UsageError(f"folder {folder} cannot be written: {error.strerror}") from error
    return tuple(folder / file.path for file in files)


def _refuse_foreign(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file; name a new or empty folder")
    manifest = folder / MANIFEST
    listed = {MANIFEST, *manifest.read_text(encoding="ascii").split("\n")} if manifest.is_file() else set[str]()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and name not in listed:
            raise UsageError(f"folder {folder} holds {name}, which mcuq did not write; name a new or empty folder")
