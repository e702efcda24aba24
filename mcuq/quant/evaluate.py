"""Accuracy of float modules and of fake-quantized networks on pixels."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcuq.ir.graph import Normalization
from mcuq.quant.batches import Batches
from mcuq.quant.quant_op import QuantOp


def real_inputs(x: Tensor, normalization: Normalization) -> Tensor:
    """uint8 pixels [N, C, H, W] as a float module sees them."""
    return (x.float() - normalization.zero_point) * normalization.scale


def evaluate(
    predict: Callable[[Tensor], Tensor], x: NDArray[Any], y: NDArray[Any], *, batch_size: int = 256, device: str = "cpu"
) -> float:
    """Accuracy of ``predict``, which maps uint8 pixels [N, C, H, W] to scores [N, classes]."""
    return float(correct(predict, x, y, batch_size=batch_size, device=device).mean())


def correct(
    predict: Callable[[Tensor], Tensor], x: NDArray[Any], y: NDArray[Any], *, batch_size: int = 256, device: str = "cpu"
) -> NDArray[np.bool_]:
    """Whether the highest score of each sample is its label, bool [N]. Arguments as :func:`evaluate`."""
    found: list[Tensor] = []
    with torch.no_grad():
        for images, labels in Batches(x, y, batch_size, device).pairs():
            scores = predict(images).reshape(len(images), -1)
            chosen = scores.argmax(1) if scores.is_floating_point() else scores[:, 0]  # argmax in the network
            found.append((chosen == labels).cpu())
    return torch.cat(found).numpy()


def accuracy(op: QuantOp, x: NDArray[Any], y: NDArray[Any], *, batch_size: int = 256, device: str = "cpu") -> float:
    """Accuracy of the fake-quantized network; mode and weights are left as they were."""
    training = op.training
    op.eval()
    try:
        with nullcontext() if op.stored else op.quantized():
            return evaluate(lambda images: cast(Tensor, op(images)), x, y, batch_size=batch_size, device=device)
    finally:
        op.train(training)
