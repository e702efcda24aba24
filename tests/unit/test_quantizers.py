"""Weight and activation quantizers: code counts, ranges of zero, gradients, initial ranges."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mcuq.errors import UsageError  # noqa: E402
from mcuq.numerics import code_range, quantize, weight_range  # noqa: E402
from mcuq.quant import activations, ranges, weights  # noqa: E402
from mcuq.quant.rounding import round_half_up, round_straight_through  # noqa: E402
from mcuq.quant.weights import QUANT_TYPES  # noqa: E402


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("quant_type", QUANT_TYPES)
def test_never_more_than_two_to_the_bits_codes(quant_type: str, bits: int) -> None:
    """Symmetric ranges put both ends on halves: naive rounding gives 2^b + 1 codes."""
    ramp = torch.linspace(-1, 1, 4001).repeat(3, 1).reshape(3, 4001, 1, 1)
    quantizer = weights.make(quant_type, bits, 3)
    quantizer.reset(ramp)
    fake, _ = quantizer.quantize(ramp)
    codes, scale, zero = quantizer.export(ramp)
    low, high = weight_range(bits)
    assert int(codes.min()) >= low and int(codes.max()) <= high
    assert len(codes.unique()) <= 2**bits
    few = quant_type.endswith("SymLSQ")  # whose start has a large step at 8 bits: 2 mean|w| / sqrt(127)
    assert len(fake[0].unique()) == len(codes[0].unique()) > (2 if few else 2 ** (bits - 1))
    assert int(zero.min()) >= low and int(zero.max()) <= high
    real = scale.reshape(-1, 1, 1, 1) * (codes - zero.reshape(-1, 1, 1, 1))
    torch.testing.assert_close(real, fake.double(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("quant_type", QUANT_TYPES)
@pytest.mark.parametrize("content", ["zero", "constant", "negative"])
def test_ranges_of_zero_have_defined_results(quant_type: str, bits: int, content: str) -> None:
    value = {"zero": 0.0, "constant": 0.37, "negative": -0.37}[content]
    weight = torch.stack([torch.full((4, 3, 3), value), normal(4, 3, 3)])
    if quant_type.startswith("PerLayer"):
        weight[1] = value
    quantizer = weights.make(quant_type, bits, 2)
    quantizer.reset(weight)
    fake, scale = quantizer.quantize(weight)
    assert bool(torch.isfinite(fake).all()) and bool((scale > 0).all())
    assert bool(torch.isfinite(quantizer.gradients(weight, torch.ones_like(weight))).all())
    step = float(scale[0])
    wanted = quantizer.real(weight)  # tanh / max|tanh| in the DoReFa family
    assert float((fake[0] - wanted[0]).abs().max()) <= step * (0.5 + (value != 0 and "SATAsym" in quant_type)) + 1e-6
    if content == "zero":
        assert float(fake[0].abs().max()) == 0.0


def test_asymmetric_scales_follow_the_definition() -> None:
    weight = torch.tensor([[-0.3, 0.0, 0.9], [0.1, 0.2, 0.4]]).reshape(2, 3, 1, 1)
    per_channel = weights.make("PerChannelsAsymMinMax", 4, 2)
    codes, scale, zero = per_channel.export(weight)
    assert scale.tolist() == pytest.approx([1.2 / 15, 0.4 / 15])
    assert (zero + 8).tolist() == [4, 0]
    assert (codes.reshape(2, 3) + 8).tolist() == [[0, 4, 15], [4, 8, 15]]
    per_layer = weights.make("PerLayerAsymMinMax", 4, 2)
    assert per_layer.export(weight)[1].tolist() == pytest.approx([1.2 / 15])


def test_r12_pact_weight_gradients_equal_finite_sums() -> None:
    weight = torch.tensor([[-0.9, -0.2, 0.4], [0.7, 0.0, -0.5], [1.1, 0.5, -0.1]]).reshape(1, 1, 3, 3)
    grad = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    quantizer = weights.make("PerLayerAsymPACT", 4, 1)
    assert isinstance(quantizer, weights.PactWeights)
    with torch.no_grad():
        quantizer.min_threshold.fill_(-0.5)
        quantizer.max_threshold.fill_(0.5)
    result = quantizer.gradients(weight, grad)
    assert quantizer.max_threshold.grad is not None and quantizer.min_threshold.grad is not None
    assert float(quantizer.max_threshold.grad) == 4 + 7 + 8  # 0.7, 1.1, 0.5
    assert float(quantizer.min_threshold.grad) == 1 + 6  # -0.9, -0.5
    assert result.flatten().tolist() == [0, 2, 3, 0, 5, 0, 0, 0, 9]
    fake, scale = quantizer.quantize(weight)
    assert float(scale[0]) == pytest.approx(1.0 / 15)
    assert float(fake.max()) <= 8.5 / 15 and float(fake.min()) >= -8.5 / 15
    with torch.no_grad():
        quantizer.min_threshold.fill_(-0.4)
    codes, scale, zero = quantizer.export(weight)
    assert float(scale[0]) == pytest.approx(0.9 / 15)
    assert int(zero[0]) == 7 - 8, "6.67 steps lie below zero"
    assert (codes - zero.reshape(-1, 1, 1, 1)).flatten().tolist() == [-7, -3, 7, 8, 0, -7, 8, 8, -2]
    assert int(codes.min()) == -8 and int(codes.max()) == 7


def test_pact_thresholds_do_not_widen_the_range_and_keep_zero_inside() -> None:
    quantizer = weights.make("PerLayerAsymPACT", 4, 1)
    assert isinstance(quantizer, weights.PactWeights)
    with torch.no_grad():
        quantizer.min_threshold.fill_(0.4)
        quantizer.max_threshold.fill_(9.0)
    weight = torch.tensor([-1.0, 0.2, 0.6]).reshape(1, 3, 1, 1)
    assert float(quantizer.quantize(weight)[1]) == pytest.approx(0.6 / 15)
    assert float(quantizer.quantize(weight)[0].min()) == 0.0


def test_learned_steps_match_finite_differences() -> None:
    """Away from rounding, the loss of s * clamp(w / s) has the clipped part of the LSQ gradient."""
    weight = normal(2, 40)
    quantizer = weights.make("PerChannelsSymMSE", 2, 2)
    assert isinstance(quantizer, weights.LearnedSymmetric)
    quantizer.reset(weight)
    grad = normal(2, 40, seed=1)
    masked = quantizer.gradients(weight, grad)
    step = quantizer.log_step.detach().exp().unsqueeze(1)
    ratio = weight / step
    assert quantizer.sign.tolist() == [1, -1]
    low, high = torch.tensor([[-2.0], [-1.0]]), torch.tensor([[1.0], [2.0]])
    codes = torch.minimum(torch.maximum(round_half_up(ratio), low), high)
    inside = (ratio > low) & (ratio < high)
    term = torch.where(inside, codes - ratio, codes)
    expected = (grad * term * step).sum(1) / (40 * 1) ** 0.5
    assert quantizer.log_step.grad is not None
    torch.testing.assert_close(quantizer.log_step.grad, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(masked, grad * inside)


def test_learned_steps_have_the_gradients_of_the_present_step() -> None:
    """Those of the last quantization, which keeps its ends for them once; alone, of the step as it is."""
    generator = torch.Generator().manual_seed(3)
    weight, grad = torch.randn((2, 4, 3, 3, 3), generator=generator)
    quantizers = [weights.make("PerChannelsSymMSE", 4, 4) for _ in range(2)]
    for quantizer in quantizers:
        quantizer.reset(weight)
    quantizers[0].quantize(weight)
    for shift in (0.0, 0.5):
        results: list[torch.Tensor] = []
        for quantizer in quantizers:
            assert isinstance(quantizer, weights.LearnedSymmetric)
            with torch.no_grad():
                quantizer.log_step.add_(shift)
            quantizer.log_step.grad = None
            results.append(quantizer.gradients(weight, grad))
        steps = [quantizer.get_parameter("log_step").grad for quantizer in quantizers]
        assert torch.equal(*results) and steps[0] is not None and torch.equal(steps[0], steps[1])


@pytest.mark.parametrize("part", ["PerChannels", "PerLayer"])
def test_rows_that_fit_better_negated_are_stored_so(part: str) -> None:
    """Positive weights, as of a smoothing kernel: stored as they are, 2-bit codes have only 0 and 1 for them."""
    smooth = torch.tensor([1.0, 2.0, 1.0, 2.0, 4.0, 2.0, 1.0, 2.0, 1.0]).reshape(1, 1, 3, 3)
    for weight, sign in ((smooth, -1), (-smooth, 1)):
        quantizer = weights.make(f"{part}SymMSE", 2, 1)
        quantizer.reset(weight)
        codes, scale, zero = quantizer.export(weight)
        assert float(scale.sign()) == sign and int(zero) == 0
        assert codes.reshape(-1).tolist() == [-1 if w < 3 else -2 for w in smooth.reshape(-1).tolist()]
        fake = quantizer.quantize(weight)[0]
        torch.testing.assert_close(float(scale) * codes.double(), fake.double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("bits", [4, 2])
@pytest.mark.parametrize("shape", ["normal", "heavy", "skewed", "uniform"])
def test_r17_ppq_is_never_worse_than_min_max(bits: int, shape: str) -> None:
    w = normal(2000)
    w = {"normal": w, "heavy": w**3, "skewed": w.exp() - 1, "uniform": torch.rand(2000) - 0.3}[shape]
    low, high = ranges.progressive_projection(w, 2**bits - 1)
    assert low <= 0 <= high
    projected = ranges.asymmetric_error(w, low, high, 2**bits - 1)
    plain = ranges.asymmetric_error(w, float(w.min()), float(w.max()), 2**bits - 1)
    assert projected <= plain
    if shape in ("normal", "heavy"):
        assert projected < 0.95 * plain


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_mse_steps_are_near_the_best_of_a_fine_search(bits: int) -> None:
    rows = normal(3, 500)
    steps = ranges.symmetric_mse_steps(rows, bits)
    low, high = weight_range(bits)
    for row, step in zip(rows, steps, strict=True):
        trials = torch.linspace(0.005, 1.1, 3000) * row.abs().max() / high

        def error(s: torch.Tensor, row: torch.Tensor = row) -> float:
            return float(((row / s + 0.5).floor().clamp(low, high) * s - row).square().sum())

        assert error(step) <= 1.03 * min(error(s) for s in trials)


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("signed", [False, True])
def test_activation_ranges_keep_zero_and_beat_min_max(bits: int, signed: bool) -> None:
    x = normal(5000) * 2
    x = x if signed else x.clamp_min(0)
    scale, zero = ranges.mse_activation_range(x, bits, signed=signed)
    qmin, qmax = code_range(bits)
    assert qmin <= zero <= qmax and (signed or zero == qmin)

    def error(s: float, z: int) -> float:
        codes = quantize(x.numpy(), s, z, bits)
        return float(np.square(s * (codes - z) - x.numpy()).sum())

    low, high = min(float(x.min()), 0.0), float(x.max())
    step = (high - low) / (qmax - qmin)
    assert error(scale, zero) <= error(step, qmin + round(-low / step)) * 1.0001
    percentile = ranges.percentile_activation_range(x, bits, signed=signed, fraction=0.99)
    assert percentile[0] < step and qmin <= percentile[1] <= qmax


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("act_type", [t for t in activations.ACT_TYPES if t != "none"])
def test_activations_lie_on_the_grid_of_the_device(act_type: str, bits: int, signed: bool) -> None:
    x = normal(4, 3, 5, 5) * 3
    clamp = (None, None) if signed else (0.0, None)
    quantizer = activations.make(act_type, bits, signed=signed)
    quantizer.calibrate(x.flatten() if signed else x.flatten().clamp_min(0))
    params = quantizer.params()
    y = quantizer(x, clamp)
    real = x if signed else x.clamp_min(0)
    expected = quantize(real.numpy() + quantizer.shift(), params.scale, params.zero_point, bits)
    expected = np.clip(expected, *(params.codes or code_range(bits)))
    codes = np.floor(y.detach().double().numpy() / params.scale + 0.5) + params.zero_point
    assert (codes == expected).mean() > 0.999
    assert len(np.unique(codes)) <= 2**bits
    assert float(quantizer(torch.zeros(1, 1)).detach()) == 0.0


def test_pact_activation_gradients() -> None:
    quantizer = activations.make("PACT", 2, signed=False)
    assert isinstance(quantizer, activations.PactActivation)
    quantizer.set_range(1.0, 0)
    x = torch.tensor([-1.0, 0.4, 2.0, 3.0, 5.0], requires_grad=True)
    y = quantizer(x, (0.0, None))
    assert y.tolist() == [0, 0, 2, 3, 3]
    y.backward(torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]))
    assert x.grad is not None and x.grad.tolist() == [0, 2, 4, 0, 0]
    assert quantizer.high.grad is not None and float(quantizer.high.grad) == 8 + 16


def test_lsq_activation_gradients() -> None:
    quantizer = activations.make("LSQ", 2, signed=False)
    assert isinstance(quantizer, activations.LearnedStepActivation)
    quantizer.set_range(0.5, 0)
    x = torch.tensor([[-1.0, 0.4, 1.1, 1.4, 5.0]], requires_grad=True)
    grad = torch.tensor([[1.0, 2.0, 4.0, 8.0, 16.0]])
    quantizer(x, (0.0, None)).backward(grad)
    assert x.grad is not None and x.grad.tolist() == [[0, 2, 4, 8, 0]]
    ratio = x.detach() / 0.5
    term = torch.tensor([[0.0, 1 - ratio[0, 1], 2 - ratio[0, 2], 3 - ratio[0, 3], 3.0]])
    expected = 0.5 * float((grad * term).sum()) / (5 * 3) ** 0.5
    assert quantizer.log_step.grad is not None
    assert float(quantizer.log_step.grad) == pytest.approx(expected, rel=1e-5)


def test_relu6_is_the_clamp_of_the_codes() -> None:
    quantizer = activations.make("LSQ", 8, signed=False)
    quantizer.set_range(0.05, -128)
    x = torch.tensor([[5.9, 6.0, 7.0, 12.0]])
    assert quantizer(x, (0.0, 6.0)).tolist()[0] == pytest.approx([5.9, 6.0, 6.0, 6.0])


def test_rounding_is_half_up() -> None:
    halves = torch.tensor([-1.5, -0.5, 0.5, 1.5, 2.5])
    assert round_half_up(halves).tolist() == [-1, 0, 1, 2, 3]
    x = halves.clone().requires_grad_()
    round_straight_through(x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [1] * 5


def test_unknown_choices_are_refused() -> None:
    with pytest.raises(UsageError, match="quant_type must be one of PerLayerAsymPACT"):
        weights.make("PACT", 4, 1)
    with pytest.raises(UsageError, match="act_type must be one of LSQ"):
        activations.make("ReLU", 4, signed=False)
    with pytest.raises(UsageError, match="activation bits must be 8, 4 or 2, got 16"):
        activations.make("LSQ", 16, signed=False)
    with pytest.raises(UsageError, match="scale must be positive, got nan"):
        activations.make("LSQ", 8, signed=False).set_range(float("nan"), 0)
