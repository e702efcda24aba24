"""The picture of a frontier: expected loss over bytes or instructions, with other methods as points beside it."""

from __future__ import annotations

from collections.abc import Sequence

from mcuq.ir.plans import BitPlan
from mcuq.report.style import FAINT, GRID, INK, SERIES, bytes_text, context, figure, png


def pareto_picture(resource: str, points: Sequence[BitPlan], references: Sequence[BitPlan]) -> bytes:
    """PNG: ``points`` as a line of optima, ``references`` as labelled points.

    Args:
        resource: "flash", "ram" or "instructions", the horizontal axis.
    """

    def used(plan: BitPlan) -> int:
        return {"flash": plan.flash_used, "ram": plan.ram_used, "instructions": plan.instructions}[resource]

    with context():
        picture = figure(7.5, 4.2)
        axes = picture.subplots()
        axes.grid(color=GRID, zorder=0)
        axes.step(
            [used(p) for p in points],
            [p.objective for p in points],
            where="post",
            color=SERIES[0],
            marker="o",
            markersize=4,
            label="exact: proved optimum",
            zorder=3,
        )
        labels: dict[tuple[int, float], list[str]] = {}
        for plan in references:
            labels.setdefault((used(plan), plan.objective), []).append(plan.method)
        middle = sum(map(used, (points[0], points[-1]))) / 2
        for place, names in labels.items():
            axes.plot(*place, "D", color=SERIES[1], markersize=5, zorder=4)
            right = place[0] > middle
            axes.annotate(
                ", ".join(names),
                place,
                xytext=(-6 if right else 6, 7),
                textcoords="offset points",
                ha="right" if right else "left",
                fontsize=8,
                color=INK,
            )
        if all(plan.objective > 0 for plan in (*points, *references)):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlabel({"flash": "flash, bytes", "ram": "RAM, bytes"}.get(resource, "instructions, predicted"))
        axes.set_ylabel("expected loss")
        axes.set_title("Least expected loss for every budget")
        lowest, highest = min(map(used, points)), max(map(used, (*points, *references)))
        ticks = [lowest + (highest - lowest) * k // 5 for k in range(6)]
        counted = resource == "instructions"
        axes.set_xticks(ticks, [f"{t / 1e6:.3g} M" if counted else bytes_text(t) for t in ticks])
        axes.tick_params(colors=FAINT)
        axes.legend(frameon=False)
        return png(picture)
