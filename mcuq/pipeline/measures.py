"""Sensitivity tables: measured once per network, data and settings, then read from the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcuq import __version__
from mcuq.data import Dataset
from mcuq.data.fetch import cache_folder
from mcuq.errors import McuqError, UsageError
from mcuq.ir.container import write_atomic
from mcuq.ir.graph import Graph
from mcuq.ir.plans import Sensitivity, TensorLoss
from mcuq.pipeline.models import TORCH_NEEDED

CALIBRATION = 512
"""Training images on which sensitivity is measured."""
HELD_BACK = 256
"""Training images behind them, on which whole plans are measured."""


def sensitivity(graph: Graph, measure: str, dataset: Dataset | None, per_layer: Collection[str] = ()) -> Sensitivity:
    """The table of ``measure`` on the first training images (of data-free: of the weights alone); from the cache if it
    was measured before. Layers of ``per_layer`` are measured with one step for all weights, too.

    Raises:
        DataError: "loss" on images without labels.
    """
    if measure == "data-free" or dataset is None:
        measure, x, y = "data-free", np.empty(0), np.empty(0)
    else:
        x, y = dataset.x_train[:CALIBRATION], dataset.y_train[:CALIBRATION]
    path = cache_folder() / "sensitivity" / f"{_key(graph, measure, x, y, per_layer)}.json"
    if (known := _read(path)) is not None:
        return known
    found = _measured(graph, measure, x, y, per_layer)
    text = json.dumps([found.method, [[e.layer, e.kind, e.bits, e.loss] for e in found.losses]])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode())
    except (McuqError, OSError):
        pass  # a cache that cannot be written only costs time
    return found


def checked(graph: Graph, table: Sensitivity, dataset: Dataset, plans: int) -> dict[str, Any]:
    """How well sums of ``table`` predict ``plans`` random plans on held-back images, as a JSON document."""
    from mcuq.quant.prediction import check

    found = check(graph, table, held_back(dataset), plans)
    return {
        "method": table.method,
        "plans": plans,
        "spearman": found.spearman,
        "predicted": list(found.predicted),
        "measured": list(found.measured),
    }


def held_back(dataset: Dataset) -> NDArray[np.uint8]:
    """Training images that no table was measured on; the first ones of a small set."""
    rest = dataset.x_train[CALIBRATION : CALIBRATION + HELD_BACK]
    return rest if len(rest) >= HELD_BACK // 4 else dataset.x_train[:HELD_BACK]


def _measured(graph: Graph, measure: str, x: Any, y: Any, per_layer: Collection[str]) -> Sensitivity:
    try:
        from mcuq.quant import curvature, data_free
        from mcuq.quant import sensitivity as measures
    except ModuleNotFoundError as error:
        raise UsageError(TORCH_NEEDED) from error
    match measure:
        case "data-free":
            return data_free(graph, per_layer=per_layer)
        case "loss":
            return curvature.loss_increase(graph, x, y, per_layer=per_layer)
        case "hessian":
            return curvature.hessian(graph, x, per_layer=per_layer)
        case _:
            return getattr(measures, measure)(graph, x, per_layer=per_layer)


def _key(graph: Graph, measure: str, x: Any, y: Any, per_layer: Collection[str]) -> str:
    """A digest of weights and structure, images, labels, measure, layers and the code that measures."""
    digest = sources_digest("ir", "quant")
    digest.update(f"{measure} {x.shape} {sorted(per_layer)}".encode())
    digest.update(np.ascontiguousarray(x).tobytes() + np.ascontiguousarray(y).tobytes())
    for op in graph:
        _feed(digest, op)
    return digest.hexdigest()[:32]


def sources_digest(*rooms: str) -> Any:
    """A digest that has read the version and the sources of ``rooms``: what is cached depends on them."""
    digest, package = hashlib.sha256(__version__.encode()), Path(__file__).resolve().parents[1]
    for room in rooms:
        for source in sorted((package / room).rglob("*.py")):
            digest.update(source.read_bytes())
    return digest


def _feed(digest: Any, value: Any) -> None:
    """All fields of an operator, arrays by their bytes."""
    if isinstance(value, np.ndarray):
        digest.update(f"{value.dtype} {value.shape} ".encode() + np.ascontiguousarray(value).tobytes())
    elif hasattr(value, "__dataclass_fields__"):
        digest.update(type(value).__name__.encode())
        for name in value.__dataclass_fields__:
            _feed(digest, getattr(value, name))
    elif isinstance(value, tuple):
        for part in value:  # pyright: ignore[reportUnknownVariableType]
            _feed(digest, part)
    else:
        digest.update(f"{value!r};".encode())


def _read(path: Path) -> Sensitivity | None:
    """The stored table; None when there is none, or it is damaged."""
    try:
        method, rows = json.loads(path.read_bytes())
        return Sensitivity(str(method), tuple(TensorLoss(str(a), k, int(b), float(v)) for a, k, b, v in rows))
    except (OSError, ValueError, TypeError):
        return None
