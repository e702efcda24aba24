"""Training loops: float training of a module and quantization-aware training of a :class:`QuantOp`.

Data stay uint8 in memory and become channels_last batches without copies. All randomness comes from the
configured seed, and a resumed training gives the same bits as one that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from mcuq.data.dataset import Dataset
from mcuq.errors import UsageError
from mcuq.quant import distributed
from mcuq.quant.batches import Batches
from mcuq.quant.criterion import Criterion
from mcuq.quant.diagnosis import first_bad_layer, first_bad_module
from mcuq.quant.evaluate import accuracy, evaluate, real_inputs
from mcuq.quant.hooks import hooks_of
from mcuq.quant.loop import Loop
from mcuq.quant.quant_op import QuantOp
from mcuq.quant.settings import (
    EpochResult,
    Phase,
    Progress,
    Silent,
    Step,
    TrainConfig,
    default_fold_delay,
    float_preset,
    qat_preset,
)

__all__ = [
    "EpochResult",
    "Progress",
    "Step",
    "TrainConfig",
    "accuracy",
    "default_fold_delay",
    "evaluate",
    "float_preset",
    "qat_preset",
    "real_inputs",
    "reestimate_batch_norm",
    "train_float",
    "train_qat",
]


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
    network = distributed.parallel(model)
    loop = Loop(
        phase="float",
        module=model,
        forward=lambda x: cast(Tensor, network(real_inputs(x, layout))),
        optimizer=make_optimizer(groups, config),
        data=data,
        config=config,
        progress=progress or Silent(),
        folder=checkpoint,
        diagnose=lambda x: first_bad_module(model, real_inputs(x, layout)),
        criterion=Criterion(config.label_smoothing),
        hooks=hooks_of(config, model, ()),
    )
    with lively_norms(model, config.epochs * len(data.x_train) // config.batch_size):
        history = loop.run(resume=resume, validate=validate)
    model.eval()
    return history


@contextmanager
def lively_norms(model: nn.Module, steps: int) -> Generator[None]:
    """Batch norms inside follow at least as fast as a training of ``steps`` allows: their averages span a tenth of it.

    A momentum made for long trainings (0.003 in MobileNets) would leave the statistics at their start.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]  # pyright: ignore[reportPrivateUsage]
    own = [norm.momentum for norm in norms]
    for norm in norms:
        if norm.momentum is not None:
            norm.momentum = max(norm.momentum, min(0.1, 10 / max(1, steps)))
    try:
        yield
    finally:
        for norm, momentum in zip(norms, own, strict=True):
            norm.momentum = momentum


def train_qat(
    op: QuantOp,
    data: Dataset,
    config: TrainConfig,
    *,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    validate: bool = True,
    teacher: nn.Module | None = None,
    phase: Phase = "qat",
) -> list[EpochResult]:
    """Train ``op`` (and so the user's model) with quantization in the loop; it ends in eval mode.

    Activation ranges are calibrated first where they are not set. Before batch norms freeze, and before the
    network is evaluated where they did not, their statistics are averaged anew with quantized weights.

    Args and errors as :func:`train_float`.

    Args:
        teacher: a trained float network, which ``config.distill`` needs; not ``op``'s own module, a copy of it.
        phase: what progress and checkpoints call this training.
    """
    if config.distill > 0 and teacher is None:
        raise UsageError("distill needs a teacher: train_qat(..., teacher=copy.deepcopy(float_network))")
    op.to(config.device)

    if op.clamp_epochs == 0:
        _calibrate(op, data, config)
    optimizer = make_optimizer(op.param_groups(config.lr, config.weight_decay, config.step_lr), config)
    hooks = hooks_of(config, op, op.layers.values())

    def start(epoch: int) -> None:
        if epoch >= op.clamp_epochs:
            _calibrate(op, data, config)
        if not op.frozen and epoch >= max(op.fold_delay, op.clamp_epochs) > 0:
            reestimate_batch_norm(op, data, config)
            op.start_epoch(epoch)
            hooks.restart()
        op.start_epoch(epoch)

    def settle() -> None:
        if not op.frozen:
            reestimate_batch_norm(op, data, config)

    network = distributed.parallel(op, op.weight_quantizers.parameters())
    loop = Loop(
        phase=phase,
        module=op,
        forward=lambda x: cast(Tensor, network(x)),
        optimizer=optimizer,
        data=data,
        config=config,
        progress=progress or Silent(),
        folder=checkpoint,
        diagnose=lambda x: first_bad_layer(op, x),
        start=start,
        settle=settle,
        op=op,
        criterion=_criterion(config, data, teacher),
        hooks=hooks,
    )
    with lively_norms(op, config.epochs * len(data.x_train) // config.batch_size):
        history = loop.run(resume=resume, validate=validate)
    if config.epochs > 0:
        settle()
    op.eval()
    return history


def _calibrate(op: QuantOp, data: Dataset, config: TrainConfig) -> None:
    """Choose activation ranges on training images, where they are not set."""
    if not op.ready:
        op.calibrate(Batches(data.x_train[: config.calibration], None, config.batch_size, config.device).images())


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


def _criterion(config: TrainConfig, data: Dataset, teacher: nn.Module | None) -> Criterion:
    if teacher is None:
        return Criterion(config.label_smoothing)
    teacher = teacher.to(config.device).eval()

    def scores(images: Tensor) -> Tensor:
        return cast(Tensor, teacher(real_inputs(images, data.normalization)))

    return Criterion(config.label_smoothing, scores, config.distill, config.temperature)


def make_optimizer(groups: list[dict[str, Any]], config: TrainConfig) -> torch.optim.Optimizer:
    """The configured optimizer for ``groups`` of parameters; groups without any are left out."""
    groups = [{**group, "base_lr": group["lr"]} for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=True, fused=True)
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)
