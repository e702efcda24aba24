"""Two processes train as one: gloo on this computer."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from mcuq.quant import QuantOp, distributed  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

WORKER = """
import sys, torch
from torch import nn
from dataclasses import replace
from mcuq.quant import QuantOp, TrainConfig, distributed, train_float, train_qat
from tests.unit.test_distributed import data, net

rate = 2e-2 if sys.argv[2] == "sgd" else 2e-3
config = TrainConfig(2, batch_size=21, lr=rate, optimizer=sys.argv[2], reestimate=2, calibration=32, seed=3)
with distributed.processes("cpu"):
    model = net()
    history = train_float(model, data(), config)
    after = {f"float.{k}": v.clone() for k, v in model.state_dict().items()}
    op = QuantOp(model, "PerChannelsSymMSE", 4, act_bits=4, input_shape=(8, 8, 1), fold_delay=1, fold_type="ICN",
                 normalization=data().normalization)
    history += train_qat(op, data(), replace(config, lr=rate / 4))
    if distributed.rank() == 0:
        state = after | {f"qat.{k}": v for k, v in op.state_dict().items()}
        torch.save((state, [h.loss for h in history], distributed.world()), sys.argv[1])
"""


def data() -> object:
    from tests.unit.test_train import small_data

    return small_data()


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AvgPool2d(4),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


Result = tuple[dict[str, "torch.Tensor"], list[float], int]


def train(folder: Path, name: str, start: list[str], optimizer: str, **environment: str) -> Result:
    """State, losses of the epochs and number of processes of a training."""
    script = folder / "worker.py"
    script.write_text(WORKER)
    command = [*start, str(script), str(folder / name), optimizer]
    env = {**ENVIRONMENT, **environment}
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=ROOT, timeout=500)
    assert done.returncode == 0, done.stderr
    return torch.load(folder / name, weights_only=True)


@pytest.mark.slow
def test_adamw_on_two_processes_drifts_as_on_one_with_other_sums(tmp_path: Path) -> None:
    """Float losses agree to 1e-3. With quantization another order of sums flips codes, and AdamW makes whole steps of
    small gradients: kernels that add in another order move the losses of one process as far, within 5 %."""
    one = train(tmp_path, "one", [sys.executable], "adamw")
    sums = train(tmp_path, "sums", [sys.executable], "adamw", MCUQ_KERNELS="torch")
    two = train(tmp_path, "two", TORCHRUN, "adamw")
    assert (one[2], sums[2], two[2]) == (1, 1, 2)
    for other in (sums, two):
        assert other[1][:2] == pytest.approx(one[1][:2], rel=1e-3)
        assert other[1][2:] == pytest.approx(one[1][2:], rel=5e-2)


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(tmp_path: Path) -> None:
    """Losses agree to 1e-3, float weights to 1e-3 of their size; batches of 21 split into 11 and 10 images."""
    one, losses, alone = train(tmp_path, "one", [sys.executable], "sgd")
    two, same, together = train(tmp_path, "two", TORCHRUN, "sgd")
    assert (alone, together) == (1, 2)
    assert same == pytest.approx(losses, rel=1e-3)
    for name, value in one.items():
        if not value.is_floating_point():
            assert torch.equal(value, two[name]), name
            continue
        scale = float(value.abs().max())
        tolerance = 1e-3 if name.startswith("float.") else 2e-2  # a code that flips is one step
        assert float((value - two[name]).abs().max()) <= tolerance * max(scale, 1e-3), name


@pytest.mark.slow
def test_torchrun_trains_and_only_the_first_process_writes(tmp_path: Path) -> None:
    arguments = "train --data digits --model resnet_tiny --epochs 1 --float-epochs 1 --batch-size 64 --json"
    out = ["--weight-bits", "4", "--act-bits", "4", "--out", str(tmp_path / "run")]
    command = [*TORCHRUN, "-m", "mcuq", *arguments.split(), *out]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, cwd=tmp_path, timeout=500)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"]["oracle"] > 0.5, "one document, of the first process"
    assert json.loads((tmp_path / "run" / "run.json").read_text())["finished"]
    with (tmp_path / "run" / "log.csv").open() as file:
        assert [row["phase"] for row in csv.DictReader(file)] == ["float", "qat"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "runs"]


def test_one_process_changes_nothing() -> None:
    module = net()
    assert distributed.parallel(module) is module
    with distributed.processes("cpu") as device, distributed.sharding():
        assert (device, distributed.world(), distributed.rank(), distributed.sharded()) == ("cpu", 1, 0, False)
        assert distributed.of_first("x") == "x" and distributed.total(1.5, 2.0) == [1.5, 2.0]
        batch = torch.arange(5)
        assert distributed.part(batch) is batch


def test_weights_have_parameters_of_their_own_to_ignore() -> None:
    """DistributedDataParallel must not wait for gradients that backward does not bring."""
    op = QuantOp(net(), "PerLayerAsymPACT", 4, input_shape=(8, 8, 1))
    own = {id(p) for p in op.weight_quantizers.parameters()}
    assert own and own <= {id(p) for p in op.parameters()}
