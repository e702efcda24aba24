"""Training loops: resume, damaged checkpoints, NaN, determinism, accuracy on the embedded digits."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from mcuq.data.dataset import Augmentation, Dataset  # noqa: E402
from mcuq.errors import TrainingError, UsageError  # noqa: E402
from mcuq.ir.graph import Normalization  # noqa: E402
from mcuq.quant import QuantOp  # noqa: E402
from mcuq.quant.batches import Batches  # noqa: E402
from mcuq.quant.evaluate import accuracy, evaluate, real_inputs  # noqa: E402
from mcuq.quant.settings import EpochResult, Step, TrainConfig, schedule  # noqa: E402
from mcuq.quant.train import train_float, train_qat  # noqa: E402


def small_data(count: int = 96) -> Dataset:
    rng = np.random.default_rng(0)
    y = (np.arange(count) % 3).astype(np.int64)
    x = rng.integers(0, 90, (count, 8, 8, 1))
    x[np.arange(count), 2 * y] += 150
    return Dataset(
        name="stripes",
        x_train=x[: count // 2].astype(np.uint8),
        y_train=y[: count // 2],
        x_test=x[count // 2 :].astype(np.uint8),
        y_test=y[count // 2 :],
        classes=("a", "b", "c"),
        normalization=Normalization(1 / 64, 60),
        augmentation=Augmentation(flip=True, shift=1),
    )


def small_net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(96, 3),
    )


def op_of(net: nn.Module, bits: int = 4, **options: object) -> QuantOp:
    data = small_data()
    options = {"input_shape": (8, 8, 1), "normalization": data.normalization, "act_bits": bits} | options
    return QuantOp(net, "PerChannelsSymMSE", bits, **options)  # type: ignore[arg-type]


CONFIG = TrainConfig(4, batch_size=16, lr=3e-3, reestimate=2, calibration=32)


class Stop(Exception):
    pass


class StopAfter:
    """Ends the training the hard way in the middle of an epoch, as a crash would."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_step(self, step: Step) -> None:
        if step.epoch == self.epoch and step.step == 1:
            raise Stop

    def on_epoch(self, result: EpochResult) -> None: ...


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("phase", ["float", "qat"])
def test_r33_resume_gives_the_same_bits(phase: str, optimizer: str, tmp_path: Path) -> None:
    from dataclasses import replace

    config = replace(CONFIG, optimizer=optimizer)

    def run(folder: Path, crash: bool, resume: bool) -> tuple[dict[str, torch.Tensor], list[EpochResult]]:
        net = small_net()
        progress = StopAfter(2) if crash else None
        if phase == "float":
            history = train_float(net, small_data(), config, progress=progress, checkpoint=folder, resume=resume)
            return net.state_dict(), history
        op = op_of(net, fold_delay=1, fold_type="folding_weights")
        history = train_qat(op, small_data(), config, progress=progress, checkpoint=folder, resume=resume)
        return op.state_dict(), history

    whole, history = run(tmp_path / "whole", False, False)
    with pytest.raises(Stop):
        run(tmp_path / "crashed", True, False)
    resumed, resumed_history = run(tmp_path / "crashed", False, True)
    assert len(whole) > 5
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
    assert [r.loss for r in history] == [r.loss for r in resumed_history]
    assert [r.accuracy for r in history] == [r.accuracy for r in resumed_history]


def test_a_finished_training_resumes_to_itself(tmp_path: Path) -> None:
    net = small_net()
    train_float(net, small_data(), CONFIG, checkpoint=tmp_path)
    again = small_net(5)
    history = train_float(again, small_data(), CONFIG, checkpoint=tmp_path, resume=True)
    assert len(history) == CONFIG.epochs
    for name, value in net.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert len(list(tmp_path.glob("tensors-*"))) == 1


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    def resume(net: nn.Module | None = None, config: TrainConfig = CONFIG) -> None:
        train_float(net or small_net(), small_data(), config, checkpoint=tmp_path, resume=True)

    with pytest.raises(TrainingError, match="no checkpoint in"):
        resume()
    train_float(small_net(), small_data(), CONFIG, checkpoint=tmp_path)
    with pytest.raises(TrainingError, match=r"other settings: lr was 0\.003, is 0\.1"):
        resume(config=TrainConfig(4, batch_size=16, lr=0.1, reestimate=2, calibration=32))
    with pytest.raises(TrainingError, match="of another network"):
        resume(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))
    (tensors,) = tmp_path.glob("tensors-*")
    data = tensors.read_bytes()
    tensors.write_bytes(data[: len(data) // 2])
    with pytest.raises(TrainingError, match=r"damaged: its SHA-256 differs \(\d+ bytes; truncated or edited\)"):
        resume()
    tensors.unlink()
    with pytest.raises(TrainingError, match="damaged: No such file"):
        resume()
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(TrainingError, match="damaged"):
        resume()
    (tmp_path / "state.json").write_text(json.dumps({"format": 99, "file": "../../etc/passwd", "sha256": ""}))
    with pytest.raises(TrainingError, match="format 99"):
        resume()


@pytest.mark.parametrize("phase", ["float", "qat"])
def test_nan_loss_names_the_layer(phase: str) -> None:
    net = small_net()
    if phase == "float":
        with torch.no_grad():
            net[6].bias[0] = float("inf")
        with pytest.raises(TrainingError, match=r"the loss is .* in epoch 1, step 1; first not finite: parameter '6"):
            train_float(net, small_data(), CONFIG)
        return
    op = op_of(net)
    op.calibrate([torch.from_numpy(small_data().x_train).permute(0, 3, 1, 2)])
    with torch.no_grad():
        net[1].running_var[0] = float("nan")
    with pytest.raises(TrainingError, match="first not finite: batch norm of layer '0'"):
        train_qat(op, small_data(), CONFIG)
    assert not op.stored, "real weights are back after the error"


def test_augmentation_shifts_mirrors_and_fills() -> None:
    x = np.zeros((400, 5, 5, 1), np.uint8)
    x[:, 2, 1] = 200
    batches = Batches(
        x, None, 400, augmentation=Augmentation(flip=True, shift=1), fill=7, generator=torch.Generator().manual_seed(0)
    )
    (images,) = batches.images()
    assert images.shape == (400, 1, 5, 5) and images.is_contiguous(memory_format=torch.channels_last)
    spots = {(int(r), int(c)) for _, _, r, c in (images == 200).nonzero()}
    assert spots == {(r, c) for r in (1, 2, 3) for c in (0, 1, 2, 3, 4) if abs(c - 1) <= 1 or abs(c - 3) <= 1}
    assert set(images.unique().tolist()) == {0, 7, 200}
    plain = Batches(x, None, 150)
    assert [len(b) for b in plain.images()] == [150, 150, 100]


def test_schedule_warms_up_and_ends_at_zero() -> None:
    factors = [schedule(step, 100, 0.1) for step in range(101)]
    assert factors[0] == pytest.approx(0.1) and factors[9] == 1.0 and factors[100] == pytest.approx(0.0)
    assert all(a >= b for a, b in pairwise(factors[9:]))
    with pytest.raises(UsageError, match="adamw or sgd"):
        TrainConfig(1, optimizer="lion")  # type: ignore[arg-type]


def test_global_random_state_is_untouched() -> None:
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    train_float(small_net_without_reseed(), small_data(), TrainConfig(1, batch_size=16))
    assert torch.equal(torch.rand(1), expected)


def small_net_without_reseed() -> nn.Module:
    with torch.random.fork_rng():
        return small_net()


def test_reestimation_averages_statistics_of_the_quantized_network() -> None:
    net = small_net()
    op = op_of(net, bits=8, fold_type="ICN")
    images = torch.from_numpy(small_data().x_train).permute(0, 3, 1, 2)
    op.calibrate([images])
    op.reestimate([images[:24], images[24:]])
    with torch.no_grad(), op.quantized():
        sums = nn.functional.conv2d(real_inputs(images, small_data().normalization), net[0].weight, padding=1)
    torch.testing.assert_close(net[1].running_mean, sums.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    assert op.frozen and int(net[1].num_batches_tracked) == 0


def test_reestimation_sees_what_the_layers_before_give_with_their_new_statistics() -> None:
    torch.manual_seed(0)
    stages = [(nn.Conv2d(1 if i == 0 else 6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()) for i in range(4)]
    net = nn.Sequential(*(module for stage in stages for module in stage), nn.Flatten(), nn.Linear(384, 3))
    op = op_of(net, bits=2, fold_type="ICN", fold_delay=1, act_bits=2)
    images = torch.from_numpy(small_data().x_train).permute(0, 3, 1, 2)
    op.calibrate([images])
    batches = [images[:24], images[24:]]
    op.reestimate(batches)
    op.eval()
    with torch.no_grad(), op.quantized():
        tensors = [op.tensors(batch) for batch in batches]
        for (conv, norm, _), layer in zip(stages, op.layers.values(), strict=False):
            sums = [nn.functional.conv2d(t[layer.op.inputs[0]], conv.weight, conv.bias, padding=1) for t in tensors]
            mean = torch.stack([y.mean((0, 2, 3)) for y in sums]).mean(0)
            variance = torch.stack([y.var((0, 2, 3)) for y in sums]).mean(0)
            torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(norm.running_var, variance, rtol=1e-4, atol=1e-5)


def test_few_large_batches_are_enough_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    net = small_net()
    op = op_of(net, bits=8, fold_type="ICN")
    images = torch.from_numpy(small_data().x_train).permute(0, 3, 1, 2)
    op.calibrate([images])
    monkeypatch.setattr("mcuq.quant.quant_op.REESTIMATION_VALUES", 1)
    op.reestimate([images[:8], images[8:]])
    first = net[1].running_mean.clone()
    monkeypatch.setattr("mcuq.quant.quant_op.REESTIMATION_VALUES", 1 << 27)
    op.reestimate([images[:8]])
    assert torch.equal(net[1].running_mean, first)
    op.reestimate([images[:8], images[8:]])
    assert not torch.equal(net[1].running_mean, first)


def test_short_trainings_do_not_leave_slow_batch_norms_behind() -> None:
    net, data = small_net(), small_data()
    net[1].momentum = 0.0003
    start = net[1].running_mean.clone()
    train_float(net, data, replace(CONFIG, epochs=12, augment=0))
    with torch.no_grad():
        images = torch.from_numpy(data.x_train).permute(0, 3, 1, 2)
        found = net[0](real_inputs(images, data.normalization)).mean((0, 2, 3))
    assert float((net[1].running_mean - found).abs().max()) < 0.2 * float((start - found).abs().max())
    assert net[1].momentum == 0.0003


def test_training_learns() -> None:
    net, data = small_net(), small_data()
    config = TrainConfig(12, batch_size=16, lr=1e-2, augment=0)
    train_float(net, data, config)
    exact = evaluate(lambda x: net(real_inputs(x, data.normalization)), data.x_test, data.y_test)
    assert exact >= 0.9
    op = op_of(net, bits=4, fold_type="ICN")
    train_qat(op, data, TrainConfig(3, batch_size=16, lr=1e-3, augment=0))
    assert accuracy(op, data.x_test, data.y_test) >= exact - 0.05


class Argmax(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.argmax(1)


def test_a_softmax_at_the_end_trains_as_its_scores() -> None:
    bare, ended = small_net(), nn.Sequential(small_net(), nn.Softmax(1))
    histories = [train_float(net, small_data(), CONFIG, validate=False) for net in (bare, ended)]
    assert [r.loss for r in histories[0]] == pytest.approx([r.loss for r in histories[1]], rel=1e-3)
    op = op_of(ended, bits=8)
    history = train_qat(op, small_data(), TrainConfig(2, batch_size=16))
    assert history[-1].loss < histories[0][0].loss
    assert op.generate_deployment_model().params("1").scale == 1 / 256
    with pytest.raises(UsageError, match="ends in argmax has no gradient"):
        train_float(nn.Sequential(small_net(), Argmax()), small_data(), CONFIG)


# -- being stopped ------------------------------------------------------------------------------------------


class TerminateAt:
    """Sends SIGTERM to this process in the middle of an epoch."""

    def __init__(self, epoch: int, step: int) -> None:
        self.at = (epoch, step)

    def on_step(self, step: Step) -> None:
        if (step.epoch, step.step) == self.at:
            signal.raise_signal(signal.SIGTERM)

    def on_epoch(self, result: EpochResult) -> None: ...


@pytest.mark.parametrize("at", [(1, 2), (2, 1)])
def test_sigterm_saves_and_resume_gives_the_same_bits(at: tuple[int, int], tmp_path: Path) -> None:
    """Also within an epoch, with dropout and augmentation, before and after batch norms are frozen."""

    def run(folder: Path, progress: TerminateAt | None, resume: bool) -> tuple[dict[str, torch.Tensor], list[object]]:
        op = op_of(small_net(), fold_delay=2, fold_type="folding_weights")
        history = train_qat(op, small_data(), CONFIG, progress=progress, checkpoint=folder, resume=resume)
        return op.state_dict(), [(r.loss, r.train_accuracy, r.accuracy, r.lr) for r in history]

    handler = signal.getsignal(signal.SIGTERM)
    whole, history = run(tmp_path / "whole", None, False)
    where = f"epoch {at[0] + 1} after step {at[1] + 1}; the state is saved"
    with pytest.raises(TrainingError, match=where):
        run(tmp_path / "stopped", TerminateAt(*at), False)
    assert signal.getsignal(signal.SIGTERM) == handler
    resumed, resumed_history = run(tmp_path / "stopped", None, True)
    assert resumed_history == history
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


KILLED = """
import sys
sys.path[:0] = [{here!r}, {root!r}]
from dataclasses import replace
from pathlib import Path
from test_train import CONFIG, op_of, small_data, small_net, train_qat
folder = Path({folder!r})
config = replace(CONFIG, epochs={epochs})
train_qat(op_of(small_net(), fold_delay=20), small_data(), config, checkpoint=folder, resume=folder.exists())
"""


@pytest.mark.slow
def test_trainings_killed_at_any_moment_resume_to_the_same_bits(tmp_path: Path) -> None:
    """SIGKILL, which nothing answers, at four random moments of epochs that mostly write their state."""
    config, folder, here = replace(CONFIG, epochs=60), tmp_path / "killed", Path(__file__).parent
    values = {"here": str(here), "root": str(here.parents[1]), "folder": str(folder), "epochs": config.epochs}
    script, moments = KILLED.format(**values), random.Random(5)
    for _ in range(4):
        before = (folder / "state.json").read_bytes() if folder.exists() else b""
        with subprocess.Popen([sys.executable, "-c", script]) as process:
            while process.poll() is None and (
                not (folder / "state.json").exists() or (folder / "state.json").read_bytes() == before
            ):
                time.sleep(0.002)
            time.sleep(0.1 * moments.random())
            process.kill()
        assert process.returncode == -signal.SIGKILL, "it ended before it was killed: take more epochs"
    resumed, whole = op_of(small_net(), fold_delay=20), op_of(small_net(), fold_delay=20)
    resumed_history = train_qat(resumed, small_data(), config, checkpoint=folder, resume=True)
    history = train_qat(whole, small_data(), config)
    assert [(r.epoch, r.loss, r.accuracy) for r in history] == [(r.epoch, r.loss, r.accuracy) for r in resumed_history]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_resume_gives_the_same_bits_on_another_number_of_threads(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        whole = op_of(small_net())
        train_qat(whole, small_data(), CONFIG)
        with pytest.raises(TrainingError, match="SIGTERM"):
            train_qat(op_of(small_net()), small_data(), CONFIG, progress=TerminateAt(1, 1), checkpoint=tmp_path)
        torch.set_num_threads(1)
        resumed = op_of(small_net())
        train_qat(resumed, small_data(), CONFIG, checkpoint=tmp_path, resume=True)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_out_of_memory_names_the_batch_size_to_try(monkeypatch: pytest.MonkeyPatch) -> None:
    op = op_of(small_net())
    op.calibrate([torch.from_numpy(small_data().x_train).permute(0, 3, 1, 2)])
    for error in (
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
    ):

        def fail(_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(op, "forward", fail)
        with pytest.raises(TrainingError, match=r"batches of 16; try --batch-size 8"):
            train_qat(op, small_data(), CONFIG)
        assert not op.stored, "real weights are back after the error"


@pytest.mark.parametrize("act_type", ["LSQ", "PACT"])
def test_a_step_size_that_is_not_finite_stops_with_the_layer(act_type: str) -> None:
    op = op_of(small_net(), act_type=act_type)
    op.calibrate([torch.from_numpy(small_data().x_train).permute(0, 3, 1, 2)])
    with torch.no_grad():
        for parameter in op.activation_quantizer("0").parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"the loss is nan .* first not finite: output of layer '0'"):
        train_qat(op, small_data(), CONFIG)
