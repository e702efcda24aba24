"""Making modules: the zoo's by name, the user's by ``package.module:attribute``."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from mcuq.errors import McuqError, UsageError
from mcuq.zoo.cards import ModelCard, card, check_options, input_shape
from mcuq.zoo.imagenet import InceptionV1, ResNet18
from mcuq.zoo.mobilenet import MobileNetV1, MobileNetV2
from mcuq.zoo.small import DSCNN, Autoencoder, LeNet, ResNet8, ResNet20, ToyNet


def build(
    name: str,
    *,
    width: float = 1.0,
    resolution: int | None = None,
    classes: int | None = None,
    channels: int | None = None,
    seed: int = 0,
) -> nn.Module:
    """A fresh module of the zoo in training mode; the same arguments give the same weights.

    Args:
        name: one of ``models()``; ``-`` and ``_`` are the same.
        width: factor on all channel counts.
        resolution: height and width of the images it will get (checked; only LeNet's padding depends on it).
        classes, channels: outputs and input channels; None is the model's default.
        seed: of the initialization; the global random state is left as it was.

    Raises:
        UsageError: unknown model, option or value.
    """
    entry = card(name)
    check_options(entry, width, resolution, classes, channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _construct(entry, width, resolution, classes or entry.classes, channels)
        _initialize(module)
    return module


def build_meta(
    name: str,
    *,
    width: float = 1.0,
    resolution: int | None = None,
    classes: int | None = None,
    channels: int | None = None,
) -> nn.Module:
    """The same module without storage (torch's meta device): shapes and counts in milliseconds."""
    entry = card(name)
    check_options(entry, width, resolution, classes, channels)
    with torch.device("meta"):
        return _construct(entry, width, resolution, classes or entry.classes, channels)


def _construct(entry: ModelCard, width: float, resolution: int | None, classes: int, channels: int | None) -> nn.Module:
    height, _, depth = input_shape(entry.name, resolution, channels)
    match entry.name:
        case "mobilenet_v1":
            return MobileNetV1(width, classes, depth)
        case "mobilenet_v2":
            return MobileNetV2(width, classes, depth)
        case "mobilenet_v2_cf":
            return MobileNetV2(1.0, classes, depth, small=True)
        case "vww":
            return MobileNetV1(0.25, classes, depth, relu6=False, bias=True, dropout=0.0, momentum=0.01)
        case "resnet18":
            return ResNet18(width, classes, depth)
        case "inception_v1":
            return InceptionV1(width, classes, depth)
        case "resnet8":
            return ResNet8(width, classes, depth)
        case "resnet_tiny":
            return ResNet8(width, classes, depth, reference=False)
        case "resnet20":
            return ResNet20(width, classes, depth)
        case "resnet20_a":
            return ResNet20(width, classes, depth, padded=True)
        case "ds_cnn":
            return DSCNN(classes, depth)
        case "autoencoder":
            return Autoencoder(depth)
        case "lenet":
            return LeNet(classes, depth, padding=2 if height < 32 else 0)
        case "toynet":
            return ToyNet(classes, depth)
        case unknown:
            raise AssertionError(f"{unknown} has a card but no definition")


def _initialize(module: nn.Module) -> None:
    """He initialization of convolutions (fan out), linear layers as torch leaves them, biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.groups > 1:  # fan_out counts all groups: without this a depthwise layer starts near zero
                with torch.no_grad():
                    layer.weight.mul_(layer.groups**0.5)
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)


def load(spec: str) -> nn.Module:
    """A user's own module from ``package.module:attribute``.

    The attribute is a function without required arguments that returns an ``nn.Module``, an ``nn.Module`` class
    that needs no arguments, or a module object. The current folder is searched first. This runs the user's code.

    Raises:
        UsageError: not of that form, nothing importable, or what came out is no ``nn.Module``.
    """
    module_name, colon, attribute = spec.partition(":")
    parts = [*module_name.split("."), *attribute.split(".")]
    if not colon or not all(part.isidentifier() for part in parts):
        raise UsageError(f"{spec!r} is not a model; expected package.module:attribute, as in my_nets.tiny:build")
    with _current_folder_first():
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            raise UsageError(
                f"cannot import {module_name}: {error}. It is looked for in the current folder ({os.getcwd()}) "
                "and on PYTHONPATH."
            ) from error
        except Exception as error:
            raise UsageError(f"importing {module_name} failed: {type(error).__name__}: {error}") from error
        for part in attribute.split("."):
            if not hasattr(found, part):
                names = [n for n in dir(found) if not n.startswith("_")][:10]
                raise UsageError(f"{module_name} has no {part!r}; it has {', '.join(names) or 'nothing'}")
            found = getattr(found, part)
        return _instance(spec, found)


def _instance(spec: str, found: Any) -> nn.Module:
    if callable(found) and not isinstance(found, nn.Module):
        try:
            found = found()
        except McuqError:
            raise
        except Exception as error:
            raise UsageError(
                f"{spec}() failed: {type(error).__name__}: {error}. It is called without arguments; "
                "wrap a model that needs some in a function."
            ) from error
    if not isinstance(found, nn.Module):
        raise UsageError(f"{spec} gave a {type(found).__name__}; a torch.nn.Module is needed")
    return found


@contextmanager
def _current_folder_first() -> Generator[None]:
    """A console script does not have the current folder on its path, where users keep their models."""
    saved = list(sys.path)
    sys.path.insert(0, os.getcwd())
    try:
        yield
    finally:
        sys.path[:] = saved
