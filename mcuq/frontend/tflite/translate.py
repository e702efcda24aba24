"""The walk over the operators of a TFLite model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcuq.errors import ModelError, UnsupportedError
from mcuq.frontend.builder import MAX_INPUTS, Builder, Coded, Constant, for_inputs
from mcuq.frontend.problems import Problem
from mcuq.frontend.tflite.model import Model, Operator, Tensor, values
from mcuq.frontend.views import Refusal, View
from mcuq.ir.graph import Clamp, Normalization
from mcuq.ir.quantized import QuantParams

Value = View | Constant
Handler = Callable[["Translator", "Node"], "Value | tuple[Value, ...]"]
Handlers = dict[str, Handler]
MAX_COMPUTED = 1 << 25
"""Elements of all constants and index tables that are expanded (256 MB)."""
MAX_VIEWED = 1 << 22
ACTIVATIONS: dict[int, Clamp] = {0: (None, None), 1: (0.0, None), 2: (-1.0, 1.0), 3: (0.0, 6.0)}
ADVICE = {
    "LSTM": "use convolutions over time",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "use convolutions over time",
    "SVDF": "use convolutions over time",
}


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """An operator with the values of its inputs (absent ones None) and its output tensor."""

    operator: Operator
    inputs: list[Value | None]
    output: Tensor

    @property
    def label(self) -> str:
        """Name of the output tensor; converters join the names of fused operators by ``;``."""
        return self.output.name.split(";")[0] or self.operator.kind.lower()

    @property
    def where(self) -> str:
        return repr(self.label[:80])

    def view(self, position: int = 0) -> View:
        value = self.inputs[position] if position < len(self.inputs) else None
        if not isinstance(value, View):
            raise Refusal("this input has to be an activation, found a constant")
        return value

    def constant(self, position: int) -> Constant | None:
        value = self.inputs[position] if position < len(self.inputs) else None
        if isinstance(value, View):
            raise Refusal(f"input {position} has to be constant")
        return value

    def required(self, position: int) -> Constant:
        value = self.constant(position)
        if value is None:
            raise Refusal(f"input {position} is missing")
        return value

    def ints(self, position: int) -> list[int]:
        return [int(v) for v in np.ravel(self.required(position).value)]


class Translator:
    """Values by tensor index, and the graph under construction."""

    def __init__(self, model: Model, handlers: Handlers) -> None:
        self.builder = Builder(channels_first=False)
        self.model = model
        self.handlers = handlers
        self.values: dict[int, Value | None] = {}
        self.convolutions: set[str] = set()
        self._constants: dict[int, Constant] = {}
        self._computed = 0

    def run(self, normalization: Normalization | tuple[Normalization | None, ...] | None) -> list[str]:
        """Translate all operators; returns the names of the output operators."""
        inputs = self.model.inputs
        if not 1 <= len(inputs) <= MAX_INPUTS or min(inputs) < 0 or len(set(inputs)) < len(inputs):
            raise ModelError(f"the model has {len(inputs)} inputs; 1 to {MAX_INPUTS} different tensors are supported.")
        for index, rule in zip(inputs, for_inputs(normalization, len(inputs)), strict=True):
            self._input(index, rule)
        for operator in self.model.operators:
            self._visit(operator)
        return [self._output(index) for index in self.model.outputs]

    def _input(self, index: int, normalization: Normalization | None) -> None:
        tensor = self.model.tensors[index]
        if not 2 <= len(tensor.shape) <= 4 or min(tensor.shape) < 1 or tensor.kind not in ("<f4", "i1", "u1"):
            raise UnsupportedError(
                f"the input {tensor.name[:80]!r} has shape {list(tensor.shape)} and type {kind_name(tensor)}; "
                "[1, H, W, C], [1, L, C] or [1, F] of float32, int8 or uint8 are supported."
            )
        params = activation_params(tensor)
        if params is not None and tensor.kind == "u1":
            normalization = Normalization(params.scale, params.zero_point + 128)
        view = self.builder.input((1, *tensor.shape[1:]), tensor.name or "input", normalization)
        self.values[index] = self.annotated(view, tensor)

    def annotated(self, view: View, tensor: Tensor) -> View:
        """``view`` stored as the file stores ``tensor``."""
        params = activation_params(tensor)
        return view if params is None else self.builder.quantize(view, params, repr(tensor.name[:80]))

    def _visit(self, operator: Operator) -> None:
        outputs = operator.outputs
        if (
            not outputs
            or min(outputs) < 0
            or len(set(outputs)) < len(outputs)
            or not self.values.keys().isdisjoint(outputs)
        ):
            raise ModelError(f"{operator.kind} writes no tensor, or one that was written before. Convert it again.")
        if operator.kind not in self.handlers:  # whatever it reads: nothing writes the states of recurrent layers
            advice = ADVICE.get(operator.kind, "mcuq has no such operator; see docs/operators.md")
            self.builder.problems.append(
                Problem(operator.kind, Node(operator, [], self.model.tensors[outputs[0]]).where, advice)
            )
            self.values.update(dict.fromkeys(outputs))
            return
        inputs = [None if index < 0 else self._value(index, operator) for index in operator.inputs]
        self.values.update(dict.fromkeys(outputs))
        if any(index >= 0 and value is None for index, value in zip(operator.inputs, inputs, strict=True)):
            return  # an input was refused before
        node = Node(operator, inputs, self.model.tensors[outputs[0]])
        try:
            result = self.handlers[operator.kind](self, node)
            for index, value in zip(outputs, result if isinstance(result, tuple) else (result,), strict=False):
                tensor = self.model.tensors[index]
                self.values[index] = self._checked(value, tensor) if isinstance(value, View) else value
        except (Refusal, ValueError, IndexError) as refusal:  # of numpy: shapes that do not fit
            self.builder.problems.append(Problem(operator.kind, node.where, str(refusal)))

    def _checked(self, view: View, output: Tensor) -> View:
        """The computed shape must be the declared one (batch 1); then the parameters are noted."""
        declared = tuple(output.shape)
        if int(np.prod(declared)) != int(np.prod(view.shape)) and declared[:1] == view.shape[:1]:
            raise ModelError(f"tensor {output.name[:80]!r} has shape {list(declared)}, computed is {list(view.shape)}.")
        return self.annotated(view, output)

    def _value(self, index: int, operator: Operator) -> Value | None:
        if index in self.values:
            return self.values[index]
        tensor = self.model.tensors[index]
        if tensor.data is None:
            raise ModelError(
                f"{operator.kind} reads tensor {tensor.name[:80]!r} before any operator writes it. Convert it again."
            )
        if index not in self._constants:
            self._constants[index] = self._constant(tensor)
        return self._constants[index]

    def _constant(self, tensor: Tensor) -> Constant:
        self.count(int(np.prod(tensor.shape)))
        stored = values(tensor)
        if stored.dtype.kind == "f" and not np.isfinite(stored).all():
            wrong = int((~np.isfinite(stored)).sum())
            raise ModelError(f"weights {tensor.name[:80]!r} hold NaN or infinity ({wrong} of {stored.size} values).")
        found = tensor.quantization
        if found is None or tensor.kind not in ("i1", "u1", "int4"):
            return Constant(stored, tensor.name)
        shift = 128 if tensor.kind == "u1" else 0
        codes, bits = stored.astype(np.int64) - shift, 4 if tensor.kind == "int4" else 8
        shape = [1] * codes.ndim
        if found.scale.size > 1:
            shape[found.axis] = found.scale.size
        zero = found.zero_point - shift
        real = (codes - zero.reshape(shape)) * found.scale.reshape(shape) if codes.ndim else codes * found.scale[0]
        return Constant(real, tensor.name, Coded(codes, bits, found.scale, zero, found.axis))

    def count(self, elements: int) -> None:
        """Account for memory. Raises ModelError above :data:`MAX_COMPUTED`."""
        self._computed += elements
        if self._computed > MAX_COMPUTED:
            raise ModelError("the constants of this model take more than 256 MB; no such model fits.")

    def move(self, view: View, indices: NDArray[Any]) -> View:
        """The view under moved indices, accounted for."""
        if indices.size > MAX_VIEWED or not indices.size:
            raise Refusal(f"a tensor of {indices.size} elements is reshaped or sliced, at most {MAX_VIEWED}")
        self.count(2 * indices.size)
        return view.viewed(indices)

    def activated(self, node: Node, view: View, code: int) -> View:
        """``view`` after a fused activation. Raises Refusal for those without kernel."""
        if code not in ACTIVATIONS:
            raise Refusal(f"fused activation {code} is not supported; use NONE, RELU, RELU6 or RELU_N1_TO_1")
        clamp = ACTIVATIONS[code]
        return view if clamp == (None, None) else self.builder.clip(view, f"{node.label}.clip", clamp, node.where)

    def _output(self, index: int) -> str:
        value = self.values.get(index)
        if isinstance(value, View):
            return self.builder.output(value, f"output {self.model.tensors[index].name[:80]!r}")
        if index not in self.values or isinstance(value, Constant):
            self.builder.problems.append(Problem("an output", "", "is constant or computed by nothing"))
        return ""


def kind_name(tensor: Tensor) -> str:
    """The type as users know it."""
    return tensor.kind if tensor.kind == "int4" else np.dtype(tensor.kind).name


def activation_params(tensor: Tensor) -> QuantParams | None:
    """Parameters of an activation; None for float tensors.

    Raises:
        Refusal: more than one scale, or a type without kernel.
    """
    if tensor.kind in ("<f4", "<i4", "<i8", "?") or (tensor.quantization is None and tensor.kind == "u1"):
        return None
    found = tensor.quantization
    if tensor.kind not in ("i1", "u1") or found is None or found.scale.size != 1:
        raise Refusal(f"an activation of type {kind_name(tensor)}; int8 with one scale is supported")
    zero_point = int(found.zero_point[0]) - (128 if tensor.kind == "u1" else 0)
    if not -128 <= zero_point <= 127:
        raise Refusal(f"zero point {int(found.zero_point[0])} is outside the type's range")
    return QuantParams(8, float(found.scale[0]), zero_point)


def output_axis(constant: Constant, axis: int) -> Coded | None:
    """Codes whose scales run along ``axis`` (moved to 0 by the caller), or one for all; else None."""
    coded = constant.coded
    if coded is None or (coded.scale.size > 1 and coded.axis != axis):
        return None
    return replace(coded, axis=0)
