"""Where data sets lie on disk, and downloading the published ones with their checksums."""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mcuq.errors import DataError

Progress = Callable[[str, int, int], None]
"""Called with file name, bytes so far, bytes in all (0 when the server does not say)."""

_TIMEOUT_S = 30
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A published file, its MD5 as its authors state it, and the most bytes it may have."""

    name: str
    url: str
    md5: str
    max_bytes: int


def cache_folder() -> Path:
    """Where downloads go: ``~/.cache/mcuq``, or below ``$XDG_CACHE_HOME``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mcuq"


def search_folders(data_dir: Path | str | None = None) -> tuple[Path, ...]:
    """Existing folders to look in: ``data_dir``, ``$MCUQ_DATA``, the cache.

    Raises DataError when ``data_dir`` is given and is no folder.
    """
    folders: list[Path] = []
    if data_dir is not None:
        given = Path(data_dir).expanduser()
        if not given.is_dir():
            raise DataError(f"data folder {given} does not exist; create it or leave --data-dir away")
        folders.append(given)
    if os.environ.get("MCUQ_DATA"):
        folders.append(Path(os.environ["MCUQ_DATA"]).expanduser())
    folders.append(cache_folder())
    return tuple(folder for folder in folders if folder.is_dir())


def find_data_dir() -> Path | None:
    """The first existing one of ``$MCUQ_DATA`` and the cache; None if there is neither."""
    return next(iter(search_folders()), None)


def download(files: tuple[RemoteFile, ...], folder: Path, progress: Progress | None = None) -> None:
    """Bring ``files`` into ``folder``; those already there with the right checksum stay.

    A file appears under its name only when complete and of the stated MD5.

    Raises:
        DataError: no network, a server's error, a wrong checksum, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            target = folder / file.name
            if not (target.is_file() and _md5(target) == file.md5):
                _download_one(file, target, progress)
    except OSError as error:  # URLError is one, as are time-outs
        raise DataError(f"downloading {files[0].url} failed: {error}") from error


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _download_one(file: RemoteFile, target: Path, progress: Progress | None) -> None:
    digest, done = hashlib.md5(usedforsecurity=False), 0
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        request = urllib.request.Request(file.url, headers={"User-Agent": "mcuq"})
        with os.fdopen(handle, "wb") as out, urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            total = int(response.headers.get("Content-Length") or 0)
            while chunk := response.read(_CHUNK):
                done += len(chunk)
                if done > file.max_bytes:
                    raise DataError(f"{file.url} sends more than {file.max_bytes:,} bytes, unlike the published file")
                digest.update(chunk)
                out.write(chunk)
                if progress is not None:
                    progress(file.name, done, total)
        if digest.hexdigest() != file.md5:
            raise DataError(
                f"{file.url} gave a file with MD5 {digest.hexdigest()}, published is {file.md5}; "
                "the download is damaged or the file was replaced"
            )
        os.replace(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)
