"""The pictures: bits of every tensor, the arena over time, training curves, promised and measured sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mcuq.ir.plans import BitPlan, Buffer, MemoryPlan, TensorBits, TensorKind
from mcuq.report.style import (
    BITS,
    DPI,
    FAINT,
    GRID,
    INK,
    LIMIT,
    ON_BITS,
    SERIES,
    bits_legend,
    bytes_text,
    context,
    figure,
    png,
)


def bits_picture(plan: BitPlan) -> bytes:
    """PNG: bits of every weight and activation in execution order, their bytes above the bars."""
    layers = list(dict.fromkeys(t.layer for t in plan.tensors))
    with context():
        picture = figure(min(22.0, max(6.5, 1.6 + 0.36 * len(layers))), 5.2)
        top, bottom = picture.subplots(2, 1, sharex=True)
        steps = " (L: one step for the layer)" if any(t.granularity == "layer" for t in plan.tensors) else ""
        _bits_panel(top, plan, layers, "weight", f"Weights{steps}")
        _bits_panel(bottom, plan, layers, "activation", "Activations (each layer's output)")
        bottom.set_xticks(range(len(layers)), layers, rotation=60, ha="right", rotation_mode="anchor")
        bottom.set_xlim(-0.6, len(layers) - 0.4)
        bits_legend(
            top, (t.bits for t in plan.tensors), loc="lower right", bbox_to_anchor=(1, 1.0), ncols=4, borderaxespad=0
        )
        picture.supxlabel(
            f"{plan.method}, {plan.status}:  flash {plan.flash_used:,} of {plan.limits.flash:,} bytes,  "
            f"RAM {plan.ram_used:,} of {plan.limits.ram:,} bytes",
            fontsize=9,
            color=FAINT,
        )
        return png(picture)


def _bits_panel(axes: Any, plan: BitPlan, layers: list[str], kind: TensorKind, title: str) -> None:
    tensors: list[TensorBits] = [t for t in plan.tensors if t.kind == kind]
    place = {name: index for index, name in enumerate(layers)}
    # Bars are drawn by the doubling of bits: 2, 4 and 8 are one step apart each.
    step = {2: 1.0, 4: 2.0, 8: 3.0, 32: 4.0}
    highest = max((step[t.bits] for t in tensors), default=3.0)
    for t in tensors:
        x = place[t.layer]
        axes.bar(x, step[t.bits], width=0.78, color=BITS[t.bits], zorder=2)
        text = f"{t.bits}L" if t.granularity == "layer" else str(t.bits)
        axes.text(x, 0.12, text, ha="center", va="bottom", color=ON_BITS[t.bits], weight="bold", zorder=3)
        if t.bytes:
            axes.text(
                x,
                step[t.bits] + 0.12,
                bytes_text(t.bytes),
                ha="center",
                va="bottom",
                rotation=90,
                fontsize=7,
                color=FAINT,
            )
    ticks = [b for b in step if step[b] <= highest]
    axes.set_yticks([step[b] for b in ticks], [f"{b} bit" for b in ticks])
    axes.set_ylim(0, highest + 1.5)
    axes.grid(axis="y", color=GRID, zorder=0)
    axes.set_axisbelow(True)
    axes.set_title(f"{title}: {bytes_text(sum(t.bytes for t in tensors))}")


def memory_picture(memory: MemoryPlan, bits: Mapping[str, int] | None = None, limit: int | None = None) -> bytes:
    """PNG: the arena over time. Each tensor is a rectangle, address range by the steps it lives; scratch is hatched.

    Args:
        bits: tensor name -> bits, for the colors.
        limit: bytes of RAM the arena may take, drawn when given.
    """
    steps = len(memory.order)
    with context():
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        width = min(22.0, max(6.5, 1.8 + 0.4 * steps))
        picture = figure(width, 5.2)
        axes = picture.subplots()
        top = max(memory.arena_bytes, memory.lower_bound, 1)
        if limit is not None and limit <= 2 * top:
            top = max(top, limit)
        for buffer in sorted(memory.buffers, key=lambda b: (b.kind == "scratch", bool(b.alias_of))):
            heirs = (b for b in memory.buffers if b.alias_of == buffer.name and b.offset == buffer.offset)
            heir = min((b.first for b in heirs), default=buffer.last + 1)
            end = heir if buffer.kind == "activation" and heir > buffer.first else buffer.last + 1
            _rectangle(axes, buffer, end, (bits or {}).get(buffer.name, 8), (steps, top, width))
        handles: list[Any] = []
        if any(b.kind == "scratch" for b in memory.buffers):
            handles.append(Patch(facecolor="white", edgecolor=FAINT, hatch="////", label="scratch"))
        if any(b.alias_of for b in memory.buffers):
            handles.append(Patch(facecolor="none", edgecolor=INK, linestyle="--", label="shares bytes"))
        axes.axhline(memory.lower_bound, color=LIMIT, linewidth=1.2, linestyle="--", zorder=5)
        handles.append(Line2D([], [], color=LIMIT, linestyle="--", label=f"proved bound {memory.lower_bound:,} bytes"))
        for cut in (cut for cut in memory.cuts if cut < top):
            axes.axhline(cut, color=INK, linewidth=1.4, zorder=5)
            handles.append(Line2D([], [], color=INK, linewidth=1.4, label=f"next region from {cut:,} bytes"))
        if limit is not None and limit <= 2 * top:
            axes.axhline(limit, color=INK, linewidth=1.0, linestyle=":", zorder=5)
            handles.append(Line2D([], [], color=INK, linestyle=":", label=f"limit {limit:,} bytes"))
        _memory_axes(axes, memory, steps, top)
        used = [(bits or {}).get(b.name, 8) for b in memory.buffers if b.kind == "activation"]
        bits_legend(axes, used, handles, loc="upper left", bbox_to_anchor=(1.005, 1), borderaxespad=0)
        return png(picture)


def _memory_axes(axes: Any, memory: MemoryPlan, steps: int, top: int) -> None:
    axes.set_title(f"Arena over time: {memory.arena_bytes:,} bytes")
    axes.set_xlim(0, max(1, steps))
    axes.set_ylim(0, top * 1.04)
    axes.set_ylabel("address in the arena")
    # Steps of a whole number of KiB in about six ticks.
    unit = max(1, -(-top // 6))
    unit = 1 << max(0, (unit - 1).bit_length())
    ticks = range(0, top + 1, unit)
    axes.set_yticks(list(ticks), [bytes_text(t) if t else "0" for t in ticks])
    axes.grid(axis="y", color=GRID, zorder=0)
    axes.set_axisbelow(True)
    axes.set_xticks([i + 0.5 for i in range(steps)], memory.order, rotation=60, ha="right", rotation_mode="anchor")


def _rectangle(axes: Any, buffer: Buffer, end: int, bits: int, extent: tuple[int, int, float]) -> None:
    """One buffer from its first step to ``end``, where its last use lies or another tensor takes over its bytes."""
    from matplotlib.patches import Rectangle

    steps, top, width = extent
    life = end - buffer.first
    color, text = BITS[bits], ON_BITS[bits]
    style: dict[str, Any] = {"facecolor": color, "edgecolor": "white", "linewidth": 1.2, "zorder": 2}
    if buffer.kind == "scratch":
        style = {"facecolor": "white", "edgecolor": FAINT, "linewidth": 0.8, "hatch": "////", "zorder": 3}
        text = INK
    elif buffer.alias_of:
        style |= {"edgecolor": INK, "linestyle": "--", "zorder": 3}
    axes.add_patch(Rectangle((buffer.first, buffer.offset), life, buffer.size, **style))
    # Inches of the plot area, near enough to know which label fits; a letter of size 7 is some 0.06 inch wide.
    wide, high = life / steps * (width - 2.6), buffer.size / top * 3.8
    label = buffer.name if buffer.kind == "activation" else "scratch"
    short = [f"…{'.'.join(label.split('.')[-parts:])}" for parts in (2, 1) if label.count(".") >= parts]
    for content in (f"{label}\n{bytes_text(buffer.size)}", label, *(s for s in short if not s[1:].isdigit())):
        lines = content.split("\n")
        long, tall = 0.062 * max(map(len, lines)) + 0.06, 0.125 * len(lines)
        for rotation, (across, up) in ((0, (long, tall)), (90, (tall, long))):
            if across <= wide and up <= high:
                box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0} if buffer.kind == "scratch" else None
                axes.text(
                    buffer.first + life / 2,
                    buffer.offset + buffer.size / 2,
                    content,
                    ha="center",
                    va="center",
                    rotation=rotation,
                    fontsize=7,
                    color=text,
                    bbox=box,
                    zorder=4,
                )
                return


@dataclass(frozen=True, slots=True)
class EpochPoint:
    """One epoch of training. ``stage`` groups epochs ("float", "quantized"); accuracies are shares of 1."""

    stage: str
    loss: float
    train_accuracy: float | None = None
    test_accuracy: float | None = None


# The labels at the ends of the lines keep off each other: training above its point, test below.
_ACCURACIES = (("train_accuracy", "training", SERIES[2], "bottom"), ("test_accuracy", "test", SERIES[1], "top"))


def curves_picture(epochs: Sequence[EpochPoint]) -> bytes:
    """PNG: loss and accuracy by epoch, one after another; each stage is a band of its own."""
    with context():
        from matplotlib.ticker import LogLocator, NullLocator

        picture = figure(9.0, 3.4)
        left, right = picture.subplots(1, 2)
        numbers = range(1, len(epochs) + 1)
        left.plot(numbers, [e.loss for e in epochs], color=SERIES[0], marker="o", markersize=3)
        left.set_title("Loss", pad=16)
        if epochs and all(e.loss > 0 for e in epochs):
            left.set_yscale("log")
            # The default labels are powers in math text, which the style turns off.
            left.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            left.yaxis.set_major_formatter("{x:g}")
            left.yaxis.set_minor_locator(NullLocator())
        for attribute, label, color, side in _ACCURACIES:
            values = [getattr(e, attribute) for e in epochs]
            points = [(n, 100 * v) for n, v in zip(numbers, values, strict=True) if v is not None]
            if points:
                right.plot([p[0] for p in points], [p[1] for p in points], color=color, marker="o", markersize=3)
                right.annotate(
                    f"{label} {points[-1][1]:.2f}",
                    points[-1],
                    xytext=(4, 0),
                    textcoords="offset points",
                    color=color,
                    va=side,
                    annotation_clip=False,
                )
        right.set_title("Accuracy (%)", pad=16)
        for axes in (left, right):
            _stages(axes, epochs)
        return png(picture)


def _stages(axes: Any, epochs: Sequence[EpochPoint]) -> None:
    from matplotlib.ticker import MaxNLocator

    starts = [0] + [i + 1 for i, (a, b) in enumerate(pairwise(epochs)) if a.stage != b.stage]
    for index, (start, end) in enumerate(pairwise([*starts, len(epochs)])):
        if index % 2:
            axes.axvspan(start + 0.5, end + 0.5, color="#f5f0e6", zorder=0)
        name = epochs[start].stage if epochs else ""
        place = axes.get_xaxis_transform()
        axes.text(start + 0.55, 1.01, name, transform=place, va="bottom", ha="left", color=FAINT, fontsize=8)
    axes.set_xlim(0.5, max(1, len(epochs)) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.grid(color=GRID)
    axes.set_axisbelow(True)


@dataclass(frozen=True, slots=True)
class SizeRow:
    """Bytes of one memory (flash, RAM) or section: promised before building, measured in the image, allowed."""

    name: str
    promised: int
    measured: int | None = None
    limit: int | None = None


def sizes_picture(rows: Sequence[SizeRow]) -> bytes:
    """PNG: one small panel per row, promised and measured bytes as bars, the limit as a line."""
    with context():
        picture = figure(7.5, 0.5 + 0.95 * max(1, len(rows)))
        panels = picture.subplots(max(1, len(rows)), 1, squeeze=False)
        for axes, row in zip(panels[:, 0], rows, strict=False):  # without rows: one empty panel
            values = [("promised", row.promised, SERIES[0])]
            if row.measured is not None:
                values.append(("measured", row.measured, SERIES[1]))
            highest = max(1, *(v for _, v, _ in values))
            shown = row.limit is not None and row.limit <= 3 * highest
            highest = max(highest, row.limit or 0) if shown else highest
            for y, (label, value, color) in enumerate(values):
                axes.barh(y, value, height=0.72, color=color, zorder=2)
                inside = value > 0.4 * highest
                axes.annotate(
                    f"{label} {value:,}",
                    (value, y),
                    xytext=(-5 if inside else 4, 0),
                    textcoords="offset points",
                    ha="right" if inside else "left",
                    va="center",
                    fontsize=8,
                    color="white" if inside else INK,
                )
            if shown:
                axes.axvline(row.limit, color=LIMIT, linestyle="--", linewidth=1.2, zorder=3)
            axes.set_xlim(0, highest * 1.02)
            axes.set_ylim(len(values) - 0.45, -0.55)
            axes.set_yticks([])
            axes.set_xticks([])
            axes.spines["bottom"].set_visible(False)
            title = row.name if row.limit is None else f"{row.name}   (limit {row.limit:,} bytes)"
            axes.set_title(title, fontsize=9)
        return png(picture)


__all__ = ["DPI", "EpochPoint", "SizeRow", "bits_picture", "curves_picture", "memory_picture", "sizes_picture"]
