"""The loop both trainings share: epochs, steps, validation, state that resumes bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from mcuq.data.dataset import Dataset
from mcuq.errors import TrainingError, UsageError
from mcuq.quant import checkpoint as checkpoints
from mcuq.quant.batches import Batches
from mcuq.quant.checkpoint import Checkpoint
from mcuq.quant.criterion import Criterion
from mcuq.quant.evaluate import accuracy, evaluate
from mcuq.quant.hooks import Hooks
from mcuq.quant.quant_op import QuantOp
from mcuq.quant.settings import EpochResult, Phase, Progress, Step, TrainConfig, schedule


@dataclass(slots=True, eq=False, kw_only=True)
class Loop:
    """State of one training, float (``op`` None) or with quantization; ``run`` is all of it.

    Attributes:
        forward: pixels [N, C, H, W] to scores. diagnose: pixels to the name of the first layer gone wrong.
        start: called at the start of each epoch. folder: of the checkpoint, None for none.
    """

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
    criterion: Criterion = field(default_factory=Criterion)
    hooks: Hooks = field(default_factory=lambda: Hooks(()))
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
        self.hooks.finish()
        return self.history

    def _epoch(self, epoch: int, validate: bool) -> None:
        began = time.monotonic()
        source = Batches(
            self.data.x_train,
            self.data.y_train,
            self.config.batch_size,
            self.config.device,
            augmentation=self.config.augmentation(self.data.augmentation),
            fill=self.data.normalization.zero_point,
            generator=self.generator,
        )
        self.module.train()
        total, right, seen, lr = 0.0, 0, 0, 0.0
        for number, (images, labels) in enumerate(source.pairs()):
            done, steps = epoch * len(source) + number, self.config.epochs * len(source)
            lr = self._set_rate(done, steps)
            loss, hits = self._step(images, labels, epoch, number, (done + 1) / steps)
            total, right, seen = total + loss * len(images), right + hits, seen + len(images)
            self.progress.on_step(Step(self.phase, epoch, self.config.epochs, number, len(source), loss, lr))
        held_out = self._validate() if validate else None
        scales = {} if self.op is None else self.op.scales()
        seconds = time.monotonic() - began
        result = EpochResult(self.phase, epoch, total / seen, right / seen, held_out, lr, seconds, scales)
        self.history.append(result)
        self.progress.on_epoch(result)

    def _set_rate(self, step: int, steps: int) -> float:
        factor = schedule(step, steps, self.config.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        return self.config.lr * factor

    def _step(self, images: Tensor, labels: Tensor, epoch: int, number: int, share: float) -> tuple[float, int]:
        self.optimizer.zero_grad()
        try:
            with self.op.quantized() if self.op is not None else nullcontext():
                scores = self.forward(images).reshape(len(images), -1)
                loss = self.criterion(scores, images, labels)
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
        self.hooks.before_step(share)
        self.optimizer.step()
        self.hooks.after_step(share)
        return value, int((scores.detach().argmax(1) == labels).sum())

    def _validate(self) -> float:
        x, y, device = self.data.x_test, self.data.y_test, self.config.device
        with self.hooks.evaluating():
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
        tensors |= self.hooks.state()
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
            self.hooks.load(state.tensors)
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
