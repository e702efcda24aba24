"""What may happen around optimizer steps: averaged weights, dampened or frozen oscillations."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from mcuq.errors import UsageError
from mcuq.quant.layer import QuantLayer
from mcuq.quant.settings import TrainConfig


class Hook:
    """Base: does nothing. ``progress`` is the share of all steps that is done, 0 .. 1."""

    name: str = ""

    def before_step(self, progress: float) -> None:
        """Gradients of the real weights are there, the optimizer has not used them."""

    def after_step(self, progress: float) -> None:
        """The optimizer has changed the real weights."""

    def restart(self) -> None:
        """Batch norms were frozen and perhaps folded: what was gathered before stands for other values."""

    @contextmanager
    def evaluating(self) -> Generator[None]:
        """Inside, the module has the weights that the training would hand over now."""
        yield

    def finish(self) -> None:
        """All steps are done."""

    def state(self) -> dict[str, Tensor]:
        """What a resumed training needs."""
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from :meth:`state`. Raises KeyError."""


class WeightAverage(Hook):
    """Exponential moving average of all parameters (weights, norms, steps), used for validation and at the end.

    Early on the decay is (1 + n) / (10 + n) after n steps, so that short trainings forget their start.
    """

    name = "ema"

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._parameters = list(module.parameters())
        self._decay = decay
        self._steps = torch.zeros((), dtype=torch.int64)
        self._average = [p.detach().clone() for p in self._parameters]

    def after_step(self, progress: float) -> None:
        self._steps += 1
        count = int(self._steps)
        decay = min(self._decay, (1 + count) / (10 + count))
        for average, parameter in zip(self._average, self._parameters, strict=True):
            average.lerp_(parameter.detach(), 1.0 - decay)

    def restart(self) -> None:
        self._steps.zero_()
        for average, parameter in zip(self._average, self._parameters, strict=True):
            average.copy_(parameter.detach())

    @contextmanager
    def evaluating(self) -> Generator[None]:
        trained = [p.detach().clone() for p in self._parameters]
        self.finish()
        try:
            yield
        finally:
            _fill(self._parameters, trained)

    def finish(self) -> None:
        if int(self._steps):
            _fill(self._parameters, self._average)

    def state(self) -> dict[str, Tensor]:
        return {"steps": self._steps, **{str(i): average for i, average in enumerate(self._average)}}

    def load(self, state: dict[str, Tensor]) -> None:
        self._steps.copy_(state["steps"])
        for i, average in enumerate(self._average):
            average.copy_(state[str(i)])


class Dampening(Hook):
    """Pulls weights to their quantized values: ``strength`` * sum (w - q)^2 inside the range.

    Oscillation dampening of Nagel et al. (ICML 2022, section 4.2), the strength rising as a cosine from 0. The sum
    is over what the quantizer sees, in real units.
    """

    name = "dampening"

    def __init__(self, layers: Iterable[QuantLayer], strength: float) -> None:
        self._layers = [layer for layer in layers if layer.weight.requires_grad]
        self._strength = strength

    def before_step(self, progress: float) -> None:
        strength = self._strength * 0.5 * (1.0 - math.cos(math.pi * progress))
        for layer in self._layers:
            if layer.weight.grad is not None:
                quantized, scale = layer.quantizer.quantize(layer.effective(layer.weight))
                gap = layer.weight.detach() - layer.unfolded(quantized)
                inside = gap.abs() <= layer.unfolded(_like(scale, quantized)).abs()
                layer.weight.grad.add_(gap * inside, alpha=2.0 * strength)


class Freezing(Hook):
    """Weights whose codes keep going to and fro are held at their most frequent code.

    Iterative freezing of Nagel et al. (ICML 2022, section 4.3): the frequency of changes of direction is a moving
    average; above a threshold, which falls as a cosine from ten times ``threshold``, the weight stays for good at
    the rounded moving average of its code.
    """

    name = "freezing"

    def __init__(self, layers: Iterable[QuantLayer], threshold: float, momentum: float = 0.01) -> None:
        self._layers = [layer for layer in layers if layer.weight.requires_grad]
        self._threshold = threshold
        self._momentum = momentum
        self._state: dict[str, Tensor] = {}

    def after_step(self, progress: float) -> None:
        threshold = self._threshold * (1.0 + 9.0 * 0.5 * (1.0 + math.cos(math.pi * progress)))
        for layer in self._layers:
            codes, scale, _ = layer.quantizer.codes(layer.effective(layer.weight))
            if f"{layer.name}/codes" not in self._state:
                self._begin(layer.name, codes)
            self._observe(layer.name, codes, threshold)
            self._hold(layer, scale)

    def restart(self) -> None:
        self._state = {}

    def frozen(self, layer: str) -> Tensor:
        """Which weights of ``layer`` are frozen, bool [R, K]."""
        return self._state[f"{layer}/frozen"]

    def _begin(self, layer: str, codes: Tensor) -> None:
        zero = torch.zeros_like(codes)
        for key, start in (("codes", codes), ("mean", codes), ("way", zero), ("often", zero)):
            self._state[f"{layer}/{key}"] = start.clone()
        self._state[f"{layer}/frozen"] = torch.zeros_like(codes, dtype=torch.bool)

    def _observe(self, layer: str, codes: Tensor, threshold: float) -> None:
        last, mean, way, often, frozen = (
            self._state[f"{layer}/{key}"] for key in ("codes", "mean", "way", "often", "frozen")
        )
        change = torch.sign(codes - last)
        often.lerp_(((change * way) < 0).to(often.dtype), self._momentum)
        mean.lerp_(codes, self._momentum)
        way.copy_(torch.where(change != 0, change, way))
        last.copy_(codes)
        newly = ~frozen & (often > threshold)
        mean.copy_(torch.where(newly, torch.floor(mean + 0.5), mean))
        frozen |= newly

    def _hold(self, layer: QuantLayer, scale: Tensor) -> None:
        frozen, mean = self._state[f"{layer.name}/frozen"], self._state[f"{layer.name}/mean"]
        if not bool(frozen.any()):
            return
        shape = layer.ordered(layer.weight.detach()).shape
        with torch.no_grad():
            held = layer.unfolded((mean * scale).reshape(shape))
            layer.weight.copy_(torch.where(layer.in_users_order(frozen.reshape(shape)), held, layer.weight))

    def state(self) -> dict[str, Tensor]:
        return dict(self._state)

    def load(self, state: dict[str, Tensor]) -> None:
        self._state = {key: value.clone() for key, value in state.items()}


def _like(scale: Tensor, weight: Tensor) -> Tensor:
    """Half a step per weight: scale [R] against weights [O, ...], R = O or 1."""
    return 0.5 * scale.reshape(-1, *[1] * (weight.dim() - 1)).expand_as(weight)


def _fill(parameters: list[nn.Parameter], values: list[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)


class Hooks:
    """Several hooks as one."""

    def __init__(self, hooks: Iterable[Hook]) -> None:
        self._hooks = tuple(hooks)

    def before_step(self, progress: float) -> None:
        for hook in self._hooks:
            hook.before_step(progress)

    def after_step(self, progress: float) -> None:
        for hook in self._hooks:
            hook.after_step(progress)

    def restart(self) -> None:
        for hook in self._hooks:
            hook.restart()

    @contextmanager
    def evaluating(self) -> Generator[None]:
        with ExitStack() as stack:
            for hook in self._hooks:
                stack.enter_context(hook.evaluating())
            yield

    def finish(self) -> None:
        for hook in self._hooks:
            hook.finish()

    def state(self) -> dict[str, Tensor]:
        return {f"hook/{h.name}/{key}": value for h in self._hooks for key, value in h.state().items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        for hook in self._hooks:
            prefix = f"hook/{hook.name}/"
            hook.load({key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)})


def hooks_of(config: TrainConfig, module: nn.Module, layers: Iterable[QuantLayer]) -> Hooks:
    """The hooks that ``config`` asks for; ``layers`` are the quantized ones, none in float training."""
    chosen: list[Hook] = []
    quantized = list(layers)
    rescaled = [layer for layer in quantized if layer.quantizer.rescales]
    if rescaled and (config.dampening > 0 or config.freezing > 0):
        raise UsageError(
            f"dampening and freezing compare weights with their quantized values, which have another scale in "
            f"{rescaled[0].name!r} ({rescaled[0].config.quant_type}); leave both out, or choose another quant_type"
        )
    if config.dampening > 0 and quantized:
        chosen.append(Dampening(quantized, config.dampening))
    if config.freezing > 0 and quantized:
        chosen.append(Freezing(quantized, config.freezing))
    if config.ema > 0:
        chosen.append(WeightAverage(module, config.ema))
    return Hooks(chosen)
