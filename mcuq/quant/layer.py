"""One convolution of the trainable network: the user's tensors, its weight quantizer, its batch norm."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mcuq.errors import UsageError
from mcuq.ir import graph as ir
from mcuq.ir.quantized import WeightQuant
from mcuq.ir.scaling import check_scaling
from mcuq.quant import distributed
from mcuq.quant.fake_quant import Branch, Norm, Rule, fuses_norm
from mcuq.quant.network import conv2d
from mcuq.quant.rounding import round_half_up
from mcuq.quant.weights import PactWeights, WeightQuantizer

FOLD_TYPES = ("folding_weights", "ICN", "folding_thresholds")
"""How batch norm reaches the integers: in the weights, in a multiplier per channel, or (outputs of 2 and 4 bits only,
with the same results) in thresholds of the accumulator."""


@dataclass(frozen=True, slots=True)
class LayerConfig:
    """Choices of one layer: weight bits, bits of its output, quantizers and batch norm treatment.

    ``w_range`` and ``a_range`` are levels less one (1 to 255) and then decide the bits, which are those of storage.
    ``scaling`` is the form of the requantization factors, see ``mcuq.ir.scaling``.
    """

    layer: str
    w_bits: int
    a_bits: int
    quant_type: str
    fold_type: str
    act_type: str = "LSQ"
    w_range: int | None = None
    a_range: int | None = None
    scaling: str = "exact"


class _Constants(nn.Module):
    """Tensors of a batch norm that stands for arithmetic with constants: they follow their network's device."""

    def __init__(self, norm: ir.Norm) -> None:
        super().__init__()
        for field in ("gamma", "beta", "mean", "variance"):
            self.register_buffer(field, torch.from_numpy(getattr(norm, field).copy()).float(), persistent=False)


def constant_norm(norm: ir.Norm) -> BatchNormTensors:
    """A norm that nobody trains: products and sums with constants in the user's code."""
    fields = {field: field for field in ("gamma", "beta", "mean", "variance")}
    return BatchNormTensors(_Constants(norm), fields, norm.epsilon)


class BatchNormTensors:
    """The user's batch norm by the names ``capture`` gave; parameters may be None (affine=False).

    Tensors are looked up on each use, because moving a module to another device replaces its buffers.
    """

    def __init__(self, model: nn.Module, names: dict[str, str], epsilon: float) -> None:
        self._places = {
            field: (model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2])
            for field, name in names.items()
        }
        self.module = self._places["mean"][0]
        self.constant = isinstance(self.module, _Constants)
        self.epsilon = epsilon
        self._averaged: int | None = None

    def _tensor(self, field: str) -> Tensor | None:
        place = self._places.get(field)
        return None if place is None else getattr(*place)

    @property
    def gamma(self) -> Tensor | None:
        return self._tensor("gamma")

    @property
    def beta(self) -> Tensor | None:
        return self._tensor("beta")

    @property
    def mean(self) -> Tensor:
        return getattr(*self._places["mean"])

    @property
    def variance(self) -> Tensor:
        return getattr(*self._places["variance"])

    def gain(self) -> Tensor:
        """gamma / sigma per channel, without gradient, [O]; finite also for variance 0."""
        inverse = torch.rsqrt(self.variance + self.epsilon)
        return inverse if self.gamma is None else self.gamma.detach() * inverse

    def offset(self) -> Tensor:
        """beta - mean * gain, without gradient, [O]."""
        shift = -self.mean * self.gain()
        return shift if self.beta is None else shift + self.beta.detach()

    def train_step(self, x: Tensor) -> Tensor:
        """Normalize by the batch's statistics and update the running ones, as the module would."""
        momentum = self._momentum()
        if distributed.sharded():
            values = self.mean, self.variance, self.gamma, self.beta
            return distributed.batch_norm(x, *values, momentum, self.epsilon)
        return F.batch_norm(x, self.mean, self.variance, self.gamma, self.beta, True, momentum, self.epsilon)

    def branch(self, x: Tensor, rule: Rule) -> Branch:
        """``train_step`` and ``rule`` after it, as one operator where this machine has it."""
        if not fuses_norm(x):
            return Branch(self.train_step(x), rule)
        gamma, beta, mean, variance = self.gamma, self.beta, self.mean, self.variance
        norm = Norm(
            torch.ones_like(mean) if gamma is None else gamma,
            torch.zeros_like(mean) if beta is None else beta,
            (mean, variance),
            self._momentum(),
            self.epsilon,
        )
        return Branch(x, rule, norm)

    def _momentum(self) -> float:
        if self._averaged is not None:
            self._averaged += 1
            return 1.0 / self._averaged
        return distributed.momentum_of(self.module)

    @contextmanager
    def averaging(self) -> Generator[None]:
        """Statistics start anew and become the plain average over the batches seen inside."""
        self._averaged = 0
        try:
            yield
        finally:
            self._averaged = None


class Centred(torch.autograd.Function):
    """Weights of a convolution whose bias the batch norm after it takes away again with the mean: its gradient is 0.

    Summed over the batch it would be the rounding errors of the norm's gradient, for another pass over it.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(bias)
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (bias,) = ctx.saved_tensors
        return grads[0], torch.zeros_like(bias)


class QuantLayer:
    """A convolution with fake-quantized weights.

    The weight tensor is the user's parameter in its own shape; ``shape`` is its [O, I/groups, kh, kw] view. That of a
    transposed convolution has inputs first, [I, O/groups, kh, kw]; quantizers see it outputs first (:meth:`ordered`).
    While the layer is stored (between ``store`` and ``restore``) the parameter holds fake-quantized values.
    With folding, these are the quantized folded weights divided by gamma/sigma again, so that the frozen
    batch norm after them gives the folded layer's output.
    """

    def __init__(
        self,
        op: ir.Conv2d,
        config: LayerConfig,
        weight: Tensor,
        bias: Tensor | None,
        norm: BatchNormTensors | None,
        quantizer: WeightQuantizer,
        *,
        transposed: bool = False,
    ) -> None:
        if config.fold_type not in FOLD_TYPES:
            raise UsageError(f"fold_type must be one of {', '.join(FOLD_TYPES)}, got {config.fold_type!r}")
        if quantizer.rescales and norm is not None and config.fold_type == "folding_weights":
            raise UsageError(
                f"{op.name}: {config.quant_type} gives the weights another scale, which a folded batch norm cannot "
                "follow; fold_type ICN or folding_thresholds is allowed"
            )
        check_scaling(config.scaling)
        self.op = op
        self.name = op.name
        self.config = config
        self.weight = weight
        self.bias = bias
        self.norm = norm
        self.quantizer = quantizer
        outputs, kh, kw, inputs = op.weight.shape
        self.shape = (outputs, inputs, kh, kw)
        self.transposed = transposed
        self.frozen = norm is None or norm.constant
        self.folded = False
        self.step = torch.ones(1)
        self.rounded = True
        self.saved: Tensor | None = None
        self.earlier_grad: Tensor | None = None
        self.version = -1
        if isinstance(quantizer, PactWeights):
            quantizer.projection = config.fold_type != "folding_weights"
        self.reset()

    # -- real weights -------------------------------------------------------------------------------------

    def real_weight(self) -> Tensor:
        """The real weights, stored or not, in the parameter's shape."""
        return self.weight.detach() if self.saved is None else self.saved

    def ordered(self, weight: Tensor) -> Tensor:
        """``weight`` with outputs first, as the quantizer sees it: a transposed convolution's turned and mirrored."""
        if not self.transposed:
            return weight
        groups, (inputs, outputs, *kernel) = self.op.groups, weight.shape
        parts = weight.reshape(groups, inputs // groups, outputs, *kernel).transpose(1, 2)
        mirrored = tuple(range(2, weight.dim()))
        return parts.reshape(groups * outputs, inputs // groups, *kernel).flip(mirrored)

    def in_users_order(self, weight: Tensor) -> Tensor:
        """The inverse of :meth:`ordered`."""
        if not self.transposed:
            return weight
        groups, (outputs, inputs, *kernel) = self.op.groups, weight.shape
        parts = weight.flip(tuple(range(2, weight.dim()))).reshape(groups, outputs // groups, inputs, *kernel)
        return parts.transpose(1, 2).reshape(groups * inputs, outputs // groups, *kernel)

    def gain(self) -> Tensor:
        """gamma / sigma [O], ones without batch norm."""
        return self.weight.new_ones(self.shape[0]) if self.norm is None else self.norm.gain()

    def _fold_gain(self) -> Tensor | None:
        """Gain to fold into the weights, as a column [O, 1, ...]; None when nothing is folded."""
        if not self.folded or self.norm is None:
            return None
        return self.norm.gain().reshape(-1, *[1] * (self.weight.dim() - 1))

    def effective(self, weight: Tensor) -> Tensor:
        """The weights that the quantizer sees, outputs first: folded when folding is on."""
        gain = self._fold_gain()
        weight = self.ordered(weight.detach())
        return weight if gain is None else weight * gain

    def unfolded(self, weight: Tensor) -> Tensor:
        """The inverse of :meth:`effective`; 0 where the gain is 0."""
        gain = self._fold_gain()
        plain = weight if gain is None else torch.where(gain != 0, weight / gain, torch.zeros_like(weight))
        return self.in_users_order(plain)

    def reset(self) -> None:
        """Choose thresholds and steps for the current (real) weights."""
        self.quantizer.reset(self.effective(self.weight))

    def freeze(self) -> None:
        """Freeze the batch norm; a layer that folds quantizes folded weights from now on (``reset`` next)."""
        self.frozen = True
        self.folded = self.norm is not None and self.config.fold_type == "folding_weights"

    def _follow(self) -> None:
        """Constant weights (of a batch norm that stands alone) go where the batch norm was moved."""
        if isinstance(self.weight, nn.Parameter) or self.norm is None:
            return
        if self.weight.device != self.norm.mean.device:
            self.weight = self.weight.to(self.norm.mean.device)

    # -- the two states of the weights --------------------------------------------------------------------

    def store(self, *, rounded: bool = True) -> None:
        """Save the real weights and put fake-quantized ones into the parameter; unrounded if not ``rounded``."""
        self._follow()
        self.saved = self.weight.data
        # Gradients of earlier batches are done; only this batch's may be transformed by backprop.
        self.earlier_grad, self.weight.grad = self.weight.grad, None
        self.rounded = rounded
        if rounded:
            quantized, self.step = self.quantizer.quantize(self.effective(self.saved))
        else:
            quantized = self.quantizer.real(self.effective(self.saved)).clone()
        self.weight.data = self.unfolded(quantized)
        self.version = self.weight._version

    def restore(self) -> bool:
        """Put the real weights back, bit for bit; False when somebody changed the quantized ones meanwhile."""
        assert self.saved is not None
        untouched = self.weight._version == self.version
        self.weight.data = self.saved
        if self.earlier_grad is not None:
            grad = self.weight.grad
            self.weight.grad = self.earlier_grad if grad is None else grad.add_(self.earlier_grad)
        self.saved = self.earlier_grad = None
        return untouched

    def backprop(self) -> None:
        """Turn the gradient at the quantized weights into that of real weights, thresholds and steps."""
        grad = self.weight.grad
        if grad is None:
            return
        real = self.real_weight()
        gain, grad = self._fold_gain(), self.ordered(grad)
        folded_grad = grad if gain is None else torch.where(gain != 0, grad / gain, torch.zeros_like(grad))
        result = self.quantizer.gradients(self.effective(real), folded_grad)
        self.weight.grad = self.in_users_order(result if gain is None else result * gain)

    # -- forward ------------------------------------------------------------------------------------------

    def branch(self, x: Tensor, input_scale: Tensor | None, *, training: bool, rule: Rule) -> Branch:
        """:meth:`forward` and the quantization of its result by ``rule``, still to be done."""
        if self.norm is not None and self.trains_norm(training):
            return self.norm.branch(self._product(x), rule)
        shift = (rule.rounding - 0.5) * rule.step
        return Branch(self.forward(x, input_scale, training=training, shift=shift), rule)

    def forward(self, x: Tensor, input_scale: Tensor | None, *, training: bool, shift: float = 0.0) -> Tensor:
        """Convolution and batch norm of x [N, C, H, W].

        Args:
            input_scale: scale of ``x``; the bias is then rounded to the accumulator's grid as on the device.
            training: a batch norm that is not frozen uses and updates batch statistics.
            shift: what the device adds to the bias before it rounds it, see ``ActivationQuantizer.shift``.
        """
        if self.norm is not None and self.trains_norm(training):
            return self.norm.train_step(self._product(x))
        self._follow()
        weight = self.ordered(self.weight).view(self.shape)
        bias = self.bias
        if self.norm is not None:
            gain = self.norm.gain()
            weight = weight * gain.reshape(-1, 1, 1, 1)
            offset = self.norm.offset()
            if not self.frozen and self.norm.beta is not None:
                offset = offset + (self.norm.beta - self.norm.beta.detach())
            bias = offset if bias is None else bias * gain + offset
        if bias is not None and input_scale is not None and self.saved is not None and self.rounded:
            bias = self._on_grid(bias, input_scale, shift)
        return conv2d(x, weight, bias, self.op.window, self.op.groups)

    def _product(self, x: Tensor) -> Tensor:
        """Convolution and bias alone, for a batch norm by the statistics of the batch."""
        self._follow()
        weight, bias = self.weight, self.bias
        if bias is not None and bias.requires_grad and torch.is_grad_enabled():
            weight, bias = cast(Tensor, Centred.apply(weight, bias)), bias.detach()
        return conv2d(x, self.ordered(weight).view(self.shape), bias, self.op.window, self.op.groups)

    def trains_norm(self, training: bool) -> bool:
        """The batch norm uses the batch's statistics."""
        return training and not self.frozen and self.norm is not None

    def _on_grid(self, bias: Tensor, input_scale: Tensor, shift: float) -> Tensor:
        """Bias + shift on multiples of gain * Sx * Sw, less shift; channels without gain or weights keep theirs."""
        used = self.ordered(self.weight.detach()).reshape(self.shape[0], -1).any(1)
        grid = self.step * input_scale * used
        if self.norm is not None and not self.folded:
            grid = grid * self.norm.gain()
        rounded = round_half_up((bias + shift) / grid) * grid - shift
        return bias + (torch.where(torch.isfinite(rounded), rounded, bias) - bias).detach()

    # -- deployment ---------------------------------------------------------------------------------------

    def deployed(self, shift: float = 0.0) -> WeightQuant:
        """Integer weights and the affine map after them, from the real weights; ``shift`` is added to its result."""
        real = self.real_weight()
        codes, scale, zero = self.quantizer.export(self.effective(real).reshape(self.shape))
        gain = self.gain().double()
        kept = torch.ones_like(gain) if self.folded else gain
        bias = torch.zeros_like(gain) if self.bias is None else self.bias.detach().double()
        if self.norm is not None:
            bias = bias * gain + self.norm.offset().double()
        return WeightQuant(
            layer=self.name,
            codes=codes.permute(0, 2, 3, 1).contiguous().cpu().numpy(),
            bits=self.quantizer.bits,
            scale=scale.abs().cpu().numpy(),
            zero_point=zero.cpu().numpy(),
            gain=(kept * torch.sign(scale)).cpu().numpy(),
            bias=bias.cpu().numpy() + shift,
            scaling=self.config.scaling,
        )

    def current_op(self, op: ir.Conv2d) -> ir.Conv2d:
        """``op`` with the present real weights, bias and batch norm."""
        real = self.ordered(self.real_weight())
        weight = real.reshape(self.shape).permute(0, 2, 3, 1).contiguous().double().cpu().numpy()
        norm = None
        if self.norm is not None:
            ones = torch.ones_like(self.norm.mean)
            gamma = ones if self.norm.gamma is None else self.norm.gamma.detach()
            beta = torch.zeros_like(ones) if self.norm.beta is None else self.norm.beta.detach()
            arrays = [t.double().cpu().numpy().copy() for t in (gamma, beta, self.norm.mean, self.norm.variance)]
            norm = ir.Norm(arrays[0], arrays[1], arrays[2], arrays[3], self.norm.epsilon)
        bias = None if self.bias is None else self.bias.detach().double().cpu().numpy().copy()
        return replace(op, weight=weight.copy(), bias=bias, norm=norm)
