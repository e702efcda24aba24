"""Without training: from a model file and calibration images to a saved integer network."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from mcuq.data import Dataset
from mcuq.errors import DataError, UsageError
from mcuq.ir.bits_file import save_bits
from mcuq.ir.files import save_integer
from mcuq.ir.fuse import fuse
from mcuq.ir.graph import Graph, Normalization, Shape
from mcuq.ir.integer import IntegerGraph, QConv2d
from mcuq.ir.plans import BitPlan, Limits, TensorBits
from mcuq.ir.quantized import QuantizedGraph
from mcuq.ir.samples import split
from mcuq.ir.verify import Level, verify
from mcuq.lower import lower, simplified
from mcuq.pipeline import deploy, pictures, tables
from mcuq.pipeline.bits import decide, promise, solved
from mcuq.pipeline.calibration import Preprocessing, calibration_set
from mcuq.pipeline.early import check_logits
from mcuq.pipeline.inputs import from_pixels, normalized, per_channel, pixel_scale
from mcuq.pipeline.outcomes import TrainOutcome
from mcuq.pipeline.runs import RunFolder, claim_run, new_run_path, remember
from mcuq.pipeline.settings import BitChoice
from mcuq.pipeline.widths import asked_precision, check_widths, grid_of
from mcuq.reference import floating
from mcuq.reference.integer import run_outputs
from mcuq.target.cost import conv_case
from mcuq.target.kernels import select

if TYPE_CHECKING:
    from mcuq.quant.precision import Precision

BATCH = 64
KEPT = 2000
"""Held-out samples on which accuracies are measured and that the run keeps."""
PRECISION = "precision per layer"
"""Method of a plan whose bits come with ranges, from a file or from widths given for all layers."""


@dataclass(frozen=True, slots=True)
class QuantizeSettings:
    """A model file, images, limits, and how ranges and roundings are found.

    Attributes:
        mean, std: of pixel / 255, one or one per channel: how pixels become the model's input; empty takes
            the data set's normalization. inputs: the same in Caffe's words, and the images' size and order.
        quant_type: ``Xilinx`` or ``DynamicFixed``: the grid ``threshold`` or ``fixed`` with CHaiDNN's default widths.
        one_rounding: convolutions of a quantized TFLite model round once, not twice as in its reference kernels.
        bitwidths, fl_bitwidths: of network input, params, layer outputs. precision: a file of precision per layer.
    """

    model: Path
    calibrate: str
    choice: BitChoice
    data_dir: Path | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    inputs: Preprocessing = field(default_factory=Preprocessing)
    ranges: str = "mse"
    percentile: float = 0.9999
    rounding: str = "feedback"
    grid: str = "affine"
    quant_type: str | None = None
    bitwidths: tuple[int, ...] = ()
    fl_bitwidths: tuple[int, ...] = ()
    precision: Path | None = None
    scaling: str = "exact"
    norms: str = "folded"
    equalize: bool = False
    bias_correction: bool = True
    images: int = 512
    logits: int = 8
    one_rounding: bool = False


def quantize(
    settings: QuantizeSettings, out: Path | None = None, *, overwrite: bool = False, console: Console | None = None
) -> TrainOutcome:
    """Quantize a float ONNX or TFLite model, or take a quantized one with its scales, without training.

    Raises:
        UsageError, DataError, ModelError: wrong input; InfeasibleError: the limits cannot be met.
    """
    began = time.monotonic()
    settings.choice.check()
    settings = replace(settings, choice=settings.choice.resolved(folds=settings.norms == "folded"))
    check_logits(settings.logits)
    check_widths(settings)
    dataset = calibration_set(settings.calibrate, settings.data_dir, settings.inputs, _input_names(settings.model))
    found = _imported(settings, dataset)
    graph = found.graph if isinstance(found, QuantizedGraph) else fuse(found)
    _check_shape(graph, dataset)
    say: Callable[[str], None] = partial(tables.say, console) if console else (lambda text: None)
    kept: list[dict[str, Any]] = []
    plan, integer, precision = _integer(found, graph, settings, dataset, say, kept.append)
    x, y = dataset.x_test[:KEPT], dataset.y_test[:KEPT]
    chosen = None if isinstance(found, QuantizedGraph) else _float_classes(graph, x)
    run = claim_run(out or new_run_path(settings.model.stem, settings.calibrate), resume=False, overwrite=overwrite)
    with run.locked():
        codes = run_outputs(integer, x)[integer.outputs[0]]
        accuracy, five = _accuracy(chosen, codes, y), {"oracle": deploy.top5_accuracy(codes, y)}
        right = None if chosen is None or accuracy["oracle"] is None else chosen == y
        _save(run, settings, plan, integer, accuracy, dataset, right)
        for document in kept:
            run.write_sensitivity(document)
        if precision is not None:
            from mcuq.quant.precision_file import save_precision

            save_precision(precision, run.precision)
        pictures.write(run, plan, integer, settings.choice.core, cuts=settings.choice.cuts)
        remember(run)
    promised = promise(integer, settings.choice) if plan.method in ("exact", PRECISION) else None
    outcome = solved(plan, graph, str(run.bits), settings.choice)
    return TrainOutcome(str(run.path), outcome, accuracy, time.monotonic() - began, promised, five)


def _accuracy(chosen: Any, codes: Any, y: Any) -> dict[str, float | None]:
    """Of the float and the integer network, and how often both choose the same class."""
    labelled = bool(np.all(y >= 0))
    return {
        "float": float(np.mean(chosen == y)) if chosen is not None and labelled else None,
        "oracle": deploy.accuracy(codes, y),
        "agreement": None if chosen is None else deploy.accuracy(codes, chosen),
    }


def _input_names(model: Path) -> tuple[str, ...]:
    from mcuq.frontend.files import input_names

    if not model.is_file():
        raise UsageError(f"--model {model} is not a file; give an ONNX or TFLite file, or train a module")
    return input_names(model)


def _imported(settings: QuantizeSettings, dataset: Dataset) -> Graph | QuantizedGraph:
    from mcuq.frontend.files import import_model

    shape = tuple(part.shape for part in dataset.inputs) or dataset.input_shape
    mean, std = settings.mean, settings.std
    if settings.inputs.scales:
        if mean or std:
            raise UsageError("--mean and --std say the same as --raw-scale, --mean-value and --input-scale; give one")
        mean, std = settings.inputs.mean_std()
    given = (mean or (0.0,), std or (1.0,)) if mean or std else None
    found = import_model(settings.model, shape, roundings=1 if settings.one_rounding else None)
    if settings.one_rounding and not isinstance(found, QuantizedGraph):
        raise UsageError(f"--one-rounding is for quantized TFLite models; {settings.model} is float, leave it out")
    if isinstance(found, QuantizedGraph):
        if given:
            raise UsageError(
                f"{settings.model} is quantized already; its input scale is fixed, leave --mean, --std and scales out"
            )
        return from_pixels(found)
    if given is None:
        rules = tuple(part.normalization for part in dataset.inputs) or dataset.normalization
        return import_model(settings.model, shape, rules)
    channels = 1 if dataset.inputs else dataset.input_shape[2]
    names = ("--mean-value", "--input-scale") if settings.inputs.scales else ("--mean", "--std")
    centre, spread = (per_channel(v, channels, n) for v, n in zip(given, names, strict=True))
    if not np.all(spread > 0):
        raise UsageError(f"--std {settings.std}: every value must be above 0")
    single = pixel_scale(centre, spread)
    found = import_model(settings.model, shape, single or Normalization(1 / 255, 0))
    assert isinstance(found, Graph)
    return found if single else normalized(found, centre, spread)


def _check_shape(graph: Graph, dataset: Dataset) -> None:
    taken = tuple(op.shape for op in graph.inputs)
    given = tuple(part.shape for part in dataset.inputs) or (dataset.input_shape,)
    if taken != given:
        raise DataError(
            f"the model takes images of shape {_shapes(taken)}, {dataset.name} has {_shapes(given)}; "
            "give calibration data of the model's shape"
        )


def _shapes(shapes: tuple[Shape, ...]) -> str:
    return " and ".join(map(str, shapes))


def _integer(
    found: Graph | QuantizedGraph,
    graph: Graph,
    settings: QuantizeSettings,
    dataset: Dataset,
    say: Callable[[str], None],
    keep: Callable[[dict[str, Any]], None],
) -> tuple[BitPlan, IntegerGraph, Precision | None]:
    """The bits, the integer network, and on symmetric grids its layers' precision; a quantized file has its own."""
    if isinstance(found, QuantizedGraph):
        integer = _lowered(found, settings)
        return own_plan(integer, settings.choice), integer, None
    from mcuq.quant.precision import precision_of
    from mcuq.quant.ptq import PtqOptions, ptq

    verify(graph, Level.FUSED)
    precision = asked_precision(settings, graph, say)
    options: Any = {
        "activations": settings.ranges,
        "percentile": settings.percentile,
        "rounding": settings.rounding,
        "grid": grid_of(settings) if precision is None else precision.mode,
        "scaling": settings.scaling,
        "norms": settings.norms,
        "equalize": settings.equalize,
        "bias_correction": settings.bias_correction,
        "images": settings.images,
        "precision": precision,
    }

    def quantized(bits: BitPlan | tuple[int, int]) -> QuantizedGraph:
        return ptq(graph, dataset.x_train, bits, PtqOptions(**options))

    if precision is not None:
        result = quantized((8, 8))
        integer = _lowered(result, settings)
        plan = replace(own_plan(integer, settings.choice), method=PRECISION)
        return plan, integer, precision_of(result, precision.mode, precision)
    choice = settings.choice
    if choice.limits() is None and choice.weight_bits is None and choice.act_bits is None and choice.bits is None:
        choice = replace(choice, weight_bits=8, act_bits=8)
    plan = decide(graph, choice, dataset, lambda bits: _lowered(quantized(bits), settings), say, keep)
    result = quantized(plan)
    mode = options["grid"]
    return plan, _lowered(result, settings), None if mode == "affine" else precision_of(result, mode)


def _lowered(quantized: QuantizedGraph, settings: QuantizeSettings) -> IntegerGraph:
    graph = simplified(lower(quantized, logits_bits=settings.logits))
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


def _float_classes(graph: Graph, x: Any) -> Any:
    """The class that the float network chooses for every image [N]."""
    chosen: list[Any] = []
    for start in range(0, len(x), BATCH):
        parts = split(graph, np.asarray(x[start : start + BATCH], np.float64))
        for op in graph.inputs:
            if (rule := op.normalization) is not None:
                parts[op.name] = rule.scale * (parts[op.name] - rule.zero_point)
        scores = floating.run(graph, parts)[graph.outputs[0]]
        scores = scores.reshape(len(scores), -1)
        chosen.append(scores[:, 0] if scores.shape[1] == 1 else scores.argmax(axis=1))
    return np.concatenate(chosen)


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
    record = json.loads(json.dumps(asdict(settings), default=str))
    run.write_record({"quantized": record, "finished": True, "accuracy": accuracy})
