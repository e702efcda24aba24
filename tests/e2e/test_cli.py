"""The commands as users type them: documents, exit codes, error texts, nothing half written."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.conftest import call


def test_lists_are_json(mcuq: Any) -> None:
    boards = mcuq("boards", "--json").document["boards"]
    assert {"stm32h7", "stm32f4", "rp2040", "mps3-an547", "microbit"} <= {b["name"] for b in boards}
    names = {m["name"] for m in mcuq("models", "--json").document["models"]}
    assert {"mobilenet_v1", "mobilenet_v2", "resnet8", "ds_cnn", "autoencoder", "lenet", "toynet"} <= names


def test_doctor_finds_the_compilers(mcuq: Any) -> None:
    result = mcuq("doctor", "--json")
    assert result.code == 0
    assert all(row["cure"] == "" for row in result.document["findings"] if row["found"])


def test_help_of_every_command(mcuq: Any) -> None:
    for command in (
        "train",
        "solve",
        "pareto",
        "quantize",
        "emit",
        "verify",
        "profile",
        "boards",
        "models",
        "doctor",
        "demo",
    ):
        result = mcuq(command, "--help")
        assert result.code == 0
        assert "--json" in result.out


def test_help_groups_options(mcuq: Any) -> None:
    text = mcuq("train", "--help").out
    assert all(panel in text for panel in ("Model", "Data", "Limits and bits", "Training", "Quantizers"))
    assert mcuq("--version").out == f"mcuq {version('mcuq')}\n"


def test_solve_by_the_papers_rule(mcuq: Any) -> None:
    """arXiv 1905.13082: MobileNetV1 1.0 at 224 in 2,048,000 and 512,000 bytes."""
    words = ("solve", "--model", "mobilenet_v1", "--resolution", "224", "--mem-constraint", "[2048000,512000]")
    result = mcuq(*words, "--mixed", "MixPL", "--json")
    assert result.code == 0
    document = result.document
    weights = "".join(str(t["bits"]) for t in document["tensors"] if t["kind"] == "weight")
    assert weights == "8888888888888848484848884822"
    assert document["flash"] == {"used": 1939504, "limit": 2048000}
    assert document["ram"] == {"used": 401408, "limit": 512000}
    assert json.loads(Path("bits.json").read_text())["tensors"]


CONFIG = """\
model = "own_net:build"
data = "own.npz"
weight-bits = 8
act_bits = 4
float-epochs = 1
epochs = 3
quant-type = "PerChannelsAsymMinMax"
branch-quant = false

[recipe]
ema = 0.5
augment = 0
"""


@pytest.mark.slow
def test_a_file_of_options_drives_a_run_and_is_kept_in_its_record(mcuq: Any) -> None:
    """Model, bits and training from one file; the command line wins; run.json has what held in the end."""
    _own_net_and_data()
    Path("run.toml").write_text(CONFIG)
    result = mcuq("train", "--config", "run.toml", "--epochs", "1", "--out", "run", "--json")
    assert result.code == 0, result.err
    bits = {(t["kind"], t["bits"]) for t in result.document["plan"]["tensors"]}
    assert {("weight", 8), ("activation", 4)} <= bits and ("weight", 4) not in bits
    settings = json.loads(Path("run/run.json").read_text())["settings"]
    assert settings["model"]["name"] == "own_net:build" and settings["data"] == "own.npz"
    assert (settings["float_epochs"], settings["epochs"], settings["branch_quant"]) == (1, 1, False)
    assert settings["quant_type"] == "PerChannelsAsymMinMax"
    assert settings["recipe"] == [["ema", "0.5"], ["augment", "0"]]
    assert len(Path("run/log.csv").read_text().splitlines()) == 1 + 1 + 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('modle = "lenet"', "--config run.toml: 'modle' is no option of solve; did you mean model"),
        ('epochs = 3\nmodel = "lenet"', "--config run.toml: 'epochs' is no option of solve"),
        ('config = "run.toml"', "'config' is no option of solve"),
        ("model = lenet", "--config run.toml is no TOML file that can be read"),
        ('model = "lenet"\nfirst-last-bits = "many"', "unable to parse string as an integer"),
    ],
)
def test_files_of_options_that_are_wrong(mcuq: Any, text: str, words: str) -> None:
    Path("run.toml").write_text(text)
    result = mcuq("solve", "--config", "run.toml", "--mem-constraint", "60000,40000")
    assert result.code == 2 and words in result.words.replace("│ ", "")
    missing = mcuq("solve", "--config", "none.toml")
    assert missing.code == 2 and "--config none.toml is no TOML file that can be read: [Errno 2]" in missing.words


def test_solve_exactly(mcuq: Any) -> None:
    words = ("solve", "--model", "resnet8", "--mem-constraint", "60000,40000", "--json")
    result = mcuq(*words)
    assert result.code == 0
    document = result.document
    assert document["status"] == "OPTIMAL"
    assert document["objective"] == document["bound"]
    assert document["flash"]["used"] <= 60000 and document["ram"]["used"] <= 40000
    assert mcuq(*words).document == document


def test_limits_that_cannot_be_met(mcuq: Any) -> None:
    result = mcuq("solve", "--model", "resnet8", "--mem-constraint", "9000,4000", "--json")
    assert result.code == 1
    document = result.document
    assert document["status"] == "INFEASIBLE"
    assert "flash of 9000 bytes cannot hold" in document["message"]
    assert "too many" in document["message"]
    assert document["flash"]["used"] > 9000 and document["ram"]["used"] > 4000
    assert not Path("bits.json").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["solve", "--model", "resnet9", "--mem-constraint", "1,1"], "resnet8"),
        (["solve", "--model", "resnet8"], "solve needs limits: --mem-constraint FLASH,RAM or --board NAME"),
        (["solve", "--model", "resnet8", "--board", "stm32h8"], "unknown board 'stm32h8'; did you mean stm32h7"),
        (["solve", "--model", "resnet8", "--mem-constraint", "1"], "write FLASH,RAM"),
        (["train", "--mixed", "magic"], "--mixed 'magic' is unknown; use exact, MixPL, MixPC"),
        (["train", "--weight-bits", "3"], "--weight-bits 3 is not possible; use 8, 4 or 2"),
        (["train", "--weight-bits", "4", "--mixed", "exact"], "contradict each other"),
        (["train", "--data", "nowhere.npz"], "no file or folder nowhere.npz, neither here nor in"),
        (["train", "--device", "tpu"], "--device 'tpu' is not there; use cpu"),
        (["train", "--recipe", "foo=1"], "--recipe knows augment"),
        (["train", "--optimizer", "foo"], "optimizer must be adamw or sgd, got 'foo'"),
        (["pareto", "--model", "lenet", "--board", "stm32f4", "--out", "a.pdf"], "name a .png file"),
        (["train", "--model", "no_such_module:build"], "cannot import no_such_module"),
        (["verify"], "no RUN given and no run was trained from this folder"),
        (["verify", "missing"], "missing is not a folder"),
        (["emit", "."], "has no run.json; make one with 'mcuq train'"),
    ],
)
def test_bad_input_is_answered(mcuq: Any, arguments: list[str], words: str) -> None:
    result = mcuq(*arguments)
    assert result.code == 2
    assert words in result.words
    assert "Traceback" not in result.err
    assert not Path("runs").exists() and not Path("bits.json").exists()


def test_train_refuses_impossible_limits_before_training(mcuq: Any) -> None:
    result = mcuq("train", "--mem-constraint", "5000,900", "--out", "run")
    assert result.code == 1
    assert "flash of 5000 bytes cannot hold" in result.words
    assert not Path("run").exists()


def test_an_operator_we_do_not_have(mcuq: Any) -> None:
    Path("odd_net.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return torch.erfinv(torch.fft.fft(x).real)\n"
    )
    result = mcuq("train", "--model", "odd_net:Net", "--data", "digits", "--out", "run")
    assert result.code == 2
    assert "erfinv" in result.words and "odd_net.py" in result.words
    assert not Path("run").exists()


def test_nan_weights_name_the_layer(mcuq: Any) -> None:
    Path("nan_net.py").write_text(
        "import torch\n"
        "def build():\n"
        "    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 10))\n"
        "    net[0].weight.data[1, 0, 0, 0] = float('nan')\n"
        "    return net\n"
    )
    result = mcuq("train", "--model", "nan_net:build", "--data", "digits", "--out", "run")
    assert result.code == 2
    assert "NaN" in result.words and "0" in result.words
    assert not Path("run").exists()


def test_emit_without_a_compiler(mcuq: Any, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    refused = mcuq("emit", str(trained), "--board", "stm32f4", "--out", "c")
    assert refused.code == 2 and "arm-none-eabi-gcc was not found" in refused.words
    assert "--no-build writes the C project without" in refused.words and not Path("c").exists()
    assert mcuq("emit", str(trained), "--board", "stm32f4", "--out", "c", "--no-build").code == 0
    assert (Path("c") / "README.md").exists()
    cures = {row["name"].split()[0]: row["cure"] for row in mcuq("doctor", "--json").document["findings"]}
    assert cures["qemu-system-arm"] == "on Debian: sudo apt-get install qemu-system-arm"


def test_foreign_folder_is_left_alone(mcuq: Any) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("years of work")
    result = mcuq("train", "--out", "mine")
    assert result.code == 2
    assert "holds files that are not mcuq's" in result.words
    assert [p.name for p in Path("mine").iterdir()] == ["thesis.txt"]


def test_run_has_everything(trained: Path) -> None:
    names = {p.name for p in trained.iterdir()}
    expected = {"run.json", "bits.json", "model.mcuq", "float.safetensors", "test.npz", "report.html"}
    assert expected <= names
    assert {"bits.png", "memory.png", "curves.png"} <= names
    log = (trained / "log.csv").read_text().splitlines()
    assert log[0] == "phase,epoch,loss,train_accuracy,accuracy,lr,seconds" and len(log) == 1 + 12 + 6
    seconds = {phase: [float(r.split(",")[-1]) for r in log[1:] if r.startswith(phase)] for phase in ("float", "qat")}
    assert [len(values) for values in seconds.values()] == [12, 6] and min(map(min, seconds.values())) > 0
    record = json.loads((trained / "run.json").read_text())
    assert record["top5"]["qat"] >= record["accuracy"]["qat"] and record["top5"]["oracle"] > 0.95
    assert sum(map(sum, seconds.values())) <= record["seconds"]
    assert record["finished"] and record["accuracy"]["float"] > 0.9 and record["accuracy"]["oracle"] > 0.85


@pytest.mark.slow
def test_emit_verify_profile(mcuq: Any, trained: Path) -> None:
    emitted = mcuq("emit", str(trained), "--board", "stm32f4", "--out", "c", "--json").document
    assert emitted["flash"]["measured"] <= 60000 + 200
    assert emitted["ram"]["promised"] == emitted["ram"]["measured"]
    assert emitted["stack"]["bound"] > 0
    assert (Path("c") / "README.md").exists() and set(emitted["files"]) == {
        str(p.relative_to("c")) for p in Path("c").rglob("*") if p.is_file() and p.name != "mcuq-files.txt"
    }
    for target, samples in (("host", 450), ("qemu:mps2-an386", 60)):
        verified = mcuq("verify", str(trained), "--target", target, "--samples", str(samples), "--json").document
        assert verified["mismatching_bytes"] == 0 and verified["compared_bytes"] == 10 * samples
        assert verified["accuracy"]["device"] == verified["accuracy"]["oracle"] > 0.85
        assert verified["top5"]["device"] == verified["top5"]["oracle"] >= verified["accuracy"]["oracle"]
    first = mcuq("profile", str(trained), "--board", "stm32f4", "--json").document
    assert first == mcuq("profile", str(trained), "--board", "stm32f4", "--json").document
    assert first["core"] == "cortex-m4"
    assert abs(sum(first["mix"].values()) - first["instructions"]) <= 20
    assert sum(first["functions"].values()) == sum(first["mix"].values())
    assert first["loops"][0]["instructions"] == max(loop["instructions"] for loop in first["loops"]) > 0
    assert first["instructions"] >= sum(layer["macs"] for layer in first["layers"]) / 4
    assert abs(sum(layer["instructions"] for layer in first["layers"]) / first["instructions"] - 1) < 0.02


def test_an_image_too_large_for_the_board(mcuq: Any, trained: Path) -> None:
    small = Path("small.toml")
    text = (Path(__file__).parents[2] / "boards" / "microbit.toml").read_text()
    small.write_text(text.replace('"256KiB"', '"16KiB"').replace('name = "microbit"', 'name = "small"'))
    result = mcuq("emit", str(trained), "--board", "small.toml", "--out", "c")
    assert result.code == 1
    assert "bytes are missing" in result.words and "region" in result.words
    assert not Path("c").exists()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "hostile name"])
def test_damaged_model_files(capsys: Any, tmp_path: Path, trained: Path, damage: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    data = bytearray((run / "model.mcuq").read_bytes())
    if damage == "truncated":
        data = data[: len(data) // 2]
    elif damage == "flipped":
        data[40] ^= 0xFF
    else:
        name = json.loads((run / "bits.json").read_text())["tensors"][1]["layer"].encode()
        hostile = b"*/x;\\"[: len(name)].ljust(len(name), b"/")
        data = bytearray(bytes(data).replace(b'"' + name + b'"', b'"' + hostile + b'"').replace(name, hostile))
    (run / "model.mcuq").write_bytes(bytes(data))
    result = call(capsys, "emit", str(run), "--board", "stm32f4", "--out", str(tmp_path / "c"))
    if damage == "hostile name":
        # Names are data: a name that survives the format's checks must still not reach the C sources.
        sources = b"".join(p.read_bytes() for p in (tmp_path / "c").rglob("*.[ch]")) if result.code == 0 else b""
        assert result.code in (0, 2) and b"*/x;" not in sources
    else:
        assert result.code == 2
        assert "model.mcuq" in result.words
        assert not (tmp_path / "c").exists()


def _own_net_and_data() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (120, 6, 6, 2), dtype=np.uint8)
    y = (x[:, :3].mean((1, 2, 3)) > x[:, 3:].mean((1, 2, 3))).astype(np.int64)
    np.savez("own.npz", x_train=x[:90], y_train=y[:90], x_test=x[90:], y_test=y[90:])
    Path("own_net.py").write_text(
        "import torch.nn as nn\n"
        "def build():\n"
        "    return nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),\n"
        "                         nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 2))\n"
    )


def test_a_user_writes_a_model_and_data(mcuq: Any) -> None:
    _own_net_and_data()
    words = ["--model", "own_net:build", "--data", "own.npz", "--float-epochs", "2", "--epochs", "1"]
    result = mcuq("train", *words, "--json")
    assert result.code == 0, result.err
    assert result.document["run"].startswith("runs/")
    bits = {(t["layer"], t["kind"]): t["bits"] for t in result.document["plan"]["tensors"]}
    assert set(bits.values()) <= {8, 4}
    verified = mcuq("verify", "--json").document
    assert verified["mismatching_bytes"] == 0 and verified["samples"] == 30


def test_pareto(mcuq: Any) -> None:
    words = ("pareto", "--model", "resnet8", "--mem-constraint", "90000,60000", "--points", "5", "--out", "p.png")
    document = mcuq(*words, "--json").document
    points = document["points"]
    assert len(points) >= 4 and {p["status"] for p in points} == {"OPTIMAL"}
    assert [p["flash"] for p in points] == sorted(p["flash"] for p in points)
    assert [p["objective"] for p in points] == sorted((p["objective"] for p in points), reverse=True)
    assert {"uniform 8", "uniform 4", "uniform 2", "MixPL", "MixPC"} <= {r["method"] for r in document["references"]}
    for reference in document["references"]:
        better = [p for p in points if p["flash"] <= reference["flash"] and p["ram"] <= max(reference["ram"], 60000)]
        assert not better or min(p["objective"] for p in better) <= reference["objective"] + 1e-12
    assert Path("p.png").read_bytes().startswith(b"\x89PNG")


def _exported(path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(3)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(2, 6, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(54, 2),
    )
    torch.onnx.export(net.eval(), torch.zeros(1, 2, 6, 6), str(path), dynamo=False, opset_version=17)


@pytest.mark.slow
def test_quantize_a_file_without_training(mcuq: Any) -> None:
    _exported(Path("net.onnx"))
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (120, 6, 6, 2), dtype=np.uint8)
    np.savez("own.npz", x_train=x[:90], y_train=np.zeros(90, int), x_test=x[90:], y_test=np.arange(30) % 2)
    words = ("quantize", "--model", "net.onnx", "--calibrate", "own.npz", "--mean", "0.5,0.4", "--std", "0.25")
    for bits in (
        (),
        ("--weight-bits", "4", "--act-bits", "4"),
        ("--mem-constraint", "30000,3000", "--sensitivity", "sqnr"),
    ):
        result = mcuq(*words, *bits, "--json")
        assert result.code == 0, result.err
        assert result.document["fits"]
        assert abs(result.document["accuracy"]["float"] - result.document["accuracy"]["oracle"]) <= 0.2
    verified = mcuq("verify", "--target", "qemu:mps2-an386", "--json").document
    assert verified["mismatching_bytes"] == 0 and verified["samples"] == 30


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--model", "none.onnx"), "none.onnx is not a file"),
        (("--model", "bad.onnx"), "bad.onnx"),
        (("--model", "net.onnx", "--mean", "1,2,3"), "--mean has 3 values; give one, or one for each of 2 channels"),
        (("--model", "net.onnx", "--mean", "a"), "--mean 'a' is not understood"),
        (("--model", "net.onnx", "--mean", "0.5", "--std", "0"), "every value must be above 0"),
        (("--model", "net.onnx", "--mem-constraint", "2000,100"), "flash of 2000 bytes cannot hold"),
    ],
)
def test_quantize_answers_bad_input(mcuq: Any, words: tuple[str, ...], text: str) -> None:
    _exported(Path("net.onnx"))
    Path("bad.onnx").write_bytes(b"not a model")
    x = np.zeros((8, 6, 6, 2), np.uint8)
    np.savez("own.npz", x_train=x, y_train=np.arange(8) % 2, x_test=x, y_test=np.arange(8) % 2)
    result = mcuq("quantize", "--calibrate", "own.npz", *words)
    assert result.code in (1, 2)
    assert text in result.words
    assert not Path("runs").exists()


@pytest.mark.slow
def test_interrupted_and_damaged_runs(mcuq: Any) -> None:
    words = ("train", "--float-epochs", "2", "--epochs", "2", "--weight-bits", "8", "--act-bits", "8", "--out", "run")
    assert mcuq(*words).code == 0
    whole = Path("run/model.mcuq").read_bytes()
    again = mcuq(*words)
    assert again.code == 2 and "holds a run; go on with it by --resume" in again.words
    assert Path("run/model.mcuq").read_bytes() == whole
    Path("run/model.mcuq").unlink()
    assert "training has not finished" in mcuq("emit", "run").words
    assert mcuq(*words[:-2], "--resume").code == 0
    assert Path("run/model.mcuq").read_bytes() == whole
    state = next(Path("run/checkpoint/qat").glob("*.safetensors"))
    state.write_bytes(state.read_bytes()[:1000])
    result = mcuq(*words, "--resume")
    assert result.code in (1, 2)
    assert "checkpoint" in result.words and "Traceback" not in result.err


@pytest.mark.slow
def test_float_weights_of_a_file(mcuq: Any, trained: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    tensors = safetensors.load_file(str(trained / "float.safetensors"))
    words = ("train", "--epochs", "0", "--weight-bits", "8", "--act-bits", "8", "--weights", "w.safetensors")
    safetensors.save_file(tensors, "w.safetensors")
    result = mcuq(*words, "--json")
    assert result.code == 0 and result.document["accuracy"]["float"] > 0.9
    name = next(n for n in tensors if n.endswith("weight"))
    broken = dict(tensors)
    broken[name] = np.full_like(tensors[name], np.nan)
    safetensors.save_file(broken, "w.safetensors")
    assert f"values of {name} are NaN or infinite" in mcuq(*words).words
    del broken[name]
    safetensors.save_file(broken, "w.safetensors")
    assert f"{name} is missing" in mcuq(*words).words
    Path("w.safetensors").write_bytes(b"\x80\x02pickle")
    assert "is not a safetensors file" in mcuq(*words).words


@pytest.mark.slow
def test_logits_of_32_bits(mcuq: Any) -> None:
    words = ("train", "--float-epochs", "4", "--epochs", "1", "--weight-bits", "4", "--act-bits", "4", "--logits", "32")
    assert mcuq(*words, "--out", "run").code == 0
    verified = mcuq("verify", "run", "--target", "qemu:rp2040", "--samples", "30", "--json").document
    assert verified["mismatching_bytes"] == 0 and verified["compared_bytes"] == 40 * 30


@pytest.mark.slow
def test_bits_edited_by_hand(mcuq: Any, trained: Path) -> None:
    document = json.loads((trained / "bits.json").read_text())
    for tensor in document["tensors"]:
        if tensor["kind"] == "weight":
            tensor["bits"] = 4
    Path("mine.json").write_text(json.dumps(document))
    weights = ("--weights", str(trained / "float.safetensors"), "--epochs", "1", "--bits", "mine.json")
    result = mcuq("train", *weights, "--out", "run", "--json")
    assert result.code == 0, result.err
    plan = result.document["plan"]
    assert {t["bits"] for t in plan["tensors"] if t["kind"] == "weight"} == {4}
    assert plan["status"] == "FEASIBLE" and plan["flash"]["used"] > 30000
    tight = mcuq("train", *weights, "--mem-constraint", "20000,9000", "--out", "tight")
    assert tight.code == 1
    assert "--bits mine.json: the network needs" in tight.words and "limits are 20000 and 9000" in tight.words
    document["tensors"][1]["bits"] = 5
    Path("mine.json").write_text(json.dumps(document))
    wrong = mcuq("train", *weights, "--out", "wrong")
    assert wrong.code == 2
    assert "5" in wrong.words and document["tensors"][1]["layer"] in wrong.words
