"""The data set type, deterministic splits, and how pixels become the network's input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcuq.errors import DataError
from mcuq.ir.graph import Normalization, Shape

SPLIT_SEED = 20_231
TEST_SHARE = 0.25
"""Of data without a test part of their own."""
Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What training may do to an image: mirror it left to right, shift it by up to ``shift`` pixels."""

    flip: bool = False
    shift: int = 0


@dataclass(frozen=True, slots=True)
class InputPart:
    """One of several inputs: its shape (H, W, C) and how its pixels become real values."""

    shape: Shape
    normalization: Normalization


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Images and labels, split into training and test.

    Attributes:
        x_train, x_test: uint8 [N, H, W, C].
        y_train, y_test: int64 [N], 0 .. len(classes) - 1.
        classes: names of the labels.
        normalization: how pixels become the network's input. The zero point is an integer, so that the device
            takes raw pixels and all 256 of them stay distinct.
        inputs: of a network with several inputs, whose values x_train and x_test hold joined (``ir.samples``).
    """

    name: str
    x_train: Pixels
    y_train: Labels
    x_test: Pixels
    y_test: Labels
    classes: tuple[str, ...]
    normalization: Normalization
    augmentation: Augmentation = Augmentation()
    inputs: tuple[InputPart, ...] = ()

    @property
    def input_shape(self) -> Shape:
        """(H, W, C)."""
        _, height, width, channels = self.x_train.shape
        return height, width, channels


def check(dataset: Dataset) -> Dataset:
    """The data set itself, or DataError when shapes, labels or sizes contradict each other."""
    name = dataset.name
    for part, x, y in (
        ("train", dataset.x_train, dataset.y_train),
        ("test", dataset.x_test, dataset.y_test),
    ):
        if x.ndim != 4 or x.dtype != np.uint8 or y.dtype != np.int64:
            raise DataError(f"{name}: x_{part} is {x.dtype} {list(x.shape)}; uint8 [N, H, W, C] is needed")
        if len(x) == 0 or 0 in x.shape:
            raise DataError(f"{name}: x_{part} is empty, shape {list(x.shape)}; at least one image is needed")
        if y.shape != (len(x),):
            raise DataError(f"{name}: y_{part} has shape {list(y.shape)}; {len(x)} images need [{len(x)}]")
        if y.min() < 0 or y.max() >= len(dataset.classes):
            raise DataError(
                f"{name}: labels of y_{part} run from {y.min()} to {y.max()}; "
                f"0 .. {len(dataset.classes) - 1} are allowed"
            )
    if dataset.x_train.shape[1:] != dataset.x_test.shape[1:]:
        raise DataError(
            f"{name}: training images are {list(dataset.x_train.shape[1:])}, "
            f"test images {list(dataset.x_test.shape[1:])}; they have to agree"
        )
    return dataset


def stratified_split(labels: Labels, test_share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(train, test) indices, both ascending; every class gives round(share * count) images to the test part.

    A class keeps at least one training image, and one with two or more images gives at least one to the test.
    """
    rng = np.random.default_rng(seed)
    test: list[NDArray[np.int64]] = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        count = min(max(1, round(test_share * len(members))), len(members) - 1)
        test.append(members[:count])
    chosen = np.sort(np.concatenate(test)) if test else np.zeros(0, np.int64)
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    return rest.astype(np.int64), chosen.astype(np.int64)


def fit_normalization(x: Pixels) -> Normalization:
    """Mean to 0 and standard deviation to 1 over all pixels of ``x``, with the zero point rounded to a pixel code.

    Raises DataError when ``x`` is empty.
    """
    if x.size == 0:
        raise DataError("there are no pixels to normalize; the training images are empty")
    histogram = np.bincount(x.reshape(-1), minlength=256).astype(np.float64)
    codes = np.arange(256.0)
    mean = float(histogram @ codes / histogram.sum())
    deviation = float(np.sqrt(histogram @ (codes - mean) ** 2 / histogram.sum()))
    # A constant image has no spread; 1 keeps the scale finite.
    return Normalization(scale=1.0 / max(deviation, 1.0), zero_point=round(mean))
