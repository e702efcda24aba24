"""How to train, and what a training tells: configuration, presets, schedule, progress."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, Literal, Protocol

from mcuq.data.dataset import Augmentation
from mcuq.errors import UsageError
from mcuq.ir.plans import BitPlan

Phase = Literal["float", "qat", "qat-8", "qat-4"]
"""Float training, training with the bits to deploy, and before that with no tensor below 8 or 4 bits."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How to train. Rates follow a linear warm-up, then half a cosine to zero.

    Attributes:
        step_lr: rate of thresholds and steps (QAT only). warmup: share of all steps.
        weight_decay: of weights; not of biases, norms, steps.
        progressive: share of the epochs at wider bits first, see ``mcuq.quant.progressive``.
        reestimate: batches from which batch norm statistics are averaged anew before they freeze; 0 is never.
        calibration: images on which activation ranges start.
        augment: share of the epochs in which images are changed; those at the end show them as they are. flip, shift:
            mirror them, shift them by so many pixels, beyond what the data set says of itself.
        ema: decay of the averaged weights that are validated and handed over; 0 is none.
        distill: share of the loss that is divergence from the float network's scores at ``temperature``.
        dampening, freezing: against oscillating weights, see ``mcuq.quant.hooks``; strength, and share of steps that
            change direction above which a weight is held.
    """

    epochs: int
    batch_size: int = 128
    lr: float = 2e-3
    step_lr: float = 1e-2
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = 1e-3
    momentum: float = 0.9
    warmup: float = 0.1
    label_smoothing: float = 0.0
    ema: float = 0.0
    distill: float = 0.0
    temperature: float = 2.0
    dampening: float = 0.0
    freezing: float = 0.0
    progressive: float = 0.0
    reestimate: int = 40
    calibration: int = 512
    augment: float = 1.0
    flip: bool = False
    shift: int = 0
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.optimizer not in ("adamw", "sgd"):
            raise UsageError(f"optimizer must be adamw or sgd, got {self.optimizer!r}")
        if self.epochs < 0 or self.batch_size < 1 or not self.lr > 0:
            raise UsageError(
                f"epochs >= 0, batch_size >= 1 and lr > 0 are needed, got {self.epochs}, {self.batch_size}, {self.lr}"
            )
        for name in ("label_smoothing", "ema", "distill", "freezing", "progressive", "augment"):
            share = getattr(self, name)
            if not 0 <= share <= 1 or (name in ("ema", "progressive") and share == 1):
                raise UsageError(f"{name} is a share between 0 and 1, got {share}")
        if self.shift < 0:
            raise UsageError(f"shift is a number of pixels, got {self.shift}")
        if not (self.temperature > 0 and self.dampening >= 0):
            raise UsageError(f"temperature > 0 and dampening >= 0 are needed, got {self.temperature}, {self.dampening}")

    def augmentation(self, own: Augmentation, epoch: int = 0) -> Augmentation:
        """What happens to images of a data set whose ``own`` augmentation is known."""
        if epoch >= round(self.augment * self.epochs):
            return Augmentation()
        return Augmentation(flip=own.flip or self.flip, shift=max(own.shift, self.shift))


def float_preset(epochs: int) -> TrainConfig:
    """Defaults for float training from scratch; it ends on images as they are (He et al., arXiv 1909.09148)."""
    return TrainConfig(epochs, lr=4e-3, weight_decay=1e-2, warmup=0.15, augment=0.8)


def knows_by_heart(train: float, held_out: float) -> bool:
    """Whether a float network with these accuracies (0 .. 1) has learnt its images, see :func:`taught_preset`."""
    return train - held_out > 0.03


def qat_preset(epochs: int, bits: int) -> TrainConfig:
    """Defaults for retraining a trained network whose :func:`typical_bits` are ``bits`` (8, 4 or 2)."""
    lr = {8: 2e-3, 4: 2e-3, 2: 6e-3}[bits]
    step_lr = {8: 1e-3, 4: 1e-2, 2: 1e-2}[bits]
    return TrainConfig(epochs, lr=lr, step_lr=step_lr, weight_decay=1e-3)


def taught_preset(epochs: int, plan: BitPlan, *, by_heart: bool = False) -> TrainConfig:
    """Defaults for retraining a float network under ``plan``, with that network as teacher: averaged weights too.

    Most networks for microcontrollers are too small to learn their training images by heart. They go on learning, from
    images as they are: changed ones are only harder. Half of the loss is distillation where so few bits lose much of
    what the teacher knows; with more of them the student may outgrow its teacher, and labels alone are better, as are
    steps that learn no faster than weights.

    One that :func:`knows_by_heart` has nothing more to learn from labels: it keeps what it knows in smaller steps, from
    the teacher's scores on changed images.
    """
    preset = replace(qat_preset(epochs, typical_bits(plan)), ema=0.99)
    if by_heart:
        return replace(preset, lr=preset.lr / 4, distill=1.0, temperature=3.0)
    if sum(typical_widths(plan)) <= TAUGHT_WIDTHS:
        return replace(preset, augment=0.0, distill=0.5)
    return replace(preset, augment=0.0, step_lr=min(preset.step_lr, preset.lr))


TAUGHT_WIDTHS = 10
"""Most typical bits of weights and outputs together at which the float network teaches: 2/8 and 4/4, not 4/8."""


def typical_bits(plan: BitPlan) -> int:
    """Bits that a recipe is for: those of weights or of outputs, the lower one of :func:`typical_widths`."""
    return min(typical_widths(plan))


def typical_widths(plan: BitPlan) -> tuple[int, int]:
    """Medians of the bits of (weights, outputs), 8 without any; ends, often wider, left out."""
    weights, outputs = ([t.bits for t in plan.tensors if t.kind == kind] for kind in ("weight", "activation"))
    return _median(weights), _median(outputs)


def _median(bits: list[int]) -> int:
    return statistics.median_low(bits[1:-1] or bits or [8])


def recipe_values(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Values for :class:`TrainConfig` from ``name=value`` texts. Raises UsageError for unknown names and values."""
    kinds = {f.name: type(f.default) for f in fields(TrainConfig) if f.default is not MISSING and f.name not in _OTHERS}
    values: dict[str, Any] = {}
    for name, text in pairs:
        if name not in kinds:
            raise UsageError(f"--recipe knows {', '.join(sorted(kinds))}; got {name!r}")
        try:
            values[name] = _truth(text) if kinds[name] is bool else kinds[name](text)
        except ValueError:
            raise UsageError(f"--recipe {name}={text}: {kinds[name].__name__} is needed") from None
    return values


IN_BOTH = ("augment", "flip", "shift", "label_smoothing")
"""Settings of a recipe that hold for float training too."""
_OTHERS = ("lr", "optimizer", "seed", "device", "batch_size")
"""Fields with an option of their own."""


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError(text)
    return text.lower() in ("true", "1")


def default_fold_delay(epochs: int, *, changes: bool) -> int:
    """Epoch from which batch norms freeze when nobody says: at the end, so that they follow the quantized weights.

    Late in training where what is quantized ``changes`` with that, and has to adapt: folded weights, SAT's scales.
    """
    if not changes:
        return epochs
    return max(1, round(0.7 * epochs)) if epochs > 1 else 0


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step was done."""

    phase: Phase
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    lr: float


@dataclass(frozen=True, slots=True)
class EpochResult:
    """One epoch was done; ``loss`` and ``train_accuracy`` are means over it, ``accuracy`` is on held-out data.

    ``scales``: step sizes at its end by tensor, weights (``<layer>.weight``) as geometric mean over channels.
    """

    phase: Phase
    epoch: int
    loss: float
    train_accuracy: float
    accuracy: float | None
    lr: float
    seconds: float
    scales: dict[str, float] = field(default_factory=dict[str, float])


class Progress(Protocol):
    """What a training tells; implement both methods."""

    def on_step(self, step: Step) -> None: ...

    def on_epoch(self, result: EpochResult) -> None: ...


class Silent:
    """Tells nobody."""

    def on_step(self, step: Step) -> None: ...

    def on_epoch(self, result: EpochResult) -> None: ...


def schedule(step: int, steps: int, warmup: float) -> float:
    """Factor on the learning rate at ``step`` of ``steps``: linear warm-up, then half a cosine to zero."""
    ramp = max(1, round(steps * warmup))
    if step < ramp:
        return (step + 1) / ramp
    return 0.5 * (1.0 + math.cos(math.pi * (step - ramp) / max(1, steps - ramp)))
