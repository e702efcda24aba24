"""How far up the true class of a sample stands among a network's scores: what top-1 and top-5 accuracy count."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ranks = NDArray[np.int64]


def label_ranks(scores: NDArray[Any], labels: NDArray[Any]) -> Ranks:
    """Classes that come before the label, [N]: those of a higher score, or of the same and a lower index (as argmax).

    Args:
        scores: [N, ...], a score per class; a single value is the class itself, chosen in the network.
        labels: [N]; one without a score comes last.
    """
    flat = scores.reshape(len(scores), -1)
    labels, width = labels.astype(np.int64)[:, None], flat.shape[1]
    if width == 1:
        return (flat != labels)[:, 0].astype(np.int64)
    scored = (labels >= 0) & (labels < width)
    own = np.take_along_axis(flat, np.where(scored, labels, 0), axis=1)
    before = (flat > own) | ((flat == own) & (np.arange(width) < labels))
    return np.where(scored[:, 0], before.sum(axis=1), width)


def top1(ranks: Ranks) -> float:
    """Share of samples whose label has the highest score."""
    return float(np.mean(ranks == 0))


def top5(ranks: Ranks, scores: NDArray[Any]) -> float | None:
    """Share of samples whose label is among the five highest scores; None where there are no more than five.

    ``scores``: [N, ...], those of the network whose accuracy it is, or of another with the same classes.
    """
    return float(np.mean(ranks < 5)) if scores.size > 5 * len(scores) else None
