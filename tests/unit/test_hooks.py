"""What happens around optimizer steps, against its definition: averages, dampening, freezing, distillation."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from test_train import CONFIG, Stop, StopAfter, op_of, small_data, small_net  # noqa: E402
from torch import nn  # noqa: E402

from mcuq.errors import UsageError  # noqa: E402
from mcuq.quant.criterion import Criterion  # noqa: E402
from mcuq.quant.hooks import Dampening, Freezing, WeightAverage  # noqa: E402
from mcuq.quant.settings import EpochResult, TrainConfig  # noqa: E402
from mcuq.quant.train import train_float, train_qat  # noqa: E402


def test_the_average_follows_its_recurrence_and_is_handed_over() -> None:
    module = nn.Linear(1, 1, bias=False)
    average, expected = WeightAverage(module, 0.9), module.weight.item()
    for count, value in enumerate((1.0, -2.0, 5.0, 0.5), start=1):
        with torch.no_grad():
            module.weight.fill_(value)
        average.after_step(0.0)
        decay = min(0.9, (1 + count) / (10 + count))
        expected = decay * expected + (1 - decay) * value
    with average.evaluating():
        assert module.weight.item() == pytest.approx(expected, rel=1e-6)
    assert module.weight.item() == 0.5, "training goes on with the trained weights"
    average.finish()
    assert module.weight.item() == pytest.approx(expected, rel=1e-6)


def test_learned_steps_survive_the_freeze_unless_weights_are_folded() -> None:
    for fold, survives in (("ICN", True), ("folding_weights", False)):
        op = op_of(small_net(), bits=2, fold_type=fold, fold_delay=1)
        with torch.no_grad():
            op.layers["0"].quantizer.log_step.fill_(-1.25)
            op.layers["0"].norm.gamma.fill_(3.0)
        op.start_epoch(1)
        assert op.frozen and bool((op.layers["0"].quantizer.log_step == -1.25).all()) == survives


def test_the_average_starts_anew_where_batch_norms_freeze() -> None:
    module = nn.Linear(1, 1, bias=False)
    average = WeightAverage(module, 0.99)
    for _ in range(3):
        with torch.no_grad():
            module.weight.fill_(100.0)
        average.after_step(0.0)
    with torch.no_grad():
        module.weight.fill_(2.0)
    average.restart()
    average.after_step(0.5)
    average.finish()
    assert module.weight.item() == pytest.approx(2.0)


def test_dampening_adds_the_gradient_of_the_squared_distance() -> None:
    op = op_of(small_net(), bits=2, fold_type="ICN")
    layer = op.layers["0"]
    weight = layer.weight.detach().double().requires_grad_()
    scale = layer.quantizer.quantize(layer.weight)[1].double().reshape(-1, 1, 1, 1)
    low = torch.where(layer.quantizer.sign < 0, -1.0, -2.0).reshape(-1, 1, 1, 1)
    code = torch.minimum(torch.maximum(torch.floor(weight.detach() / scale + 0.5), low), low + 3)
    inside = (weight.detach() / scale - code).abs() <= 0.5
    assert not bool(inside.all()), "some weights are clipped at 2 bits"
    (0.3 * ((weight - code * scale) ** 2)[inside].sum()).backward()
    layer.weight.grad = torch.zeros_like(layer.weight)
    Dampening([layer], 0.3).before_step(1.0)
    torch.testing.assert_close(layer.weight.grad.double(), weight.grad, rtol=1e-4, atol=1e-6)
    layer.weight.grad.zero_()
    Dampening([layer], 0.3).before_step(0.0)
    assert not layer.weight.grad.any(), "the strength starts at 0"


def oscillating(hook: Freezing | None, layer: Any) -> list[int]:
    """Codes over 120 steps: the first weight crosses a rounding boundary in two of three steps, the others rest."""
    seen: list[int] = []
    for step in range(120):
        with torch.no_grad():
            layer.weight.flatten()[0] = 0.49 if step % 3 == 0 else 0.51
        if hook is not None:
            hook.after_step(1.0)
        seen.append(int(torch.floor(layer.weight.flatten()[0] + 0.5)))
    return seen


def rigid_layer() -> Any:
    """Weights with step 1."""
    op = op_of(small_net(), bits=4, fold_type="ICN")
    layer = op.layers["0"]
    with torch.no_grad():
        layer.weight.copy_(torch.arange(54.0).reshape(layer.weight.shape) % 7)
        layer.quantizer.log_step.zero_()
    return layer


def test_freezing_holds_an_oscillating_weight_at_its_most_frequent_code() -> None:
    free, layer = oscillating(None, rigid_layer()), rigid_layer()
    before = layer.weight.detach().clone()
    hook = Freezing([layer], threshold=0.6, momentum=0.05)
    held = oscillating(hook, layer)
    assert set(free[90:]) == {0, 1} and set(held[90:]) == {1}
    frozen = hook.frozen(layer.name)
    assert int(frozen.sum()) == 1 and bool(frozen[0, 0])
    assert torch.equal(layer.weight.flatten()[1:], before.flatten()[1:]), "resting weights are left alone"


def test_freezing_keeps_folded_weights_on_their_codes() -> None:
    op = op_of(small_net(), bits=4, fold_type="folding_weights")
    with torch.no_grad():
        op.layers["0"].norm.gamma.copy_(torch.tensor([0.5, 2.0, -1.0, 0.0, 1.0, 3.0]))
    layer = op.layers["0"]
    layer.reset()
    hook = Freezing([layer], threshold=0.01)
    hook.after_step(1.0)
    codes = layer.quantizer.codes(layer.effective(layer.weight))[0]
    hook.frozen("0").fill_(True)
    with torch.no_grad():
        layer.weight.mul_(1.7)
    hook.after_step(1.0)
    again = layer.quantizer.codes(layer.effective(layer.weight))[0]
    used = layer.gain() != 0
    assert torch.equal(again[used], codes[used]) and bool(codes[used].any())


def test_distillation_is_its_formula() -> None:
    rng = np.random.default_rng(4)
    scores, taught = (rng.normal(size=(5, 3)) for _ in range(2))
    labels = np.array([0, 2, 1, 1, 0])

    def softmax(z: Any) -> Any:
        e = np.exp(z)
        return e / e.sum(1, keepdims=True)

    t = 4.0
    hard = -np.log(softmax(scores)[np.arange(5), labels]).mean()
    p, q = softmax(taught / t), softmax(scores / t)
    soft = (p * np.log(p / q)).sum(1).mean()
    criterion = Criterion(0.0, lambda images: torch.tensor(taught), 0.7, t)
    loss = criterion(torch.tensor(scores), torch.zeros(5, 1), torch.tensor(labels))
    assert float(loss) == pytest.approx(0.3 * hard + 0.7 * t * t * soft, rel=1e-6)
    with pytest.raises(UsageError, match="needs a teacher"):
        train_qat(op_of(small_net()), small_data(), replace(CONFIG, distill=0.5))


EVERYTHING = replace(CONFIG, ema=0.9, distill=0.5, dampening=1e-3, freezing=0.02, label_smoothing=0.1)


def test_resume_gives_the_same_bits_with_every_hook(tmp_path: Path) -> None:
    def run(folder: Path, crash: bool, resume: bool) -> tuple[dict[str, torch.Tensor], list[EpochResult]]:
        teacher = small_net(3)
        op = op_of(small_net(), fold_delay=1)
        progress = StopAfter(2) if crash else None
        data = small_data()
        history = train_qat(op, data, EVERYTHING, progress=progress, checkpoint=folder, resume=resume, teacher=teacher)
        return op.state_dict(), history

    whole, history = run(tmp_path / "whole", False, False)
    with pytest.raises(Stop):
        run(tmp_path / "crashed", True, False)
    resumed, resumed_history = run(tmp_path / "crashed", False, True)
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
    assert [r.accuracy for r in history] == [r.accuracy for r in resumed_history]


@pytest.mark.parametrize("name", ["ema", "label_smoothing"])
def test_options_of_float_training_change_it(name: str) -> None:
    plain, changed = small_net(), small_net()
    train_float(plain, small_data(), CONFIG, validate=False)
    train_float(changed, small_data(), replace(CONFIG, **{name: 0.5}), validate=False)
    assert not torch.equal(plain[0].weight, changed[0].weight)


def test_hooks_are_composed_from_the_configuration() -> None:
    from mcuq.quant.hooks import hooks_of

    op = op_of(small_net())
    names = [hook.name for hook in hooks_of(EVERYTHING, op, op.layers.values())._hooks]
    assert names == ["dampening", "freezing", "ema"]
    assert not hooks_of(CONFIG, op, op.layers.values())._hooks
    for bad in ({"ema": 1.0}, {"distill": 1.5}, {"temperature": 0.0}, {"dampening": -1.0}):
        with pytest.raises(UsageError):
            TrainConfig(1, **bad)


def test_the_teacher_is_not_the_student() -> None:
    net = small_net()
    teacher = copy.deepcopy(net)
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    train_qat(op_of(net), small_data(), replace(CONFIG, distill=1.0), teacher=teacher)
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert not torch.equal(net[0].weight, before["0.weight"])
