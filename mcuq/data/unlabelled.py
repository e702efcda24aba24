"""Images without labels, for calibration: a folder of pictures, or an ``.npz`` with pixels alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mcuq.data.arrays import read_npz, to_pixels
from mcuq.data.dataset import Dataset, Pixels, fit_normalization
from mcuq.data.folders import decode, pictures_in
from mcuq.data.images import convert_channels, pillow, resize_images
from mcuq.errors import DataError
from mcuq.ir.graph import Shape

UNKNOWN = -1
"""The label of every image."""
NAMES = ("x", "images", "x_train")


def load_unlabelled(path: Path, shape: Shape | None, limit: int) -> Dataset | None:
    """The first ``limit`` images at ``path``, by name, as training and as test part; None when it holds labels.

    Args:
        path: a folder of pictures (not of folders), or an ``.npz`` with one array ``x``, ``images`` or ``x_train`` and
            no ``y_train`` or ``y``. shape: (H, W, C) to bring all to; without it pictures of one size are needed.

    Raises:
        DataError: unreadable, empty, or of different sizes.
    """
    if path.is_dir():
        found = pictures_in(path)
        if not found:
            return None
        x = _read(found[:limit], shape)
    elif path.is_file() and path.suffix == ".npz":
        arrays = read_npz(path, (*NAMES, "y", "y_train"))
        names = [name for name in NAMES if name in arrays]
        if len(names) != 1 or {"y", "y_train"} & arrays.keys():
            return None
        x = to_pixels(arrays[names[0]][:limit], f"{path}: {names[0]}")
    else:
        return None
    if 0 in x.shape:
        raise DataError(f"{path} holds no images, shape {list(x.shape)}; at least one is needed")
    if shape is not None:
        x = convert_channels(resize_images(x, shape[0], shape[1]), shape[2])
    y = np.full(len(x), UNKNOWN, np.int64)
    return Dataset(path.stem, x, y, x, y, (), fit_normalization(x))


def _read(paths: list[Path], shape: Shape | None) -> Pixels:
    image = pillow()
    images: list[Pixels] = []
    for path in paths:
        pixels = decode(image, path, None)
        if shape is not None:
            pixels = resize_images(pixels[None], shape[0], shape[1])[0]
        if images and pixels.shape != images[0].shape:
            raise DataError(
                f"{path} is {pixels.shape[0]}x{pixels.shape[1]}, {paths[0]} {images[0].shape[0]}x{images[0].shape[1]}; "
                "give --dims, and all are resized"
            )
        images.append(pixels)
    return np.stack(images)
