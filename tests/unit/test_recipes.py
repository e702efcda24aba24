"""What a user leaves out and sets: default models, recipes, wider bits first, logs, live progress."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mcuq.data.dataset import Augmentation, Dataset
from mcuq.errors import UsageError
from mcuq.ir.graph import Graph, Normalization
from mcuq.ir.plans import BitPlan, Limits, TensorBits
from mcuq.pipeline import BitChoice, ModelSpec, TrainSettings, logs, model_spec, parse_recipe
from mcuq.pipeline.models import Prepared
from mcuq.pipeline.progress import TrainingBar, duration
from mcuq.pipeline.settings import default_model
from mcuq.pipeline.training import by_heart, qat_config

torch = pytest.importorskip("torch")
from mcuq.quant.progressive import stages  # noqa: E402
from mcuq.quant.settings import (  # noqa: E402
    EpochResult,
    Step,
    TrainConfig,
    knows_by_heart,
    qat_preset,
    recipe_values,
    taught_preset,
    typical_bits,
)


@pytest.mark.parametrize(
    ("shape", "name"),
    [((8, 8, 1), "resnet_tiny"), ((28, 28, 1), "resnet8"), ((32, 48, 3), "resnet8"), ((96, 96, 3), "mobilenet_v1")],
)
def test_the_default_model_follows_the_images(shape: tuple[int, ...], name: str) -> None:
    assert default_model(shape).name == name


def test_options_of_no_model_are_refused() -> None:
    assert model_spec(None) is None
    assert model_spec("resnet8", 0.5) == ModelSpec("resnet8", 0.5)
    with pytest.raises(UsageError, match="name it with --model"):
        model_spec(None, 0.5)


def test_recipe_texts_become_values() -> None:
    pairs = parse_recipe(["ema=0.9", "label-smoothing=0.1", "reestimate=5", "augment=0"])
    assert recipe_values(pairs) == {"ema": 0.9, "label_smoothing": 0.1, "reestimate": 5, "augment": 0.0}
    with pytest.raises(UsageError, match="takes name=value"):
        parse_recipe(["ema"])
    with pytest.raises(UsageError, match=r"knows augment, .*got 'lr'"):
        recipe_values([("lr", "1")])
    with pytest.raises(UsageError, match="reestimate=x: int is needed"):
        recipe_values([("reestimate", "x")])


def test_images_are_augmented_as_the_data_and_the_user_say() -> None:
    own = Augmentation(flip=True, shift=1)
    assert TrainConfig(1).augmentation(own) == own
    assert TrainConfig(1, shift=3).augmentation(own) == Augmentation(flip=True, shift=3)
    assert TrainConfig(1, flip=True).augmentation(Augmentation()) == Augmentation(flip=True)
    assert TrainConfig(1, augment=0, flip=True).augmentation(own) == Augmentation()
    ten = TrainConfig(10, augment=0.75)
    assert [ten.augmentation(own, epoch) == own for epoch in range(10)] == [True] * 8 + [False] * 2
    with pytest.raises(UsageError, match="number of pixels"):
        TrainConfig(1, shift=-1)
    with pytest.raises(UsageError, match="augment is a share"):
        TrainConfig(1, augment=1.5)


def test_a_network_that_knows_its_images_by_heart_is_retrained_gently() -> None:
    assert knows_by_heart(0.997, 0.914) and not knows_by_heart(0.856, 0.838)
    gentle, other = taught_preset(2, plan_of(4), by_heart=True), taught_preset(2, plan_of(4))
    assert (gentle.lr, gentle.distill, gentle.augment) == (other.lr / 4, 1.0, 1.0)
    assert other.augment == 0.0


@pytest.mark.parametrize(
    ("right", "recipe", "expected"),
    [
        (0.75, (), (True, 1.0, "by heart (75.0 % right, 50.0 % of others): it teaches")),
        (0.5, (), (False, 0.0, "by heart (50.0 % right, 50.0 % of others): they stay")),
        (0.5, (("augment", "1"),), (False, 1.0, "they stay")),
    ],
)
def test_training_tells_how_it_retrains(
    right: float, recipe: tuple[tuple[str, str], ...], expected: tuple[bool, float, str]
) -> None:
    x, y = np.zeros((8, 4, 4, 1), np.uint8), (np.arange(8) >= 8 * right).astype(np.int64)
    x, y = np.repeat(x, 1024, 0), np.repeat(y, 1024)  # sorted, and more than are looked at
    data = Dataset("two", x, y, x, y, ("a", "b"), Normalization(1.0, 0))
    settings = TrainSettings(ModelSpec("resnet_tiny"), "two", BitChoice(), recipe=recipe)
    first = lambda images: torch.tensor([[1.0, 0.0]]).expand(len(images), 2)  # noqa: E731
    prepared = Prepared(settings, ModelSpec("resnet_tiny"), first, data, None, Graph((), ()))
    console = Console(file=io.StringIO(), width=200)
    with TrainingBar(console) as bar:
        known = by_heart(prepared, 0.5, bar)
    assert (known, qat_config(settings, data, plan_of(4), known=known).augment) == expected[:2]
    assert expected[2] in console.file.getvalue()


def plan_of(*bits: int) -> BitPlan:
    tensors = tuple(TensorBits(f"t{i}", f"t{i}", "activation", b, 1) for i, b in enumerate(bits))
    return BitPlan(tensors, "FEASIBLE", 0.0, 0.0, 1, 1, Limits(1, 1), "uniform")


@pytest.mark.parametrize(
    ("bits", "epochs", "share", "expected"),
    [
        ((8, 4, 2), 10, 0.5, [("qat-8", (8, 8, 8), 3), ("qat-4", (8, 4, 4), 2), ("qat", (8, 4, 2), 5)]),
        ((8, 4), 10, 0.3, [("qat-8", (8, 8), 3), ("qat", (8, 4), 7)]),
        ((8, 8), 10, 0.5, [("qat", (8, 8), 10)]),
        ((4, 2), 3, 0.9, [("qat-8", (8, 8), 1), ("qat-4", (4, 4), 1), ("qat", (4, 2), 1)]),
        ((4, 2), 2, 0.5, [("qat", (4, 2), 2)]),
        ((4, 2), 10, 0.0, [("qat", (4, 2), 10)]),
    ],
)
def test_wider_bits_come_first(
    bits: tuple[int, ...], epochs: int, share: float, expected: list[tuple[str, tuple[int, ...], int]]
) -> None:
    found = stages(plan_of(*bits), TrainConfig(epochs, progressive=share))
    assert [(s.phase, tuple(t.bits for t in s.plan.tensors), s.config.epochs) for s in found] == expected


@pytest.mark.parametrize(
    ("weights", "outputs", "lr", "step_lr", "distill"),
    [
        (8, 8, 2e-3, 1e-3, 0.0),
        (4, 8, 2e-3, 2e-3, 0.0),
        (2, 8, 6e-3, 1e-2, 0.5),
        (4, 4, 2e-3, 1e-2, 0.5),
        (2, 2, 6e-3, 1e-2, 0.5),
    ],
)
def test_the_float_network_teaches_where_bits_are_few(
    weights: int, outputs: int, lr: float, step_lr: float, distill: float
) -> None:
    kinds = (("weight", weights), ("activation", outputs))
    tensors = tuple(TensorBits(f"{kind}{i}", f"{i}", kind, n, 1) for kind, n in kinds for i in range(3))  # type: ignore[arg-type]
    found = taught_preset(3, replace(plan_of(8), tensors=tensors))
    assert (found.epochs, found.lr, found.step_lr, found.ema, found.distill) == (3, lr, step_lr, 0.99, distill)


def test_a_network_that_was_never_trained_does_not_teach() -> None:
    none = np.zeros((4, 8, 8, 1), np.uint8), np.zeros(4, np.int64)
    data = Dataset("none", *none, *none, ("a",), Normalization(1.0, 0))
    plan, own = plan_of(2, 2), TrainSettings(ModelSpec("resnet_tiny"), "digits", BitChoice(), epochs=2)
    untrained = replace(own, float_epochs=0)
    assert qat_config(own, data, plan) == taught_preset(2, plan) != qat_preset(2, 2)
    assert qat_config(replace(untrained, weights=Path("trained")), data, plan) == taught_preset(2, plan)
    assert qat_config(untrained, data, plan) == qat_preset(2, 2)
    asked = replace(own, recipe=(("distill", "0"), ("ema", "0")), lr=1e-4)
    assert qat_config(asked, data, plan) == replace(qat_preset(2, 2), lr=1e-4, augment=0)


def result(epoch: int, loss: float, accuracy: float | None = 0.5, phase: str = "qat") -> EpochResult:
    return EpochResult(phase, epoch, loss, 0.25, accuracy, 1e-3, 2.0, {"a": 0.5 * loss, "a.weight": loss})  # type: ignore[arg-type]


def test_logs_are_written_as_epochs_end_and_survive_a_crash(tmp_path: Path) -> None:
    log = logs.RunLog(tmp_path)
    log.on_epoch(replace(result(0, 9.0, None, "float"), scales={}))
    for epoch, loss in ((0, 4.0), (1, 3.0)):
        log.on_epoch(result(epoch, loss))
    logs.RunLog(tmp_path).on_epoch(result(1, 3.5))  # resumed before the state of epoch 1 was saved
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert rows[0] == "phase,epoch,loss,train_accuracy,accuracy,lr,seconds"
    assert rows[1:] == ["float,0,9.0,0.25,,0.001,2.0", "qat,0,4.0,0.25,0.5,0.001,2.0", "qat,1,3.5,0.25,0.5,0.001,2.0"]
    points = logs.epochs(tmp_path)
    assert [(p.stage, p.loss, p.test_accuracy) for p in points] == [
        ("float", 9.0, None),
        ("quantized", 4.0, 0.5),
        ("quantized", 3.5, 0.5),
    ]
    assert logs.scales(tmp_path) == {"a": [2.0, 1.75], "a.weight": [4.0, 3.5]}
    assert logs.epochs(tmp_path / "none") == [] and logs.scales(tmp_path / "none") == {}


def test_progress_says_how_long_it_will_take() -> None:
    text = io.StringIO()
    bar = TrainingBar(Console(file=text, width=200))
    seen: list[object] = []
    bar.listeners = (type("Listener", (), {"on_step": seen.append, "on_epoch": seen.append}),)
    with bar:
        bar.on_step(Step("qat", 0, 40, 0, 10, 1.0, 1e-3))
        bar.on_epoch(result(0, 1.0))
        bar.on_epoch(result(39, 1.0))
    assert "qat epoch 1/40: loss 1.0000, train 25.00 %, held out 50.00 %, 2.0 s, 1 min 18 s left" in text.getvalue()
    assert "qat epoch 40/40: loss 1.0000, train 25.00 %, held out 50.00 %, 2.0 s\n" in text.getvalue()
    assert len(seen) == 3
    assert [duration(s) for s in (0.4, 59, 7500)] == ["0 s", "59 s", "2 h 5 min"]


def test_event_files_hold_the_curves(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from mcuq.quant.events import Events

    events = Events(tmp_path)
    for number in range(41):
        events.on_step(Step("qat", 0, 1, number, 41, 1.0 / (1 + number), 1e-3))
    events.on_epoch(result(0, 1.0))
    read = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert [(p.step, round(p.value, 4)) for p in read.Scalars("qat/loss")] == [(0, 1.0), (20, 0.0476), (40, 0.0244)]
    assert read.Scalars("scales/a")[0].value == 0.5 and read.Scalars("qat/accuracy")[0].value == 0.5


@pytest.mark.parametrize(
    ("weights", "outputs", "typical"),
    [
        ("84448", "844448", 4),
        ("84448", "888888", 4),
        ("82228", "844448", 2),
        ("8444444224", "844444442448", 4),
        ("848", "828", 2),
        ("8", "88", 8),
    ],
)
def test_recipes_are_for_the_typical_bits_of_a_plan(weights: str, outputs: str, typical: int) -> None:
    kinds = (("weight", weights), ("activation", outputs))
    tensors = [TensorBits(f"{kind}{i}", f"{i}", kind, int(n), 1) for kind, bits in kinds for i, n in enumerate(bits)]  # type: ignore[arg-type]
    plan = BitPlan(tuple(tensors), "OPTIMAL", 0.0, 0.0, 0, 0, Limits(0, 0), "exact")
    assert typical_bits(plan) == typical
