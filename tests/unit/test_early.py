"""Mistakes in settings and data are told before torch is loaded, and nothing is left behind."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mcuq.data import Dataset, load
from mcuq.data.dataset import Augmentation
from mcuq.errors import DataError, UsageError
from mcuq.ir.graph import Normalization
from mcuq.pipeline.early import check_scores, check_settings, empty_classes, load_data
from mcuq.pipeline.runs import new_run_path
from mcuq.pipeline.settings import BitChoice, ModelSpec, TrainSettings, default_model
from tests import nets

SETTINGS = TrainSettings(ModelSpec("resnet_tiny"), "digits", BitChoice())
X = np.arange(16 * 64, dtype=np.int64).reshape(16, 8, 8).astype(np.uint8)
Y = np.arange(16) % 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (replace(SETTINGS, logits=7), "--logits 7 is not possible; use 8 or 32"),
        (replace(SETTINGS, choice=BitChoice(bits=Path("nope.json"))), "--bits nope.json is not a file"),
        (replace(SETTINGS, weights=Path("nope.npz")), "--weights nope.npz is not a file"),
        (replace(SETTINGS, layer_config=Path("nope.json")), "--layer-config nope.json is not a file"),
        (replace(SETTINGS, model=ModelSpec("resnet9")), "no model 'resnet9' in the zoo"),
        (replace(SETTINGS, choice=BitChoice(board="stm32h8")), "unknown board 'stm32h8'"),
        (replace(SETTINGS, choice=BitChoice(mem_constraint="1000")), "write FLASH,RAM"),
    ],
)
def test_settings(settings: TrainSettings, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_settings(SETTINGS, tmp_path / "new", resume=False, overwrite=False)
    with pytest.raises(UsageError, match=words):
        check_settings(settings, tmp_path / "new", resume=False, overwrite=False)
    with pytest.raises(UsageError, match="holds no run to resume"):
        check_settings(SETTINGS, tmp_path / "new", resume=True, overwrite=False)
    assert not list(tmp_path.iterdir())


def test_mistakes_are_told_without_torch(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", x_train=X, y_train=0 * Y, x_test=X, y_test=Y)
    code = (
        "import sys\nfrom mcuq.cli import main\n"
        "sys.argv = ['mcuq', 'train', '--data', 'one.npz']\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert stop.code == 2\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "every training image has label 0; two classes are needed to train" in " ".join(done.stderr.split())


def own(tmp_path: Path, **arrays: Any) -> TrainSettings:
    np.savez(tmp_path / "own.npz", **arrays)
    return replace(SETTINGS, data=str(tmp_path / "own.npz"))


@pytest.mark.parametrize("names", [("x", "y"), ("x_train", "y_train")])
def test_a_quarter_is_held_out(tmp_path: Path, names: tuple[str, str]) -> None:
    dataset = load_data(own(tmp_path, **dict(zip(names, (X, Y), strict=True))))
    assert (len(dataset.x_train), len(dataset.x_test)) == (12, 4)
    assert np.bincount(dataset.y_test).tolist() == [2, 2]
    whole = {x.tobytes() for x in dataset.x_train} | {x.tobytes() for x in dataset.x_test}
    assert whole == {x.tobytes() for x in X[..., None]}
    with pytest.raises(DataError, match="16 images and 15 labels"):
        load_data(own(tmp_path, x=X, y=Y[1:]))


def test_labels_counted_from_one(tmp_path: Path) -> None:
    assert empty_classes(load_data(own(tmp_path, x=X, y=Y))) == []
    assert empty_classes(load_data(own(tmp_path, x=X, y=Y + 1))) == ["0"]


def test_arrays_in_other_orders(tmp_path: Path) -> None:
    planes = np.zeros((16, 3, 8, 8), np.uint8)
    with pytest.raises(DataError, match=r"looks like \[N, C, H, W\]"):
        load(own(tmp_path, x=planes, y=Y).data)
    with pytest.raises(DataError, match=r"store argmax\(axis=1\)"):
        load(own(tmp_path, x=X, y=np.eye(2)[Y]).data)
    with pytest.raises(UsageError, match="images of 1 rows, 28 columns and 28 channels are too small"):
        default_model((1, 28, 28))


def test_scores_of_every_class() -> None:
    graph = nets.every_operator(1)
    scores = graph.op(graph.outputs[0]).shape[-1]
    names = tuple(map(str, range(scores)))
    dataset = Dataset("own", X[..., None], Y, X[..., None], Y, names, Normalization(1.0, 0), Augmentation())
    check_scores(graph, dataset, ModelSpec("m:net"))
    with pytest.raises(UsageError, match=f"m:net gives {scores} scores, but own has {scores + 1} classes"):
        check_scores(graph, replace(dataset, classes=(*names, "more")), ModelSpec("m:net"))
    two = replace(graph, outputs=(graph.outputs[0], graph.input.name))
    with pytest.raises(UsageError, match="m:net has 2 outputs; training takes one"):
        check_scores(two, dataset, ModelSpec("m:net"))


@pytest.mark.parametrize(
    ("data", "name"),
    [("mine.npz", "net-mine-1"), ("a/my pictures/", "net-mypictures-1"), ("digits", "net-digits-1")],
)
def test_names_of_runs(data: str, name: str) -> None:
    assert new_run_path("net", data).name == name
