"""The loss of a training: cross entropy, and what a teacher adds."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mcuq.errors import UsageError


class Criterion:
    """Cross entropy of scores [N, K]; with a teacher, a share of it is the divergence from the teacher's scores.

    Knowledge distillation (Hinton, Vinyals and Dean, arXiv 1503.02531):
    ``(1 - share) CE(labels) + share T^2 KL(teacher / T, scores / T)``.

    Args:
        teacher: images to scores, without gradient.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        teacher: Callable[[Tensor], Tensor] | None = None,
        share: float = 0.0,
        temperature: float = 1.0,
    ) -> None:
        self._label_smoothing = label_smoothing
        self._teacher = teacher if share > 0 else None
        self._share = share
        self._temperature = temperature
        self._normalized: bool | None = None  # the outputs are probabilities; found out with the first batch

    def __call__(self, scores: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of a batch. Raises UsageError for a network that ends in argmax."""
        logits = self._logits(scores)
        loss = F.cross_entropy(logits, labels, label_smoothing=self._label_smoothing)
        if self._teacher is None:
            return loss
        with torch.no_grad():
            taught = self._logits(self._teacher(images).reshape(scores.shape))
        temperature = self._temperature
        wanted, found = (F.log_softmax(t / temperature, 1) for t in (taught, logits))
        divergence = F.kl_div(found, wanted, reduction="batchmean", log_target=True)
        return (1.0 - self._share) * loss + self._share * temperature**2 * divergence

    def _logits(self, scores: Tensor) -> Tensor:
        """Scores for the cross entropy: those of a network that ends in a softmax are logarithms of its output."""
        if not scores.is_floating_point():
            raise UsageError("a network that ends in argmax has no gradient; train it without, deploy it with")
        if self._normalized is None:
            sums = scores.detach().sum(1)
            self._normalized = bool((scores.detach() >= 0).all() and ((sums - 1).abs() < 1e-4).all())
        return scores.clamp_min(torch.finfo(scores.dtype).tiny).log() if self._normalized else scores
