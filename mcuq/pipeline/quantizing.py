"""Without training: from a model file and calibration images to a saved integer network."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mcuq.data import Dataset
from mcuq.errors import DataError, UsageError
from mcuq.ir.bits_file import save_bits
from mcuq.ir.files import save_integer
from mcuq.ir.fuse import fuse
from mcuq.ir.graph import BatchNorm, Graph, Input, Norm, Normalization
from mcuq.ir.integer import IntegerGraph, QConv2d
from mcuq.ir.plans import BitPlan, Limits, TensorBits
from mcuq.ir.quantized import QuantizedGraph
from mcuq.ir.verify import Level, verify
from mcuq.lower import lower, remove_dead_channels
from mcuq.pipeline import deploy, pictures
from mcuq.pipeline.bits import decide, promise, solved
from mcuq.pipeline.outcomes import TrainOutcome
from mcuq.pipeline.runs import RunFolder, claim_run, new_run_path, remember
from mcuq.pipeline.settings import BitChoice
from mcuq.reference import floating
from mcuq.reference.integer import run_outputs
from mcuq.target.cost import conv_case
from mcuq.target.kernels import select

BATCH = 64
KEPT = 2000
"""Held-out samples on which accuracies are measured and that the run keeps."""


@dataclass(frozen=True, slots=True)
class QuantizeSettings:
    """A model file, images, limits, and how ranges and roundings are found.

    ``mean`` and ``std`` (of pixel / 255, one or one per channel) are how pixels become the model's input; empty takes
    the data set's normalization.
    """

    model: Path
    calibrate: str
    choice: BitChoice
    data_dir: Path | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    ranges: str = "mse"
    rounding: str = "feedback"
    grid: str = "affine"
    equalize: bool = False
    bias_correction: bool = True
    images: int = 512
    logits: int = 8


def quantize(
    settings: QuantizeSettings, out: Path | None = None, *, overwrite: bool = False, console: Console | None = None
) -> TrainOutcome:
    """Quantize a float ONNX or TFLite model, or take a quantized one with its scales, without training.

    Raises:
        UsageError, DataError, ModelError: wrong input; InfeasibleError: the limits cannot be met.
    """
    from mcuq import data

    began = time.monotonic()
    settings.choice.check()
    dataset = data.load(settings.calibrate, settings.data_dir)
    found = _imported(settings, dataset)
    graph = found.graph if isinstance(found, QuantizedGraph) else fuse(found)
    _check_shape(graph, dataset)
    say: Callable[[str], None] = (lambda text: console.print(text, markup=False)) if console else (lambda text: None)
    plan, integer = _integer(found, graph, settings, dataset, say)
    x, y = dataset.x_test[:KEPT], dataset.y_test[:KEPT]
    right = _float_correct(found, graph, x, y)
    run = claim_run(out or new_run_path(settings.model.stem, settings.calibrate), resume=False, overwrite=overwrite)
    with run.locked():
        accuracy: dict[str, float | None] = {
            "float": None if right is None else float(right.mean()),
            "oracle": deploy.accuracy(run_outputs(integer, x)[integer.outputs[0]], y),
        }
        _save(run, settings, plan, integer, accuracy, dataset, right)
        pictures.write(run, plan, integer, settings.choice.core)
        remember(run)
    promised = promise(integer, settings.choice) if plan.method == "exact" else None
    outcome = solved(plan, graph, str(run.bits), settings.choice)
    return TrainOutcome(str(run.path), outcome, accuracy, time.monotonic() - began, promised)


def _imported(settings: QuantizeSettings, dataset: Dataset) -> Graph | QuantizedGraph:
    from mcuq.frontend.files import import_model

    if not settings.model.is_file():
        raise UsageError(f"--model {settings.model} is not a file; give an ONNX or TFLite file, or train a module")
    found = import_model(settings.model, dataset.input_shape)
    if isinstance(found, QuantizedGraph):
        if settings.mean or settings.std:
            raise UsageError(
                f"{settings.model} is quantized already; its input scale is fixed, leave --mean and --std out"
            )
        return from_pixels(found)
    if not settings.mean and not settings.std:
        return import_model(settings.model, dataset.input_shape, dataset.normalization)
    channels = dataset.input_shape[2]
    mean, std = (_per_channel(v, channels, n) for v, n in ((settings.mean, "--mean"), (settings.std, "--std")))
    if not np.all(std > 0):
        raise UsageError(f"--std {settings.std}: every value must be above 0")
    found = import_model(settings.model, dataset.input_shape, Normalization(1 / 255, 0))
    assert isinstance(found, Graph)
    return normalized(found, mean, std)


def from_pixels(quantized: QuantizedGraph) -> QuantizedGraph:
    """``quantized`` taking pixels: pixel p is the input's code p - 128, whatever the file's scale makes of it."""
    source = quantized.graph.input
    params = quantized.params(source.name)
    if params.bits != 8:
        return quantized
    rule = Normalization(params.scale, params.zero_point + 128)
    ops = tuple(replace(op, normalization=rule) if isinstance(op, Input) else op for op in quantized.graph)
    return replace(quantized, graph=Graph(ops, quantized.graph.outputs))


def _per_channel(values: tuple[float, ...], channels: int, option: str) -> Any:
    if len(values) not in (1, channels):
        raise UsageError(f"{option} has {len(values)} values; give one, or one for each of {channels} channels")
    return np.broadcast_to(np.asarray(values, np.float64), (channels,)).copy()


def normalized(graph: Graph, mean: Any, std: Any) -> Graph:
    """``graph`` with ``(x - mean) / std`` per channel in front (a depthwise layer after fusion)."""
    source = graph.input
    zeros, ones = np.zeros_like(mean), np.ones_like(mean)
    norm = Norm(ones, zeros, mean, std**2, 0.0)
    name = "normalize"
    while any(op.name == name for op in graph):
        name += "_"
    front = BatchNorm(name=name, inputs=(source.name,), shape=source.shape, norm=norm)
    ops = [
        op if isinstance(op, Input) else replace(op, inputs=tuple(name if i == source.name else i for i in op.inputs))
        for op in graph
    ]
    at = next(i for i, op in enumerate(ops) if isinstance(op, Input)) + 1
    return Graph((*ops[:at], front, *ops[at:]), graph.outputs)


def _check_shape(graph: Graph, dataset: Dataset) -> None:
    if graph.input.shape != dataset.input_shape:
        raise DataError(
            f"the model takes images of shape {graph.input.shape}, {dataset.name} has {dataset.input_shape}; "
            "give calibration data of the model's shape"
        )


def _integer(
    found: Graph | QuantizedGraph,
    graph: Graph,
    settings: QuantizeSettings,
    dataset: Dataset,
    say: Callable[[str], None],
) -> tuple[BitPlan, IntegerGraph]:
    """The bits and the integer network; a quantized file keeps its own."""
    if isinstance(found, QuantizedGraph):
        integer = _lowered(found, settings)
        return own_plan(integer, settings.choice), integer
    from mcuq.quant.ptq import PtqOptions, ptq

    verify(graph, Level.FUSED)
    options: Any = {
        "activations": settings.ranges,
        "rounding": settings.rounding,
        "grid": settings.grid,
        "equalize": settings.equalize,
        "bias_correction": settings.bias_correction,
        "images": settings.images,
    }

    def calibrated(plan: BitPlan) -> IntegerGraph:
        return _lowered(ptq(graph, dataset.x_train, plan, PtqOptions(**options)), settings)

    choice = settings.choice
    if choice.limits() is None and choice.weight_bits is None and choice.act_bits is None and choice.bits is None:
        choice = replace(choice, weight_bits=8, act_bits=8)
    plan = decide(graph, choice, dataset, calibrated, say)
    return plan, calibrated(plan)


def _lowered(quantized: QuantizedGraph, settings: QuantizeSettings) -> IntegerGraph:
    graph = remove_dead_channels(lower(quantized, logits_bits=settings.logits))
    verify(graph, Level.INTEGER)
    return graph


def own_plan(graph: IntegerGraph, choice: BitChoice) -> BitPlan:
    """The bits an integer network has, as a plan."""
    tensors: list[TensorBits] = []
    for op in graph:
        if isinstance(op, QConv2d):
            size = select(conv_case(graph, op), choice.core).weight_bytes
            tensors.append(TensorBits(f"{op.name}.weight", op.name, "weight", op.weight_bits, size))
        tensors.append(TensorBits(op.name, op.name, "activation", op.output.bits, op.output.bytes))
    flash, ram, instructions = promise(graph, choice)
    limits = choice.limits() or Limits(flash, ram)
    method = "the file's own"
    return BitPlan(tuple(tensors), "FEASIBLE", 0.0, 0.0, flash, ram, limits, method, instructions=instructions)


def _float_correct(found: Graph | QuantizedGraph, graph: Graph, x: Any, y: Any) -> Any:
    """On which samples the float network is right; None for a file that holds integers only."""
    if isinstance(found, QuantizedGraph):
        return None
    rule = graph.input.normalization
    right: list[Any] = []
    for start in range(0, len(x), BATCH):
        part = np.asarray(x[start : start + BATCH], np.float64)
        if rule is not None:
            part = rule.scale * (part - rule.zero_point)
        scores = floating.run(graph, part)[graph.outputs[0]].reshape(len(part), -1)
        right.append(scores.argmax(axis=1) == y[start : start + BATCH])
    return np.concatenate(right)


def _save(
    run: RunFolder,
    settings: QuantizeSettings,
    plan: BitPlan,
    integer: IntegerGraph,
    accuracy: dict[str, float | None],
    dataset: Dataset,
    right: Any,
) -> None:
    x, y = dataset.x_test[:KEPT], dataset.y_test[:KEPT]
    run.write_test(x, y, np.zeros(0, bool) if right is None else right)
    save_bits(plan, run.bits)
    save_integer(integer, run.model, {"model": settings.model.name, "data": dataset.name})
    record = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(settings).items()}
    record["choice"] = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(settings.choice).items()}
    run.write_record({"quantized": record, "finished": True, "accuracy": accuracy})
