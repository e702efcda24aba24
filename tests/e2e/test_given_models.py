"""Models that others trained, when the measuring data is at hand (MCUQ_DATA): import, values, accuracy.

Expected values are onnxruntime's for the input sin(0.37 i), every fifth of each output.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
from mcuq.data.fetch import find_data_dir
from mcuq.frontend.files import import_model
from mcuq.ir.fuse import fuse
from mcuq.ir.graph import Graph
from mcuq.ir.integer import IntegerGraph
from mcuq.ir.quantized import QuantizedGraph
from mcuq.ir.text import to_text
from mcuq.lower.lower import lower
from mcuq.numerics import quantize
from mcuq.reference import floating, integer

DATA = find_data_dir()
MODELS = None if DATA is None else DATA / "models"
pytestmark = pytest.mark.skipif(
    MODELS is None or not MODELS.is_dir(), reason="no models: set MCUQ_DATA to a folder with models/"
)
RESNET = [4.8849, -2.833, -6.1707, 4.2732, 0.12654]
KEYWORDS = [-1.1456, -1.2167, -0.89235, -1.1279, -1.0914, -4.3611]
EXPECTED: dict[str, list[list[float]]] = {
    "cifar10_resnet20.onnx": [RESNET],
    "cifar10_resnet20.legacy.onnx": [RESNET],
    "mlperf_tiny_kws_dscnn.onnx": [KEYWORDS],
    "mlperf_tiny_kws_dscnn.legacy.onnx": [KEYWORDS],
    "mnist_cntk.onnx": [[-0.66425, 0.53525, -0.49482, -0.37138, 0.23881]],
    "mobilenet_v2_0.35_128_tfs_channel_first.onnx": [[0.033023, 0.0047973, 0.48004, 2.864e-05, 0.48211]],
    "ultraface_slim_320.onnx": [
        [0.89465, 0.89459, 0.89444, 0.89439, 0.89496],
        [0.67996, 0.41122, 0.25825, -0.84236, 0.0058118],
    ],
}


def model(name: str) -> Path:
    assert MODELS is not None
    path = MODELS / name
    if not path.is_file():
        pytest.skip(f"{name} is not in {MODELS}")
    return path


def load_float(name: str) -> Graph:
    graph = import_model(model(name))
    assert isinstance(graph, Graph)
    return graph


def load_integer(name: str, roundings: int | None = None) -> IntegerGraph:
    quantized = import_model(model(name), roundings=roundings)
    assert isinstance(quantized, QuantizedGraph)
    return lower(quantized)


@pytest.mark.parametrize("name", EXPECTED)
def test_values_equal_onnxruntime(name: str) -> None:
    graph = fuse(load_float(name))
    height, width, channels = graph.input.shape
    x = np.sin(0.37 * np.arange(height * width * channels)).astype(np.float32).reshape(1, channels, height, width)
    values = floating.run(graph, x.transpose(0, 2, 3, 1).astype(np.float64))
    for output, expected in zip(graph.outputs, EXPECTED[name], strict=True):
        flat = values[output].ravel()
        np.testing.assert_allclose(flat[:: max(1, flat.size // 5)][:6], expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", ["cifar10_resnet20", "mlperf_tiny_kws_dscnn"])
def test_both_exporters_give_one_network(name: str) -> None:
    """One padding spread over six nodes, or not: the same operators, the same weights."""
    new, old = fuse(load_float(f"{name}.onnx")), fuse(load_float(f"{name}.legacy.onnx"))
    assert anonymous(new) == anonymous(old)
    for ours, theirs in zip(new.convs, old.convs, strict=True):
        np.testing.assert_allclose(ours.weight, theirs.weight, atol=2e-6)


def anonymous(graph: Graph) -> list[str]:
    """The graph's text without names: ``conv2d 3x3 pad 1,1,1,1 w16x3x3x3 bias clamp 0.. : 32x32x16``."""
    return [re.sub(r"^\S+ = (\w+)\([^)]*\)", r"\1", line) for line in to_text(graph).splitlines()[:-1]]


def keywords() -> tuple[Any, Any]:
    assert DATA is not None
    with np.load(DATA / "kws_speech_commands_eval.npz") as data:
        return data["mfcc_int8"], data["y"]


def cifar() -> tuple[Any, Any]:
    assert DATA is not None
    with np.load(DATA / "cifar10_lossless_part.npz") as data:
        return data["x_test"], data["y_test"]


def normalized(pixels: Any) -> Any:
    return (pixels / 255.0 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])


def accuracy(graph: IntegerGraph, codes: Any, labels: Any) -> float:
    scores = integer.run_outputs(graph, codes)[graph.outputs[0]].reshape(len(codes), -1)
    return 100.0 * float((scores.argmax(axis=1) == labels).mean())


def codes_of(graph: IntegerGraph, real: Any) -> Any:
    tensor = graph.input.output
    return quantize(real, tensor.scale, tensor.zero_point, 8)


def test_keyword_tflite() -> None:
    x, y = keywords()
    assert accuracy(load_integer("mlperf_tiny_kws_int8.tflite"), x, y) == pytest.approx(90.1, abs=0.5)


def test_keyword_qdq() -> None:
    x, y = keywords()
    graph = load_integer("mlperf_tiny_kws_dscnn.qdq_int8.onnx")
    assert accuracy(graph, codes_of(graph, (x.astype(np.float64) - 83) * 0.5847029), y) == pytest.approx(91.4, abs=0.3)


def test_image_tflite_on_some() -> None:
    x, y = cifar()
    codes = x[:300].astype(np.int64) - 128
    assert accuracy(load_integer("mlperf_tiny_ic_int8.tflite"), codes, y[:300]) == pytest.approx(86.9, abs=4)


TFLITE = [
    ("mlperf_tiny_kws_int8.tflite", "caad2b8033e53c73", 0.99),
    ("mlperf_tiny_ic_int8.tflite", "5eae8cb32712a3ae", 0.98),
]
"""Model, hash of the classes (uint8) that LiteRT's reference kernels choose, share of them with one rounding."""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "theirs", "least"), TFLITE)
def test_top_class_is_that_of_the_reference_kernels(name: str, theirs: str, least: float) -> None:
    """By default on every sample; with one rounding, where deviations of a step add up through the layers, on most."""
    codes = keywords()[0] if "kws" in name else cifar()[0].astype(np.int64) - 128
    chosen: list[Any] = []
    for roundings in (None, 1):
        graph = load_integer(name, roundings)
        scores = integer.run_outputs(graph, codes.astype(np.int64))[graph.outputs[0]]
        chosen.append(scores.reshape(len(codes), -1).argmax(axis=1).astype(np.uint8))
    assert hashlib.sha256(chosen[0].tobytes()).hexdigest().startswith(theirs)
    assert (chosen[1] == chosen[0]).mean() >= least


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["mps2-an386", "mps2-an385", "mps3-an547"])
@pytest.mark.parametrize("name", [name for name, *_ in TFLITE])
def test_two_roundings_cost_little(name: str, machine: str) -> None:
    """Instructions beside those of one rounding: kernels of every family have both."""
    from mcuq.build.run import count
    from mcuq.parity import built, compare_image
    from mcuq.plan.memory import plan_memory
    from mcuq.target.board import load_board

    board, counts = load_board(machine), list[int]()
    for roundings in (1, 2):
        graph = load_integer(name, roundings)
        codes = np.random.default_rng(0).integers(-128, 128, (1, *graph.input.output.shape))
        with built(graph, plan_memory(graph, board.core, effort=1.0), board) as image:
            result = compare_image(image, codes)
            assert result.exact, result.first
            counts.append(count(image, codes[0]).total)
    assert counts[0] < counts[1] < 1.06 * counts[0]


@pytest.mark.slow
def test_image_tflite() -> None:
    x, y = cifar()
    codes = x.astype(np.int64) - 128
    assert accuracy(load_integer("mlperf_tiny_ic_int8.tflite"), codes, y) == pytest.approx(87.3, abs=0.1)


@pytest.mark.slow
def test_resnet_qdq() -> None:
    x, y = cifar()
    graph = load_integer("cifar10_resnet20.qdq_int8.onnx")
    assert accuracy(graph, codes_of(graph, normalized(x)), y) == pytest.approx(91.17, abs=0.3)


def quantized_accuracy(bits: tuple[int, int], name: str) -> float:
    """Accuracy of the integer network after quantization without training."""
    torch = pytest.importorskip("torch")
    from mcuq.quant.ptq import ptq

    torch.set_num_threads(1)
    if name == "cifar10_resnet20.onnx":
        assert DATA is not None
        with np.load(DATA / "cifar10_lossless_part.npz") as data:
            calibration = normalized(data["x_train"][::23][:512])
        pixels, labels = cifar()
        x = normalized(pixels)
    else:
        codes, labels = keywords()
        x = (codes.astype(np.float64) - 83) * 0.5847029
        calibration = x[:100]
    graph = lower(ptq(load_float(name), calibration, bits))
    return accuracy(graph, codes_of(graph, x), labels)


@pytest.mark.slow
def test_keywords_without_training() -> None:
    """Float reads 91.3 %; calibrated on 100 of the same, unlabelled."""
    assert quantized_accuracy((8, 8), "mlperf_tiny_kws_dscnn.onnx") > 91.3 - 0.5
    assert quantized_accuracy((4, 8), "mlperf_tiny_kws_dscnn.onnx") > 91.3 - 2.0
    assert quantized_accuracy((2, 8), "mlperf_tiny_kws_dscnn.onnx") > 83.0


@pytest.mark.slow
def test_resnet_without_training() -> None:
    """Float reads 91.33 %; calibrated on 512 training images."""
    assert quantized_accuracy((8, 8), "cifar10_resnet20.onnx") > 91.33 - 0.3
    assert quantized_accuracy((4, 8), "cifar10_resnet20.onnx") > 91.33 - 1.5


@pytest.mark.parametrize("name", ["mobilenet_v2_0.35_128_tfs_channel_first.onnx", "ultraface_slim_320.onnx"])
def test_large_networks_become_integers(name: str) -> None:
    """Quantized on noise: the integer network follows the float one on its outputs' own scale."""
    pytest.importorskip("torch")
    from mcuq.quant.ptq import PtqOptions, ptq

    graph = fuse(load_float(name))
    height, width, channels = graph.input.shape
    phase = np.arange(height * width * channels).reshape(1, height, width, channels)
    x = np.concatenate([np.sin(0.37 * phase), np.sin(0.0011 * phase), np.sin(0.11 * phase) * 0.5])
    lowered = lower(ptq(graph, x, (8, 8), PtqOptions(activations="absmax")))
    values = integer.run_outputs(lowered, codes_of(lowered, x[:1]))
    real = floating.run(graph, x[:1])
    for output in graph.outputs:
        tensor = lowered.tensor(output)
        error = tensor.scale * (values[output] - tensor.zero_point) - real[output]
        assert np.sqrt(np.square(error).mean()) < 0.15 * max(real[output].std(), 0.2)


@pytest.mark.parametrize(
    "name",
    [
        "mlperf_tiny_kws_int8.tflite",
        "mlperf_tiny_ic_int8.tflite",
        "cifar10_resnet20.qdq_int8.onnx",
        "mlperf_tiny_kws_dscnn.qdq_int8.onnx",
        "ultraface_slim_320.onnx",
        "mobilenet_v2_0.35_128_tfs_channel_first.onnx",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                "cifar10_resnet20.onnx",
                "cifar10_resnet20.legacy.onnx",
                "mlperf_tiny_kws_dscnn.onnx",
                "mlperf_tiny_kws_dscnn.legacy.onnx",
                "mnist_cntk.onnx",
            )
        ),
    ],
)
def test_emitted_c_is_bit_exact(name: str) -> None:
    """Every byte of every tensor of the C program on this computer equals the integer reference's."""
    pytest.importorskip("torch")
    if shutil.which("gcc") is None:
        pytest.skip("no host compiler: install gcc")
    from mcuq.parity import compare
    from mcuq.plan.memory import plan_memory
    from mcuq.quant.ptq import PtqOptions, ptq

    graph = import_model(model(name))
    if isinstance(graph, Graph):
        height, width, channels = graph.input.shape
        noise = np.sin(0.37 * np.arange(height * width * channels)).reshape(1, height, width, channels)
        graph = ptq(graph, noise, (8, 8), PtqOptions(activations="absmax"))
    lowered = lower(graph)
    codes = np.random.default_rng(0).integers(-128, 128, (1, *lowered.input.output.shape))
    result = compare(lowered, plan_memory(lowered, "portable", effort=1.0), None, codes)
    assert result.exact, result.first
