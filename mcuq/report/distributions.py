"""What training did to a network: weights before and after, activation ranges, step sizes, confusions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcuq.report.style import BITS, FAINT, GRID, INK, LIMIT, SERIES, context, drawable, figure, png

COLUMNS = 4
SPIKE = 0.3
"""Width of a code's bar in steps."""
QUIET = "#c5ccd3"
"""Lines that are not named."""


@dataclass(frozen=True, slots=True, eq=False)
class WeightRow:
    """Weights of one layer in units of its quantization step, codes relative to the zero point.

    Attributes:
        edges: bin edges [B + 1] in steps; before, after: real weights per bin [B], of the float network and after
            training; the outermost bins hold everything beyond.
        codes: distinct codes [K], ascending; counts: weights per code [K].
        levels: codes the layer's bits can tell apart.
    """

    layer: str
    bits: int
    levels: int
    edges: NDArray[np.float64]
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    codes: NDArray[np.int64]
    counts: NDArray[np.int64]


def weights_picture(rows: Sequence[WeightRow]) -> bytes:
    """PNG: a panel per layer; real weights before and after training as outlines, quantized ones as spikes."""
    lines = max(1, -(-len(rows) // COLUMNS))
    with context():
        picture = figure(11.0, 0.7 + 1.75 * lines)
        panels = picture.subplots(lines, COLUMNS, squeeze=False).ravel()
        for axes in panels[len(rows) :]:
            axes.set_axis_off()
        for axes, row in zip(panels, rows, strict=False):
            _weights_panel(axes, row)
        picture.supxlabel(
            "weight in steps: shaded before, line after training; spikes: codes, and how many of them are used",
            fontsize=9,
            color=FAINT,
        )
        return png(picture)


def _weights_panel(axes: Any, row: WeightRow) -> None:
    # Densities per step, so that outlines and spikes share one axis.
    width, total = np.diff(row.edges), max(1, int(row.counts.sum()))
    before, after = row.before / width / max(1, int(row.before.sum())), row.after / width / max(1, int(row.after.sum()))
    axes.bar(row.codes, row.counts / total, width=SPIKE, color=BITS[row.bits], zorder=2)
    axes.stairs(before, row.edges, fill=True, color=FAINT, alpha=0.35, zorder=1)
    axes.stairs(after, row.edges, color=INK, linewidth=0.9, zorder=3)
    used = (row.before > 0) | (row.after > 0)
    if used.any():
        axes.set_xlim(row.edges[:-1][used].min() - 0.8, row.edges[1:][used].max() + 0.8)
    axes.set_ylim(0, 1.12 * max(1e-9, float((row.counts / total).max(initial=0)), float(np.sort(after)[-2:].min())))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    name = row.layer if len(row.layer) <= 24 else f"…{row.layer[-23:]}"
    axes.set_title(f"{name}  {row.bits} bit", fontsize=8)
    used_codes = f"{len(row.codes)} of {row.levels}"
    place = axes.transAxes
    axes.text(1, 0.98, used_codes, transform=place, ha="right", va="top", fontsize=7, color=FAINT)


@dataclass(frozen=True, slots=True, eq=False)
class ActivationRow:
    """Codes of one tensor over test samples. ``counts`` [2^bits] by code from ``lowest``; real = scale (q - zero)."""

    tensor: str
    bits: int
    scale: float
    zero_point: int
    lowest: int
    counts: NDArray[np.int64]

    def real(self, code: float) -> float:
        return self.scale * (code - self.zero_point)

    def saturation(self) -> tuple[float, float]:
        """Shares at the lowest and at the highest code; zeros of a tensor that starts at zero are no saturation."""
        total = max(1, int(self.counts.sum()))
        low = 0.0 if self.lowest == self.zero_point else float(self.counts[0]) / total
        return low, float(self.counts[-1]) / total

    def quantile(self, share: float) -> float:
        """The real value below or at which ``share`` of the codes lie."""
        passed = np.cumsum(self.counts) >= share * max(1, int(self.counts.sum()))
        return self.real(self.lowest + int(np.argmax(passed)))


def activations_picture(rows: Sequence[ActivationRow]) -> bytes:
    """PNG: for each tensor the range its codes reach, the part 98 % of the values use, and how many are clipped."""
    with context():
        picture = figure(10.0, 1.2 + 0.24 * max(2, len(rows)))
        left, right = picture.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": (2, 1)})
        for y, row in enumerate(rows):
            low, high = row.real(row.lowest), row.real(row.lowest + len(row.counts) - 1)
            left.barh(y, high - low, left=low, height=0.72, color=BITS[row.bits], alpha=0.35, zorder=2)
            inner = row.quantile(0.01), row.quantile(0.99)
            left.barh(y, inner[1] - inner[0], left=inner[0], height=0.72, color=BITS[row.bits], zorder=3)
            below, above = (100 * share for share in row.saturation())
            right.barh(y, above, height=0.72, color=SERIES[1], zorder=2)
            right.barh(y, -below, height=0.72, color=SERIES[3], zorder=2)
        left.axvline(0, color=FAINT, linewidth=0.8, zorder=4)
        right.axvline(0, color=FAINT, linewidth=0.8, zorder=4)
        left.set_yticks(range(len(rows)), [f"{row.tensor}  {row.bits} bit" for row in rows], fontsize=7)
        left.set_ylim(len(rows) - 0.4, -0.6)
        left.set_title("Range of the codes; 98 % of the values")
        left.margins(x=0.03)
        right.set_title("Clipped below and above, %")
        widest = max([abs(v) for v in right.get_xlim()] + [1.0])
        right.set_xlim(-widest, widest)
        for axes in (left, right):
            axes.grid(axis="x", color=GRID, zorder=0)
            axes.set_axisbelow(True)
        return png(picture)


def scales_picture(scales: Mapping[str, Sequence[float]]) -> bytes:
    """PNG: step size of every tensor by epoch over that of the first, weights and activations apart."""
    with context():
        picture = figure(9.0, 3.4)
        panels = picture.subplots(1, 2, sharey=True)
        for axes, title, weights in zip(panels, ("Weights", "Activations"), (True, False), strict=True):
            chosen = {k: v for k, v in scales.items() if k.endswith(".weight") == weights and min(v, default=0) > 0}
            _scales_panel(axes, {name: [value / values[0] for value in values] for name, values in chosen.items()})
            axes.set_title(f"{title}: step size, first epoch = 1")
        return png(picture)


def _scales_panel(axes: Any, lines: Mapping[str, Sequence[float]]) -> None:
    from matplotlib.ticker import MaxNLocator

    far = sorted(lines, key=lambda name: abs(float(np.log(lines[name][-1]))))[-3:]
    for name, values in sorted(lines.items(), key=lambda line: line[0] in far):
        named = name in far and abs(values[-1] - 1) > 0.02
        color = SERIES[far.index(name)] if named else QUIET
        label = f"{name.removesuffix('.weight')} x {values[-1]:.2f}" if named else None
        axes.plot(
            range(1, len(values) + 1), values, color=color, linewidth=1.3, marker="o", markersize=2.5, label=label
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch of quantization-aware training")
    axes.grid(axis="y", color=GRID)
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, loc="best")


def confusion_picture(matrix: NDArray[np.int64], classes: Sequence[str]) -> bytes:
    """PNG: rows are labels, columns what the network says [K, K]; shares of each row as shade, counts as text."""
    count, names = len(classes), drawable(classes)
    size = min(12.0, max(3.6, 1.6 + 0.45 * count))
    with context():
        from matplotlib.colors import LinearSegmentedColormap

        picture = figure(size, size)
        axes = picture.subplots()
        shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
        shade = LinearSegmentedColormap.from_list("shade", ["white", SERIES[0]])
        axes.imshow(shares, cmap=shade, vmin=0, vmax=1)
        if count <= 20:
            for row, column in np.argwhere(matrix > 0):
                color = "white" if shares[row, column] > 0.5 else LIMIT if row != column else INK
                axes.text(column, row, str(matrix[row, column]), ha="center", va="center", fontsize=7, color=color)
            axes.set_xticks(range(count), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
            axes.set_yticks(range(count), names, fontsize=8)
        right, total = int(np.trace(matrix)), max(1, int(matrix.sum()))
        axes.set_title(f"{right:,} of {total:,} right ({100 * right / total:.2f} %)")
        axes.set_xlabel("network")
        axes.set_ylabel("label")
        return png(picture)
