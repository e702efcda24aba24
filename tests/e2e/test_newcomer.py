"""Somebody with an ``.npz`` and no opinion: one command, no flag but the data."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")


def save(path: str, x: Any, y: Any, tests: int) -> None:
    np.savez(path, x_train=x[:-tests], y_train=y[:-tests], x_test=x[-tests:], y_test=y[-tests:])


@pytest.mark.slow
def test_train_without_flags_gives_a_good_int4_model(mcuq: Any) -> None:
    x, y = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    save("mine.npz", (x[order].reshape(-1, 8, 8) / 16).astype(np.float32), y[order], 450)
    outcome = mcuq("train", "--data", "mine.npz", "--json")
    document, run = outcome.document, Path(outcome.document["run"])
    bits = {t["name"]: t["bits"] for t in document["plan"]["tensors"]}
    assert bits.pop("input") == bits.pop("conv.weight") == bits.pop("head.fc.weight") == bits.pop("head.fc") == 8
    assert set(bits.values()) == {4}
    assert document["accuracy"]["float"] >= 0.975
    assert document["accuracy"]["oracle"] >= 0.97
    assert json.loads((run / "run.json").read_text())["settings"]["model"]["name"] == "resnet_tiny"
    assert {"weights.png", "activations.png", "scales.png", "confusion.png", "curves.png"} <= {
        p.name for p in run.iterdir()
    }
    verified = mcuq("verify", "--json").document
    assert verified["mismatching_bytes"] == 0
    assert verified["accuracy"]["device"] == verified["accuracy"]["oracle"] == document["accuracy"]["oracle"]


FASHION = Path(os.environ.get("MCUQ_DATA", "")) / "fashion_mnist.npz"


@pytest.mark.slow
@pytest.mark.skipif(not FASHION.is_file(), reason="fashion_mnist.npz is not in $MCUQ_DATA")
def test_a_small_set_of_photographs_gives_a_good_int4_model(mcuq: Any) -> None:
    with np.load(FASHION) as data:
        x, y = data["x_train"][:2500, ::2, ::2], data["y_train"][:2500]  # half the size: a quarter of the time
    save("clothes.npz", x, y, 500)
    document = mcuq("train", "--data", "clothes.npz", "--json").document
    assert document["accuracy"]["float"] >= 0.80
    assert document["accuracy"]["oracle"] >= document["accuracy"]["float"] - 0.02
