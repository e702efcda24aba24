"""Quantizers against the formulas of their sources, evaluated here in exact or double arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mcuq.errors import UsageError  # noqa: E402
from mcuq.numerics import pack, unpack, weight_range  # noqa: E402
from mcuq.quant import activations, kernels, ranges, weights  # noqa: E402
from mcuq.quant.tanh_weights import TanhWeights  # noqa: E402
from mcuq.quant.weights import QUANT_TYPES, LearnedAsymmetric, WeightQuantizer  # noqa: E402

LEVELS = (1, 2, 3, 5, 7, 15, 31, 100, 255)
FIVE = torch.tensor([-1.5, -0.3, 0.05, 0.4, 0.9]).reshape(1, 5, 1, 1)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def half_up(x: torch.Tensor) -> torch.Tensor:
    return torch.floor(x + 0.5)


def squashed(w: torch.Tensor) -> torch.Tensor:
    t = torch.tanh(w.double())
    return t / t.abs().max()


def codes_of(quantizer: WeightQuantizer, w: torch.Tensor) -> torch.Tensor:
    codes, _, zero = quantizer.export(w)
    return codes.long() - zero.reshape(-1, *[1] * (w.dim() - 1))


def assert_exact(quantizer: WeightQuantizer, w: torch.Tensor) -> None:
    """Fake-quantized weights are scale * (stored code - zero point), stored codes survive packing."""
    fake, _ = quantizer.quantize(w)
    stored, scale, zero = quantizer.export(w)
    spread = (-1, *[1] * (w.dim() - 1))
    real = scale.reshape(spread) * (stored.double() - zero.reshape(spread))
    torch.testing.assert_close(real, fake.double(), rtol=1e-6, atol=1e-9)
    low, high = weight_range(quantizer.bits)
    assert low <= int(stored.min()) and int(stored.max()) <= high
    rows = stored.reshape(len(stored), -1).numpy()
    assert np.array_equal(unpack(pack(rows, quantizer.bits), rows.shape[1], quantizer.bits, signed=True), rows)


@pytest.mark.parametrize("steps", LEVELS)
def test_n1_any_range_has_its_levels_and_is_stored_exactly(steps: int) -> None:
    """At most Range + 1 levels, all of them on a dense ramp; storage is the least of 2, 4, 8 bits that is exact."""
    ramp = torch.linspace(-1, 1, 2001).reshape(1, 2001, 1, 1)
    for quant_type in QUANT_TYPES:
        if quant_type.startswith("PerChannels"):
            continue
        if steps == 255 and quant_type.endswith(("SATDefault", "SATFullRange")):
            with pytest.raises(UsageError, match=r"range 255 makes the codes -255, -253 \.\. 255.* take range 254"):
                weights.make(quant_type, 8, 1, steps=steps)
            continue
        quantizer = weights.make(quant_type, 8, 1, steps=steps)
        quantizer.reset(ramp)
        assert_exact(quantizer, ramp)
        count = len(codes_of(quantizer, ramp).unique())
        assert count <= steps + 1, quant_type
        full = 2 * (steps // 2) + 1 if quant_type.endswith(("DoReFa", "SATSymmetric")) and steps > 1 else steps + 1
        learned = quant_type.endswith(("MSE", "LSQ"))  # these choose where to clip
        full -= quant_type.endswith(("MinMax", "AsymPACT")) and steps % 2  # both ends of the ramp lie on a half code
        assert learned or full <= count <= steps + 1, (quant_type, count)


@pytest.mark.parametrize(
    ("quant_type", "steps", "bits"),
    [
        ("PerLayerAsymMinMax", 1, 2),
        ("PerLayerAsymMinMax", 3, 2),
        ("PerLayerAsymMinMax", 5, 4),
        ("PerLayerAsymMinMax", 15, 4),
        ("PerLayerAsymMinMax", 31, 8),
        ("PerLayerAsymMinMax", 255, 8),
        ("PerLayerSymMSE", 1, 2),
        ("PerLayerSymMSE", 2, 2),
        ("PerLayerSymMSE", 7, 4),
        ("PerLayerSATDefault", 1, 2),
        ("PerLayerSATDefault", 2, 2),
        ("PerLayerSATDefault", 3, 4),
        ("PerLayerSATDefault", 7, 4),
        ("PerLayerSATDefault", 15, 8),
        ("PerLayerSATDefault", 14, 4),
        ("PerLayerSATAsymmetric", 15, 4),
    ],
)
def test_n1_storage_is_the_least_width_that_holds_the_codes(quant_type: str, steps: int, bits: int) -> None:
    assert weights.make(quant_type, 8, 3, steps=steps).bits == bits


def test_n1_ranges_outside_1_to_255_are_refused() -> None:
    for steps in (0, 256, -3):
        with pytest.raises(UsageError, match=r"1 .* to 255 are allowed"):
            weights.make("PerLayerSymMSE", 8, 1, steps=steps)
        with pytest.raises(UsageError, match="1 to 255 are allowed"):
            activations.make("LSQ", 8, signed=False, steps=steps)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 14, 15, 127])
def test_n2_n17_sat_default_codes_are_integers_of_the_parity_of_n(steps: int) -> None:
    """n * w_q lies in -n .. n and has n's parity: odd ranges have no zero."""
    w = normal(4, 9, 3, 3, seed=2)
    quantizer = weights.make("PerLayerSATDefault", 8, 4, steps=steps)
    fake, _ = quantizer.quantize(w)
    image = (fake.double() * steps).round()
    assert float((fake.double() * steps - image).abs().max()) < 1e-4
    assert bool(((image - steps) % 2 == 0).all()) and float(image.abs().max()) <= steps
    expected = 2 * half_up(steps * (squashed(w) + 1) / 2) - steps
    assert float((image != expected).double().mean()) < 1e-3
    assert_exact(quantizer, w)


def test_n2_sat_default_golden() -> None:
    """tanh / max of the five weights is -1, -0.3218, 0.0552, 0.4198, 0.7914; q = round(3 (v + 1) / 2)."""
    quantizer = weights.make("PerLayerSATDefault", 8, 1, steps=3)
    assert codes_of(quantizer, FIVE).flatten().tolist() == [-3, -1, 1, 1, 3]
    assert quantizer.quantize(FIVE)[0].flatten().tolist() == pytest.approx([-1, -1 / 3, 1 / 3, 1 / 3, 1])


@pytest.mark.parametrize("steps", [3, 7, 15, 255])
def test_n3_sat_symmetric_and_asymmetric_formulas(steps: int) -> None:
    w = normal(3, 8, 3, 3, seed=3)
    v, r = squashed(w), steps // 2
    symmetric = weights.make("PerLayerSATSymmetric", 8, 3, steps=steps)
    fake = symmetric.quantize(w)[0].double()
    assert (
        float((fake - half_up(v * r) / r).abs().max()) <= 1e-6
        or float((fake != half_up(v * r) / r).double().mean()) < 2e-2
    )
    assert int(codes_of(symmetric, w).abs().max()) == r
    asymmetric = weights.make("PerLayerSATAsymmetric", 8, 3, steps=steps)
    shifted = (1 + 1 / (2 * r)) * v - 1 / (2 * r)
    wanted = half_up(shifted * r)
    got = codes_of(asymmetric, w)
    assert float((got != wanted).double().mean()) < 1e-2 and float((got - wanted).abs().max()) <= 1
    assert -r - 1 <= int(got.min()) and int(got.max()) <= r
    assert_exact(symmetric, w)
    assert_exact(asymmetric, w)


@pytest.mark.parametrize("steps", [2, 3, 7, 15, 100])
def test_n3_full_range_uses_all_levels_equally_on_uniform_input(steps: int) -> None:
    v = torch.linspace(-1, 1, 20001)
    w = torch.atanh(v * 0.999).reshape(1, -1, 1, 1)
    counts = codes_of(weights.make("PerLayerSATFullRange", 8, 1, steps=steps), w).unique(return_counts=True)[1].double()
    assert len(counts) == steps + 1
    assert float(counts.max() / counts.min()) < 1.02
    plain = codes_of(weights.make("PerLayerSATDefault", 8, 1, steps=steps), w).unique(return_counts=True)[1].double()
    assert float(plain.max() / plain.min()) > 1.8  # the end bins are half as wide


def test_n4_the_clamp_phase_is_tanh_over_its_maximum() -> None:
    w = normal(3, 8, 3, 3, seed=4)
    quantizer = weights.make("PerLayerSATDefault", 8, 3, steps=15)
    torch.testing.assert_close(quantizer.real(w).double(), squashed(w), rtol=1e-5, atol=1e-6)
    per_channel = weights.make("PerChannelsSATDefault", 8, 3, steps=15).real(w)
    for one, real in zip(per_channel, w, strict=True):
        torch.testing.assert_close(one.double(), squashed(real), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 3, 15, 254])
def test_n5_scale_adjust_makes_the_variance_one_over_the_fan(steps: int) -> None:
    w = normal(10, 84, seed=5) * 0.1
    quantizer = weights.make("PerLayerSATDefault", 8, 10, steps=steps, normed=False)
    assert float(quantizer.quantize(w)[0].var()) * 10 == pytest.approx(1.0, rel=1e-4)
    conv = normal(8, 5, 3, 3, seed=6)
    quantizer = weights.make("PerLayerSATSymmetric", 8, 8, steps=steps, taps=9, normed=False)
    assert float(quantizer.quantize(conv)[0].var()) * 8 * 9 == pytest.approx(1.0, rel=1e-4)
    assert_exact(quantizer, conv)


@pytest.mark.parametrize("rule", ["SATDefault", "SATSymmetric", "SATAsymmetric", "SATFullRange"])
@pytest.mark.parametrize("normed", [True, False])
def test_n6_sat_gradient_is_sech_squared_over_maximum_and_scale(rule: str, normed: bool) -> None:
    """Equal to autograd through the mapping with rounding, maximum and scale held constant."""
    w, grad = normal(4, 6, 3, 3, seed=7), normal(4, 6, 3, 3, seed=8)
    quantizer = weights.make(f"PerLayer{rule}", 8, 4, steps=15, taps=9, normed=normed)
    x = w.double().requires_grad_()
    largest = torch.tanh(x.detach()).abs().max()
    gain = {"SATAsymmetric": 1 + 1 / 14, "SATFullRange": 1 + 0.9998 / 15}.get(rule, 1.0)
    levels = codes_of(quantizer, w).double() * {"SATDefault": 1 / 15, "SATFullRange": 1 / 15}.get(rule, 1 / 7)
    scale = 1.0 if normed else float((levels.var() * 4 * 9).sqrt())
    (gain * torch.tanh(x) / (largest * scale)).backward(grad.double())
    assert x.grad is not None
    torch.testing.assert_close(quantizer.gradients(w, grad).double(), x.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_l3_dorefa_is_symmetric_with_zero_and_reaches_its_largest_code(bits: int) -> None:
    w, grad = normal(4, 6, 3, 3, seed=9), normal(4, 6, 3, 3, seed=10)
    quantizer = weights.make("PerLayerDoReFa", bits, 4)
    codes = codes_of(quantizer, w)
    top = 2 ** (bits - 1) - 1
    assert int(codes.abs().max()) == top and 0 in codes.unique().tolist()
    wanted = half_up(squashed(w) * top)
    assert float((codes - wanted).abs().max()) <= 1 and float((codes != wanted).double().mean()) < 1e-2
    assert_exact(quantizer, w)
    x = w.double().requires_grad_()  # the gradient goes through the maximum as well
    (torch.tanh(x) / torch.tanh(x).abs().max()).backward(grad.double())
    assert x.grad is not None
    torch.testing.assert_close(quantizer.gradients(w, grad).double(), x.grad, rtol=1e-4, atol=1e-5)


def test_r13_ranges_and_zero_points_per_channel_survive_constant_channels() -> None:
    w = torch.stack([normal(4, 3, 3), torch.zeros(4, 3, 3), torch.full((4, 3, 3), 0.5)])
    quantizer = weights.make("PerChannelsAsymMinMax", 4, 3)
    _, scale, zero = quantizer.export(w)
    span = [float(w[0].max() - w[0].min()), 1.0, 0.5]
    assert scale.tolist() == pytest.approx([s / 15 for s in span], rel=1e-6)
    assert zero.tolist()[1:] == [-8, -8] and int(zero[0]) == math.floor(-float(w[0].min()) / (span[0] / 15) + 0.5) - 8
    assert_exact(quantizer, w)


def test_r12_per_channel_thresholds_have_gradients_of_their_own() -> None:
    w = torch.tensor([[-0.9, -0.2, 0.4], [0.7, 0.1, -0.5]]).reshape(2, 3, 1, 1)
    quantizer = weights.make("PerChannelsAsymPACT", 4, 2)
    assert isinstance(quantizer, weights.PactWeights)
    with torch.no_grad():
        quantizer.min_threshold.fill_(-0.4)
        quantizer.max_threshold.fill_(0.3)
    passed = quantizer.gradients(w, torch.arange(1.0, 7.0).reshape(2, 3, 1, 1))
    assert passed.flatten().tolist() == [0, 2, 0, 0, 5, 0]
    assert quantizer.max_threshold.grad is not None and quantizer.max_threshold.grad.flatten().tolist() == [3, 4]
    assert quantizer.min_threshold.grad is not None and quantizer.min_threshold.grad.flatten().tolist() == [1, 6]
    assert_exact(quantizer, w)


@pytest.mark.parametrize("steps", [3, 15, 255])
def test_n8_lsq_weights_start_and_gradient(steps: int) -> None:
    w, grad = normal(1, 400, seed=11), normal(1, 400, seed=12)
    quantizer = weights.make("PerLayerSymLSQ", 8, 1, steps=steps)
    assert isinstance(quantizer, weights.LearnedSymmetric)
    quantizer.reset(w)
    bottom, top = -((steps + 1) >> 1), (steps - 1) >> 1
    step = float(quantizer.log_step.detach().exp())
    assert step == pytest.approx(2 * float(w.abs().mean()) / top**0.5, rel=1e-5)
    passed = quantizer.gradients(w, grad)
    x = w.double() / step
    inside = (x > bottom) & (x < top)  # strict on both sides
    assert torch.equal(passed != 0, inside)
    term = torch.where(inside, half_up(x) - x, x.clamp(bottom, top))
    ds = float((grad.double() * term).sum()) / (400 * top) ** 0.5
    assert quantizer.log_step.grad is not None
    assert float(quantizer.log_step.grad) == pytest.approx(step * ds, rel=1e-3)  # d log s = s * ds


def test_n8_lsq_plus_weights_learn_step_and_offset() -> None:
    w, grad = normal(1, 500, seed=13).exp() - 1.2, normal(1, 500, seed=14)
    quantizer = weights.make("PerLayerAsymLSQ", 4, 1)
    assert isinstance(quantizer, LearnedAsymmetric)
    quantizer.reset(w)
    step = float(quantizer.log_step.detach().exp())
    zero = math.floor(-float(quantizer.offset.detach()) / step + 0.5)
    x = w.double() / step
    inside = (x > -zero) & (x < 15 - zero)
    passed = quantizer.gradients(w, grad)
    assert torch.equal(passed != 0, inside) and not bool(inside.all())
    gain = 1 / (500 * 15) ** 0.5
    assert quantizer.offset.grad is not None and quantizer.log_step.grad is not None
    outside = gain * float((grad.double() * ~inside).sum())
    assert float(quantizer.offset.grad) == pytest.approx(outside, rel=1e-4, abs=1e-6)
    term = torch.where(inside, half_up(x) - x, torch.where(x >= 15 - zero, 15.0, 0.0))
    wanted = gain * step * float((grad.double() * term).sum())
    assert float(quantizer.log_step.grad) == pytest.approx(wanted, rel=1e-3, abs=1e-5)
    assert_exact(quantizer, w)


def forward_backward(quantizer: activations.ActivationQuantizer, x: torch.Tensor, grad: torch.Tensor) -> tuple:  # type: ignore[type-arg]
    leaf = x.clone().requires_grad_()
    clamp = (None, None) if quantizer.signed else (0.0, None)
    y = quantizer(leaf, clamp)
    y.backward(grad)
    assert leaf.grad is not None
    return y.detach(), leaf.grad


@pytest.mark.parametrize("act_type", ["PACT", "CG-PACT"])
def test_n7_the_gradient_of_alpha_counts_rounding_in_cg_pact_only(act_type: str) -> None:
    """PACT: d alpha = sum over x >= alpha. CG-PACT adds q - x / alpha inside, which finite differences see."""
    quantizer = activations.make(act_type, 2, signed=False)
    assert isinstance(quantizer, activations.PactActivation)
    quantizer.set_range(2.0 / 3, 0)  # alpha = 2
    x = torch.tensor([[-0.5, 0.1, 0.5, 0.9, 1.4, 1.9, 2.0, 3.5]])
    grad = torch.tensor([[3.0, 1.0, -2.0, 0.5, 4.0, 1.5, 7.0, 11.0]])
    y, dx = forward_backward(quantizer, x, grad)
    q = half_up((x / (2 / 3)).clamp(0, 3)) / 3
    assert y.flatten().tolist() == pytest.approx((2 * q).flatten().tolist(), abs=1e-6)
    assert dx.tolist() == [[0, 1.0, -2.0, 0.5, 4.0, 1.5, 0, 0]]
    above = 7.0 + 11.0
    inside = float((grad * (q - x / 2))[0, 1:6].sum()) if act_type == "CG-PACT" else 0.0
    assert quantizer.high.grad is not None
    assert float(quantizer.high.grad) == pytest.approx(above + inside, rel=1e-5)
    if act_type == "CG-PACT":  # y with codes fixed, less the straight-through part x, moves as alpha does
        moved = [
            float((grad * ((alpha * q).where(x < 2, torch.tensor(alpha)) * (x > 0))).sum()) for alpha in (2, 2.001)
        ]
        straight = float((grad * x / 2)[0, 1:6].sum())
        assert (moved[1] - moved[0]) / 0.001 - straight == pytest.approx(above + inside, rel=1e-2)


@pytest.mark.parametrize("means", ["native", "torch"])
@pytest.mark.parametrize(
    ("act_type", "expected"), [("PACT", [0, 0, 0.4, 0.4, 6, 6, 6]), ("PACT-floor", [0, 0, 0, 0.4, 5.6, 6, 6])]
)
def test_r15_l5_pact_clips_at_6_until_calibrated_and_sums_above_alpha(
    act_type: str, expected: list[float], means: kernels.Means
) -> None:
    quantizer = activations.make(act_type, 4, signed=False)
    assert isinstance(quantizer, activations.PactActivation)
    x = torch.tensor([[-1.0, 0.19, 0.21, 0.41, 5.9, 6.0, 7.0]])
    with kernels.use(means):
        y, dx = forward_backward(quantizer, x, torch.tensor([[1.0, 2.0, 4.0, 64.0, 8.0, 16.0, 32.0]]))
    assert y.flatten().tolist() == pytest.approx(expected)
    assert dx.tolist() == [[0, 2, 4, 64, 8, 0, 0]]
    assert quantizer.high.grad is not None and float(quantizer.high.grad) == 48


@pytest.mark.parametrize(("act_type", "top"), [("Clipped", 6.0), ("ScaleClip", 2.0), ("DoReFa", 10.0)])
def test_r16_l4_l6_fixed_clips(act_type: str, top: float) -> None:
    quantizer = activations.make(act_type, 4, signed=False)
    quantizer.calibrate(normal(50).abs())
    x = torch.linspace(-2, 12, 141).reshape(1, -1)
    y, dx = forward_backward(quantizer, x, torch.ones_like(x))
    clipped = 0.5 * (x.abs() - (x - top).abs() + top)  # |x| form of clip(x, 0, top)
    clipped = torch.where(x < 0, torch.zeros_like(x), clipped)
    codes = (y / (top / 15)).round()
    assert float((codes - half_up(15 * clipped.double() / top)).abs().max()) <= 1
    assert float((codes != half_up(15 * clipped / top)).double().mean()) < 0.03
    assert torch.equal(dx == 1, (x > 0) & (x < top)) and len(list(quantizer.parameters())) == 0


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_a_fixed_clip_at_6_gives_the_integers_of_a_learned_one(bits: int) -> None:
    """Three values inside every step, none on a boundary: equal codes, and those of the definition."""
    levels = 2**bits - 1
    steps = np.arange(-3, levels + 4)[:, None] + np.array([-0.375, 0.125, 0.4375])
    x = torch.from_numpy(steps.ravel() * 6 / levels).float().reshape(1, -1)
    learned, fixed = activations.make("PACT", bits, signed=False), activations.make("Clipped", bits, signed=False)
    fixed.calibrate(normal(50).abs())
    codes = [(q(x, (0.0, None)).detach().double() * levels / 6).round().flatten().tolist() for q in (learned, fixed)]
    wanted = np.floor(np.clip(steps.ravel(), 0, levels) + 0.5).tolist()
    assert codes[0] == codes[1] == wanted
    assert fixed.params() == learned.params() and fixed.params().scale == pytest.approx(6 / levels)


def test_l4_dorefa_activation_golden() -> None:
    """round(15 * clip(0.1 x, 0, 1)): the codes of the source; its value q / 15 stands for 10 q / 15 here."""
    quantizer = activations.make("DoReFa", 4, signed=False)
    quantizer.calibrate(torch.ones(3))
    x = torch.tensor([[-1.0, 0.3, 0.34, 1.0, 4.9, 9.9, 30.0]])
    assert (quantizer(x, (0.0, None)) * 1.5).round().flatten().tolist() == [0, 0, 1, 2, 7, 15, 15]


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_l7_modified_pact_signed(bits: int) -> None:
    quantizer = activations.make("mPACT", bits, signed=True)
    assert isinstance(quantizer, activations.ModifiedPact)
    n = 2 ** (bits - 1) - 1
    quantizer.set_range(2.0 / n, quantizer.zero_point())
    assert float(quantizer.scale_coef.detach()) == pytest.approx(2.0)
    x = torch.tensor([[-3.0, -2.5, -0.7, 0.2, 1.1, 2.6]])
    grad = torch.tensor([[1.0, 2.0, 4.0, 8.0, 16.0, 32.0]])
    y, dx = forward_backward(quantizer, x, grad)
    expected = half_up(x.double().clamp(-2, 2) * n / 2) * 2 / n
    assert y.flatten().tolist() == pytest.approx(expected.flatten().tolist(), abs=1e-6)
    assert dx.tolist() == [[0, 0, 4, 8, 16, 0]]
    assert quantizer.scale_coef.grad is not None
    assert float(quantizer.scale_coef.grad) == pytest.approx(32 - 1 - 2)  # minus below -a
    quantizer.regularize()
    assert float(quantizer.scale_coef.grad) == pytest.approx(29 + 2 * 2e-4 * 2.0, rel=1e-6)
    params = quantizer.params()
    lowest, highest = params.codes or (0, 0)
    assert (lowest - params.zero_point, highest - params.zero_point) == (-n, n)


def test_n8_lsq_activations_start_at_twice_the_mean() -> None:
    x = normal(3000).clamp_min(0)
    quantizer = activations.make("LSQ", 4, signed=False)
    quantizer.calibrate(x, "lsq")
    assert float(quantizer.scale()) == pytest.approx(2 * float(x.mean()) / 15**0.5, rel=1e-5)
    assert quantizer.zero_point() == 0


def test_n8_lsq_plus_activation_gradients() -> None:
    quantizer = activations.make("LSQ+", 2, signed=True)
    assert isinstance(quantizer, activations.LearnedOffsetActivation)
    quantizer.set_range(0.5, 1)
    x = torch.tensor([[-2.0, -0.4, 0.1, 0.6, 0.9, 4.0]])
    grad = torch.tensor([[1.0, 2.0, 4.0, 8.0, 16.0, 32.0]])
    y, dx = forward_backward(quantizer, x, grad)
    assert y.flatten().tolist() == [-0.5, -0.5, 0.0, 0.5, 1.0, 1.0]
    assert dx.tolist() == [[0, 2, 4, 8, 16, 0]]
    gain = 1 / (6 * 3) ** 0.5
    r = x / 0.5
    term = torch.tensor([[0.0, *[float(half_up(r[0, i]) - r[0, i]) for i in range(1, 5)], 3.0]])
    assert quantizer.log_step.grad is not None and quantizer.offset.grad is not None
    assert float(quantizer.log_step.grad) == pytest.approx(0.5 * gain * float((grad * term).sum()), rel=1e-4)
    assert float(quantizer.offset.grad) == pytest.approx(gain * 33, rel=1e-5)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("act_type", ["LSQ", "LSQ+", "PACT", "CG-PACT", "mPACT", "Clipped"])
@pytest.mark.parametrize("steps", [1, 2, 5, 15, 100])
def test_n1_activations_of_any_range(act_type: str, steps: int, signed: bool) -> None:
    x = normal(2, 500, seed=15) * 3
    quantizer = activations.make(act_type, 8, signed=signed, steps=steps)
    assert quantizer.bits == next(b for b in (2, 4, 8) if steps < 2**b or (act_type == "mPACT" and steps == 1))
    quantizer.calibrate(x.flatten() if signed else x.flatten().clamp_min(0))
    y = quantizer(x, (None, None) if signed else (0.0, None)).detach()
    params = quantizer.params()
    low, high = params.codes or (0, 2**params.bits - 1)
    codes = (y.double() / params.scale).round()
    allowed = steps + (act_type == "mPACT" and signed and steps == 1)
    assert len(codes.unique()) <= allowed + 1 and float(codes.max() - codes.min()) <= allowed
    if params.codes is not None:
        assert high - low <= allowed


@pytest.mark.parametrize("bits", [4, 2])
def test_r17_ppq_thresholds_beat_min_max_after_ten_rounds(bits: int) -> None:
    """The closed form g = sum(q w) / sum(q q), from the source, is among the candidates."""
    w = normal(4000, seed=16)
    low, high = ranges.progressive_projection(w, 2**bits - 1)
    best = ranges.asymmetric_error(w, low, high, 2**bits - 1)
    assert best < ranges.asymmetric_error(w, float(w.min()), float(w.max()), 2**bits - 1)
    levels, mean = 2**bits - 1, float(w.mean())
    step = 2 / levels * float((w - mean).abs().max())
    for _ in range(10):
        top, bottom = max(mean + step * levels / 2, 0.0), min(mean - step * levels / 2, 0.0)
        q = half_up(w.double().clamp(bottom, top) / step)
        step = float((q * w).sum() / (q * q).sum())
    assert best <= ranges.asymmetric_error(w, bottom, top, levels) * (1 + 1e-9)


def test_n25_a_histogram_of_quantized_weights_has_one_spike_per_level() -> None:
    w = normal(1, 20000, seed=17)
    for steps in (1, 2, 3, 7, 15):
        quantizer = weights.make("PerLayerSATFullRange", 8, 1, steps=steps)
        assert isinstance(quantizer, TanhWeights)
        counts, _ = np.histogram(quantizer.quantize(w)[0].numpy(), bins=1001)
        assert np.count_nonzero(counts) == steps + 1
