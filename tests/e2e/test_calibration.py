"""``mcuq quantize`` with XportDNN's options (CHaiDNN): unlabelled images, preprocessing, widths, precision files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
image = pytest.importorskip("PIL.Image")

from mcuq.frontend.files import import_model  # noqa: E402
from mcuq.ir.files import load_integer  # noqa: E402
from mcuq.ir.fuse import fuse  # noqa: E402
from mcuq.ir.graph import Graph  # noqa: E402
from mcuq.ir.integer import QConv2d  # noqa: E402
from mcuq.reference import floating, integer  # noqa: E402

MEAN = "104,117,123"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small net for BGR maps 3x10x12 in 0..255 less a mean, with a batch norm and a shortcut."""

    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
            self.norm = torch.nn.BatchNorm2d(8)
            self.second = torch.nn.Conv2d(8, 8, 3, padding=1)
            self.last = torch.nn.Linear(8, 4)

        def forward(self, x: Any) -> Any:
            x = torch.relu(self.norm(self.first(x)))
            x = torch.relu(self.second(x) + x)
            return self.last(x.mean((2, 3)))

    torch.manual_seed(5)
    net = Small().eval()
    net.norm.running_mean.normal_(0, 5)
    net.norm.running_var.uniform_(900, 4000)
    path = tmp_path_factory.mktemp("model") / "small.onnx"
    torch.onnx.export(net, torch.zeros(1, 3, 10, 12), str(path), dynamo=False, opset_version=17)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty unlabelled pictures of two sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for index in range(40):
        small = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        size = (24, 20) if index % 3 else (36, 30)
        image.fromarray(small).resize(size, image.Resampling.BILINEAR).save(folder / f"{index:02d}.png")
    return folder


def words(model: Path, pictures: Path, *more: str) -> tuple[str, ...]:
    caffe = ("--dims", "3,10,12", "--transpose", "2,0,1", "--channel-swap", "2,1,0", "--raw-scale", "255.0")
    return ("quantize", "--model", str(model), "--calibrate", str(pictures), *caffe, "--mean-value", MEAN, *more)


@pytest.mark.parametrize("size", ["8", pytest.param("32", marks=pytest.mark.slow)])
def test_c5_unlabelled_images(mcuq: Any, model: Path, pictures: Path, size: str) -> None:
    """Deterministic with 8 and with 32 images; the float network sees what Caffe's Transformer would give it."""
    runs: list[bytes] = []
    for name in ("a", "b"):
        result = mcuq(*words(model, pictures, "--calibration-size", size, "--out", name, "--json"))
        assert result.code == 0, result.err
        accuracy = result.document["accuracy"]
        assert accuracy["float"] is None and accuracy["oracle"] is None
        assert accuracy["agreement"] >= 0.9
        runs.append(Path(name, "model.mcuq").read_bytes())
    assert runs[0] == runs[1]
    assert mcuq(*words(model, pictures, "--calibration-size", "16", "--out", "c", "--json")).code == 0
    assert Path("c/model.mcuq").read_bytes() != runs[0], "other images, other ranges"
    float_graph = import_model(model)
    assert isinstance(float_graph, Graph)
    with np.load("a/test.npz") as test:
        pixels = test["x"]
        assert test["y"].tolist() == [-1] * 40
    first = np.asarray(image.open(pictures / "00.png").convert("RGB").resize((12, 10), image.Resampling.BILINEAR))
    np.testing.assert_array_equal(pixels[0], first[..., ::-1])
    real = pixels - np.array([float(v) for v in MEAN.split(",")])
    scores = floating.run(fuse(float_graph), real)[float_graph.outputs[0]].reshape(40, -1)
    lowered, _ = load_integer(Path("a/model.mcuq"))
    tensor = lowered.tensor(lowered.outputs[0])
    codes = integer.run_outputs(lowered, pixels)[lowered.outputs[0]].reshape(40, -1)
    error = tensor.scale * (codes - tensor.zero_point) - scores
    assert np.abs(error).max() < 0.1 * scores.std() + 3 * tensor.scale


@pytest.mark.slow
def test_c5_rows_and_columns_may_be_swapped(mcuq: Any, model: Path, pictures: Path) -> None:
    base = words(model, pictures)
    swapped = tuple("2,1,0" if w == "2,0,1" else w for w in base)
    assert mcuq(*swapped, "--out", "t").code == 0
    with np.load("t/test.npz") as test:
        turned = np.asarray(image.open(pictures / "00.png").convert("RGB").resize((10, 12), image.Resampling.BILINEAR))
        np.testing.assert_array_equal(test["x"][0], turned.swapaxes(0, 1)[..., ::-1])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["absmax", "percentile", "mse", "kl"])
def test_c6_calibration_methods(mcuq: Any, model: Path, pictures: Path, method: str) -> None:
    result = mcuq(*words(model, pictures, "--ranges", method, "--grid", "threshold", "--out", "r", "--json"))
    assert result.code == 0 and result.document["accuracy"]["agreement"] >= 0.85
    blocks = {b["layer"]: b for b in json.loads(Path("r/precision.json").read_text())["layers"]}
    last = list(blocks.values())[-1]
    assert last["th_layer_in"] in [b["th_layer_out"] for b in blocks.values()]


@pytest.mark.slow
def test_c7_widths_and_their_defaults(mcuq: Any, model: Path, pictures: Path) -> None:
    """in,params,out; 6,6,6 and 2,5,2 where a quantization type comes without."""
    cases = {
        ("--quant-type", "Xilinx"): (6, 6, 6, None),
        ("--quant-type", "Xilinx", "--bitwidths", "8,6,8"): (8, 6, 8, None),
        ("--quant-type", "DynamicFixed"): (6, 6, 6, (2, 5, 2)),
        ("--grid", "fixed", "--bitwidths", "8,8,8", "--fl-bitwidths", "-1,6,3"): (8, 8, 8, (-1, 6, 3)),
    }
    for index, (options, (into, params, out, fl)) in enumerate(cases.items()):
        result = mcuq(*words(model, pictures, *options, "--out", f"w{index}", "--json"))
        assert result.code == 0, result.err
        blocks = json.loads(Path(f"w{index}/precision.json").read_text())["layers"]
        assert blocks[0]["bw_layer_out"] == into and all(b["bw_layer_out"] == out for b in blocks[1:])
        assert {b["bw_params"] for b in blocks if "bw_params" in b} == {params}
        if fl is not None:
            assert blocks[0]["fl_layer_out"] == fl[0] and {b["fl_layer_out"] for b in blocks[1:]} == {fl[2]}
            assert {b["fl_params"] for b in blocks if "fl_params" in b} == {fl[1]}
    verified = mcuq("verify", "w1", "--json")
    assert verified.code == 0 and verified.document["mismatching_bytes"] == 0
    assert verified.document["accuracy"] == {"float": None, "oracle": None, "device": None}


@pytest.mark.slow
def test_c8_an_edited_precision_file_goes_back_in(mcuq: Any, model: Path, pictures: Path) -> None:
    assert mcuq(*words(model, pictures, "--quant-type", "Xilinx", "--bitwidths", "8,8,8", "--out", "one")).code == 0
    text = Path("one/precision.json").read_text()
    assert mcuq(*words(model, pictures, "--precision", "one/precision.json", "--out", "two")).code == 0
    assert Path("two/precision.json").read_text() == text
    data = json.loads(text)
    edited = next(b for b in data["layers"] if "bw_params" in b)
    edited["bw_params"], edited["th_layer_out"] = 6, 33.0
    Path("edited.json").write_text(json.dumps(data))
    result = mcuq(*words(model, pictures, "--precision", "edited.json", "--out", "three"))
    assert result.code == 0
    assert "but it is written with 33.0: a drop in accuracy may be observed" in result.words
    graph, _ = load_integer(Path("three/model.mcuq"))
    conv = next(op for op in graph if isinstance(op, QConv2d) and op.name == edited["layer"])
    assert np.abs(conv.weight).max() <= 32 and conv.output.scale == pytest.approx(33.0 / 127)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--bitwidths", "7,8,8", "--grid", "threshold"), "--bitwidths 7,8,8: 8 and 6 are possible"),
        (("--bitwidths", "8,8", "--grid", "threshold"), "--bitwidths has 2 values; give three"),
        (("--bitwidths", "8,8,8"), "--bitwidths needs --quant-type, or --grid"),
        (("--fl-bitwidths", "2,5,2", "--quant-type", "Xilinx"), "--fl-bitwidths needs --quant-type DynamicFixed"),
        (("--quant-type", "Intel"), "use Xilinx or DynamicFixed"),
        (("--quant-type", "Xilinx", "--weight-bits", "4"), "widths are given twice"),
        (("--dims", "3,10"), "--dims 3,10: three sizes"),
        (("--dims", "3,12,10"), "input shape (12, 10, 3) (H, W, C) does not fit"),
        (("--transpose", "0,2,1"), "--transpose 0,2,1: 0, 1 and 2"),
        (("--channel-swap", "0,1"), "--channel-swap has 2 entries, the images 3 channels"),
        (("--channel-swap", "1,2,3"), "--channel-swap 1,2,3: each channel once"),
        (("--mean-value", "1,2"), "--mean-value has 2 values"),
        (("--mean", "0.5"), "say the same as --raw-scale"),
        (("--raw-scale", "0"), "--raw-scale 0.0: it has to be above 0"),
        (("--scaling", "float"), "scaling must be one of exact"),
        (("--precision", "none.json"), "none.json"),
    ],
)
def test_wrong_options(mcuq: Any, model: Path, pictures: Path, options: tuple[str, ...], text: str) -> None:
    result = mcuq(*words(model, pictures), *options)
    assert result.code == 2 and text in result.words
    assert not Path("runs").exists()
