"""Data sets as uint8 images [N, H, W, C]: by name, from ``.npz`` files, from folders of images."""

from __future__ import annotations

from mcuq.data.dataset import Augmentation, Dataset, fit_normalization, stratified_split
from mcuq.data.fetch import find_data_dir
from mcuq.data.images import fit, resize
from mcuq.data.sets import DataCard, datasets, load

__all__ = [
    "Augmentation",
    "DataCard",
    "Dataset",
    "datasets",
    "find_data_dir",
    "fit",
    "fit_normalization",
    "load",
    "resize",
    "stratified_split",
]
