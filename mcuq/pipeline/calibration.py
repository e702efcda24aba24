"""Images for calibration, brought to what the model takes, in the words of Caffe's Transformer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mcuq.data import Dataset
from mcuq.data.images import fit
from mcuq.data.sets import search_folders
from mcuq.data.several import load_several
from mcuq.data.unlabelled import load_unlabelled
from mcuq.errors import UsageError
from mcuq.ir.graph import Shape

LIMIT = 2000
"""Unlabelled images that are read: for calibration, and to compare the integer network with the float one."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """``input = input_scale * (raw_scale * pixel / 255 - mean_value)`` on images resized, transposed, swapped.

    Attributes:
        dims: the model's input without batch, in its own order (3,224,224). transpose: which axes of an image
            (0 rows, 1 columns, 2 channels) these are. channel_swap: order of channels, 2,1,0 for BGR.
        raw_scale, mean_value, input_scale: None or empty when not given; then 255, 0 and 1 as soon as one is.
    """

    dims: tuple[int, ...] = ()
    transpose: tuple[int, ...] = (2, 0, 1)
    channel_swap: tuple[int, ...] = ()
    raw_scale: float | None = None
    mean_value: tuple[float, ...] = ()
    input_scale: float | None = None

    def check(self) -> None:
        """Raises UsageError for values that fit no image."""
        if sorted(self.transpose) != [0, 1, 2] or self.transpose[1] == 2:
            raise UsageError(
                f"--transpose {_text(self.transpose)}: 0, 1 and 2 (rows, columns, channels) in an order with the "
                "channels first or last are needed, 2,0,1 for ONNX or 0,1,2 for TFLite"
            )
        if self.dims and (len(self.dims) != 3 or not all(1 <= n <= 4096 for n in self.dims)):
            raise UsageError(f"--dims {_text(self.dims)}: three sizes of 1 .. 4096 are needed, for example 3,224,224")
        if sorted(self.channel_swap) != list(range(len(self.channel_swap))):
            raise UsageError(f"--channel-swap {_text(self.channel_swap)}: each channel once, from 0, for example 2,1,0")
        for name, value in (("--raw-scale", self.raw_scale), ("--input-scale", self.input_scale)):
            if value is not None and not value > 0:
                raise UsageError(f"{name} {value}: it has to be above 0")

    @property
    def shape(self) -> Shape | None:
        """(H, W, C) of the images themselves, None without ``dims``."""
        if not self.dims:
            return None
        sizes = dict(zip(self.transpose, self.dims, strict=True))
        return sizes[0], sizes[1], sizes[2]

    @property
    def scales(self) -> bool:
        """Whether pixels are scaled or shifted here."""
        return self.raw_scale is not None or self.input_scale is not None or bool(self.mean_value)

    def mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(mean, std) of ``input = (pixel / 255 - mean) / std``."""
        raw, scale = self.raw_scale or 255.0, self.input_scale or 1.0
        return tuple(m / raw for m in self.mean_value or (0.0,)), (1.0 / (raw * scale),)


def calibration_set(name: str, data_dir: Path | None, rule: Preprocessing, inputs: tuple[str, ...] = ()) -> Dataset:
    """The data set, or unlabelled images, called ``name``; images as the model takes them, [N, H, W, C].

    Args:
        inputs: names of the model's inputs; of several, ``name`` is an ``.npz`` with an array for each.

    Raises:
        UsageError, DataError: no such data, or it does not fit ``rule``.
    """
    from mcuq import data

    rule.check()
    places = [Path(name).expanduser(), *(folder / name for folder in search_folders(data_dir))]
    if len(inputs) > 1:
        return _several(places, rule, inputs)
    loaded = (load_unlabelled(place, rule.shape, LIMIT) for place in places)
    dataset = next((found for found in loaded if found is not None), None) or data.load(name, data_dir)
    if rule.shape is not None:
        dataset = fit(dataset, rule.shape)
    swap = list(rule.channel_swap)
    if swap and len(swap) != dataset.input_shape[2]:
        raise UsageError(f"--channel-swap has {len(swap)} entries, the images {dataset.input_shape[2]} channels")
    turned = rule.transpose.index(0) > rule.transpose.index(1)
    parts = [dataset.x_train, dataset.x_test]
    if turned:
        parts = [x.swapaxes(1, 2) for x in parts]
    if swap:
        parts = [x[..., swap] for x in parts]
    return replace(dataset, x_train=parts[0], x_test=parts[1])


def _several(places: list[Path], rule: Preprocessing, inputs: tuple[str, ...]) -> Dataset:
    plain = Preprocessing(raw_scale=rule.raw_scale, mean_value=rule.mean_value, input_scale=rule.input_scale)
    if rule != plain:
        raise UsageError("--dims, --transpose and --channel-swap are for images of one input; this model takes several")
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise UsageError(f"--calibrate: the model takes {', '.join(inputs)}; give an .npz with an array for each")
    return load_several(path, inputs, LIMIT)


def _text(values: tuple[int, ...]) -> str:
    return ",".join(map(str, values))
