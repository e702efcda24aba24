"""Training loops: float training of a module and quantization-aware training of a :class:`QuantOp`.

Data stay uint8 in memory and become channels_last batches without copies. All randomness comes from the
configured seed, and a resumed training gives the same bits as one that was never interrupted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mcuq.data.dataset import Augmentation, Dataset
from mcuq.errors import TrainingError, UsageError
from mcuq.ir.graph import Normalization
from mcuq.quant import checkpoint as checkpoints
from mcuq.quant.batches import Batches
from mcuq.quant.checkpoint import Checkpoint
from mcuq.quant.diagnosis import first_bad_layer, first_bad_module
from mcuq.quant.quant_op import QuantOp

Phase = Literal["float", "qat"]


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How to train. Rates follow a linear warm-up, then half a cosine to zero.

    Attributes:
        step_lr: rate of thresholds and steps (QAT only). warmup: share of all steps.
        weight_decay: of weights; not of biases, norms, steps.
        reestimate: batches from which batch norm statistics are averaged anew before they freeze; 0 is never.
        calibration: images on which activation ranges start.
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
    reestimate: int = 40
    calibration: int = 512
    augment: bool = True
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.optimizer not in ("adamw", "sgd"):
            raise UsageError(f"optimizer must be adamw or sgd, got {self.optimizer!r}")
        if self.epochs < 0 or self.batch_size < 1 or not self.lr > 0:
            raise UsageError(
                f"epochs >= 0, batch_size >= 1 and lr > 0 are needed, got {self.epochs}, {self.batch_size}, {self.lr}"
            )


def float_preset(epochs: int) -> TrainConfig:
    """Defaults for float training from scratch."""
    return TrainConfig(epochs, lr=4e-3, weight_decay=1e-2, warmup=0.15)


def qat_preset(epochs: int, bits: int) -> TrainConfig:
    """Defaults for retraining a trained network when ``bits`` is its narrowest tensor (8, 4 or 2)."""
    lr = {8: 3e-4, 4: 1e-3, 2: 3e-3}[bits]
    step_lr = {8: 1e-3, 4: 1e-2, 2: 1e-2}[bits]
    return TrainConfig(epochs, lr=lr, step_lr=step_lr, weight_decay=1e-3)


def default_fold_delay(epochs: int) -> int:
    """Epoch from which batch norms freeze when nobody says: late, so that they follow the quantized weights."""
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
    """One epoch was done; ``loss`` and ``train_accuracy`` are means over it, ``accuracy`` is on held-out data."""

    phase: Phase
    epoch: int
    loss: float
    train_accuracy: float
    accuracy: float | None
    lr: float
    seconds: float


class Progress(Protocol):
    """What a training tells; implement both methods."""

    def on_step(self, step: Step) -> None: ...

    def on_epoch(self, result: EpochResult) -> None: ...


class Silent:
    """Tells nobody."""

    def on_step(self, step: Step) -> None: ...

    def on_epoch(self, result: EpochResult) -> None: ...


def train_float(
    model: nn.Module,
    data: Dataset,
    config: TrainConfig,
    *,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    validate: bool = True,
) -> list[EpochResult]:
    """Train ``model`` in place on ``data``; it ends in eval mode.

    Args:
        checkpoint: folder of the state after each epoch; with ``resume`` training goes on from it.
        validate: measure accuracy on the test split after each epoch.

    Raises:
        TrainingError: NaN loss (the text names the layer), out of memory, damaged checkpoint.
    """
    model.to(config.device)
    layout = data.normalization
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    groups = [
        {"params": decayed, "lr": config.lr, "weight_decay": config.weight_decay},
        {"params": others, "lr": config.lr, "weight_decay": 0.0},
    ]
    loop = _Loop(
        phase="float",
        module=model,
        forward=lambda x: cast(Tensor, model(real_inputs(x, layout))),
        optimizer=_optimizer(groups, config),
        data=data,
        config=config,
        progress=progress or Silent(),
        folder=checkpoint,
        diagnose=lambda x: first_bad_module(model, real_inputs(x, layout)),
    )
    history = loop.run(resume=resume, validate=validate)
    model.eval()
    return history


def train_qat(
    op: QuantOp,
    data: Dataset,
    config: TrainConfig,
    *,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    validate: bool = True,
) -> list[EpochResult]:
    """Train ``op`` (and so the user's model) with quantization in the loop; it ends in eval mode.

    Activation ranges are calibrated first where they are not set. Before batch norms freeze, and at the end
    where they never did, their statistics are averaged anew with quantized weights.

    Args and errors as :func:`train_float`.
    """
    op.to(config.device)
    if not op.ready:
        calibration = Batches(data.x_train[: config.calibration], None, config.batch_size, config.device)
        op.calibrate(calibration.images())
    optimizer = _optimizer(op.param_groups(config.lr, config.weight_decay, config.step_lr), config)
    op.guard(optimizer)

    def start(epoch: int) -> None:
        if not op.frozen and epoch >= op.fold_delay > 0:
            reestimate_batch_norm(op, data, config)
        op.start_epoch(epoch)

    loop = _Loop(
        phase="qat",
        module=op,
        forward=lambda x: cast(Tensor, op(x)),
        optimizer=optimizer,
        data=data,
        config=config,
        progress=progress or Silent(),
        folder=checkpoint,
        diagnose=lambda x: first_bad_layer(op, x),
        start=start,
        op=op,
    )
    history = loop.run(resume=resume, validate=validate)
    if not op.frozen and config.epochs > 0:
        reestimate_batch_norm(op, data, config)
    op.eval()
    return history


def reestimate_batch_norm(op: QuantOp, data: Dataset, config: TrainConfig) -> None:
    """Average batch norm statistics anew over ``config.reestimate`` training batches, weights quantized.

    Oscillating weights leave the moving averages behind (Nagel et al., ICML 2022). Layers whose batch norm is
    folded keep theirs, because their quantized weights depend on it.
    """
    count = min(config.reestimate * config.batch_size, len(data.x_train))
    if count < config.batch_size:
        return
    chosen = torch.randperm(len(data.x_train), generator=torch.Generator().manual_seed(config.seed))[:count]
    part = Batches(data.x_train[chosen.numpy()], None, config.batch_size, config.device)
    op.reestimate(batch for batch in part.images() if len(batch) == config.batch_size)


def real_inputs(x: Tensor, normalization: Normalization) -> Tensor:
    """uint8 pixels [N, C, H, W] as a float module sees them."""
    return (x.float() - normalization.zero_point) * normalization.scale


def evaluate(
    predict: Callable[[Tensor], Tensor], x: NDArray[Any], y: NDArray[Any], *, batch_size: int = 256, device: str = "cpu"
) -> float:
    """Accuracy of ``predict``, which maps uint8 pixels [N, C, H, W] to scores [N, classes]."""
    right = 0
    with torch.no_grad():
        for images, labels in Batches(x, y, batch_size, device).pairs():
            right += int((predict(images).flatten(1).argmax(1) == labels).sum())
    return right / len(x)


def accuracy(op: QuantOp, x: NDArray[Any], y: NDArray[Any], *, batch_size: int = 256, device: str = "cpu") -> float:
    """Accuracy of the fake-quantized network; mode and weights are left as they were."""
    training = op.training
    op.eval()
    try:
        with nullcontext() if op.stored else op.quantized():
            return evaluate(lambda images: cast(Tensor, op(images)), x, y, batch_size=batch_size, device=device)
    finally:
        op.train(training)


def _optimizer(groups: list[dict[str, Any]], config: TrainConfig) -> torch.optim.Optimizer:
    groups = [{**group, "base_lr": group["lr"]} for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=True)
    return torch.optim.AdamW(groups, lr=config.lr)


def schedule(step: int, steps: int, warmup: float) -> float:
    """Factor on the learning rate at ``step`` of ``steps``: linear warm-up, then half a cosine to zero."""
    ramp = max(1, round(steps * warmup))
    if step < ramp:
        return (step + 1) / ramp
    return 0.5 * (1.0 + math.cos(math.pi * (step - ramp) / max(1, steps - ramp)))


@dataclass(slots=True, eq=False, kw_only=True)
class _Loop:
    """State of one training; ``run`` is all of it."""

    phase: Phase
    module: nn.Module
    forward: Callable[[Tensor], Tensor]
    optimizer: torch.optim.Optimizer
    data: Dataset
    config: TrainConfig
    progress: Progress
    folder: Path | None
    diagnose: Callable[[Tensor], str]
    start: Callable[[int], None] = lambda epoch: None
    op: QuantOp | None = None
    generator: torch.Generator = field(default_factory=torch.Generator)
    history: list[EpochResult] = field(default_factory=list[EpochResult])

    def run(self, *, resume: bool, validate: bool) -> list[EpochResult]:
        self.generator.manual_seed(self.config.seed)
        devices = [torch.device(self.config.device)] if self.config.device.startswith("cuda") else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.config.seed)
            first = self._load() if resume else 0
            for epoch in range(first, self.config.epochs):
                self.start(epoch)
                self._epoch(epoch, validate)
                if self.folder is not None:
                    self._save(epoch + 1)
        return self.history

    def _epoch(self, epoch: int, validate: bool) -> None:
        began = time.monotonic()
        augmentation = self.data.augmentation if self.config.augment else Augmentation()
        source = Batches(
            self.data.x_train,
            self.data.y_train,
            self.config.batch_size,
            self.config.device,
            augmentation=augmentation,
            fill=self.data.normalization.zero_point,
            generator=self.generator,
        )
        self.module.train()
        total, right, seen, lr = 0.0, 0, 0, 0.0
        for number, (images, labels) in enumerate(source.pairs()):
            lr = self._set_rate(epoch * len(source) + number, self.config.epochs * len(source))
            loss, hits = self._step(images, labels, epoch, number)
            total, right, seen = total + loss * len(images), right + hits, seen + len(images)
            self.progress.on_step(Step(self.phase, epoch, self.config.epochs, number, len(source), loss, lr))
        held_out = self._validate() if validate else None
        result = EpochResult(self.phase, epoch, total / seen, right / seen, held_out, lr, time.monotonic() - began)
        self.history.append(result)
        self.progress.on_epoch(result)

    def _set_rate(self, step: int, steps: int) -> float:
        factor = schedule(step, steps, self.config.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        return self.config.lr * factor

    def _step(self, images: Tensor, labels: Tensor, epoch: int, number: int) -> tuple[float, int]:
        self.optimizer.zero_grad()
        try:
            with self.op.quantized() if self.op is not None else nullcontext():
                scores = self.forward(images).flatten(1)
                loss = F.cross_entropy(scores, labels, label_smoothing=self.config.label_smoothing)
                value = float(loss.detach())
                if not math.isfinite(value):
                    raise TrainingError(
                        f"{self.phase} training: the loss is {value} in epoch {epoch + 1}, step {number + 1}; first "
                        f"not finite: {self.diagnose(images)}. Lower the learning rate (now {self.config.lr:g})."
                    )
                loss.backward()
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if "memory" not in str(error):
                raise
            raise TrainingError(
                f"out of memory with batches of {self.config.batch_size}; take smaller ones (--batch-size)"
            ) from error
        self.optimizer.step()
        return value, int((scores.detach().argmax(1) == labels).sum())

    def _validate(self) -> float:
        x, y, device = self.data.x_test, self.data.y_test, self.config.device
        if self.op is not None:
            return accuracy(self.op, x, y, device=device)
        self.module.eval()
        return evaluate(self.forward, x, y, device=device)

    # -- state --------------------------------------------------------------------------------------------

    def _identity(self) -> dict[str, Any]:
        """What has to agree for a state to be resumed; epochs may not change, the schedule depends on them."""
        return {
            "phase": self.phase,
            "data": [self.data.name, len(self.data.x_train)],
            "config": asdict(replace(self.config, device="")),
        }

    def _save(self, epoch: int) -> None:
        assert self.folder is not None
        tensors = checkpoints.module_tensors(self.module) | checkpoints.optimizer_tensors(self.optimizer)
        tensors |= {"rng.order": self.generator.get_state(), "rng.torch": torch.get_rng_state()}
        if self.config.device.startswith("cuda"):
            tensors["rng.cuda"] = torch.cuda.get_rng_state()
        document = {
            "identity": self._identity(),
            "epoch": epoch,
            "history": [asdict(result) for result in self.history],
        }
        checkpoints.write(self.folder, Checkpoint(tensors, document))

    def _load(self) -> int:
        if self.folder is None:
            raise UsageError("resume needs a checkpoint folder")
        state = checkpoints.read(self.folder)
        found, expected = state.document.get("identity"), self._identity()
        if found != expected:
            raise TrainingError(
                f"checkpoint {self.folder} was made with other settings: {_difference(found, expected)}; "
                "use the same ones, or start without --resume"
            )
        try:
            checkpoints.load_module(self.module, state, self.folder)
            checkpoints.load_optimizer(self.optimizer, state)
            self.generator.set_state(state.tensors["rng.order"])
            torch.set_rng_state(state.tensors["rng.torch"])
            if "rng.cuda" in state.tensors:
                torch.cuda.set_rng_state(state.tensors["rng.cuda"])
            self.history.extend(EpochResult(**entry) for entry in state.document["history"])
            return int(state.document["epoch"])
        except (KeyError, TypeError, ValueError) as error:
            raise TrainingError(
                f"checkpoint {self.folder} is incomplete ({error}); delete its folder and train again"
            ) from error


def _difference(found: Any, expected: dict[str, Any]) -> str:
    if not isinstance(found, dict):
        return "it does not say which"
    flat = [{**d, **d.get("config", {})} for d in (cast(dict[str, Any], found), expected)]
    keys = sorted(k for k in set(flat[0]) | set(flat[1]) if k != "config" and flat[0].get(k) != flat[1].get(k))
    return ", ".join(f"{k} was {flat[0].get(k)}, is {flat[1].get(k)}" for k in keys) or "unknown"
