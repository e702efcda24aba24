"""Fitting images to a model: size and number of channels, on pixels, the same on every machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mcuq.data.dataset import Dataset, Pixels
from mcuq.errors import DataError
from mcuq.ir.graph import Shape


def pillow() -> Any:
    """The module ``PIL.Image``. Raises DataError when pillow is not installed."""
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise DataError("resizing and reading images needs pillow: pip install 'mcuq[train]'") from error
    return Image


def resize_images(x: Pixels, height: int, width: int) -> Pixels:
    """Bilinear resize of uint8 [N, H, W, C], with area averaging when shrinking (pillow's integer filter)."""
    count, old_height, old_width, channels = x.shape
    if (old_height, old_width) == (height, width):
        return x
    image = pillow()
    result = np.empty((count, height, width, channels), np.uint8)
    for index in range(count):
        if channels == 3:
            picture = image.fromarray(x[index])
            result[index] = np.asarray(picture.resize((width, height), image.Resampling.BILINEAR))
            continue
        for channel in range(channels):
            plane = image.fromarray(np.ascontiguousarray(x[index, :, :, channel]))
            result[index, :, :, channel] = np.asarray(plane.resize((width, height), image.Resampling.BILINEAR))
    return result


def convert_channels(x: Pixels, channels: int) -> Pixels:
    """Gray to color by repetition; color to gray by (299 R + 587 G + 114 B + 500) // 1000. Raises DataError."""
    found = x.shape[3]
    if found == channels:
        return x
    if found == 1:
        return np.repeat(x, channels, axis=3)
    if found == 3 and channels == 1:
        weights = np.array([299, 587, 114], np.uint32)
        # One image at a time: the products take four bytes a pixel.
        gray = [((image.astype(np.uint32) @ weights + 500) // 1000).astype(np.uint8) for image in x]
        return np.stack(gray)[..., None]
    raise DataError(
        f"images have {found} channels, the model takes {channels}; only 1 to n and 3 to 1 are converted. "
        f"Build the model with channels={found}."
    )


def resize(dataset: Dataset, resolution: int | tuple[int, int]) -> Dataset:
    """``dataset`` with images of ``resolution`` (side, or (H, W)); the augmentation's shift grows with them."""
    height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
    if not (1 <= height <= 4096 and 1 <= width <= 4096):
        raise DataError(f"{dataset.name}: resolution {height}x{width} is outside 1 .. 4096")
    old = dataset.input_shape[0]
    shift = max(1, round(dataset.augmentation.shift * height / old)) if dataset.augmentation.shift else 0
    return replace(
        dataset,
        x_train=resize_images(dataset.x_train, height, width),
        x_test=resize_images(dataset.x_test, height, width),
        augmentation=replace(dataset.augmentation, shift=shift),
    )


def fit(dataset: Dataset, shape: Shape) -> Dataset:
    """``dataset`` with images of ``shape`` (H, W, C). Raises DataError where channels cannot be converted."""
    height, width, channels = shape
    if dataset.input_shape[2] > channels:  # fewer channels first: less to resize
        dataset = _with_channels(dataset, channels)
    if dataset.input_shape[:2] != (height, width):
        dataset = resize(dataset, (height, width))
    return _with_channels(dataset, channels)


def _with_channels(dataset: Dataset, channels: int) -> Dataset:
    return replace(
        dataset,
        x_train=convert_channels(dataset.x_train, channels),
        x_test=convert_channels(dataset.x_test, channels),
    )
