"""Numbers behind the pictures of a run: files in its folder, and what the oracle shows on its test samples."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcuq.ir.container import write_atomic
from mcuq.ir.integer import IntegerGraph
from mcuq.numerics import code_range
from mcuq.pipeline.runs import RunFolder
from mcuq.reference import integer
from mcuq.report import ActivationRow, WeightRow
from mcuq.report.layers import macs_of

FIELDS = ("edges", "before", "after", "codes", "counts")
MAC_BUDGET = 2_000_000_000
"""Of the oracle for the picture of activations."""
MOST_SAMPLES = 256


def write_weights(run: RunFolder, histograms: Mapping[str, Any]) -> None:
    """``weights.npz`` from ``mcuq.quant.histograms``: five arrays, bits and levels of each layer."""
    arrays: dict[str, Any] = {}
    for layer, histogram in histograms.items():
        arrays |= {f"{layer}|{name}": getattr(histogram, name) for name in FIELDS}
        arrays[f"{layer}|grid"] = np.array([histogram.bits, histogram.levels])
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    write_atomic(run.path / "weights.npz", stream.getvalue())


def weight_rows(run: RunFolder) -> list[WeightRow]:
    """What :func:`write_weights` wrote; none where there is no such file."""
    path = run.path / "weights.npz"
    if not path.exists():
        return []
    with np.load(path, allow_pickle=False) as data:
        layers = dict.fromkeys(key.rpartition("|")[0] for key in data.files)
        rows: list[WeightRow] = []
        for layer in layers:
            bits, levels = map(int, data[f"{layer}|grid"])
            rows.append(WeightRow(layer, bits, levels, *(data[f"{layer}|{name}"] for name in FIELDS)))
        return rows


def activation_rows(graph: IntegerGraph, x: NDArray[Any]) -> list[ActivationRow]:
    """Codes of every stored activation over the first samples of ``x``; 32-bit scores are left out."""
    macs = max(1, sum(macs_of(op) for op in graph))
    tensors = integer.run(graph, x[: max(1, min(MOST_SAMPLES, MAC_BUDGET // macs))])
    rows: list[ActivationRow] = []
    for op in graph:
        if op.output.bits == 32:
            continue
        low, high = code_range(op.output.bits)
        counts = np.bincount((tensors[op.name] - low).reshape(-1), minlength=high - low + 1).astype(np.int64)
        rows.append(ActivationRow(op.name, op.output.bits, op.output.scale, op.output.zero_point, low, counts))
    return rows


def write_confusion(run: RunFolder, codes: NDArray[Any], labels: NDArray[Any], classes: Sequence[str]) -> None:
    """``confusion.csv``: rows are labels, columns what the network says. ``codes``: scores [N, ...]."""
    flat = codes.reshape(len(codes), -1)
    said = flat[:, 0] if flat.shape[1] == 1 else flat.argmax(axis=1)
    names = [*classes, *(str(i) for i in range(len(classes), flat.shape[1]))]
    matrix = np.zeros((len(names), len(names)), np.int64)
    np.add.at(matrix, (labels, said), 1)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["label", *names])
    writer.writerows([name, *map(int, row)] for name, row in zip(names, matrix, strict=True))
    write_atomic(run.path / "confusion.csv", stream.getvalue().encode())


def confusion(run: RunFolder) -> tuple[NDArray[np.int64], list[str]] | None:
    """(counts [labels, answers], class names); None where there is no such file."""
    path = run.path / "confusion.csv"
    if not path.exists():
        return None
    (_, *names), *rows = csv.reader(io.StringIO(path.read_text(encoding="utf-8")))
    return np.array([[int(n) for n in row[1:]] for row in rows], np.int64), names
