"""The picture of how well a sensitivity table predicts whole plans."""

from __future__ import annotations

from collections.abc import Sequence

from mcuq.report.style import FAINT, GRID, SERIES, context, figure, png


def ranks_picture(method: str, predicted: Sequence[float], measured: Sequence[float], spearman: float) -> bytes:
    """PNG: random plans, each a point: the loss that the table of ``method`` predicts and the true divergence."""
    with context():
        picture = figure(6.0, 4.2)
        axes = picture.subplots()
        axes.grid(color=GRID, zorder=0)
        axes.plot(predicted, measured, "o", color=SERIES[0], markersize=4, alpha=0.7, zorder=3)
        if min((*predicted, *measured), default=0.0) > 0:
            axes.set_xscale("log")
            axes.set_yscale("log")
        axes.set_xlabel(f"sum of the {method} table")
        axes.set_ylabel("KL divergence of the scores, measured")
        axes.set_title(f"{len(predicted)} random plans: rank correlation {spearman:.3f}")
        axes.tick_params(colors=FAINT)
        return png(picture)
