"""Choices of QuantOp that tools and papers name: modes, levels per layer, branches, thresholds, scalings."""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from mcuq.errors import UsageError  # noqa: E402
from mcuq.ir.graph import Normalization  # noqa: E402
from mcuq.ir.integer import QAdd, QConv2d  # noqa: E402
from mcuq.ir.text import to_text  # noqa: E402
from mcuq.lower.lower import lower  # noqa: E402
from mcuq.lower.thresholds import table_bytes, thresholds  # noqa: E402
from mcuq.numerics import INT32_MAX, accumulator_bound, requantize  # noqa: E402
from mcuq.quant import QuantOp, activations  # noqa: E402
from mcuq.reference import integer  # noqa: E402

PIXELS = Normalization(1 / 255, 0)


class Net(nn.Module):
    """A residual block with a convolution on each branch, ReLU, average pool, linear end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.left = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8))
        self.right = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.fc(F.relu(self.left(x) + self.right(x)).mean((2, 3)))


def network(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    net = Net()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.weight.data[1] *= -1.0
            nn.init.normal_(module.bias, 0.0, 0.2)
            nn.init.uniform_(module.running_var, 0.1, 0.5)
    return net.eval()


def pixels(count: int = 32, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 12, 12), generator=generator, dtype=torch.uint8)


def make(quant_type: str = "PerChannelsSymMSE", bits: int = 8, **options: object) -> QuantOp:
    arguments = {"input_shape": (12, 12, 3), "act_bits": bits, "normalization": PIXELS, "fold_type": "ICN"} | options
    op = QuantOp(network(), quant_type, bits, **arguments)  # type: ignore[arg-type]
    op.calibrate([pixels()])
    op.eval()
    return op


def assert_integer_network_agrees(op: QuantOp) -> None:
    """Codes of every tensor equal the integer network's, but where float32 sums lie on a rounding boundary."""
    x = pixels(32, seed=9)
    quantized = op.generate_deployment_model()
    with torch.no_grad(), op.quantized():
        values = op.tensors(x)
    codes = integer.run(lower(quantized), x.permute(0, 2, 3, 1).numpy())
    for name, value in values.items():
        params = quantized.params(name)
        fake = torch.floor(value.double() / params.scale + 0.5) + params.zero_point
        difference = np.abs(fake.permute(0, 2, 3, 1).numpy() - codes[name])
        assert difference.max() <= 2 and (difference != 0).mean() < 1e-2, name


def test_n10_weights_only_leaves_activations_real() -> None:
    op = make("PerLayerSATSymmetric", 8, weight_range=3, act_type="none")
    real, x = {}, pixels(4, seed=2)
    with torch.no_grad(), op.quantized():
        values = op.tensors(x)
        assert all(len(layer.weight.unique()) <= 4 for layer in op.layers.values())
    stem = values["stem.0"]
    assert len(stem.unique()) > 300  # 8 bits would leave at most 256
    codes = integer.run(lower(op.generate_deployment_model()), x.permute(0, 2, 3, 1).numpy())
    params = op.generate_deployment_model().params("stem.0")
    real = params.scale * (codes["stem.0"] - params.zero_point)
    inside = stem.permute(0, 2, 3, 1).double().numpy()
    assert np.abs(real - np.minimum(inside, real.max())).max() <= 0.51 * params.scale  # the device stores 8 bits


@pytest.mark.parametrize("fold_type", ["ICN", "folding_weights"])
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_r15_activations_rounded_down_are_so_on_the_device(bits: int, fold_type: str) -> None:
    op = make("PerLayerAsymMinMax", bits, act_type="PACT-floor", fold_type=fold_type)
    assert_integer_network_agrees(op)
    stem, x = op.graph.convs[0], pixels(32, seed=9)
    quantizer, source = op.activation_quantizer(stem.name), op.activation_quantizer(stem.inputs[0])
    with torch.no_grad(), op.quantized():
        real = op.layers[stem.name].forward(op.tensors(x)[stem.inputs[0]], source.scale(), training=False)
    down = torch.floor(real.double() / quantizer.scale()).clamp(0, quantizer.qmax - quantizer.qmin)
    codes = integer.run(lower(op.generate_deployment_model()), x.permute(0, 2, 3, 1).numpy())[stem.name]
    stored = torch.from_numpy(codes).permute(0, 3, 1, 2) - quantizer.zero_point()
    assert (down == stored).double().mean() > 0.99


def test_n11_n13_ranges_by_layer_and_ends_by_name() -> None:
    """Weights and activations of different ranges per layer; the first and last layer set to 8 bits by name."""
    op = make(
        "PerLayerSATFullRange",
        8,
        weight_range=3,
        act_range=7,
        act_type="CG-PACT",
        layer_config=[
            {"layer": "stem.0", "w_bits": 8},
            {"layer": "fc", "w_bits": 8},
            {"layer": "left.0", "w_range": 14, "a_range": 2},
        ],
    )
    assert [(c.layer, c.w_bits) for c in op.configs.values()] == [
        ("stem.0", 8),
        ("left.0", 4),
        ("right.0", 4),
        ("fc", 8),
    ]
    quantized = op.generate_deployment_model()
    levels = {w.layer: len(np.unique(w.codes)) for w in quantized.weights}
    assert levels["right.0"] <= 4 and levels["left.0"] <= 15 and levels["stem.0"] > 20
    assert quantized.params("left.0").bits == 2 and quantized.params("left.0").codes == (0, 2)
    assert quantized.params("right.0").bits == 4 and quantized.params("right.0").codes == (0, 7)
    assert_integer_network_agrees(op)


@pytest.mark.parametrize(
    ("quant_type", "weight_range", "act_type", "act_range"),
    [
        ("PerLayerSATDefault", 15, "CG-PACT", 15),  # odd codes -15 .. 15 in 8 bits
        pytest.param("PerLayerSATDefault", 1, "CG-PACT", 3, marks=pytest.mark.slow),  # binary weights in 2 bits
        pytest.param("PerChannelsSymMSE", 2, "LSQ+", 15, marks=pytest.mark.slow),  # ternary weights
        pytest.param("PerChannelsAsymLSQ", 15, "mPACT", 14, marks=pytest.mark.slow),
        pytest.param("PerLayerDoReFa", 62, "mPACT", 62, marks=pytest.mark.slow),  # the 6 bits of an accelerator
    ],
)
def test_n1_networks_of_any_range_run_as_trained(
    quant_type: str, weight_range: int, act_type: str, act_range: int
) -> None:
    op = make(quant_type, 8, weight_range=weight_range, act_type=act_type, act_range=act_range)
    assert_integer_network_agrees(op)


@pytest.mark.parametrize(
    "quant_type", ["PerLayerSymMinMax", pytest.param("PerChannelsAsymMinMax", marks=pytest.mark.slow)]
)
def test_n12_r25_logits_of_real_integers_are_scaled_logits_of_the_simulation(quant_type: str) -> None:
    """Per layer and per channel: codes of all classes share one scale, so their ranking is the real one."""
    op = make(quant_type, 4, act_bits=8)
    x = pixels(16, seed=3)
    graph = lower(op.generate_deployment_model(), logits_bits=32)
    codes = integer.run(graph, x.permute(0, 2, 3, 1).numpy())["fc"].reshape(16, 5)
    step = float(op.activation_quantizer("fc").scale())  # the simulation rounds its outputs to 8 bits
    with torch.no_grad(), op.quantized():
        simulated = op(x)
    assert isinstance(simulated, torch.Tensor)
    logits = graph.tensor("fc").scale * codes
    clipped = np.clip(logits, float(simulated.min()), float(simulated.max()))
    assert np.abs(clipped - simulated.numpy()).max() <= 0.51 * step


def test_l1_branches_and_sums_are_quantized_and_the_branches_can_be_left_at_8_bits() -> None:
    on, off = make(bits=4), make(bits=4, branch_quant=False)
    bits = [{t.tensor: t.params.bits for t in op.generate_deployment_model().activations} for op in (on, off)]
    assert (bits[0]["left.0"], bits[0]["right.0"], bits[0]["add"]) == (4, 4, 4)
    assert (bits[1]["left.0"], bits[1]["right.0"], bits[1]["add"]) == (8, 8, 4)
    assert bits[0]["stem.0"] == bits[1]["stem.0"] == 4
    assert_integer_network_agrees(off)


@pytest.mark.parametrize("quant_type", ["PerLayerSATSymmetric", "PerLayerAsymPACT", "PerChannelsAsymMinMax"])
def test_integer_logits_rank_as_the_simulations_before_they_are_rounded(quant_type: str) -> None:
    """scale * integer logits are the simulated ones but for biases, whole steps; per channel, for one scale of all."""
    op = make(quant_type, 8)
    x = pixels(64, seed=3)
    quantized = op.generate_deployment_model()
    graph = lower(quantized, logits_bits=32)
    logits = integer.run_outputs(graph, x.permute(0, 2, 3, 1).numpy())["fc"].reshape(64, 5)
    assert logits.dtype.kind == "i" and len(np.unique(logits)) > 200
    fc, source = quantized.weight("fc"), op.graph.op("fc").inputs[0]
    codes = integer.run(graph, x.permute(0, 2, 3, 1).numpy())[source].reshape(64, -1)
    params = quantized.params(source)
    rows = (fc.codes - fc.zero_point.reshape(-1, 1, 1, 1)).reshape(5, -1) * fc.scale.reshape(-1, 1)
    real = params.scale * (codes - params.zero_point) @ rows.T + fc.bias
    scale = graph.tensor("fc").scale
    assert np.abs(scale * logits - real).max() <= (1.01 if quant_type.startswith("PerChannels") else 0.51) * scale
    assert scale < 1e-2 * real.std()
    best, second = np.sort(real)[:, -1], np.sort(real)[:, -2]
    assert np.array_equal(logits.argmax(1), real.argmax(1)) and (best - second > 2 * scale).all()
    apart = np.abs(real[:, :, None] - real[:, None, :]) > 2 * scale
    order = np.sign(logits[:, :, None] - logits[:, None, :])
    assert np.array_equal(order[apart], np.sign(real[:, :, None] - real[:, None, :])[apart])


@pytest.mark.parametrize("quant_type", ["PerLayerSATDefault", "PerLayerSATSymmetric"])
def test_fused_networks_choose_as_those_with_batch_norms_of_their_own(quant_type: str) -> None:
    """Negative gammas, gamma 0 and variances down to nothing: the class of every image."""
    op = make(quant_type, 8, act_type="CG-PACT")
    norms = [m for m in op.model.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        norms[0].running_var[2], norms[1].running_var[3], norms[2].weight[4] = 0.0, 1e-13, 0.0
        assert all(float(norm.weight[1]) < 0 for norm in norms)
        x = (pixels(256, seed=8) * torch.linspace(0, 1, 256).reshape(-1, 1, 1, 1)).byte()
    op.calibrate([x])
    op.eval()
    with torch.no_grad():
        with op.quantized():
            means = op.tensors(x)["fc"].mean((0, 2, 3))
        op.model.fc.bias -= means
    op.calibrate([x])  # no class is the largest everywhere
    with torch.no_grad(), op.quantized():
        scores = op(x)
    assert isinstance(scores, torch.Tensor)
    codes = integer.run_outputs(lower(op.generate_deployment_model()), x.permute(0, 2, 3, 1).numpy())["fc"]
    fused = codes.reshape(256, 5).argmax(1)
    assert np.array_equal(fused, scores.argmax(1).numpy()) and len(np.unique(fused)) >= 3


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_sums_of_branches_with_ranges_of_their_own_are_exact(bits: int) -> None:
    """Every element: both terms under one shift, one rounding; the real sum on the output's grid."""
    op = make("PerLayerSATSymmetric", bits, act_type="CG-PACT")
    quantized = op.generate_deployment_model()
    graph, x = lower(quantized), pixels(32, seed=6)
    values = integer.run(graph, x.permute(0, 2, 3, 1).numpy())
    add = graph.op("add")
    assert isinstance(add, QAdd) and len(set(add.inputs)) == 2
    left, right, output = (quantized.params(name) for name in (*add.inputs, "add"))
    assert abs(left.scale / right.scale - 1) > 0.02
    total = sum(
        m * values[n].astype(np.int64) for m, n in zip(add.affine.multipliers, add.inputs, strict=True)
    ) + np.int64(add.affine.constant)
    assert np.array_equal(np.clip(total >> add.affine.shift, *add.clamp), values["add"])
    real = sum(
        Fraction(p.scale) * (values[n].astype(object) - p.zero_point)
        for p, n in zip((left, right), add.inputs, strict=True)
    ) / Fraction(output.scale)
    wanted = np.clip(np.floor(real.astype(np.float64) + 0.5) + output.zero_point, *add.clamp)
    near = np.abs(np.abs(real.astype(np.float64) % 1) - 0.5) < 1e-4
    assert np.array_equal(wanted[~near], values["add"][~near]) and near.mean() < 0.01
    assert len(np.unique(values["add"])) > 2 ** (bits - 1)


def test_the_text_of_a_network_shows_the_quantizers_of_branches_and_sums() -> None:
    for branch_quant, width in ((True, 4), (False, 8)):
        op = make(bits=4, branch_quant=branch_quant)
        lines = {line.split(" = ")[0]: line for line in to_text(lower(op.generate_deployment_model())).splitlines()}
        found = {
            name: re.search(r" : \d+x\d+x\d+ (\d)-bit scale", lines[name]) for name in ("left.0", "right.0", "add")
        }
        shown = {name: match and int(match.group(1)) for name, match in found.items()}
        assert shown == {"left.0": width, "right.0": width, "add": 4}, lines


@pytest.mark.parametrize("bits", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_r20_thresholds_equal_icn(bits: int) -> None:
    """Every accumulator a layer can reach, falling channels (gamma < 0) included, one by one."""
    op = make("PerLayerAsymPACT", bits, fold_type="folding_thresholds")
    graph = lower(op.generate_deployment_model())
    seen = 0
    for layer in graph:
        if not isinstance(layer, QConv2d) or layer.output.bits == 8:
            continue
        table = thresholds(layer)
        source = graph.tensor(layer.inputs[0])
        bounds = accumulator_bound(layer.weight, layer.weight_zero_point, layer.bias, source.bits)
        bound = min(int(bounds.max()), 200_000)
        acc = np.concatenate([np.arange(-bound, bound + 1), [-(2**31), INT32_MAX]])[:, None].repeat(
            len(layer.weight), 1
        )
        expected = requantize(acc, layer.multiplier, layer.shift, layer.output.zero_point, *layer.clamp)
        assert np.array_equal(table.apply(acc), expected)
        assert not table.rising.all() and table.rising.any()  # gamma < 0 is there
        assert table_bytes(layer) == len(layer.weight) * 2 * 2**bits
        seen += 1
    assert seen == 3
    icn = lower(make("PerLayerAsymPACT", bits, fold_type="ICN").generate_deployment_model())
    for one, other in zip(graph, icn, strict=True):  # the same integers
        if isinstance(one, QConv2d) and isinstance(other, QConv2d):
            assert np.array_equal(one.bias, other.bias) and np.array_equal(one.multiplier, other.multiplier)


def test_r20_r3_thresholds_refuse_outputs_of_8_bits() -> None:
    with pytest.raises(UsageError, match=r"left\.0: folding_thresholds is for outputs of 2 and 4 bits"):
        make(bits=4, fold_type="folding_thresholds", layer_config=[{"layer": "left.0", "a_bits": 8}])
    op = make(bits=4, fold_type="folding_thresholds")
    assert op.configs["fc"].fold_type == "ICN"  # outputs of the network always have 8 bits


@pytest.mark.slow
def test_n9_sgd_and_adam_train_steps_at_a_rate_of_their_own() -> None:
    for kind in (torch.optim.SGD, torch.optim.Adam):
        op = make("PerLayerSATDefault", 4)
        before = {n: p.detach().clone() for n, p in op.named_parameters()}
        groups = op.param_groups(0.0, step_lr=1e-2)
        optimizer = kind(groups, lr=0.0)
        with op.quantized():
            F.cross_entropy(op(pixels()), torch.arange(32) % 5).backward()
        optimizer.step()
        moved = {n for n, p in op.named_parameters() if not torch.equal(p.detach(), before[n])}
        assert moved and all("quantizer" in name for name in moved)


def test_n14_the_clamp_phase_is_followed_by_quantization() -> None:
    op = make("PerLayerSATDefault", 4, clamp_epochs=1, fold_delay=2)
    op.start_epoch(0)
    op.train()
    x = pixels()
    with op.quantized():
        weight = op.layers["right.0"].weight.detach().clone()
        assert len(weight.unique()) > 30 and float(weight.abs().max()) == 1.0
        assert len(op.tensors(x)["stem.0"].unique()) > 300
    op.start_epoch(1)
    with op.quantized():
        assert len(op.layers["right.0"].weight.unique()) <= 15
        assert len(op.tensors(x)["stem.0"].unique()) <= 16
    assert not op.frozen
    op.start_epoch(2)
    assert op.frozen


@pytest.mark.slow
def test_batch_norms_follow_weights_of_another_scale() -> None:
    """DoReFa's weights are larger than the real ones; after calibration the network computes nearly the same."""
    op = make("PerLayerDoReFa", 8)
    x = pixels(32, seed=4)
    with torch.no_grad():
        wanted = op.model(x.float() / 255)
        with op.quantized():
            found = op(x)
    assert isinstance(found, torch.Tensor)
    assert isinstance(op._quantizer["add"], activations.ActivationQuantizer)
    assert float(np.corrcoef(wanted.numpy().ravel(), found.numpy().ravel())[0, 1]) > 0.9


def test_folded_weights_cannot_have_another_scale() -> None:
    with pytest.raises(UsageError, match="fold_type ICN or folding_thresholds is allowed"):
        make("PerLayerDoReFa", fold_type="folding_weights")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["fixed16", "fixed32", "double-shift", "single-shift"])
def test_n16_scalings_reach_the_integer_network(form: str) -> None:
    exact, restricted = (lower(make(bits=8, scaling=s).generate_deployment_model()) for s in ("exact", form))
    x = pixels(16, seed=5).permute(0, 2, 3, 1).numpy()
    error = np.abs(integer.run(exact, x)["stem.0"] - integer.run(restricted, x)["stem.0"]) / 255
    bound = {"fixed16": 0.02, "fixed32": 0.005, "double-shift": 0.16, "single-shift": 0.4}[form]
    assert error.max() <= bound
    assert form == "fixed32" or error.max() > 0
