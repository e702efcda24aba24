"""The loop both trainings share: epochs, steps, validation, state that resumes bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from mcuq.data.dataset import Dataset
from mcuq.errors import TrainingError, UsageError
from mcuq.quant import checkpoint as checkpoints
from mcuq.quant import distributed
from mcuq.quant.batches import Batches
from mcuq.quant.checkpoint import Checkpoint
from mcuq.quant.criterion import Criterion
from mcuq.quant.evaluate import accuracy, evaluate
from mcuq.quant.hooks import Hooks
from mcuq.quant.kernels import keep_memory
from mcuq.quant.quant_op import QuantOp
from mcuq.quant.settings import EpochResult, Phase, Progress, Step, TrainConfig, schedule
from mcuq.quant.stopping import terminations


@dataclass(slots=True)
class Position:
    """Where a training stands: the epoch, the steps done in it, and their sums over images."""

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    right: int = 0
    seen: int = 0


@dataclass(slots=True, eq=False, kw_only=True)
class Loop:
    """State of one training, float (``op`` None) or with quantization; ``run`` is all of it.

    Attributes:
        forward: pixels [N, C, H, W] to scores. diagnose: pixels to the name of the first layer gone wrong.
        start: called at the start of each epoch. settle: before ``op`` is evaluated. folder: of the checkpoint,
            None for none.
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
    settle: Callable[[], None] = lambda: None
    op: QuantOp | None = None
    criterion: Criterion = field(default_factory=Criterion)
    hooks: Hooks = field(default_factory=lambda: Hooks(()))
    generator: torch.Generator = field(default_factory=torch.Generator)
    history: list[EpochResult] = field(default_factory=list[EpochResult])
    order: Tensor = field(default_factory=lambda: torch.empty(0))  # state of ``generator`` at the epoch's start

    def run(self, *, resume: bool, validate: bool) -> list[EpochResult]:
        size, parts = min(self.config.batch_size, len(self.data.x_train)), distributed.world()
        if parts > 1 and size < 2 * parts:
            raise UsageError(f"batches of {size} images for {parts} processes; give each at least 2 (--batch-size)")
        keep_memory()
        self.generator.manual_seed(self.config.seed)
        devices = [torch.device(self.config.device)] if self.config.device.startswith("cuda") else []
        with _threads(), torch.random.fork_rng(devices=devices), terminations() as asked:
            torch.manual_seed(self.config.seed)
            at = self._load() if distributed.of_first(resume) else Position()
            for epoch in range(at.epoch, self.config.epochs):
                self.start(epoch)
                self._epoch(at if epoch == at.epoch else Position(epoch), validate, asked)
                self._save(Position(epoch + 1))
        self.hooks.finish()
        return self.history

    def _epoch(self, at: Position, validate: bool, asked: Callable[[], bool]) -> None:
        began = time.monotonic()
        source = Batches(
            self.data.x_train,
            self.data.y_train,
            self.config.batch_size,
            self.config.device,
            augmentation=self.config.augmentation(self.data.augmentation, at.epoch),
            fill=self.data.normalization.zero_point,
            generator=self.generator,
        )
        self.module.train()
        self.order = self.generator.get_state()
        lr, steps = 0.0, self.config.epochs * len(source)
        for number, (images, labels) in enumerate(source.pairs()):
            done = at.epoch * len(source) + number
            lr = self._set_rate(done, steps)
            if number < at.step:  # done before the training was interrupted
                continue
            loss, right = self._step(images, labels, at.epoch, number, (done + 1) / steps)
            at.step, at.seen = number + 1, at.seen + len(images)
            at.loss, at.right = at.loss + loss * len(images), at.right + right
            self.progress.on_step(Step(self.phase, at.epoch, self.config.epochs, number, len(source), loss, lr))
            if distributed.total(float(asked()), device=self.config.device)[0] > 0:
                self._stop(at)
        held_out = self._validate() if validate else None
        scales = {} if self.op is None else self.op.scales()
        seconds = time.monotonic() - began
        means = at.loss / at.seen, at.right / at.seen
        result = EpochResult(self.phase, at.epoch, *means, held_out, lr, seconds, scales)
        self.history.append(result)
        self.progress.on_epoch(result)

    def _stop(self, at: Position) -> None:
        self._save(at)
        saved = "no state was saved" if self.folder is None else "the state is saved, --resume goes on from it"
        raise TrainingError(f"stopped by SIGTERM in epoch {at.epoch + 1} after step {at.step}; {saved}")

    def _set_rate(self, step: int, steps: int) -> float:
        factor = schedule(step, steps, self.config.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        return self.config.lr * factor

    def _step(self, images: Tensor, labels: Tensor, epoch: int, number: int, share: float) -> tuple[float, int]:
        self.optimizer.zero_grad()
        mine, wanted = distributed.part(images), distributed.part(labels)
        share_of_batch = len(mine) / len(images)
        try:
            with distributed.sharding(), self.op.quantized() if self.op is not None else nullcontext():
                scores = self.forward(mine).reshape(len(mine), -1)
                loss = self.criterion(scores, mine, wanted)
                right = int((scores.detach().argmax(1) == wanted).sum())
                sums = distributed.total(float(loss.detach()) * share_of_batch, right, device=self.config.device)
                if not math.isfinite(sums[0]):
                    raise TrainingError(
                        f"{self.phase} training: the loss is {sums[0]} in epoch {epoch + 1}, step {number + 1}; first "
                        f"not finite: {self.diagnose(mine)}. Lower the learning rate (now {self.config.lr:g})."
                    )
                # DistributedDataParallel averages over processes, whose parts may differ by one image.
                (loss * (share_of_batch * distributed.world()) if share_of_batch != 1.0 else loss).backward()
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and "memory" not in str(error):
                raise
            raise TrainingError(self._out_of_memory(len(images))) from error
        self.hooks.before_step(share)
        self.optimizer.step()
        self.hooks.after_step(share)
        return sums[0], int(sums[1])

    def _out_of_memory(self, size: int) -> str:
        if size == 1:
            return "out of memory with single images; the network does not fit, take a smaller one or smaller images"
        return f"out of memory with batches of {size}; try --batch-size {size // 2}"

    def _validate(self) -> float:
        x, y, device = self.data.x_test, self.data.y_test, self.config.device
        with self.hooks.evaluating():
            if self.op is not None:
                self.settle()
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

    def _save(self, at: Position) -> None:
        if self.folder is None or distributed.rank() != 0:
            return
        tensors = checkpoints.module_tensors(self.module) | checkpoints.optimizer_tensors(self.optimizer)
        tensors |= self.hooks.state()
        order = self.order if at.step else self.generator.get_state()
        tensors |= {"rng.order": order, "rng.torch": torch.get_rng_state()}
        if self.config.device.startswith("cuda"):
            tensors["rng.cuda"] = torch.cuda.get_rng_state()
        document = {
            "identity": self._identity(),
            "position": asdict(at),
            "threads": torch.get_num_threads(),
            "history": [asdict(result) for result in self.history],
        }
        checkpoints.write(self.folder, Checkpoint(tensors, document))

    def _load(self) -> Position:
        state = None
        if distributed.rank() == 0:
            if self.folder is None:
                raise UsageError("resume needs a checkpoint folder")
            state = checkpoints.read(self.folder)
        state, where = distributed.of_first((state, self.folder))
        assert state is not None and where is not None
        found, expected = state.document.get("identity"), self._identity()
        if found != expected:
            raise TrainingError(
                f"checkpoint {where} was made with other settings: {_difference(found, expected)}; "
                "use the same ones, or start without --resume"
            )
        try:
            checkpoints.load_module(self.module, state, where)
            checkpoints.load_optimizer(self.optimizer, state)
            self.hooks.load(state.tensors)
            self.generator.set_state(state.tensors["rng.order"])
            torch.set_rng_state(state.tensors["rng.torch"])
            if "rng.cuda" in state.tensors:
                torch.cuda.set_rng_state(state.tensors["rng.cuda"])
            torch.set_num_threads(int(state.document["threads"]))
            self.history.extend(EpochResult(**entry) for entry in state.document["history"])
            return Position(**state.document["position"])
        except (KeyError, TypeError, ValueError) as error:
            raise TrainingError(
                f"checkpoint {where} is incomplete ({error}); delete its folder and train again"
            ) from error


@contextmanager
def _threads() -> Generator[None]:
    """A resumed training takes the thread count it began with, on which sums inside torch's convolutions depend."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _difference(found: Any, expected: dict[str, Any]) -> str:
    if not isinstance(found, dict):
        return "it does not say which"
    flat = [{**d, **d.get("config", {})} for d in (cast(dict[str, Any], found), expected)]
    keys = sorted(k for k in set(flat[0]) | set(flat[1]) if k != "config" and flat[0].get(k) != flat[1].get(k))
    return ", ".join(f"{k} was {flat[0].get(k)}, is {flat[1].get(k)}" for k in keys) or "unknown"
