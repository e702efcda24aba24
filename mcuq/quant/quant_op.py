"""QuantOp: any captured module as a network trained with the quantization that the device will use.

Lifecycle of one batch, as in the reference training loop of Rusci et al. (arXiv 1905.13082)::

    op.store_and_quantize()
    loss = criterion(op(images), labels)
    loss.backward()
    op.backprop_quant_gradients()
    op.restore_real_value()
    optimizer.step()

or, with a context manager, ``with op.quantized(): criterion(op(images), labels).backward()``.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from mcuq.errors import ModelError, UsageError
from mcuq.frontend.torch import Capture, InputNormalization, Program, capture
from mcuq.ir import graph as ir
from mcuq.ir.fuse import fuse
from mcuq.ir.plans import BitPlan
from mcuq.ir.quantized import ActivationQuant, QuantizedGraph, QuantParams
from mcuq.ir.samples import InputShape
from mcuq.quant import activations, build
from mcuq.quant.activations import ActivationQuantizer, FloatActivation
from mcuq.quant.fake_quant import Branch, Rule, add_quantize
from mcuq.quant.layer import LayerConfig, QuantLayer
from mcuq.quant.network import Inputs, clamp_of, evaluate, last_uses, most_values, parts_of, run_float, summands
from mcuq.quant.ranges import sample_values

REESTIMATION_VALUES = 1 << 27
"""Values held at once while batch norm statistics are averaged anew: 512 MiB."""


class QuantOp(nn.Module):
    """Quantization-aware twin of ``model``; its parameters are ``model``'s own, plus thresholds and steps.

    Args:
        model: any module :func:`mcuq.frontend.torch.capture` takes, with full-precision activations.
        quant_type: weight quantizer of every layer, see ``mcuq.quant.weights.QUANT_TYPES``.
        weight_bits, act_bits: 8, 4 or 2 for all layers; input and outputs always have 8.
        weight_range, act_range: levels less one (1 is binary, 2 ternary .. 255) instead of bits.
        input_shape: (H, W, C), (L, C) or (L,); of a module with several inputs a tuple of these.
        fold_type: "folding_weights", "ICN" (batch norm kept, one multiplier per channel) or "folding_thresholds" (the
            same integers, by thresholds on the accumulator; outputs of 2 and 4 bits only).
        fold_delay: epoch from which batch norms are frozen (and folded); 0 is at once.
        layer_config: overrides, dicts with "layer" (index or name) and any other field of ``LayerConfig``.
        bits: a plan; overrides bits and ranges, then ``layer_config`` overrides it.
        normalization: how uint8 pixels become the module's input; with it the device takes raw pixels. Of several
            inputs one for all, or one for each.
        act_type: one of ``mcuq.quant.activations.ACT_TYPES``; default PACT for PACT weights, CG-PACT for SAT, else LSQ.
            "none" leaves activations real in training (8 bits on the device).
        branch_quant: outputs of branches that an addition joins take the bits of the others; False gives them 8.
        scaling: form of the requantization factors, see ``mcuq.ir.scaling``.
        clamp_epochs: epochs before quantization starts, with activations real and weights only mapped (SAT's clamp).
        program: of ``mcuq.frontend.torch.export``, which otherwise runs here.

    Raises:
        UnsupportedError: operators without counterpart, or layers that share weights.
        UsageError: unknown types, bits, layers or keys.
    """

    def __init__(
        self,
        model: nn.Module,
        quant_type: str = "PerChannelsSymMSE",
        weight_bits: int = 8,
        *,
        input_shape: InputShape,
        fold_type: str = "folding_weights",
        fold_delay: int = 0,
        act_bits: int = 8,
        weight_range: int | None = None,
        act_range: int | None = None,
        layer_config: Iterable[dict[str, Any]] = (),
        bits: BitPlan | None = None,
        normalization: InputNormalization = None,
        act_type: str | None = None,
        branch_quant: bool = True,
        scaling: str = "exact",
        clamp_epochs: int = 0,
        program: Program | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        captured: Capture = capture(model, input_shape, normalization, program=program)
        self.graph = fuse(captured.graph)
        self.fold_delay = fold_delay
        self.frozen_flag: Tensor
        self.register_buffer("frozen_flag", torch.tensor(False))
        self.quantize_activations = self.quantize_weights = True
        self.clamp_epochs = clamp_epochs
        kind = act_type or _default_act(quant_type)
        default = LayerConfig("", weight_bits, act_bits, quant_type, fold_type, kind, weight_range, act_range, scaling)
        self.configs = build.layer_configs(self.graph, default, layer_config, bits)
        self.layers: dict[str, QuantLayer] = build.layers(model, captured, self.graph, self.configs)
        self.slopes = build.slopes(model, captured)
        self.weight_quantizers = nn.ModuleList([layer.quantizer for layer in self.layers.values()])
        norms = [layer.norm for layer in self.layers.values() if layer.norm is not None]
        self.constants = nn.ModuleList([norm.module for norm in norms if norm.constant])
        tensors = build.Activations(act_bits, kind, act_range, branch_quant)
        self.owner, quantizers = build.activation_quantizers(self.graph, self.configs, tensors, bits)
        self.activation_quantizers = nn.ModuleList(quantizers.values())
        self._quantizer: dict[str, ActivationQuantizer] = quantizers
        self._summands = summands(self.graph)
        self.stored = False
        self._watch: RemovableHandle | None = None
        if fold_delay == 0 and clamp_epochs == 0:
            self.start_epoch(0)

    # -- epochs and batches -------------------------------------------------------------------------------

    def start_epoch(self, epoch: int) -> None:
        """Before ``clamp_epochs`` nothing is rounded; once ``fold_delay`` is reached, batch norms are frozen (and
        folded, if asked). Thresholds are chosen anew once, where what they are for changes: folded weights, or weights
        that were not rounded before."""
        self._require(stored=False, action="start_epoch")
        self.quantize_activations = self.quantize_weights = epoch >= self.clamp_epochs
        if epoch >= max(self.fold_delay, self.clamp_epochs) and not self.frozen:
            self.frozen_flag.fill_(True)
            for layer in self.layers.values():
                layer.freeze()
                if layer.folded or self.clamp_epochs > 0:
                    layer.reset()

    @property
    def frozen(self) -> bool:
        """Batch norms are frozen (and folded, if asked)."""
        return bool(self.frozen_flag)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As ``nn.Module``'s; batch norms are frozen as they were when the state was saved."""
        result = super().load_state_dict(state_dict, strict, assign)
        if self.frozen:
            for layer in self.layers.values():
                layer.freeze()
        return result

    def store_and_quantize(self) -> None:
        """Save the real weights and put fake-quantized ones in their place; until they are restored, an optimizer that
        holds them refuses to step.

        Raises:
            UsageError: they are stored already.
        """
        self._require(stored=False, action="store_and_quantize")
        for layer in self.layers.values():
            layer.store(rounded=self.quantize_weights)
        self.stored = True
        self._watch = register_optimizer_step_pre_hook(self._refuse_step)

    def backprop_quant_gradients(self) -> None:
        """After ``backward``: gradients of real weights, thresholds and steps from those of quantized weights.

        Raises:
            UsageError: weights are not stored.
        """
        self._require(stored=True, action="backprop_quant_gradients")
        for layer in self.layers.values():
            layer.backprop()
        if self.quantize_activations:
            for quantizer in self._quantizer.values():
                quantizer.regularize()

    def restore_real_value(self) -> None:
        """Put the real weights back, bit for bit.

        Raises:
            UsageError: not stored; or quantized weights were changed in place meanwhile (the real weights are restored
                all the same).
        """
        self._require(stored=True, action="restore_real_value")
        changed = [name for name, layer in self.layers.items() if not layer.restore()]
        self.stored = False
        if self._watch is not None:
            self._watch.remove()
            self._watch = None
        if changed:
            raise UsageError(
                f"weights of {', '.join(changed)} changed while quantized; change them after restore_real_value()"
            )

    @contextmanager
    def quantized(self) -> Generator[QuantOp]:
        """Quantized weights inside; on leaving, gradients are propagated and real weights restored."""
        self.store_and_quantize()
        try:
            yield self
            self.backprop_quant_gradients()
        finally:
            self.restore_real_value()

    def _refuse_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Before an optimizer steps while weights are quantized: fused ones leave no trace that could be seen later."""
        mine = {id(layer.weight) for layer in self.layers.values()}
        if any(id(p) in mine for group in optimizer.param_groups for p in group["params"]):
            self._require(stored=False, action="optimizer.step()")

    def _require(self, *, stored: bool, action: str) -> None:
        if self.stored != stored:
            state = "are quantized; call restore_real_value()" if self.stored else "are real; store_and_quantize()"
            raise UsageError(f"{action}: the weights {state} first")

    # -- forward ------------------------------------------------------------------------------------------

    def forward(self, *x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The network with quantized activations; weights as they are (stored: quantized, else real).

        Args:
            x: [N, C, H, W] (or [N, C, L], [N, L]): uint8 pixels, which need ``normalization``, or real inputs; one
                for each input of the module.

        Returns:
            Each output as the module gives it; vectors are [N, F].
        """
        values = self._values(x, self._summands)
        outputs = tuple(self._shaped(values[name]) for name in self.graph.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def tensors(self, x: Inputs) -> dict[str, Tensor]:
        """Every tensor [N, C, H, W] of the fake-quantized network."""
        return self._values(x, frozenset())

    def _values(self, x: Inputs, summands: frozenset[str]) -> dict[str, Tensor]:
        """Tensors by operator, without ``summands``, which are computed as part of their sums."""
        given = self._real_inputs(x)
        if self.quantize_activations and not self.ready:
            self.calibrate([tuple(given.values())])
        values: dict[str, Tensor] = {}
        branches: dict[str, Branch] = {}
        for op in self.graph:
            inputs = tuple(branches.pop(name, None) or Branch(values[name]) for name in op.inputs)
            rule = self._rule(op)
            if isinstance(op, ir.Conv2d) and rule is not None:
                branch = self._branch(op, inputs[0].value(), rule)
                if op.name in summands:
                    branches[op.name] = branch
                else:
                    values[op.name] = branch.value()
            elif isinstance(op, ir.Add) and not op.subtract and rule is not None:
                values[op.name] = add_quantize(inputs[0], inputs[1], rule)
            else:
                real = (branch.value() for branch in inputs)
                y = given[op.name] if op.name in given else evaluate(op, tuple(real), self._conv, self.slopes)
                values[op.name] = self._quantize(op, y)
        return values

    def _rule(self, op: ir.FloatOp) -> Rule | None:
        """What quantizes the operator's output, None if nothing does or no rule describes it."""
        quantizer = self._quantizer.get(op.name)
        if quantizer is None or not self.quantize_activations:
            return None
        return quantizer.rule(clamp_of(op), math.prod(op.shape))

    def _branch(self, op: ir.Conv2d, x: Tensor, rule: Rule) -> Branch:
        layer = self.layers[op.name]
        scale = None if layer.trains_norm(self.training) else self._scale_of(op.inputs[0])
        return layer.branch(x, scale, training=self.training, rule=rule)

    def _scale_of(self, tensor: str) -> Tensor | None:
        """Scale of a quantized tensor, None if it is real."""
        source = self.activation_quantizer(tensor)
        return source.scale() if self.quantize_activations and not isinstance(source, FloatActivation) else None

    def _conv(self, op: ir.Conv2d, x: Tensor) -> Tensor:
        return self.layers[op.name].forward(x, self._scale_of(op.inputs[0]), training=self.training)

    def _quantize(self, op: ir.FloatOp, y: Tensor) -> Tensor:
        if not self.quantize_activations:
            return activations.clip(y, clamp_of(op))
        if self.owner.get(op.name) != op.name:
            return y
        return self._quantizer[op.name](y, clamp_of(op))

    def _real_inputs(self, x: Inputs) -> dict[str, Tensor]:
        parts = parts_of(self.graph, x)
        return {op.name: _real_input(op, part) for op, part in zip(self.graph.inputs, parts, strict=True)}

    def _shaped(self, y: Tensor) -> Tensor:
        return y.flatten(1) if y.shape[2:] == (1, 1) else y

    # -- ranges -------------------------------------------------------------------------------------------

    def calibrate(self, batches: Iterable[Inputs], method: str = "mse") -> None:
        """Choose activation ranges on ``batches`` of inputs of the float network.

        Where weights of another scale replace the real ones (DoReFa, SAT), ranges are those of the network with mapped,
        unrounded weights, and unless it was trained (``clamp_epochs``) its batch norm statistics are averaged first.

        Args:
            method: "mse" (least squared error; at 2 bits it decides everything), "percentile", "minmax" or "lsq" (2
                mean|x| / sqrt(Qp)).

        Raises:
            UsageError: no batch was given.
            ModelError: a layer gives NaN or infinity; the text names it.
        """
        stored = self.stored
        if stored:
            self.restore_real_value()
        samples: dict[str, list[Tensor]] = {}
        with torch.no_grad(), self._mapped():
            if self._rescaled() and self.clamp_epochs == 0:
                batches = list(batches)
                self._average_norms(batches)
            for batch in batches:
                values = run_float(self.graph, self._real_inputs(batch), self._float_conv, self.slopes)
                for name in self._quantizer:
                    if not bool(torch.isfinite(values[name]).all()):
                        raise ModelError(f"layer {name!r} gives NaN or infinity on the calibration images")
                    samples.setdefault(name, []).append(sample_values(values[name]))
        if not samples:
            raise UsageError("calibrate needs at least one batch")
        for name, quantizer in self._quantizer.items():
            op = self.graph.op(name)
            given = isinstance(op, ir.Input) and op.normalization is not None
            if not given and not isinstance(op, ir.L2Normalize):
                quantizer.calibrate(torch.cat(samples[name]), method)
        if stored:
            self.store_and_quantize()

    def _rescaled(self) -> list[QuantLayer]:
        return [layer for layer in self.layers.values() if layer.quantizer.rescales]

    @contextmanager
    def _mapped(self) -> Generator[None]:
        """Weights of another scale are in place inside, unrounded."""
        layers = self._rescaled()
        for layer in layers:
            layer.store(rounded=False)
        try:
            yield
        finally:
            for layer in layers:
                layer.restore()

    def _average_norms(self, batches: list[Inputs]) -> None:
        """Average the statistics of batch norms behind rescaled weights over ``batches``, activations real."""
        chosen = [layer for layer in self._rescaled() if layer.norm is not None and not layer.norm.constant]
        with self._following(chosen):
            for batch in batches:
                run_float(self.graph, self._real_inputs(batch), self._training_conv, self.slopes)

    @contextmanager
    def _following(self, layers: list[QuantLayer]) -> Generator[None]:
        """Statistics of the layers' batch norms become the averages over the batches of training seen inside."""
        frozen = [layer.frozen for layer in layers]
        with ExitStack() as stack:
            for layer in layers:
                layer.frozen = False
                if layer.norm is not None:
                    stack.enter_context(layer.norm.averaging())
            try:
                yield
            finally:
                for layer, flag in zip(layers, frozen, strict=True):
                    layer.frozen = flag

    def activation_quantizer(self, tensor: str) -> ActivationQuantizer:
        """The quantizer of ``tensor``'s codes, which other tensors may share. Raises KeyError."""
        return self._quantizer[self.owner[tensor]]

    def scales(self) -> dict[str, float]:
        """Step size by tensor; weights are ``<layer>.weight``, the geometric mean over output channels."""
        found = {name: float(q.scale()) for name, q in self._quantizer.items()}
        for name, layer in self.layers.items():
            steps = layer.quantizer.quantize(layer.effective(layer.real_weight()))[1]
            found[f"{name}.weight"] = float(steps.log().mean().exp())
        return found

    @property
    def ready(self) -> bool:
        """Every activation has a range."""
        return all(quantizer.ready for quantizer in self._quantizer.values())

    def reestimate(self, batches: Iterable[Inputs]) -> None:
        """Average batch norm statistics anew over ``batches``, weights and activations quantized.

        One layer after the other, on what the layers before give with their new statistics, as the device will.
        Batches are taken as far as their tensors fit in a limited memory, at least one.
        Folded layers keep theirs: their quantized weights depend on the statistics.
        """
        self._require(stored=False, action="reestimate")
        given, room, peak = list[dict[str, Tensor]](), REESTIMATION_VALUES, most_values(self.graph)
        for batch in batches:
            real = self._real_inputs(batch)
            room -= len(real[self.graph.inputs[0].name]) * peak
            if given and room < 0:
                break
            given.append(real)
        if not given:
            return
        training = self.training
        with torch.no_grad():
            self.eval()
            self.store_and_quantize()
            try:
                self._reestimate(given)
            finally:
                self.restore_real_value()
                self.train(training)

    def _reestimate(self, given: list[dict[str, Tensor]]) -> None:
        values: dict[str, list[Tensor]] = {}
        for op, done in zip(self.graph, last_uses(self.graph), strict=True):
            layer = self.layers.get(op.name)
            if layer is not None and layer.norm is not None and not (layer.folded or layer.norm.constant):
                with self._following([layer]):
                    for x in values[op.inputs[0]]:
                        layer.forward(x, None, training=True)
            values[op.name] = []
            for i, batch in enumerate(given):
                inputs = tuple(values[name][i] for name in op.inputs)
                y = batch[op.name] if op.name in batch else evaluate(op, inputs, self._conv, self.slopes)
                values[op.name].append(self._quantize(op, y))
            for name in done:
                del values[name]

    def _float_conv(self, op: ir.Conv2d, x: Tensor) -> Tensor:
        return self.layers[op.name].forward(x, None, training=False)

    def _training_conv(self, op: ir.Conv2d, x: Tensor) -> Tensor:
        return self.layers[op.name].forward(x, None, training=True)

    def param_groups(self, lr: float, weight_decay: float = 0.0, step_lr: float | None = None) -> list[dict[str, Any]]:
        """Optimizer groups: weights (decayed), biases and norms (not decayed), thresholds and steps (own rate).

        Args:
            step_lr: learning rate of thresholds and steps; default ``lr`` / 10.
        """
        own = [p for q in (*self.weight_quantizers, *self.activation_quantizers) for p in q.parameters()]
        known = {id(p) for p in own}
        users = [p for p in self.model.parameters() if id(p) not in known]
        return [
            {"params": [p for p in users if p.dim() > 1], "lr": lr, "weight_decay": weight_decay},
            {"params": [p for p in users if p.dim() <= 1], "lr": lr, "weight_decay": 0.0},
            {"params": own, "lr": lr / 10 if step_lr is None else step_lr, "weight_decay": 0.0},
        ]

    # -- deployment ---------------------------------------------------------------------------------------

    def generate_deployment_model(self) -> QuantizedGraph:
        """The network's integer codes and ranges; ``mcuq.lower.lower`` turns it into the integer graph.

        Raises:
            UsageError: activation ranges were never set (calibrate first).
        """
        missing = [name for name, quantizer in self._quantizer.items() if not quantizer.ready]
        if missing:
            raise UsageError(f"no activation range for {', '.join(missing)}; call calibrate(batches) first")
        return QuantizedGraph(
            ir.Graph(tuple(map(self._current, self.graph)), self.graph.outputs),
            tuple(layer.deployed(self.activation_quantizer(name).shift()) for name, layer in self.layers.items()),
            tuple(ActivationQuant(op.name, self._params(op)) for op in self.graph),
        )

    def _current(self, op: ir.FloatOp) -> ir.FloatOp:
        """``op`` with the present values of the user's parameters."""
        if isinstance(op, ir.Conv2d):
            return self.layers[op.name].current_op(op)
        if isinstance(op, ir.Prelu) and op.name in self.slopes:
            slope = self.slopes[op.name].detach().double().cpu().numpy()
            return replace(op, slope=np.broadcast_to(slope, op.slope.shape).copy())
        return op

    def _params(self, op: ir.FloatOp) -> QuantParams:
        match op:
            case ir.Softmax():
                return QuantParams(8, 1 / 256, -128)
            case ir.Argmax():
                return QuantParams(32, 1.0, 0)
            case _:
                return self.activation_quantizer(op.name).params()


def _real_input(op: ir.Input, x: Tensor) -> Tensor:
    """Real values [N, C, H, W] of pixels or real values in the module's shape."""
    if x.dtype == torch.uint8:
        if op.normalization is None:
            raise UsageError("uint8 inputs need normalization=Normalization(scale, zero_point)")
        x = (x.float() - op.normalization.zero_point) * op.normalization.scale
    height, width, channels = op.shape
    return x if x.dim() == 4 else x.reshape(-1, channels, height, width)


def _default_act(quant_type: str) -> str:
    """Activation quantizer that goes with a weight quantizer."""
    return "PACT" if quant_type.endswith("PACT") else "CG-PACT" if "SAT" in quant_type else "LSQ"
