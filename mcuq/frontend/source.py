"""Bytes of a model file from an untrusted source: kind and size are known before anything is read."""

from __future__ import annotations

from pathlib import Path

from mcuq.errors import ModelError

MAX_FILE = 64 << 20
"""Bytes of a model with its external data; nothing of that size fits a microcontroller."""


def read_file(path: Path) -> bytes:
    """The file's bytes. Raises ModelError: missing, not a regular file, empty or larger than :data:`MAX_FILE`."""
    try:
        if not path.is_file():
            raise ModelError(f"{path}: no such file (a regular file is needed). Check the path.")
        size = path.stat().st_size
        if size > MAX_FILE:
            raise ModelError(
                f"{path.name}: {size} bytes, at most {MAX_FILE} are read; no such model fits a microcontroller."
            )
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        raise ModelError(f"{str(path)!r}: cannot be read: {error}. Check path and rights.") from error
    if not data:
        raise ModelError(f"{path.name}: the file is empty. Export the model again.")
    return data
