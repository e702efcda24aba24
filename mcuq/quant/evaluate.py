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
from mcuq.reference.ranking import Ranks, label_ranks


def real_inputs(x: Tensor, normalization: Normalization) -> Tensor:
    """uint8 pixels [N, C, H, W] as a float module sees them."""
    return (x.float() - normalization.zero_point) * normalization.scale


def evaluate(
    predict: Callable[[Tensor], Tensor], x: NDArray[Any], y: NDArray[Any], *, batch_size: int = 256, device: str = "cpu"
) -> float:
    """Accuracy of ``predict``, which maps uint8 pixels [N, C, H, W] to scores [N, classes]."""
    return float(np.mean(ranks(predict, x, y, batch_size=batch_size, device=device) == 0))


def ranks(
    predict: Callable[[Tensor], Tensor], x: NDArray[Any], y: NDArray[Any], *, batch_size: int = 256, device: str = "cpu"
) -> Ranks:
    """Rank of each sample's label among the scores, int [N]; 0 is the highest. Arguments as :func:`evaluate`."""
    found: list[Ranks] = []
    with torch.no_grad():
        for images, labels in Batches(x, y, batch_size, device).pairs():
            found.append(label_ranks(predict(images).cpu().numpy(), labels.cpu().numpy()))
    return np.concatenate(found)


def accuracy(op: QuantOp, x: NDArray[Any], y: NDArray[Any], *, batch_size: int = 256, device: str = "cpu") -> float:
    """Accuracy of the fake-quantized network; mode and weights are left as they were."""
    return float(np.mean(quantized_ranks(op, x, y, batch_size=batch_size, device=device) == 0))


def quantized_ranks(
    op: QuantOp, x: NDArray[Any], y: NDArray[Any], *, batch_size: int = 256, device: str = "cpu"
) -> Ranks:
    """As :func:`ranks`, of the fake-quantized network; mode and weights are left as they were."""
    training = op.training
    op.eval()
    try:
        with nullcontext() if op.stored else op.quantized():
            return ranks(lambda images: cast(Tensor, op(images)), x, y, batch_size=batch_size, device=device)
    finally:
        op.train(training)
