"""Folders of images: one folder per class, below train/ and val/ (or test/), or directly."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from mcuq.data.dataset import SPLIT_SEED, TEST_SHARE, Augmentation, Dataset, Labels, Pixels, check, stratified_split
from mcuq.data.images import pillow
from mcuq.errors import DataError
from mcuq.ir.graph import Normalization

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
MAX_SIDE = 16_384
MAX_BYTES = 16 << 30
_ADVICE = "expected are train/<class>/*.jpg and val/<class>/*.jpg (or test/), or <class>/*.jpg, which is then split 3:1"
# ImageNet networks of the MobileNet family see [-1, 1).
_NORMALIZATION = Normalization(scale=1 / 128, zero_point=128)


def looks_like_images(folder: Path) -> bool:
    """True when ``folder`` has train/ or sub-folders with images."""
    return (folder / "train").is_dir() or any(pictures_in(sub) for sub in _subfolders(folder))


def load_folder(folder: Path, resolution: int | None = None, name: str | None = None) -> Dataset:
    """A data set of the images below ``folder``, always three channels.

    With ``resolution`` r the shorter side of each image becomes round(8 r / 7) and the middle r x r is kept (224
    from 256, as usual for ImageNet). Without it all images must have one size.

    Raises:
        DataError: no images, unreadable ones, sizes that differ, or more than fit in memory.
    """
    test_folder = next((folder / n for n in ("val", "test", "valid") if (folder / n).is_dir()), None)
    if (folder / "train").is_dir() and test_folder is not None:
        classes = _classes(folder / "train")
        extra = sorted(set(_classes(test_folder)) - set(classes))
        if extra:
            raise DataError(f"{test_folder} has classes that {folder / 'train'} lacks: {', '.join(extra[:5])}")
        x_train, y_train = _read(*_list(folder / "train", classes), resolution)
        x_test, y_test = _read(*_list(test_folder, classes), resolution)
    else:
        top = folder / "train" if (folder / "train").is_dir() else folder
        classes = _classes(top)
        x, y = _read(*_list(top, classes), resolution)
        train, test = stratified_split(y, TEST_SHARE, SPLIT_SEED)
        x_train, y_train, x_test, y_test = x[train], y[train], x[test], y[test]
    augmentation = Augmentation(flip=True, shift=max(1, x_train.shape[1] // 16))
    return check(Dataset(name or folder.name, x_train, y_train, x_test, y_test, classes, _NORMALIZATION, augmentation))


def _subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def pictures_in(folder: Path) -> list[Path]:
    """Image files directly in ``folder``, by name."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())


def _classes(folder: Path) -> tuple[str, ...]:
    classes = tuple(sub.name for sub in _subfolders(folder) if pictures_in(sub))
    if not classes:
        raise DataError(f"{folder} has no folders with images ({' '.join(SUFFIXES)}); {_ADVICE}")
    return classes


def _list(folder: Path, classes: tuple[str, ...]) -> tuple[list[Path], Labels]:
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = pictures_in(folder / name) if (folder / name).is_dir() else []
        paths += found
        labels += [label] * len(found)
    return paths, np.array(labels, np.int64)


def _read(paths: list[Path], labels: Labels, resolution: int | None) -> tuple[Pixels, Labels]:
    image = pillow()
    if not paths:
        raise DataError(f"no images found; {_ADVICE}")
    first = decode(image, paths[0], resolution)
    total = len(paths) * first.size
    if total > MAX_BYTES:
        raise DataError(
            f"{len(paths):,} images of {first.shape[0]}x{first.shape[1]} take {total:,} bytes; at most {MAX_BYTES:,} "
            "are held. Use fewer images or a smaller resolution."
        )
    result = np.empty((len(paths), *first.shape), np.uint8)
    for index, path in enumerate(paths):
        pixels = decode(image, path, resolution)
        if pixels.shape != first.shape:
            raise DataError(
                f"{path} is {pixels.shape[0]}x{pixels.shape[1]}, {paths[0]} {first.shape[0]}x{first.shape[1]}; "
                "give a resolution, and all are resized to it"
            )
        result[index] = pixels
    return result, labels


def decode(image: Any, path: Path, resolution: int | None) -> Pixels:
    """Pixels [H, W, 3] of one file; ``image`` is the module ``PIL.Image``. Raises DataError."""
    try:
        with warnings.catch_warnings():
            # Pillow only warns of pictures that take gigabytes once decoded.
            warnings.simplefilter("error", image.DecompressionBombWarning)
            with image.open(path) as picture:
                if max(picture.size) > MAX_SIDE:
                    raise DataError(f"{path} is {picture.size[0]}x{picture.size[1]}; sides up to {MAX_SIDE} are read")
                if resolution is not None:
                    # JPEG decoders skip detail that the resize would drop anyway.
                    picture.draft("RGB", (2 * resolution, 2 * resolution))
                rgb = picture.convert("RGB")
    except DataError:
        raise
    except Exception as error:  # decoders raise many kinds on damaged files
        raise DataError(f"{path} is not a readable image: {error}. Remove or replace it.") from error
    if resolution is not None:
        rgb = _crop(image, rgb, resolution)
    return np.asarray(rgb, np.uint8)


def _crop(image: Any, rgb: Any, resolution: int) -> Any:
    width, height = rgb.size
    short = max(resolution, round(resolution * 8 / 7))
    width, height = (
        max(resolution, round(width * short / min(rgb.size))),
        max(resolution, round(height * short / min(rgb.size))),
    )
    rgb = rgb.resize((width, height), image.Resampling.BILINEAR)
    left, top = (width - resolution) // 2, (height - resolution) // 2
    return rgb.crop((left, top, left + resolution, top + resolution))
