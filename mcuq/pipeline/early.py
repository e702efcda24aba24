"""What is wrong with a training's settings and data is said before torch is loaded and before anything long starts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from mcuq import data, zoo
from mcuq.data import Dataset
from mcuq.errors import DataError, UsageError
from mcuq.ir.graph import Argmax, Graph
from mcuq.pipeline.runs import check_claim
from mcuq.pipeline.settings import ModelSpec, TrainSettings


def check_settings(settings: TrainSettings, out: Path | None, *, resume: bool, overwrite: bool) -> None:
    """Raises UsageError for files that are not there, unknown names and numbers that nothing takes."""
    choice = settings.choice
    choice.check()
    choice.limits()
    check_logits(settings.logits)
    for option, path in (
        ("--bits", choice.bits),
        ("--weights", settings.weights),
        ("--layer-config", settings.layer_config),
    ):
        if path is not None and not path.is_file():
            raise UsageError(f"{option} {path} is not a file")
    if settings.model is not None and not settings.model.is_users_own:
        zoo.card(settings.model.name)
    if out is not None:
        check_claim(out, resume=resume, overwrite=overwrite)


def check_logits(bits: int) -> None:
    """Raises UsageError unless the network's output can have so many bits."""
    if bits not in (8, 32):
        raise UsageError(f"--logits {bits} is not possible; use 8 or 32")


def load_data(settings: TrainSettings) -> Dataset:
    """The data set, which has to hold two classes or more. Raises DataError or UsageError."""
    resolution = None if settings.model is None else settings.model.resolution
    dataset = data.load(settings.data, settings.data_dir, resolution=resolution)
    if len(labels := np.unique(dataset.y_train)) < 2:
        raise DataError(f"{dataset.name}: every training image has label {labels[0]}; two classes are needed to train")
    return dataset


def empty_classes(dataset: Dataset) -> list[str]:
    """Names of classes without a training image: often labels that were counted from 1."""
    counts = np.bincount(dataset.y_train, minlength=len(dataset.classes))
    return [name for name, count in zip(dataset.classes, counts, strict=True) if not count]


def check_scores(graph: Graph, dataset: Dataset, spec: ModelSpec) -> None:
    """Raises UsageError unless the network has one output, with a score for every class."""
    if len(graph.outputs) != 1:
        raise UsageError(f"{spec.name} has {len(graph.outputs)} outputs; training takes one, the scores of the classes")
    end = graph.op(graph.outputs[0])
    scores = math.prod((graph.op(end.inputs[0]) if isinstance(end, Argmax) else end).shape)
    if scores < len(dataset.classes):
        raise UsageError(
            f"{spec.name} gives {scores} scores, but {dataset.name} has {len(dataset.classes)} classes; "
            "build it with as many outputs"
        )
