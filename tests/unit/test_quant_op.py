"""QuantOp: lifecycle, folding, sharing of codes, and agreement with the integer network."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from mcuq.errors import UnsupportedError, UsageError  # noqa: E402
from mcuq.ir import graph as ir  # noqa: E402
from mcuq.ir.graph import Normalization  # noqa: E402
from mcuq.ir.integer import QConv2d  # noqa: E402
from mcuq.ir.plans import BitPlan, Limits, TensorBits  # noqa: E402
from mcuq.lower.lower import lower  # noqa: E402
from mcuq.quant import QuantOp  # noqa: E402
from mcuq.quant.layer import QuantLayer  # noqa: E402
from mcuq.quant.network import conv2d  # noqa: E402
from mcuq.quant.weights import QUANT_TYPES, RULES  # noqa: E402
from mcuq.reference import integer  # noqa: E402

PIXELS = Normalization(1 / 255, 0)


class Net(nn.Module):
    """A residual net with max pool, average pool, depthwise layer and a flattened linear end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU6())
        self.point = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(8 * 2 * 2, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = F.relu(self.point(self.depthwise(x)) + x)
        return self.fc(F.avg_pool2d(self.pool(x), 2).flatten(1))


def network(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    net = Net()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.2)
            nn.init.normal_(module.running_mean, 0.0, 0.1)
            nn.init.uniform_(module.running_var, 0.1, 0.5)
    return net


def pixels(count: int = 16, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)


def make(net: nn.Module, quant_type: str = "PerChannelsSymMSE", bits: int = 8, **options: object) -> QuantOp:
    plan = options.pop("plan", None)
    options = {"input_shape": (8, 8, 3), "act_bits": bits, "normalization": PIXELS, "bits": plan} | options
    return QuantOp(net, quant_type, bits, **options)  # type: ignore[arg-type]


def train_steps(op: QuantOp, steps: int, lr: float = 1e-3) -> None:
    optimizer = torch.optim.AdamW(op.param_groups(lr))
    op.train()
    for step in range(steps):
        optimizer.zero_grad()
        with op.quantized():
            F.cross_entropy(op(pixels(seed=step)), torch.arange(16) % 5).backward()
        optimizer.step()


def codes(op: QuantOp, x: torch.Tensor) -> dict[str, np.ndarray]:
    """Codes [N, H, W, C] of every tensor of the fake-quantized network."""
    op.eval()
    quantized = op.generate_deployment_model()
    with torch.no_grad(), op.quantized():
        values = op.tensors(x)
    result = {}
    for name, value in values.items():
        params = quantized.params(name)
        code = torch.floor(value.double() / params.scale + 0.5) + params.zero_point
        result[name] = code.permute(0, 2, 3, 1).long().numpy()
    return result


FAST_TYPES = ("PerChannelsSymMSE", "PerChannelsAsymMinMax", "PerLayerAsymPACT", "PerLayerAsymLSQ", "PerLayerSATDefault")


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("fold_type", ["folding_weights", "ICN"])
@pytest.mark.parametrize(
    "quant_type", [t if t in FAST_TYPES else pytest.param(t, marks=pytest.mark.slow) for t in QUANT_TYPES]
)
def test_r23_r14_fake_quantization_is_the_integer_network(quant_type: str, fold_type: str, bits: int) -> None:
    if fold_type == "folding_weights" and quant_type.endswith(("DoReFa", *(r for r in RULES if r.startswith("SAT")))):
        with pytest.raises(UsageError, match="gives the weights another scale"):
            make(network(), quant_type, bits, fold_type=fold_type)
        return
    op = make(network(), quant_type, bits, fold_type=fold_type)
    op.calibrate([pixels(32)])
    train_steps(op, 2)
    x = pixels(64, seed=9)
    expected = codes(op, x)
    actual = integer.run(lower(op.generate_deployment_model()), x.permute(0, 2, 3, 1).numpy())
    for name, code in expected.items():
        difference = np.abs(code - actual[name])
        # float32 sums against exact ones: a value next to a boundary may round apart
        assert difference.max() <= 3 and (difference != 0).mean() < 1e-2, name
    last = op.graph.outputs[0]
    assert (expected[last].argmax(-1) == actual[last].argmax(-1)).all()


def test_r22_real_weights_come_back_bit_for_bit() -> None:
    net = network()
    before = copy.deepcopy(net.state_dict())
    op = make(net, bits=2)
    op.calibrate([pixels()])
    op.eval()
    op.store_and_quantize()
    assert not torch.equal(net.stem[0].weight, before["stem.0.weight"])
    assert len(net.stem[0].weight[0].unique()) <= 4
    op(pixels())
    op.restore_real_value()
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_order_of_the_lifecycle_is_enforced() -> None:
    net = network()
    op = make(net)
    op.calibrate([pixels()])
    with pytest.raises(UsageError, match="the weights are real"):
        op.restore_real_value()
    op.store_and_quantize()
    with pytest.raises(UsageError, match="store_and_quantize: the weights are quantized"):
        op.store_and_quantize()
    F.cross_entropy(op(pixels()), torch.arange(16) % 5).backward()
    saved = op.layers["fc"].saved
    assert saved is not None
    saved = saved.clone()
    with torch.no_grad():
        net.fc.weight.add_(1.0)
    with pytest.raises(UsageError, match=r"weights of fc changed while quantized"):
        op.restore_real_value()
    assert torch.equal(net.fc.weight, saved)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_optimizers_do_not_step_on_quantized_weights(kind: type[torch.optim.Optimizer], fused: bool) -> None:
    """Fused steps leave no trace in the version of a tensor: they are refused before they begin."""
    net = network()
    op, stranger = make(net), torch.nn.Parameter(torch.ones(3))
    mine, other = (kind(list(p), lr=0.1, fused=fused) for p in (op.parameters(), [stranger]))  # type: ignore[call-arg]
    op.calibrate([pixels()])
    real = net.fc.weight.detach().clone()
    with op.quantized():
        F.cross_entropy(op(pixels()), torch.arange(16) % 5).backward()
        with pytest.raises(UsageError, match=r"optimizer\.step\(\): the weights are quantized"):
            mine.step()
        stranger.grad = torch.ones(3)
        other.step()
    assert torch.equal(net.fc.weight, real)
    mine.step()
    assert not torch.equal(net.fc.weight, real) and float(stranger.detach()[0]) < 1.0


def test_the_users_model_is_trained() -> None:
    net = network()
    op = make(net, bits=4)
    assert {id(p) for p in net.parameters()} < {id(p) for p in op.parameters()}
    before = net.fc.weight.detach().clone()
    op.calibrate([pixels()])
    train_steps(op, 1)
    assert not torch.equal(net.fc.weight, before)


def test_gradient_accumulation_equals_one_batch() -> None:
    x, y = pixels(8), torch.arange(8) % 5

    def gradients(parts: int) -> list[torch.Tensor]:
        op = make(network(), bits=4)
        op.calibrate([pixels()])
        op.eval()
        for chunk, labels in zip(x.chunk(parts), y.chunk(parts), strict=True):
            with op.quantized():
                F.cross_entropy(op(chunk), labels, reduction="sum").backward()
        return [p.grad for p in op.parameters() if p.grad is not None]

    whole, halves = gradients(1), gradients(2)
    assert len(whole) == len(halves) > 10
    for a, b in zip(whole, halves, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_r18_fold_equals_folded_convolution() -> None:
    """The de-folded quantized weights before the frozen batch norm are the quantized folded convolution."""
    net = network()
    with torch.no_grad():
        net.stem[1].weight[3] = 0.0
    op = make(net, "PerLayerAsymPACT", 4)
    op.quantize_activations = False
    op.eval()
    layer = op.layers["stem.0"]
    gain = layer.gain().reshape(-1, 1, 1, 1)
    folded, _ = layer.quantizer.quantize(net.stem[0].weight.detach() * gain)
    assert layer.norm is not None
    x = torch.rand(4, 3, 8, 8)
    expected = F.relu(F.conv2d(x, folded, layer.norm.offset(), padding=1))
    net.eval()
    with torch.no_grad(), op.quantized():
        through_user_model = net.stem(x)
        through_op = op.tensors(x)["stem.0"]
    assert float((through_user_model - expected).abs().max()) < 1e-5
    assert float((through_op - expected).abs().max()) < 1e-5


def test_r21_batch_norm_statistics_move_before_the_delay_and_freeze_after() -> None:
    net = network()
    op = make(net, "PerLayerAsymPACT", 4, fold_delay=1)
    op.calibrate([pixels()])
    op.start_epoch(0)
    start = net.stem[1].running_mean.clone()
    train_steps(op, 2)
    moved = net.stem[1].running_mean.clone()
    assert not torch.equal(start, moved)
    assert not op.layers["stem.0"].folded
    thresholds = op.layers["stem.0"].quantizer
    op.start_epoch(1)
    folded = net.stem[0].weight.detach() * op.layers["stem.0"].gain().reshape(-1, 1, 1, 1)
    assert float(thresholds.max_threshold.detach()) == pytest.approx(float(folded.max()))
    frozen = copy.deepcopy(net.stem[1].state_dict())
    with torch.no_grad():
        thresholds.max_threshold.fill_(0.5)
    train_steps(op, 2)
    op.start_epoch(2)
    assert abs(float(thresholds.max_threshold.detach()) - 0.5) < 0.01, "thresholds are reset once only"
    for name, value in net.stem[1].state_dict().items():
        assert torch.equal(value, frozen[name]), name


@pytest.mark.parametrize(
    ("quant_type", "fold_type"),
    [*((t, f) for t in FAST_TYPES[:4] for f in ("folding_weights", "ICN")), ("PerLayerSATDefault", "ICN")],
)
def test_r19_gamma_and_variance_of_zero(quant_type: str, fold_type: str) -> None:
    net = network()
    with torch.no_grad():
        net.stem[1].weight[2] = 0.0
        net.stem[1].bias[2] = 0.7
        net.depthwise[1].running_var[1] = 0.0
        net.point[0].weight[4] = 0.0
        net.point[1].weight[5] = -0.8
    op = make(net, quant_type, 8, fold_type=fold_type)
    op.calibrate([pixels(32)])
    x = pixels(32, seed=5)
    expected = codes(op, x)
    actual = integer.run(lower(op.generate_deployment_model()), x.permute(0, 2, 3, 1).numpy())
    for name, code in expected.items():
        difference = np.abs(code - actual[name])
        assert difference.max() <= 3 and (difference != 0).mean() < 1e-3, name
    constant = actual["stem.0"][..., 2]
    assert (constant == constant.flat[0]).all()
    params = op.generate_deployment_model().params("stem.0")
    assert params.scale * (constant.flat[0] - params.zero_point) == pytest.approx(0.7, abs=params.scale)


def test_r31_all_pixel_levels_survive_the_input() -> None:
    op = make(nn.Sequential(nn.Conv2d(1, 1, 1)), input_shape=(16, 16, 1), normalization=Normalization(2 / 255, 128))
    x = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    op.calibrate([x])
    op.eval()
    assert len(op.tensors(x)["input"].unique()) == 256
    graph = lower(op.generate_deployment_model())
    assert graph.input.encoding == "uint8"
    assert len(np.unique(integer.run(graph, x.permute(0, 2, 3, 1).numpy())["input"])) == 256


def test_pools_share_codes_and_are_integer() -> None:
    op = make(network(), bits=4)
    op.calibrate([pixels()])
    quantized = op.generate_deployment_model()
    names = [o.name for o in quantized.graph]
    assert quantized.params("pool") == quantized.params("add")
    graph = lower(quantized)
    assert [type(o).__name__ for o in graph if "pool" in o.name] == ["QMaxPool", "QAvgPool"]
    pool = graph.op("pool")
    assert pool.affine.is_identity
    assert {a.tensor for a in quantized.activations} == set(names)


class Odd(nn.Module):
    """Concat, standing pad, lone batch norm, clips after pools, padded average pool, softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 5, 3, 2, bias=False)
        self.b = nn.Conv2d(3, 4, 3, 2)
        self.norm = nn.BatchNorm2d(9)
        self.pool = nn.AvgPool2d(3, 2, 1, count_include_pad=False)
        self.fc = nn.Linear(9, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.pad(x, (0, 1, 0, 1))
        x = torch.cat([self.a(x), F.relu(self.b(x))], 1)
        x = F.hardtanh(F.max_pool2d(F.pad(x, (1, 0, 1, 0)), 2, 1), -1.0, 0.5)
        x = self.pool(F.relu(self.norm(x)))
        return self.fc(x.mean((2, 3))).softmax(1)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_r35_every_operator_matches_the_integer_network(bits: int) -> None:
    torch.manual_seed(3)
    op = make(Odd(), "PerChannelsAsymMinMax", bits, fold_type="ICN")
    op.calibrate([pixels(32)])
    with torch.no_grad():  # calibrated on maxima, ratios of scales are simple fractions and averages tie
        op.activation_quantizer("pool").log_step.add_(0.0123)
        op.activation_quantizer("avg_pool").log_step.add_(0.0307)
    x = pixels(64, seed=9)
    op.eval()
    quantized = op.generate_deployment_model()
    actual = integer.run(lower(quantized), x.permute(0, 2, 3, 1).numpy())
    with torch.no_grad(), op.quantized():
        values = op.tensors(x)
    assert {type(o).__name__ for o in quantized.graph} >= {"Concat", "Pad", "Clip", "AvgPool", "Softmax", "MaxPool"}
    for name, value in values.items():
        params = quantized.params(name)
        code = torch.floor(value.double() / params.scale + 0.5) + params.zero_point
        difference = np.abs(code.permute(0, 2, 3, 1).numpy() - actual[name])
        if name == op.graph.outputs[0]:
            assert difference.max() <= 2, "softmax is not quantized in training, its table has 16 bits"
        else:
            assert (difference != 0).mean() < 2e-3, name


def test_a_plan_sets_the_bits() -> None:
    limits = Limits(1 << 20, 1 << 20)

    def tensor(layer: str, kind: str, bits: int) -> TensorBits:
        return TensorBits(layer, layer, kind, bits, 0)  # type: ignore[arg-type]

    tensors = [tensor("stem.0", "weight", 2), tensor("stem.0", "activation", 4), tensor("fc", "weight", 4)]
    tensors += [tensor("add", "activation", 4), tensor("pool", "activation", 2), tensor("fc", "activation", 8)]
    plan = BitPlan(tuple(tensors), "OPTIMAL", 0.0, 0.0, 0, 0, limits, "MixPC", fold_types=(("stem.0", "ICN"),))
    op = make(network(), bits=8, plan=plan)
    op.calibrate([pixels()])
    train_steps(op, 1)
    quantized = op.generate_deployment_model()
    assert [quantized.weight(c.name).bits for c in quantized.graph.convs] == [2, 8, 8, 4]
    found = {name: quantized.params(name).bits for name in ("stem.0", "depthwise.0", "add", "pool", "fc")}
    assert found == {"stem.0": 4, "depthwise.0": 8, "add": 4, "pool": 2, "fc": 8}
    assert op.configs["stem.0"].fold_type == "ICN"
    x = pixels(32, seed=4)
    actual = integer.run(lower(quantized), x.permute(0, 2, 3, 1).numpy())
    for name, code in codes(op, x).items():
        assert (code != actual[name]).mean() < 2e-3, name


def test_calibration_methods() -> None:
    op = make(network(), bits=2)
    scales = {}
    for method in ("mse", "percentile", "minmax"):
        op.calibrate([pixels(64)], method)
        scales[method] = op.generate_deployment_model().params("stem.0").scale
    assert scales["mse"] < scales["percentile"] <= scales["minmax"]
    with pytest.raises(UsageError, match="range method must be mse, percentile, minmax"):
        op.calibrate([pixels()], "entropy")


def test_r11_layer_config_round_trip() -> None:
    import json

    entries = [
        {"layer": 0, "w_bits": 8, "a_bits": 8},
        {"layer": "point.0", "w_bits": 2, "a_bits": 4, "quant_type": "PerChannelsAsymMinMax", "fold_type": "ICN"},
    ]
    op = make(network(), "PerLayerAsymPACT", 4, layer_config=json.loads(json.dumps(entries)))
    op.calibrate([pixels()])
    quantized = op.generate_deployment_model()
    assert [quantized.weight(c.name).bits for c in quantized.graph.convs] == [8, 4, 2, 4]
    assert [quantized.params(c.name).bits for c in quantized.graph.convs] == [8, 4, 4, 8]
    assert quantized.weight("point.0").scale.shape == (8,)
    assert quantized.weight("depthwise.0").scale.shape == (1,)
    assert not np.all(quantized.weight("point.0").gain == 1.0)
    for bad, words in (({"layer": 9}, "names layer 9"), ({"layer": 0, "bits": 4}, "w_bits, a_bits")):
        with pytest.raises(UsageError, match=words):
            make(network(), layer_config=[bad])


def test_shared_weights_are_refused() -> None:
    conv = nn.Conv2d(3, 3, 1)
    with pytest.raises(UnsupportedError, match="share one weight"):
        make(nn.Sequential(conv, nn.ReLU(), conv))


def test_uncalibrated_networks_are_not_deployed() -> None:
    with pytest.raises(UsageError, match="no activation range for stem"):
        make(network()).generate_deployment_model()
    with pytest.raises(UsageError, match="quant_type must be one of"):
        make(network(), "Ternary")
    with pytest.raises(UsageError, match="weight bits must be 8, 4 or 2"):
        make(network(), bits=3)


@pytest.mark.parametrize("frozen", [False, True])
def test_sums_are_computed_with_their_branches_to_the_same_bits(frozen: bool) -> None:
    """Training takes a branch, its batch norm and the sum in one pass; ``tensors`` takes one after the other."""
    op = make(network(), bits=4, fold_type="ICN", fold_delay=0 if frozen else 9).train()
    op.calibrate([pixels()])
    twin = copy.deepcopy(op)
    assert op._summands
    with op.quantized(), twin.quantized():
        together, apart = op(pixels()), twin.tensors(pixels())[twin.graph.outputs[0]].flatten(1)
        assert torch.equal(together, apart)
        assert isinstance(together, torch.Tensor)
        for scores in (together, apart):
            F.cross_entropy(scores, torch.arange(16) % 5).backward()
    for (name, one), (_, other) in zip(op.model.named_parameters(), twin.model.named_parameters(), strict=True):
        if one.grad is None or other.grad is None:
            assert one.grad is other.grad and frozen, name
            continue
        assert torch.equal(one.grad, other.grad), name
    for (name, one), (_, other) in zip(op.model.named_buffers(), twin.model.named_buffers(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_strided_convolution_1x1_reads_its_pixels_alone(layout: torch.memory_format) -> None:
    window = ir.Window((1, 1), (2, 3))
    x = torch.randn(2, 4, 5, 8).to(memory_format=layout).requires_grad_()
    weight = torch.randn(6, 4, 1, 1, requires_grad=True)
    results: list[list[torch.Tensor]] = []
    for y in (conv2d(x, weight, None, window, 1), F.conv2d(x, weight, stride=(2, 3))):
        results.append([y, *torch.autograd.grad(y.square().sum(), (x, weight))])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_bias_before_a_training_batch_norm_has_no_gradient(frozen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The norm takes the bias away with the mean. What autograd sums up instead of 0 are rounding errors."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))
    op = make(net, bits=4, fold_type="ICN", fold_delay=0 if frozen else 9).train()
    op.calibrate([pixels()])
    twin = copy.deepcopy(op)

    def backward(network: QuantOp) -> dict[str, torch.Tensor]:
        with network.quantized():
            scores = network(pixels())
            assert isinstance(scores, torch.Tensor)
            F.cross_entropy(scores, torch.arange(16) % 5).backward()
        return {name: p.grad for name, p in network.model.named_parameters() if p.grad is not None}

    def plain(layer: QuantLayer, x: torch.Tensor) -> torch.Tensor:
        return conv2d(x, layer.weight.view(layer.shape), layer.bias, layer.op.window, layer.op.groups)

    found = backward(op)
    monkeypatch.setattr(QuantLayer, "_product", plain)
    wanted = backward(twin)
    assert found.keys() == wanted.keys() and "0.bias" in found
    assert bool(found["0.bias"].any()) == frozen
    assert float(wanted["0.bias"].abs().max()) < 1e-6 or frozen
    for name in found.keys() - {"0.bias"}:
        assert torch.equal(found[name], wanted[name]), name


@pytest.mark.parametrize("fold_type", ["ICN", "folding_weights"])
def test_a_plan_sets_the_granularity(fold_type: str) -> None:
    """A layer with one step folds its batch norm, whatever the others do; its multiplier is one."""
    layers = ("stem.0", "depthwise.0", "fc")
    tensors = tuple(TensorBits(f"{n}.weight", n, "weight", 4, 0, "layer") for n in layers)
    plan = BitPlan(tensors, "OPTIMAL", 0.0, 0.0, 0, 0, Limits(1 << 20, 1 << 20), "exact")
    op = make(network(), act_bits=8, fold_type=fold_type, plan=plan)
    one = ("PerLayerSymMSE", "folding_weights")
    found = {name: (config.quant_type, config.fold_type) for name, config in op.configs.items()}
    assert found == {**dict.fromkeys(layers, one), "point.0": ("PerChannelsSymMSE", fold_type)}
    op.calibrate([pixels()])
    train_steps(op, 1)
    lowered = lower(op.generate_deployment_model())
    assert {c.name: c.multiplier.size for c in lowered if isinstance(c, QConv2d)} == {
        **dict.fromkeys(layers, 1),
        "point.0": 8,
    }
    x = pixels(32, seed=4)
    actual = integer.run(lowered, x.permute(0, 2, 3, 1).numpy())
    for name, code in codes(op, x).items():
        assert (code != actual[name]).mean() < 2e-3, name
