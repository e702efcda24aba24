"""Samples of networks with several inputs: an ``.npz`` with one array for each."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mcuq.data.arrays import read_npz, to_labels, to_pixels
from mcuq.data.dataset import Dataset, InputPart, fit_normalization
from mcuq.data.unlabelled import UNKNOWN
from mcuq.errors import DataError


def load_several(path: Path, names: tuple[str, ...], limit: int) -> Dataset:
    """The first ``limit`` samples at ``path``, as training and as test part, inputs joined (``ir.samples``).

    Args:
        path: an ``.npz`` with an array [N, H, W, C], [N, H, W] or [N, C] per input, called as the model calls it or x0,
            x1, ... in the model's order; and labels y [N], if there are any.
        names: the model's inputs.

    Raises:
        DataError: unreadable, or arrays are missing, empty or of different lengths.
    """
    ordered = tuple(f"x{i}" for i in range(len(names)))
    arrays = read_npz(path, (*names, *ordered, "y"))
    chosen = names if all(name in arrays for name in names) else ordered
    missing = [name for name in chosen if name not in arrays]
    if missing:
        wanted = f"{', '.join(names)}, or {', '.join(ordered)}"
        raise DataError(f"{path} lacks {', '.join(missing)}; give an array for each input of the model: {wanted}")
    found = [arrays[name][:limit] for name in chosen]
    parts = [
        to_pixels(x[:, None, None, :] if x.ndim == 2 else x, f"{path}: {name}")
        for name, x in zip(chosen, found, strict=True)
    ]
    y = to_labels(arrays["y"][:limit], f"{path}: y") if "y" in arrays else np.full(len(parts[0]), UNKNOWN, np.int64)
    counts = {len(part) for part in (*parts, y)}
    if len(counts) > 1 or any(part.size == 0 for part in parts):
        sizes = ", ".join(str(list(part.shape)) for part in parts)
        raise DataError(f"{path}: inputs have shapes {sizes}, y {list(y.shape)}; give equal numbers of samples")
    x = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)[:, None, None, :]
    inputs = tuple(InputPart((p.shape[1], p.shape[2], p.shape[3]), fit_normalization(p)) for p in parts)
    return Dataset(path.stem, x, y, x, y, (), inputs[0].normalization, inputs=inputs)
