"""CIFAR-10 as published: binary batches, Python batches, or the archive of either."""

from __future__ import annotations

import io
import pickle
import tarfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mcuq.data.dataset import Labels, Pixels
from mcuq.errors import DataError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BINARY = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
PYTHON = tuple(name.removesuffix(".bin") for name in BINARY)
_IMAGE = 3 * 32 * 32
_RECORD = 1 + _IMAGE
# A published batch holds 10,000 images; a Python batch carries file names besides.
_MAX_BATCH = 10_000 * _RECORD
_MAX_PICKLE = 40 << 20

Batch = tuple[Pixels, Labels]


def _images(flat: NDArray[np.uint8]) -> Pixels:
    """[N, 3072] planes of R, G, B -> [N, 32, 32, 3]."""
    return np.ascontiguousarray(flat.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def parse_binary(data: bytes, source: str) -> Batch:
    """Images and labels of one binary batch. Raises DataError."""
    if not data or len(data) % _RECORD:
        raise DataError(
            f"{source} has {len(data):,} bytes; a batch is a multiple of {_RECORD} (label, then 3 planes of 32x32). "
            "Download it again."
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, _RECORD)
    return _images(records[:, 1:]), records[:, 0].astype(np.int64)


class _ArraysOnly(pickle.Unpickler):
    """Python batches are pickles, and a pickle may call anything: only what builds a uint8 array is let through."""

    _GLOBALS = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) not in self._GLOBALS:
            raise pickle.UnpicklingError(f"it calls {module_name[:60]}.{global_name[:60]}")
        if global_name == "dtype":
            return _plain_dtype
        return super().find_class(module_name, global_name)


def _plain_dtype(code: Any, *_: Any) -> np.dtype[Any]:
    if code not in ("u1", "b1", b"u1", b"b1"):
        raise pickle.UnpicklingError(f"it holds an array of {code!r}")
    return np.dtype(code if isinstance(code, str) else code.decode())


def parse_python(stream: IO[bytes], source: str) -> Batch:
    """Images and labels of one Python batch (keys ``data`` and ``labels``). Raises DataError."""
    advice = "Use the binary version of CIFAR-10 (cifar-10-binary.tar.gz)."
    try:
        batch = _ArraysOnly(stream, encoding="bytes").load()
        data, labels = batch[b"data"], np.asarray(batch[b"labels"])
    except Exception as error:  # a pickle can fail in as many ways as there are types
        raise DataError(f"{source} is not a CIFAR-10 batch: {error}. {advice}") from error
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != _IMAGE:
        raise DataError(f"{source}: data is not uint8 [N, {_IMAGE}]. {advice}")
    if labels.shape != (len(data),) or labels.dtype.kind not in "iu":
        raise DataError(f"{source}: {len(data)} images, labels of shape {list(labels.shape)}. {advice}")
    return _images(data), labels.astype(np.int64)


def _batch(stream: IO[bytes], name: str, source: str) -> Batch:
    limit = _MAX_BATCH if name.endswith(".bin") else _MAX_PICKLE
    data = stream.read(limit + 1)
    if len(data) > limit:
        raise DataError(f"{source} is larger than a batch of 10,000 images ({limit:,} bytes). Download it again.")
    if name.endswith(".bin"):
        return parse_binary(data, source)
    return parse_python(io.BytesIO(data), source)


def _join(batches: list[Batch]) -> tuple[Pixels, Labels, Pixels, Labels]:
    x = np.concatenate([b[0] for b in batches[:-1]])
    y = np.concatenate([b[1] for b in batches[:-1]])
    return x, y, *batches[-1]


def read_folder(folder: Path) -> tuple[Pixels, Labels, Pixels, Labels] | None:
    """(x_train, y_train, x_test, y_test) from the six batches of ``folder``; None unless all are there."""
    for names in (BINARY, PYTHON):
        if all((folder / name).is_file() for name in names):
            batches: list[Batch] = []
            for name in names:
                with (folder / name).open("rb") as stream:
                    batches.append(_batch(stream, name, str(folder / name)))
            return _join(batches)
    return None


def read_archive(path: Path) -> tuple[Pixels, Labels, Pixels, Labels]:
    """The same from the published ``.tar.gz``; nothing is unpacked to disk. Raises DataError."""
    try:
        with tarfile.open(path, "r:gz") as archive:
            batches: dict[str, Batch] = {}
            for member in archive:
                name = Path(member.name).name
                if not member.isfile() or name not in (*BINARY, *PYTHON):
                    continue
                stream = archive.extractfile(member)
                if stream is not None:
                    batches[name] = _batch(stream, name, f"{path}:{name}")
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise DataError(f"{path} cannot be read: {error}. Download it again.") from error
    for names in (BINARY, PYTHON):
        if all(name in batches for name in names):
            return _join([batches[name] for name in names])
    raise DataError(f"{path} does not hold the six batches of CIFAR-10 ({', '.join(BINARY)}). Download it again.")
