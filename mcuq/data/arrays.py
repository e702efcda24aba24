"""``.npz`` files of strangers: checked before they are unpacked, turned into pixels by a stated rule."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from mcuq.data.dataset import (
    SPLIT_SEED,
    TEST_SHARE,
    Augmentation,
    Dataset,
    Labels,
    Pixels,
    check,
    fit_normalization,
    stratified_split,
)
from mcuq.errors import DataError

MAX_BYTES = 8 << 30
"""Most bytes one file's arrays may take together; a zip of a few kilobytes can claim terabytes."""
_ALLOWED = "numpy arrays x_train, y_train, x_test, y_test; x uint8 [N, H, W] or [N, H, W, C], y integers [N]"
_SPLIT = "Without x_test and y_test (or with x and y alone) a quarter is held out"
_NAMES = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True, slots=True)
class _Member:
    entry: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def read_npz(path: Path, names: tuple[str, ...], max_bytes: int = MAX_BYTES) -> dict[str, NDArray[Any]]:
    """Arrays ``names`` of an ``.npz`` file; those it lacks are left out. Pickled objects are never loaded.

    Headers are read first: an array whose header disagrees with the archive's own size, or a file that would
    take more than ``max_bytes``, is refused before anything is unpacked.

    Raises:
        DataError: not a readable archive, object arrays, damaged or oversized members.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members: dict[str, _Member] = {}
            for entry in archive.infolist():
                stem = entry.filename.removesuffix(".npy")
                if stem in names and stem != entry.filename:
                    with archive.open(entry) as stream:
                        members[stem] = _header(path, entry, stream)
            total = sum(m.entry.file_size for m in members.values())
            if total > max_bytes:
                raise DataError(
                    f"{path}: its arrays take {total:,} bytes unpacked; at most {max_bytes:,} are read. "
                    "Split the data or store smaller images."
                )
            result: dict[str, NDArray[Any]] = {}
            for name, member in members.items():
                with archive.open(member.entry) as stream:
                    result[name] = npy.read_array(stream, allow_pickle=False)
            return result
    except DataError:
        raise
    except (OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is not a readable .npz file: {error}. It should hold {_ALLOWED}.") from error


def _header(path: Path, entry: zipfile.ZipInfo, stream: IO[bytes]) -> _Member:
    version = npy.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = npy.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, dtype = npy.read_array_header_2_0(stream)
    else:
        raise DataError(f"{path}: {entry.filename} has npy format {version}; 1.0 and 2.0 are read")
    if dtype.hasobject:
        raise DataError(
            f"{path}: {entry.filename} holds pickled Python objects, which could run code; store plain numbers"
        )
    count = 1
    for size in shape:  # Python integers: the header's product may not wrap around
        count *= int(size)
    if stream.tell() + count * dtype.itemsize != entry.file_size:
        raise DataError(
            f"{path}: {entry.filename} says {list(shape)} {dtype}, which its {entry.file_size:,} bytes are not; "
            "the file is damaged, write it again"
        )
    return _Member(entry, tuple(shape), dtype)


def to_pixels(x: NDArray[Any], source: str) -> Pixels:
    """``x`` as uint8 [N, H, W, C].

    uint8 stays as it is, other integers have to lie in 0..255. Floating point is mapped linearly by its range over
    the WHOLE array: [0, 1] by round(255 x); values reaching below 0 but inside [-1, 1] by round(127.5 (x + 1));
    whole numbers in [0, 255] as they are. Anything else raises DataError.
    """
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4:
        raise DataError(f"{source} has shape {list(x.shape)}; [N, H, W] or [N, H, W, C] is needed")
    if x.shape[1] <= 4 < x.shape[3] and (x.shape[3] > 64 or (x.shape[1] == 3 and x.shape[2] == x.shape[3])):
        raise DataError(
            f"{source} has shape {list(x.shape)}, which looks like [N, C, H, W]; images are stored [N, H, W, C]"
        )
    if x.dtype == np.uint8 or x.size == 0:
        return np.ascontiguousarray(x, dtype=np.uint8)
    if x.dtype.kind not in "iufb":
        raise DataError(f"{source} is {x.dtype}; uint8 pixels or floating point in [0, 1] are needed")
    if not np.isfinite(x).all():
        raise DataError(f"{source} holds NaN or infinity; pixels have to be numbers")
    low, high = float(x.min()), float(x.max())
    if x.dtype.kind == "f" and low >= 0 and high <= 1:
        return np.rint(x.astype(np.float64) * 255).astype(np.uint8)
    if x.dtype.kind == "f" and -1 <= low < 0 and high <= 1:
        return np.rint((x.astype(np.float64) + 1) * 127.5).astype(np.uint8)
    if low >= 0 and high <= 255 and bool((x == np.rint(x)).all() if x.dtype.kind == "f" else True):
        return x.astype(np.uint8)
    raise DataError(
        f"{source} is {x.dtype} from {low:g} to {high:g}; allowed are uint8 pixels, integers 0..255, "
        "or floating point in [0, 1] or [-1, 1]. Undo the normalization before saving."
    )


def to_labels(y: NDArray[Any], source: str) -> Labels:
    """``y`` as int64 [N]; [N, 1] is taken too. Raises DataError unless it holds whole numbers."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        hint = "; of one-hot rows store argmax(axis=1)" if y.ndim == 2 else ""
        raise DataError(f"{source} has shape {list(y.shape)}; one whole number per image is needed, [N]{hint}")
    if y.dtype.kind not in "iu" and not (y.dtype.kind == "f" and bool((y == np.rint(y)).all())):
        raise DataError(f"{source} is {y.dtype}; labels are whole numbers 0 .. classes - 1")
    return y.astype(np.int64)


def load_npz(path: Path, name: str | None = None) -> Dataset:
    """A data set from an ``.npz`` with x_train, y_train, x_test, y_test and, if present, ``classes`` (strings).

    Without a test part, or with ``x`` and ``y`` alone, a quarter of every class is held out, as of a folder's images.

    Raises:
        DataError: see ``read_npz``, ``to_pixels``; or arrays are missing or contradict each other.
    """
    arrays = read_npz(path, (*_NAMES, "x", "y", "classes"))
    for x, y in (("x_train", "y_train"), ("x", "y")):
        if {x, y} <= arrays.keys() and not {"x_test", "y_test"} & arrays.keys():
            arrays |= _held_out(path, arrays[x], arrays[y])
    missing = [n for n in _NAMES if n not in arrays]
    if missing:
        raise DataError(f"{path} has no {', '.join(missing)}. It should hold {_ALLOWED}. {_SPLIT}.")
    x_train = to_pixels(arrays["x_train"], f"{path}: x_train")
    x_test = to_pixels(arrays["x_test"], f"{path}: x_test")
    if {arrays["x_train"].dtype.kind, arrays["x_test"].dtype.kind} == {"f", "u"}:
        raise DataError(
            f"{path}: x_train is {arrays['x_train'].dtype}, x_test {arrays['x_test'].dtype}; store both alike"
        )
    y_train = to_labels(arrays["y_train"], f"{path}: y_train")
    y_test = to_labels(arrays["y_test"], f"{path}: y_test")
    classes = _class_names(path, arrays.get("classes"), y_train, y_test)
    return check(
        Dataset(
            name or path.stem, x_train, y_train, x_test, y_test, classes, fit_normalization(x_train), Augmentation()
        )
    )


def _held_out(path: Path, x: NDArray[Any], y: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """A quarter of every class for the test."""
    labels = to_labels(y, f"{path}: y")
    if len(x) != len(labels):
        raise DataError(f"{path} holds {len(x)} images and {len(labels)} labels; one label per image is needed")
    train, test = stratified_split(labels, TEST_SHARE, SPLIT_SEED)
    return {"x_train": x[train], "y_train": labels[train], "x_test": x[test], "y_test": labels[test]}


def _class_names(path: Path, names: NDArray[Any] | None, y_train: Labels, y_test: Labels) -> tuple[str, ...]:
    if names is not None:
        if names.ndim != 1 or names.dtype.kind not in "US":
            raise DataError(f"{path}: classes is {names.dtype} {list(names.shape)}; a list of strings is needed")
        return tuple(str(n) for n in names.astype(str))
    highest = max((int(y.max()) for y in (y_train, y_test) if y.size), default=0)
    if highest >= 100_000:
        raise DataError(f"{path}: the highest label is {highest}; labels are class numbers from 0")
    return tuple(str(i) for i in range(highest + 1))
