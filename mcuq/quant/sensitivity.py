"""How much accuracy each tensor costs at 8, 4 and 2 bits: the table the bit solver sums.

Every measure quantizes one tensor (weights of a layer per output channel with batch norm folded, or one stored
activation) with the step of least squared error and leaves everything else in float. Layers named ``per_layer`` are
measured with one step for all their weights, too, under negative bits (``ir.plans.choice_of``). Tensors that alias
another (reshapes) are left out; the input and the network's outputs are fixed at 8 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from mcuq.errors import DataError
from mcuq.ir import graph as ir
from mcuq.ir.graph import Graph
from mcuq.ir.plans import Sensitivity, TensorKind, TensorLoss
from mcuq.ir.quantized import QuantParams
from mcuq.numerics import code_range, weight_range
from mcuq.quant.float_model import FloatModel, batches
from mcuq.quant.network import fixed_at_eight, moves_codes, non_negative
from mcuq.quant.ranges import mse_activation_range, sample_values, symmetric_mse_steps
from mcuq.quant.rounding import round_half_up

BITS = (8, 4, 2)
Progress = Callable[[int, int], None]
"""Called with (done, total) measurements."""


def measured_activations(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Activations with a bit width of their own in a fused graph, and the widths each may take."""
    fixed = fixed_at_eight(graph)
    skipped = (ir.L2Normalize, ir.Softmax, ir.Argmax)
    own = (op for op in graph if not moves_codes(op) and not isinstance(op, skipped))
    return {op.name: (8,) if op.name in fixed else BITS for op in own}


def kl(
    graph: Graph,
    x: NDArray[Any],
    *,
    per_layer: Collection[str] = (),
    batch_size: int = 128,
    progress: Progress | None = None,
) -> Sensitivity:
    """Kullback-Leibler divergence of the class scores from the float network's, one tensor swapped at a time.

    Args:
        graph: float graph. x: calibration images [N, H, W, C], uint8 pixels or real inputs; no labels needed.

    Returns:
        Mean divergence per image, in nats.

    Raises:
        DataError: ``x`` is empty or does not fit.
    """
    model = FloatModel(graph)
    swaps = Swaps(model, x, batch_size, per_layer)
    totals = dict.fromkeys(swaps.keys, 0.0)
    scores = model.scores()
    done, work = 0, len(totals) * math.ceil(len(x) / batch_size)
    with torch.no_grad():
        for batch in batches(x, batch_size):
            values = model.run(model.inputs(batch))
            reference = torch.log_softmax(values[scores].flatten(1).double(), 1)
            for key in totals:
                changed = swaps.apply(key, values)
                trial = torch.log_softmax(changed[scores].flatten(1).double(), 1)
                divergence = (reference.exp() * (reference - trial)).sum()
                totals[key] += max(float(divergence), 0.0)
                done += 1
                if progress is not None:
                    progress(done, work)
    return table("kl", {key: total / len(x) for key, total in totals.items()})


def sqnr(graph: Graph, x: NDArray[Any], *, per_layer: Collection[str] = (), batch_size: int = 128) -> Sensitivity:
    """Noise-to-signal power of each tensor itself (the inverse of its SQNR); cheap, blind to what matters.

    Args and errors as :func:`kl`.
    """
    model = FloatModel(graph)
    swaps = Swaps(model, x, batch_size, per_layer)
    noise = dict.fromkeys(swaps.keys, 0.0)
    signal = dict.fromkeys(swaps.keys, 0.0)
    with torch.no_grad():
        for batch in batches(x, batch_size):
            values = model.run(model.inputs(batch))
            for key in noise:
                real = model.weights[key[0]] if key[1] == "weight" else values[key[0]]
                noise[key] += float((swaps.quantized(key, values) - real).double().square().sum())
                signal[key] += float(real.double().square().sum())
    return table("sqnr", {key: noise[key] / signal[key] if signal[key] > 0 else 0.0 for key in noise})


def fit(
    graph: Graph, x: NDArray[Any], *, per_layer: Collection[str] = (), seed: int = 0, batch_size: int = 128
) -> Sensitivity:
    """Fisher information times squared quantization error (FIT, Zandonati et al., ICLR 2023), element by element.

    Half of E[sum_i g_i^2 e_i^2], g the gradient of the log-likelihood of a label drawn from the network's own
    scores, e the quantization error: one backward pass per image for weights and activations together.

    Args and errors as :func:`kl`; ``seed`` draws the labels.
    """
    model = FloatModel(graph)
    swaps = Swaps(model, x, batch_size, per_layer)
    generator = torch.Generator().manual_seed(seed)
    errors = {key: swaps.quantized(key, {}) - model.weights[key[0]] for key in swaps.keys if key[1] == "weight"}
    totals = dict.fromkeys(swaps.keys, 0.0)
    weights = {name: weight.requires_grad_(True) for name, weight in model.weights.items()}
    for image in batches(x, 1):
        real = model.inputs(image, grad=True)
        values = model.run(real)
        log_probability = torch.log_softmax(values[model.scores()].flatten(1), 1)
        label = torch.multinomial(log_probability.detach().exp(), 1, generator=generator)
        names = [name for name in values if values[name].requires_grad]
        targets = [values[name] for name in names] + list(weights.values())
        grads = torch.autograd.grad(log_probability.gather(1, label).sum(), targets, allow_unused=True)
        by_tensor = dict(zip(names, grads[: len(names)], strict=True))
        by_weight = dict(zip(weights, grads[len(names) :], strict=True))
        with torch.no_grad():
            for key in totals:
                layer, kind, _ = key
                grad = by_weight.get(layer) if kind == "weight" else by_tensor.get(layer)
                if grad is not None:
                    error = errors[key] if kind == "weight" else swaps.quantized(key, values) - values[layer]
                    totals[key] += 0.5 * float((grad * error).double().square().sum())
    return table("fit", {key: total / len(x) for key, total in totals.items()})


Key = tuple[str, TensorKind, int]


class Swaps:
    """Quantized versions of every tensor: weights once, activations with ranges from the whole set."""

    def __init__(self, model: FloatModel, x: NDArray[Any], batch_size: int, per_layer: Collection[str] = ()) -> None:
        if len(x) == 0:
            raise DataError("sensitivity needs at least one image")
        self.model = model
        widths = measured_activations(model.graph)
        keys: list[Key] = [(op.name, "weight", c) for op in model.graph.convs for c in choices(op.name, per_layer)]
        keys.extend((name, "activation", b) for name, allowed in widths.items() for b in allowed)
        self.keys = tuple(keys)
        self._weights = {
            (name, choice): quantized_weights(weight, choice)
            for name, weight in model.weights.items()
            for choice in choices(name, per_layer)
        }
        samples: dict[str, list[Tensor]] = {name: [] for name in widths}
        with torch.no_grad():
            for batch in batches(x, batch_size):
                values = model.run(model.inputs(batch))
                for name in samples:
                    samples[name].append(sample_values(values[name]))
        positive = non_negative(model.graph)
        self._params = {
            (name, bits): activation_params(
                torch.cat(samples[name]), bits, model.graph.op(name), signed=name not in positive
            )
            for name, allowed in widths.items()
            for bits in allowed
        }

    def quantized(self, key: Key, values: dict[str, Tensor]) -> Tensor:
        """The tensor of ``key`` on its grid."""
        name, kind, bits = key
        if kind == "weight":
            return self._weights[name, bits]
        return quantized_activation(values[name], self._params[name, bits])

    def apply(self, key: Key, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """All tensors with only ``key`` quantized."""
        swapped = self.quantized(key, values)
        if key[1] == "weight":
            return self.model.rerun(values, key[0], weight=swapped)
        return self.model.rerun(values, key[0], tensor=swapped)


def choices(layer: str, per_layer: Collection[str]) -> tuple[int, ...]:
    """Choices that are measured for the weights of ``layer``."""
    return (*BITS, *(-bits for bits in BITS)) if layer in per_layer else BITS


def quantized_weights(weight: Tensor, choice: int) -> Tensor:
    """Weights [O, ...] on symmetric grids of least squared error: per channel, of negative ``choice`` one for all."""
    rows, bits = weight.detach().reshape(len(weight) if choice > 0 else 1, -1), abs(choice)
    step = symmetric_mse_steps(rows, bits).unsqueeze(1)
    low, high = weight_range(bits)
    return round_half_up(rows / step).clamp_(low, high).mul_(step).reshape(weight.shape)


def activation_params(values: Tensor, bits: int, op: ir.FloatOp, *, signed: bool) -> QuantParams:
    """Parameters of least squared error; raw pixels keep their own grid."""
    if isinstance(op, ir.Input) and op.normalization is not None:
        return QuantParams(8, op.normalization.scale, op.normalization.zero_point - 128)
    scale, zero_point = mse_activation_range(values, bits, signed=signed)
    return QuantParams(bits, scale, zero_point)


def quantized_activation(x: Tensor, params: QuantParams) -> Tensor:
    """``x`` on the grid of ``params``."""
    low, high = code_range(params.bits)
    codes = round_half_up(x / params.scale).clamp_(low - params.zero_point, high - params.zero_point)
    return codes.mul_(params.scale)


def table(method: str, losses: dict[Key, float]) -> Sensitivity:
    """The losses as a table in which more bits and finer steps never cost more (measurement noise is levelled)."""
    levelled: dict[Key, float] = {}
    for layer, kind, choice in sorted(losses, key=lambda key: key[2] < 0):
        sign = 1 if choice > 0 else -1
        fewer = [losses[layer, kind, sign * b] for b in BITS if b <= abs(choice) and (layer, kind, sign * b) in losses]
        finer = levelled[layer, kind, -choice] if choice < 0 else 0.0
        levelled[layer, kind, choice] = max(min(fewer), finer)
    return Sensitivity(
        method, tuple(TensorLoss(layer, kind, bits, loss) for (layer, kind, bits), loss in levelled.items())
    )


def noise_to_signal(quantized: Tensor, real: Tensor) -> float:
    """Power of the quantization error over that of the real values; 0 for a tensor of zeros."""
    power = float(real.double().square().sum())
    return float((quantized - real).double().square().sum()) / power if power > 0 else 0.0
