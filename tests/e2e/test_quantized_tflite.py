"""A quantized TFLite file through ``quantize``: convolutions round twice, or once when told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("flatbuffers")
from mcuq import load_integer, pipeline
from mcuq.errors import UsageError
from mcuq.ir.integer import QConv2d
from tests.tflite_writer import Net
from tests.unit.test_frontend_tflite import quantized_net


def settings(folder: Path, net: Net, *, one_rounding: bool) -> pipeline.QuantizeSettings:
    """The net's file with noise to look at."""
    (folder / "net.tflite").write_bytes(net.write())
    shape = net.tensors[0]["shape"][1:]
    images = np.random.default_rng(0).integers(0, 256, (20, *shape), np.uint8)
    labels = np.arange(20) % 2
    np.savez(folder / "own.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    choice = pipeline.BitChoice(mem_constraint="200000,100000", board="stm32f4")
    return pipeline.QuantizeSettings(folder / "net.tflite", str(folder / "own.npz"), choice, one_rounding=one_rounding)


@pytest.mark.parametrize(("one_rounding", "roundings"), [(False, 2), (True, 1)])
def test_convolutions_round_as_told(tmp_path: Path, one_rounding: bool, roundings: int) -> None:
    pipeline.quantize(settings(tmp_path, quantized_net(), one_rounding=one_rounding), tmp_path / "run")
    graph, _ = load_integer(tmp_path / "run" / "model.mcuq")
    convolutions = [op for op in graph if isinstance(op, QConv2d)]
    assert [op.roundings for op in convolutions] == [roundings, roundings, 1]  # fully connected layers round once


def test_a_float_file_has_no_roundings_to_choose(tmp_path: Path) -> None:
    net = Net()
    x = net.tensor([1, 4, 4, 2], "float32")
    w = net.constant(np.ones((3, 1, 1, 2), np.float32))
    b = net.constant(np.zeros(3, np.float32))
    stride = {"f0": ("i8", 0), "f1": ("i32", 1), "f2": ("i32", 1)}
    net.op("CONV_2D", [x, w, b], net.tensor([1, 4, 4, 3], "float32"), **stride)
    with pytest.raises(UsageError, match="--one-rounding is for quantized TFLite models"):
        pipeline.quantize(settings(tmp_path, net, one_rounding=True), tmp_path / "run")
