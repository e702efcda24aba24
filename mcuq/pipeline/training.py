"""Training: from a module and data to a saved integer network."""

from __future__ import annotations

import copy
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mcuq.data import Dataset
from mcuq.ir.bits_file import load_bits, save_bits
from mcuq.ir.files import save_integer
from mcuq.ir.graph import Graph
from mcuq.ir.integer import IntegerGraph
from mcuq.ir.plans import BitPlan
from mcuq.ir.verify import Level, verify
from mcuq.pipeline import deploy, pictures
from mcuq.pipeline.bits import decide, promise, refuse_infeasible, solved
from mcuq.pipeline.early import check_settings, empty_classes, load_data
from mcuq.pipeline.logs import STAGES, RunLog
from mcuq.pipeline.measures import CALIBRATION
from mcuq.pipeline.models import Prepared, captured, prepare
from mcuq.pipeline.outcomes import DemoOutcome, TrainOutcome
from mcuq.pipeline.progress import TrainingBar
from mcuq.pipeline.quantizers import checked, network
from mcuq.pipeline.runs import RunFolder, claim_run, find_run, new_run_path, remember
from mcuq.pipeline.settings import BitChoice, ModelSpec, TrainSettings
from mcuq.pipeline.statistics import write_confusion, write_weights
from mcuq.reference.integer import run_outputs
from mcuq.reference.ranking import Ranks, label_ranks, top1, top5

if TYPE_CHECKING:
    from mcuq.quant import QuantOp
    from mcuq.quant.progressive import Stage
    from mcuq.quant.settings import TrainConfig

DEMO_BOARD = "stm32f4"
DEMO_LIMITS = "56000,5600"
"""Flash and RAM in bytes: an all-8-bit network of the demo needs more of both."""
KEPT_TEST_BYTES = 64 << 20
"""Of held-out samples that a run keeps for ``verify``."""
JUDGED = 4096
"""Most training images on which the float network's accuracy is measured; evenly spaced, for they may be sorted."""


def train(
    settings: TrainSettings,
    out: Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
) -> TrainOutcome:
    """Train, choose bits, retrain with quantization, and save everything in ``out``.

    Limits that cannot be met are reported before anything is trained; an interrupted run, the latest one without
    ``out``, goes on with ``resume``; a run that is there is replaced only with ``overwrite``.

    Raises:
        UsageError, DataError, ModelError: wrong input; InfeasibleError: the limits; TrainingError: NaN, memory.
    """
    if resume and out is None:
        out = find_run(None).path
    check_settings(settings, out, resume=resume, overwrite=overwrite)
    dataset = load_data(settings)
    from mcuq.quant import distributed
    from mcuq.quant import train as loops

    settings = checked(settings)
    for preset, qat in ((loops.float_preset(1), False), (loops.qat_preset(1, 8), True)):
        _configured(preset, settings, qat=qat)
    with distributed.processes(settings.device) as device:
        prepared = prepare(replace(settings, device=device), dataset)
        if distributed.rank() == 0:
            return _lead(prepared, out, resume, overwrite, console)
        with tempfile.TemporaryDirectory(prefix="mcuq-rank-") as folder, TrainingBar(None) as bar:
            _trained(prepared, RunFolder(Path(folder)), bar, False)
    raise SystemExit(0)


def _lead(prepared: Prepared, out: Path | None, resume: bool, overwrite: bool, console: Console | None) -> TrainOutcome:
    """All of a training, by its first process: the one that writes."""
    began, settings = time.monotonic(), prepared.settings
    limits = settings.choice.limits()
    if limits is not None and settings.choice.bits is None:
        refuse_infeasible(prepared.graph, settings.choice, limits)
    if settings.choice.bits is not None:
        load_bits(settings.choice.bits, prepared.graph)
    run = claim_run(out or new_run_path(prepared.spec.name, settings.data), resume=resume, overwrite=overwrite)
    with run.locked(), TrainingBar(console) as bar:
        if not resume:
            _clear(run)
        for name in empty_classes(prepared.dataset):
            bar.stage(f"note: no training image of class {name}; labels count from 0")
        bar.listeners = (RunLog(run.path), *_events(settings, run, bar))
        run.write_record({"settings": _plain(settings), "finished": False})
        remember(run)
        op, plan, ranks = _trained(prepared, run, bar, resume)
        integer = _lowered(op, settings)
        outcome = _finish(prepared, run, plan, integer, ranks, began)
        pictures.write(run, plan, integer, settings.choice.core, cuts=settings.choice.cuts)
    return outcome


def _trained(
    prepared: Prepared, run: RunFolder, bar: TrainingBar, resume: bool
) -> tuple[QuantOp, BitPlan, dict[str, Ranks]]:
    """Float training, bits, training with quantization, by every process; (network, plan, ranks of held-out labels)."""
    from mcuq.quant import distributed

    float_ranks = _train_float(prepared, run, bar, resume)
    plan: BitPlan | None = None
    if distributed.rank() == 0:
        dataset = prepared.dataset
        graph = captured(prepared.module, dataset.input_shape, dataset.normalization, program=prepared.program)
        plan = _plan(graph, prepared, run, bar, resume)
    plan = distributed.of_first(plan)
    assert plan is not None
    known = by_heart(prepared, top1(float_ranks), bar)
    config = qat_config(prepared.settings, prepared.dataset, plan, known=known)
    op, qat_ranks = _train_qat(prepared, plan, config, run, bar, resume)
    return op, plan, {"float": float_ranks, "qat": qat_ranks}


def _events(settings: TrainSettings, run: RunFolder, bar: TrainingBar) -> tuple[Any, ...]:
    """The writer of event files, where they are asked for and TensorBoard is installed."""
    if not settings.tensorboard:
        return ()
    from mcuq.quant.events import Events

    try:
        return (Events(run.path / "events"),)
    except ImportError:
        bar.stage("no event files: TensorBoard is not installed (pip install tensorboard); log.csv has the numbers")
        return ()


def _clear(run: RunFolder) -> None:
    """Remove what an earlier run of mcuq left in the folder (claim_run made sure that it is one)."""
    for entry in run.path.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != ".lock":
            entry.unlink()


def _train_float(prepared: Prepared, run: RunFolder, bar: TrainingBar, resume: bool) -> Ranks:
    """Train the module unless its trained weights are there; returns ranks of the held-out labels."""
    from mcuq.quant import distributed
    from mcuq.quant import train as loops
    from mcuq.quant.evaluate import ranks
    from mcuq.quant.weights_file import load_weights, save_weights

    module, dataset, settings = prepared.module, prepared.dataset, prepared.settings
    if distributed.of_first(resume and run.float_weights.exists()):
        if distributed.rank() == 0:
            load_weights(module, run.float_weights)
        module.load_state_dict(distributed.of_first(module.state_dict()))
    elif settings.weights is None:
        config = _configured(loops.float_preset(_float_epochs(settings, dataset)), settings)
        bar.stage(f"training the float network for {config.epochs} epochs")
        folder = run.checkpoint / "float"
        going_on = resume and (folder / "state.json").exists()
        loops.train_float(module, dataset, config, progress=bar, checkpoint=folder, resume=going_on)
    module.eval()
    save_weights(module, run.float_weights)

    found, kept = ranks(_scores(prepared), dataset.x_test, dataset.y_test, device=settings.device), _kept(dataset)
    run.write_test(dataset.x_test[:kept], dataset.y_test[:kept], found[:kept] == 0)
    return found


def _scores(prepared: Prepared) -> Callable[[Any], Any]:
    """The float module as a function of uint8 pixels [N, C, H, W]."""
    from mcuq.quant.evaluate import real_inputs

    return lambda pixels: prepared.module(real_inputs(pixels, prepared.dataset.normalization))


def _kept(dataset: Dataset) -> int:
    """Held-out samples that the run keeps."""
    return max(1, min(len(dataset.x_test), KEPT_TEST_BYTES // max(1, dataset.x_test[0].size)))


def _float_epochs(settings: TrainSettings, dataset: Dataset) -> int:
    """Enough steps for small data sets, few passes over large ones."""
    if settings.float_epochs is not None:
        return settings.float_epochs
    return max(4, min(40, 60_000 // len(dataset.x_train)))


def _qat_epochs(settings: TrainSettings, dataset: Dataset) -> int:
    if settings.epochs is not None:
        return settings.epochs
    return max(2, min(20, 30_000 // len(dataset.x_train)))


def _starts_trained(settings: TrainSettings, dataset: Dataset) -> bool:
    """Quantization-aware training starts from a trained float network."""
    return settings.weights is not None or _float_epochs(settings, dataset) > 0


def qat_config(settings: TrainSettings, dataset: Dataset, plan: BitPlan, *, known: bool = False) -> TrainConfig:
    """How a plan is trained: the recipe for its bits, with the float network as teacher where that was trained."""
    from mcuq.quant.settings import qat_preset, taught_preset, typical_bits

    epochs = _qat_epochs(settings, dataset)
    trained = _starts_trained(settings, dataset)
    preset = taught_preset(epochs, plan, by_heart=known) if trained else qat_preset(epochs, typical_bits(plan))
    return _configured(preset, settings, qat=True)


def by_heart(prepared: Prepared, held_out: float, bar: TrainingBar) -> bool:
    """Whether the float network (accuracy on others: ``held_out``, 0 .. 1) knows its training images; tells so."""
    from mcuq.quant.evaluate import evaluate
    from mcuq.quant.settings import knows_by_heart

    dataset, settings = prepared.dataset, prepared.settings
    if not _starts_trained(settings, dataset):
        return False

    every = -(-len(dataset.x_train) // JUDGED)
    train = evaluate(_scores(prepared), dataset.x_train[::every], dataset.y_train[::every], device=settings.device)
    known = knows_by_heart(train, held_out)
    right = f"({100 * train:.1f} % right, {100 * held_out:.1f} % of others)"
    if known:
        bar.stage(f"the float network knows its training images by heart {right}: it teaches, in small steps")
    else:
        bar.stage(f"the float network does not know its training images by heart {right}: they stay as they are")
    return known


def _configured(config: Any, settings: TrainSettings, *, qat: bool = False) -> Any:
    """The recipe with what the user set explicitly."""
    changes: dict[str, Any] = {"seed": settings.seed, "device": settings.device}
    if settings.batch_size is not None:
        changes["batch_size"] = settings.batch_size
    if settings.optimizer is not None:
        changes["optimizer"] = settings.optimizer
    from mcuq.quant.settings import IN_BOTH, recipe_values

    recipe = recipe_values(settings.recipe)
    changes |= recipe if qat else {name: value for name, value in recipe.items() if name in IN_BOTH}
    if qat and settings.lr is not None:
        changes["lr"] = settings.lr
    return replace(config, **changes)


def _plan(graph: Graph, prepared: Prepared, run: RunFolder, bar: TrainingBar, resume: bool) -> BitPlan:
    """The bits: those of the resumed run, or decided now and saved."""
    dataset, settings = prepared.dataset, prepared.settings
    if resume and run.bits.exists():
        return load_bits(run.bits, graph)

    def calibrated(plan: BitPlan) -> IntegerGraph:
        from mcuq.quant.batches import Batches

        module, epochs = copy.deepcopy(prepared.module), _qat_epochs(settings, dataset)
        op = network(module, dataset, settings, plan, epochs, program=prepared.program)
        op.calibrate(Batches(dataset.x_train[:CALIBRATION], None, 64).images())
        return _lowered(op, settings)

    plan = decide(graph, settings.choice, dataset, calibrated, bar.stage, run.write_sensitivity)
    save_bits(plan, run.bits)
    return plan


def _train_qat(
    prepared: Prepared, plan: BitPlan, config: TrainConfig, run: RunFolder, bar: TrainingBar, resume: bool
) -> tuple[QuantOp, Ranks]:
    """Quantization-aware training under ``plan``; returns the network and its ranks of the held-out labels."""
    from mcuq.quant import train as loops
    from mcuq.quant.evaluate import quantized_ranks
    from mcuq.quant.histograms import real_weights, weight_histograms
    from mcuq.quant.progressive import stages

    dataset, settings = prepared.dataset, prepared.settings
    teacher = copy.deepcopy(prepared.module) if config.distill > 0 else None

    before: dict[str, Any] = {}

    def trained(stage: Stage) -> QuantOp:
        op = network(prepared.module, dataset, settings, stage.plan, stage.config.epochs, program=prepared.program)
        before.update(before or real_weights(op))
        bar.stage(f"quantization-aware training for {stage.config.epochs} epochs ({STAGES[stage.phase]})")
        folder = run.checkpoint / stage.phase
        loops.train_qat(
            op,
            dataset,
            stage.config,
            progress=bar,
            checkpoint=folder,
            resume=resume and (folder / "state.json").exists(),
            teacher=teacher,
            phase=stage.phase,
        )
        return op

    op = [trained(stage) for stage in stages(plan, config)][-1]
    write_weights(run, weight_histograms(op, before))
    return op, quantized_ranks(op, dataset.x_test, dataset.y_test, device=settings.device)


def _lowered(op: QuantOp, settings: TrainSettings) -> IntegerGraph:
    from mcuq.lower import lower, simplified

    graph = simplified(lower(op.generate_deployment_model(), logits_bits=settings.logits))
    verify(graph, Level.INTEGER)
    return graph


def _finish(
    prepared: Prepared,
    run: RunFolder,
    plan: BitPlan,
    integer: IntegerGraph,
    ranks: dict[str, Ranks],
    began: float,
) -> TrainOutcome:
    """Save the integer network and the held-out samples, measure the oracle, complete the record."""
    settings = prepared.settings
    x, y = prepared.dataset.x_test, prepared.dataset.y_test
    output = run_outputs(integer, x)[integer.outputs[0]]
    write_confusion(run, output, y, prepared.dataset.classes)
    ranks = {**ranks, "oracle": label_ranks(output, y)}
    accuracy: dict[str, float | None] = {name: top1(found) for name, found in ranks.items()}
    five = {name: top5(found, output) for name, found in ranks.items()}
    save_integer(integer, run.model, {"model": prepared.spec.name, "data": prepared.dataset.name})
    seconds = time.monotonic() - began
    run.write_record(
        {
            "settings": _plain(settings),
            "finished": True,
            "accuracy": accuracy,
            "top5": five,
            "seconds": round(seconds, 1),
        }
    )
    promised = promise(integer, settings.choice) if plan.method == "exact" else None
    found = solved(plan, prepared.graph, str(run.bits), settings.choice)
    return TrainOutcome(str(run.path), found, accuracy, seconds, promised, five)


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
    trained = train(settings, out, overwrite=True, console=console)
    emitted = deploy.emit(out, DEMO_BOARD)
    verified = deploy.verify(out, f"qemu:{DEMO_BOARD}", console=console)
    profiled = deploy.profile(out, DEMO_BOARD)
    return pictures.conclude(RunFolder(out), DemoOutcome(trained, emitted, verified, profiled, ()))
