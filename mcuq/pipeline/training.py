"""Choosing bits and training: from a module and data to a saved integer network."""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mcuq.data import Dataset
from mcuq.errors import InfeasibleError, UsageError
from mcuq.ir.bits_file import load_bits, save_bits
from mcuq.ir.files import save_integer
from mcuq.ir.fuse import fuse
from mcuq.ir.graph import Graph, Normalization
from mcuq.ir.integer import IntegerGraph
from mcuq.ir.plans import BitPlan, Limits, Sensitivity
from mcuq.ir.verify import Level, verify
from mcuq.pipeline import deploy, pictures
from mcuq.pipeline.outcomes import DemoOutcome, SolveOutcome, TrainOutcome
from mcuq.pipeline.progress import TrainingBar
from mcuq.pipeline.runs import RunFolder, claim_run, new_run_path, remember
from mcuq.pipeline.settings import BitChoice, ModelSpec, TrainSettings
from mcuq.plan import rules
from mcuq.reference.integer import run_outputs

if TYPE_CHECKING:
    from mcuq.quant import QuantOp

CALIBRATION = 512
"""Training images on which sensitivity is measured."""
DEMO_BOARD = "stm32f4"
DEMO_LIMITS = "56000,5600"
"""Flash and RAM in bytes: an all-8-bit network of the demo needs more of both."""
KEPT_TEST_BYTES = 64 << 20
"""Of held-out samples that a run keeps for ``verify``."""
UNLIMITED = Limits(flash=1 << 31, ram=1 << 31)
TORCH_NEEDED = "this needs torch: pip install 'mcuq[train]'"


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A module, its data and its fused graph, checked before anything long starts."""

    module: Any
    dataset: Dataset
    graph: Graph


def solve(spec: ModelSpec, choice: BitChoice, out: Path, *, seed: int = 0) -> SolveOutcome:
    """Bits of a model under limits, without data (docs/solver.md describes the data-free sensitivity).

    Raises:
        UsageError: no such model, contradicting choices, no limits.
        InfeasibleError: the paper's rules cannot meet the limits.
    """
    choice.check()
    limits = choice.limits()
    if limits is None:
        raise UsageError("solve needs limits: --mem-constraint FLASH,RAM or --board NAME")
    module, shape = _module(spec, None, seed)
    graph = captured(module, shape, None)
    try:
        plan = choose(graph, choice, limits, _sensitivity(graph, "data-free", None))
    except InfeasibleError as error:
        return _infeasible(error, choice, limits)
    save_bits(plan, out)
    return _solved(plan, graph, str(out))


def _infeasible(error: InfeasibleError, choice: BitChoice, limits: Limits) -> SolveOutcome:
    """A document of status INFEASIBLE: least bytes needed where they exceed the limit, and the text."""
    flash = limits.flash + getattr(error, "missing_flash", 0)
    ram = limits.ram + getattr(error, "missing_ram", 0)
    plan = BitPlan((), "INFEASIBLE", 0.0, 0.0, flash, ram, limits, choice.mixed or "exact")
    return SolveOutcome(plan, {}, "", str(error))


def choose(graph: Graph, choice: BitChoice, limits: Limits, sensitivity: Sensitivity) -> BitPlan:
    """Bits of every tensor by the method of ``choice``. Raises InfeasibleError naming tensors and missing bytes."""
    if choice.mixed in ("MixPL", "MixPC"):
        return rules.mixed(graph, limits, choice.mixed, sensitivity=sensitivity)
    from mcuq.plan.exact import solve as solve_exact

    return solve_exact(graph, sensitivity, limits, choice.core, ram_reserve=choice.ram_reserve)


def captured(module: Any, shape: tuple[int, ...], normalization: Normalization | None) -> Graph:
    """The fused, verified float graph of ``module``."""
    try:
        from mcuq.frontend.torch import capture
    except ModuleNotFoundError as error:
        raise UsageError(TORCH_NEEDED) from error
    graph = fuse(capture(module, shape, normalization).graph)
    verify(graph, Level.FUSED)
    return graph


def prepare(settings: TrainSettings) -> Prepared:
    """Load data and model and capture it.

    Raises:
        UsageError, DataError, ModelError, UnsupportedError: what is wrong with which.
    """
    from mcuq import data

    settings.choice.check()
    dataset = data.load(settings.data, settings.data_dir, resolution=settings.model.resolution)
    if settings.model.is_users_own:
        module, shape = _module(settings.model, dataset, settings.seed)
    else:
        dataset = _fitted(dataset, settings.model)
        module, shape = _module(settings.model, dataset, settings.seed)
    if settings.weights is not None:
        _load_weights(module, settings.weights)
    return Prepared(module, dataset, captured(module, shape, dataset.normalization))


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


def _module(spec: ModelSpec, dataset: Dataset | None, seed: int) -> tuple[Any, tuple[int, ...]]:
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


def _sensitivity(graph: Graph, measure: str, dataset: Dataset | None) -> Sensitivity:
    from mcuq.quant import sensitivity
    from mcuq.quant.data_free import data_free

    if measure == "data-free" or dataset is None:
        return data_free(graph)
    return getattr(sensitivity, measure)(graph, dataset.x_train[:CALIBRATION])


def _solved(plan: BitPlan, graph: Graph, file: str) -> SolveOutcome:
    return SolveOutcome(plan, {op.name: "x".join(map(str, op.shape)) for op in graph}, file)


def train(
    settings: TrainSettings, out: Path | None = None, *, resume: bool = False, console: Console | None = None
) -> TrainOutcome:
    """Train, choose bits, retrain with quantization, and save everything in ``out``.

    Limits that cannot be met are reported before anything is trained; an interrupted run goes on with ``resume``.

    Raises:
        UsageError, DataError, ModelError: wrong input; InfeasibleError: the limits; TrainingError: NaN, memory.
    """
    began = time.monotonic()
    prepared = prepare(settings)
    limits = settings.choice.limits()
    if limits is not None and settings.choice.bits is None:
        _refuse_infeasible(prepared.graph, settings.choice, limits)
    path = out or new_run_path(settings.model.name, settings.data)
    run = claim_run(path, resume=resume)
    with run.locked(), TrainingBar(console) as bar:
        if not resume:
            _clear(run)
        run.write_record({"settings": _plain(settings), "finished": False})
        remember(run)
        float_accuracy = _train_float(prepared, settings, run, bar, resume)
        graph = captured(prepared.module, prepared.dataset.input_shape, prepared.dataset.normalization)
        plan = _bits(graph, settings, limits, prepared.dataset, run, bar, resume)
        op, qat_accuracy = _train_qat(prepared, settings, plan, run, bar, resume)
        integer = _lowered(op, settings)
        outcome = _finish(prepared, settings, run, plan, integer, (float_accuracy, qat_accuracy), began)
        pictures.write(run, plan, integer, settings.choice.core, bar.epochs)
    return outcome


def _refuse_infeasible(graph: Graph, choice: BitChoice, limits: Limits) -> None:
    """Raise InfeasibleError now instead of after the float training; untrained weights have the same sizes."""
    choose(graph, choice, limits, _sensitivity(graph, "data-free", None))


def uniform(graph: Graph, weight_bits: int, act_bits: int, limits: Limits | None, core: str) -> BitPlan:
    """One width for weights and one for activations; input, output and the weights of both ends have 8 bits."""
    from mcuq.plan.exact import solve as solve_exact
    from mcuq.quant.sensitivity import measured_activations

    sensitivity = _sensitivity(graph, "data-free", None)
    pins = {f"{op.name}.weight": weight_bits for op in graph.convs[1:-1]}
    pins |= {f"{op.name}.weight": 8 for op in (graph.convs[0], graph.convs[-1])}
    pins |= {name: act_bits for name, allowed in measured_activations(graph).items() if act_bits in allowed}
    plan = solve_exact(graph, sensitivity, limits or UNLIMITED, core, pins=pins)
    return replace(plan, method=f"uniform {weight_bits}/{act_bits}")


def _clear(run: RunFolder) -> None:
    """Remove what an earlier run of mcuq left in the folder (claim_run made sure that it is one)."""
    for entry in run.path.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != ".lock":
            entry.unlink()


def _train_float(prepared: Prepared, settings: TrainSettings, run: RunFolder, bar: TrainingBar, resume: bool) -> float:
    """Train the module unless its trained weights are there; returns its accuracy on the held-out split."""
    from mcuq.quant import train as loops
    from mcuq.quant.weights_file import load_weights, save_weights

    module, dataset = prepared.module, prepared.dataset
    if resume and run.float_weights.exists():
        load_weights(module, run.float_weights)
    elif settings.weights is None:
        config = _configured(loops.float_preset(_float_epochs(settings, dataset)), settings)
        bar.stage(f"training the float network for {config.epochs} epochs")
        folder = run.checkpoint / "float"
        going_on = resume and (folder / "state.json").exists()
        loops.train_float(module, dataset, config, progress=bar, checkpoint=folder, resume=going_on)
    module.eval()
    save_weights(module, run.float_weights)

    def scores(images: Any) -> Any:
        return module(loops.real_inputs(images, dataset.normalization))

    return loops.evaluate(scores, dataset.x_test, dataset.y_test, device=settings.device)


def _float_epochs(settings: TrainSettings, dataset: Dataset) -> int:
    """Enough steps for small data sets, few passes over large ones."""
    if settings.float_epochs is not None:
        return settings.float_epochs
    return max(4, min(40, 60_000 // len(dataset.x_train)))


def _qat_epochs(settings: TrainSettings, dataset: Dataset) -> int:
    if settings.epochs is not None:
        return settings.epochs
    return max(2, min(20, 30_000 // len(dataset.x_train)))


def _configured(config: Any, settings: TrainSettings, *, qat: bool = False) -> Any:
    """The recipe with what the user set explicitly."""
    changes: dict[str, Any] = {"seed": settings.seed, "device": settings.device}
    if settings.batch_size is not None:
        changes["batch_size"] = settings.batch_size
    if settings.optimizer is not None:
        changes["optimizer"] = settings.optimizer
    if qat and settings.lr is not None:
        changes["lr"] = settings.lr
    return replace(config, **changes)


def _bits(
    graph: Graph,
    settings: TrainSettings,
    limits: Limits | None,
    dataset: Dataset,
    run: RunFolder,
    bar: TrainingBar,
    resume: bool,
) -> BitPlan:
    """The plan: of a file, of the resumed run, uniform, or solved under the limits."""
    choice = settings.choice
    if resume and run.bits.exists():
        return load_bits(run.bits, graph)
    if choice.bits is not None:
        plan = load_bits(choice.bits, graph)
    elif limits is None or choice.weight_bits is not None or choice.act_bits is not None:
        plan = uniform(graph, choice.weight_bits or 4, choice.act_bits or 4, limits, choice.core)
    else:
        bar.stage(f"measuring sensitivity ({choice.sensitivity}) and solving for bits")
        plan = choose(graph, choice, limits, _sensitivity(graph, choice.sensitivity, dataset))
    save_bits(plan, run.bits)
    return plan


def _train_qat(
    prepared: Prepared, settings: TrainSettings, plan: BitPlan, run: RunFolder, bar: TrainingBar, resume: bool
) -> tuple[QuantOp, float]:
    """Quantization-aware training under ``plan``; returns the network and its fake-quantized accuracy."""
    from mcuq.quant import QuantOp
    from mcuq.quant import train as loops

    dataset = prepared.dataset
    options: dict[str, Any] = {}
    if settings.quant_type is not None:
        options["quant_type"] = settings.quant_type
    epochs = _qat_epochs(settings, dataset)
    fold_delay = loops.default_fold_delay(epochs) if settings.fold_delay is None else settings.fold_delay
    op = QuantOp(
        prepared.module,
        input_shape=dataset.input_shape,
        fold_type=settings.fold_type or "ICN",
        fold_delay=fold_delay,
        bits=plan,
        layer_config=_layer_types(plan),
        normalization=dataset.normalization,
        **options,
    )
    narrowest = min((t.bits for t in plan.tensors), default=8)
    config = _configured(loops.qat_preset(epochs, narrowest), settings, qat=True)
    bar.stage(f"quantization-aware training for {config.epochs} epochs")
    folder = run.checkpoint / "qat"
    going_on = resume and (folder / "state.json").exists()
    loops.train_qat(op, dataset, config, progress=bar, checkpoint=folder, resume=going_on)
    return op, loops.accuracy(op, dataset.x_test, dataset.y_test, device=settings.device)


def _layer_types(plan: BitPlan) -> list[dict[str, Any]]:
    """Weight quantizer and fold type per layer where the plan (a rule of the paper) decides them."""
    entries: dict[str, dict[str, Any]] = {}
    for key, pairs in (("quant_type", plan.quant_types), ("fold_type", plan.fold_types)):
        for layer, value in pairs:
            entries.setdefault(layer, {"layer": layer})[key] = value
    return list(entries.values())


def _lowered(op: QuantOp, settings: TrainSettings) -> IntegerGraph:
    from mcuq.lower import lower, remove_dead_channels

    graph = remove_dead_channels(lower(op.generate_deployment_model(), logits_bits=settings.logits))
    verify(graph, Level.INTEGER)
    return graph


def _finish(
    prepared: Prepared,
    settings: TrainSettings,
    run: RunFolder,
    plan: BitPlan,
    integer: IntegerGraph,
    accuracies: tuple[float, float],
    began: float,
) -> TrainOutcome:
    """Save the integer network and the held-out samples, measure the oracle, complete the record."""
    x, y = prepared.dataset.x_test, prepared.dataset.y_test
    output = run_outputs(integer, x)[integer.outputs[0]]
    accuracy: dict[str, float | None] = {
        "float": accuracies[0],
        "qat": accuracies[1],
        "oracle": deploy.accuracy(output, y),
    }
    kept = max(1, min(len(x), KEPT_TEST_BYTES // max(1, x[0].size)))
    run.write_test(x[:kept], y[:kept])
    save_integer(integer, run.model, {"model": settings.model.name, "data": prepared.dataset.name})
    seconds = time.monotonic() - began
    run.write_record(
        {"settings": _plain(settings), "finished": True, "accuracy": accuracy, "seconds": round(seconds, 1)}
    )
    return TrainOutcome(str(run.path), _solved(plan, prepared.graph, str(run.bits)), accuracy, seconds)


def _plain(settings: TrainSettings) -> dict[str, Any]:
    """Settings as JSON values."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return str(value) if isinstance(value, Path) else value

    return plain(asdict(settings))


def demo(out: Path, *, seed: int = 0, console: Console | None = None) -> DemoOutcome:
    """Handwritten digits on a Cortex-M under limits that 8 bits cannot meet, to the last table.

    Raises what the stages raise.
    """
    choice = BitChoice(mem_constraint=DEMO_LIMITS, board=DEMO_BOARD)
    settings = TrainSettings(ModelSpec("resnet_tiny"), "digits", choice, seed=seed)
    trained = train(settings, out, console=console)
    emitted = deploy.emit(out, DEMO_BOARD)
    verified = deploy.verify(out, f"qemu:{DEMO_BOARD}", console=console)
    profiled = deploy.profile(out, DEMO_BOARD)
    return pictures.conclude(RunFolder(out), DemoOutcome(trained, emitted, verified, profiled, ()))
