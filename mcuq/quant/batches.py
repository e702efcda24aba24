"""Batches of pixels from memory: shuffled, mirrored and shifted, without worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from mcuq.data.dataset import Augmentation


class Batches:
    """Batches of ``x`` uint8 [N, H, W, C] as channels_last views [n, C, H, W].

    Args:
        generator: shuffles and augments; without one the order is that of ``x`` and nothing is augmented.
            When it is given, a last batch smaller than half ``size`` is left out (batch norm needs company).
        fill: pixel value shifted in at the border, the one that stands for zero.
    """

    def __init__(
        self,
        x: NDArray[Any],
        y: NDArray[Any] | None,
        size: int,
        device: str = "cpu",
        *,
        augmentation: Augmentation | None = None,
        fill: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        self.x = torch.from_numpy(x).to(device)
        self.y = None if y is None else torch.from_numpy(y).to(device)
        self.size = min(size, len(x))
        self.augmentation = augmentation or Augmentation()
        self.fill = fill
        self.generator = generator

    def __len__(self) -> int:
        full, rest = divmod(len(self.x), self.size)
        drop = self.generator is not None and 2 * rest < self.size
        return full + (rest > 0 and not drop)

    def images(self) -> Iterator[Tensor]:
        """Images only."""
        for chosen in self._indices():
            yield self._augmented(self.x[chosen]).permute(0, 3, 1, 2)

    def pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, labels)."""
        assert self.y is not None
        for chosen in self._indices():
            yield self._augmented(self.x[chosen]).permute(0, 3, 1, 2), self.y[chosen]

    def _indices(self) -> Iterator[Any]:
        order = None
        if self.generator is not None:
            order = torch.randperm(len(self.x), generator=self.generator).to(self.x.device)
        for number in range(len(self)):
            part = slice(number * self.size, (number + 1) * self.size)
            yield part if order is None else order[part]

    def _augmented(self, images: Tensor) -> Tensor:
        if self.generator is None:
            return images
        count, height, width, _ = images.shape
        if self.augmentation.flip:
            mirrored = torch.rand(count, generator=self.generator).to(images.device) < 0.5
            images = torch.where(mirrored[:, None, None, None], images.flip(2), images)
        shift = self.augmentation.shift
        if shift:
            border = (0, 0, shift, shift, shift, shift)
            padded = torch.nn.functional.pad(images, border, value=self.fill)
            start = torch.randint(0, 2 * shift + 1, (2, count, 1), generator=self.generator).to(images.device)
            rows = start[0] + torch.arange(height, device=images.device)
            columns = start[1] + torch.arange(width, device=images.device)
            each = torch.arange(count, device=images.device)[:, None, None]
            images = padded[each, rows[:, :, None], columns[:, None, :]]
        return images
