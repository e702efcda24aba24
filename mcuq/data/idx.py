"""The IDX format of MNIST and Fashion-MNIST, plain or gzipped."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mcuq.errors import DataError

MAX_BYTES = 1 << 30
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def read_idx(path: Path, max_bytes: int = MAX_BYTES) -> NDArray[np.uint8]:
    """The uint8 array of an IDX file (``.gz`` or not), shape as its header says. Raises DataError."""
    try:
        raw = path.open("rb")
        with gzip.open(raw) if path.suffix == ".gz" else raw as stream:
            head = stream.read(4)
            if len(head) < 4 or head[:3] != b"\0\0\x08":
                raise DataError(
                    f"{path} starts with {head.hex() or 'nothing'}; an IDX file of bytes starts with 000008. "
                    "Download it again."
                )
            sizes = stream.read(4 * head[3])
            shape = tuple(int(n) for n in np.frombuffer(sizes[: len(sizes) // 4 * 4], ">u4"))
            count = 1
            for size in shape:
                count *= size
            if len(shape) != head[3] or count > max_bytes:
                raise DataError(f"{path}: its header claims {list(shape)}; at most {max_bytes:,} bytes are read")
            data = stream.read(count + 1)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}. Download it again.") from error
    if len(data) != count:
        found = f"only {len(data):,}" if len(data) < count else "more"
        raise DataError(f"{path}: the header says {list(shape)} = {count:,} bytes, {found} follow. Download it again.")
    return np.frombuffer(data, np.uint8).reshape(shape)


def find_idx(folder: Path) -> tuple[Path, ...] | None:
    """The four files of ``folder`` (images and labels of training and test), or None unless all are there."""
    found: list[Path] = []
    for name in FILES:
        # Some mirrors write the dot of "idx3-ubyte" as such.
        names = [f"{n}{end}" for n in (name, name.replace("-idx", ".idx")) for end in (".gz", "")]
        path = next((folder / n for n in names if (folder / n).is_file()), None)
        if path is None:
            return None
        found.append(path)
    return tuple(found)
