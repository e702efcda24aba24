"""From names and paths to a module, its data and its graph, checked before anything long starts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mcuq.data import Dataset
from mcuq.errors import UsageError
from mcuq.ir.fuse import fuse
from mcuq.ir.graph import Graph, Normalization
from mcuq.ir.samples import InputShape
from mcuq.ir.verify import Level, verify
from mcuq.pipeline.early import check_scores, load_data
from mcuq.pipeline.settings import ModelSpec, TrainSettings, default_model

TORCH_NEEDED = "this needs torch: pip install 'mcuq[train]'"


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A module, its data and its fused graph, checked before anything long starts.

    ``settings`` are the user's with the model ``spec`` filled in; ``program`` is what torch.export made of the module
    for the data's shape, None if ``graph`` is of another.
    """

    settings: TrainSettings
    spec: ModelSpec
    module: Any
    dataset: Dataset
    program: Any
    graph: Graph


def prepare(settings: TrainSettings, dataset: Dataset | None = None) -> Prepared:
    """Load data, unless ``dataset`` is there already, and model, and capture it.

    Raises:
        UsageError, DataError, ModelError, UnsupportedError: what is wrong with which.
    """
    dataset = dataset or load_data(settings)
    spec = settings.model or default_model(dataset.input_shape)
    settings = replace(settings, model=spec)
    if settings.images is not None:
        kept = settings.images
        dataset = replace(dataset, x_train=dataset.x_train[:kept], y_train=dataset.y_train[:kept])
    if not spec.is_users_own:
        dataset = _fitted(dataset, spec)
    module, shape = build_module(spec, dataset, settings.seed)
    if settings.weights is not None:
        _load_weights(module, settings.weights)
    program = exported(module, shape)
    graph = captured(module, shape, dataset.normalization, program=program)
    check_scores(graph, dataset, spec)
    return Prepared(settings, spec, module, dataset, program if shape == dataset.input_shape else None, graph)


def exported(module: Any, shape: InputShape) -> Any:
    """What :func:`captured` and QuantOp may begin with as long as only the module's weights change."""
    try:
        from mcuq.frontend.torch import export
    except ModuleNotFoundError as error:
        raise UsageError(TORCH_NEEDED) from error
    return export(module, shape)


def captured(module: Any, shape: InputShape, normalization: Normalization | None, *, program: Any = None) -> Graph:
    """The fused, verified float graph of ``module``."""
    try:
        from mcuq.frontend.torch import capture
    except ModuleNotFoundError as error:
        raise UsageError(TORCH_NEEDED) from error
    graph = fuse(capture(module, shape, normalization, program=program).graph)
    verify(graph, Level.FUSED)
    return graph


def _fitted(dataset: Dataset, spec: ModelSpec) -> Dataset:
    """Images resized to what the model takes."""
    from mcuq import data, zoo

    wanted = zoo.card(spec.name)
    if spec.resolution is None and "resolution" in wanted.options:
        return dataset
    height, width, channels = zoo.input_shape(spec.name, spec.resolution, None)
    if "channels" in wanted.options:
        channels = dataset.input_shape[2]
    return data.fit(dataset, (height, width, channels))


def build_module(spec: ModelSpec, dataset: Dataset | None, seed: int) -> tuple[Any, InputShape]:
    """The module and the shape of its input."""
    try:
        from mcuq import zoo
        from mcuq.zoo import modules
    except ModuleNotFoundError as error:
        raise UsageError(TORCH_NEEDED) from error
    if spec.is_users_own:
        shape = spec.input_shape or (dataset.input_shape if dataset is not None else None)
        if shape is None:
            raise UsageError(f"--model {spec.name} needs --input-shape H,W,C when no data set tells it")
        return modules.load(spec.name), shape
    card = zoo.card(spec.name)
    if spec.input_shape is not None:
        raise UsageError(f"--input-shape is for models of your own; {spec.name} takes --resolution")
    if dataset is None:
        module = modules.build(spec.name, width=spec.width, resolution=spec.resolution, classes=spec.classes, seed=seed)
        return module, zoo.input_shape(spec.name, spec.resolution, None)
    height, _, channels = dataset.input_shape
    classes = spec.classes or (len(dataset.classes) if "classes" in card.options else None)
    module = modules.build(
        spec.name,
        width=spec.width,
        resolution=height if "resolution" in card.options else None,
        classes=classes,
        channels=channels if "channels" in card.options else None,
        seed=seed,
    )
    return module, dataset.input_shape


def _load_weights(module: Any, path: Path) -> None:
    """Load trained float weights. Raises UsageError or ModelError naming what does not fit."""
    from mcuq.quant.weights_file import load_weights

    load_weights(module, path)
