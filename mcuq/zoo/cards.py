"""What the zoo holds, without torch: names, shapes, options and parameter counts for lists and checks."""

from __future__ import annotations

from dataclasses import dataclass

from mcuq.errors import UsageError

Shape = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One model of the zoo.

    Attributes:
        input_shape: default (H, W, C).
        classes: default length of the output vector.
        options: which of "width", "resolution", "classes", "channels" ``build`` accepts for it.
        parameters: learnable parameters at the defaults.
        min_resolution: smallest height and width the strides leave something of.
    """

    name: str
    summary: str
    input_shape: Shape
    classes: int
    options: tuple[str, ...]
    parameters: int
    min_resolution: int = 1


_ALL = ("width", "resolution", "classes", "channels")
_IMAGE = ("resolution", "classes", "channels")

CARDS: tuple[ModelCard, ...] = (
    ModelCard(
        "mobilenet_v1",
        "MobileNetV1, TF SAME padding, ReLU6 (Howard et al. 2017)",
        (224, 224, 3),
        1000,
        _ALL,
        4_231_976,
        32,
    ),
    ModelCard(
        "mobilenet_v2",
        "MobileNetV2, inverted residuals (Sandler et al. 2018)",
        (224, 224, 3),
        1000,
        _ALL,
        3_504_872,
        32,
    ),
    ModelCard(
        "mobilenet_v2_cf",
        "MobileNetV2 for 32x32 images, 1x1 shortcuts in every stride-1 block",
        (32, 32, 3),
        10,
        _IMAGE,
        2_383_050,
        8,
    ),
    ModelCard("resnet8", "MLPerf Tiny image classification", (32, 32, 3), 10, _ALL, 78_186, 4),
    ModelCard("resnet20", "ResNet-20 with 1x1 shortcuts (He et al. 2015)", (32, 32, 3), 10, _ALL, 272_474, 4),
    ModelCard("resnet20_a", "ResNet-20, shortcuts without parameters", (32, 32, 3), 10, _ALL, 269_722, 4),
    ModelCard("resnet18", "ResNet-18 (He et al. 2015)", (224, 224, 3), 1000, _ALL, 11_689_512, 32),
    ModelCard(
        "inception_v1", "GoogLeNet with batch norm (Szegedy et al. 2014)", (224, 224, 3), 1000, _ALL, 6_624_904, 32
    ),
    ModelCard("resnet_tiny", "Residual net for 8x8 digits", (8, 8, 1), 10, _ALL, 77_754, 4),
    ModelCard(
        "ds_cnn",
        "MLPerf Tiny keyword spotting: 49 frames x 10 MFCC",
        (49, 10, 1),
        12,
        ("classes", "channels"),
        23_756,
    ),
    ModelCard("autoencoder", "MLPerf Tiny anomaly detection: 640 spectrogram values", (1, 1, 640), 640, (), 267_928),
    ModelCard("vww", "MLPerf Tiny visual wake words: MobileNetV1 0.25, ReLU", (96, 96, 3), 2, _IMAGE, 216_322, 32),
    ModelCard(
        "lenet",
        "LeNet-5 with batch norm; 28x28 inputs are padded to 32x32",
        (32, 32, 1),
        10,
        ("resolution", "classes", "channels"),
        61_848,
        28,
    ),
    ModelCard(
        "toynet", "ToyNet: residual depthwise blocks without ReLU at the joins", (32, 32, 3), 10, _IMAGE, 203_626, 4
    ),
)


def card(name: str) -> ModelCard:
    """The card of model ``name``. Raises UsageError."""
    for entry in CARDS:
        if entry.name == name.replace("-", "_"):
            return entry
    names = ", ".join(c.name for c in CARDS)
    raise UsageError(
        f"no model {name!r} in the zoo; it holds {names}. A module of your own is named my_package.my_module:build."
    )


def check_options(
    entry: ModelCard, width: float, resolution: int | None, classes: int | None, channels: int | None
) -> None:
    """Refuse options the model does not have and values outside their range. Raises UsageError."""
    given = {
        "width": None if width == 1.0 else width,
        "resolution": resolution,
        "classes": classes,
        "channels": channels,
    }
    for option, value in given.items():
        if value is not None and option not in entry.options:
            allowed = ", ".join(entry.options) or "none"
            raise UsageError(f"{entry.name} has no option {option} (given: {value}); its options: {allowed}")
    if not 0.05 <= width <= 4.0:
        raise UsageError(f"width {width} is outside 0.05 .. 4.0")
    low = entry.min_resolution
    if resolution is not None and not low <= resolution <= 1024:
        raise UsageError(f"resolution {resolution} is outside {low} .. 1024 for {entry.name}")
    if classes is not None and not 1 <= classes <= 100_000:
        raise UsageError(f"{classes} classes; between 1 and 100000 are allowed")
    if channels is not None and not 1 <= channels <= 1024:
        raise UsageError(f"{channels} input channels; between 1 and 1024 are allowed")


def input_shape(name: str, resolution: int | None = None, channels: int | None = None) -> Shape:
    """Input (H, W, C) of zoo model ``name`` with the given options. Raises UsageError."""
    entry = card(name)
    check_options(entry, 1.0, resolution, None, channels)
    height, width, depth = entry.input_shape
    if resolution is not None:
        height = width = resolution
    return height, width, channels or depth
