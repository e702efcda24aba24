"""The walk over an exported program: nodes, names, views, refusals.

Layouts: ATen [N, C, H, W], [N, C, L] and [N, F] are stored as (H, W, C), (1, L, C) and (1, 1, F). Every activation is a
view of an operator's output (``frontend.views``), so that moving elements costs nothing until a layer reads them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from mcuq.frontend.builder import Builder, Constant
from mcuq.frontend.elementwise import Length
from mcuq.frontend.problems import Problem
from mcuq.frontend.views import Refusal, View
from mcuq.ir.graph import Normalization

Arguments = dict[str, Any]
Value = View | Constant | Length
Handler = Callable[["Translator", Any, Arguments], "Value | tuple[Value, ...]"]
Handlers = dict[str, Handler]
Normalizations = Sequence[Normalization | None]
MAX_VIEWED = 1 << 22
"""Largest tensor, in elements, that may be reshaped or sliced, or that constants may compute."""
ADVICE = {
    "matmul": "use nn.Linear with constant weights",
    "bmm": "products of two activations as matrices (attention) are not supported",
    "scaled_dot_product_attention": "attention is not supported; use convolutions",
    "avg_pool3d": "local response normalization and 3-D pools are not supported; use batch normalization, 2-D pools",
    "conv3d": "use Conv2d",
    "_native_batch_norm_legit": "batch normalization needs running statistics (track_running_stats=True)",
    "lstm": "use convolutions over time",
    "gru": "use convolutions over time",
    **dict.fromkeys(("rnn_tanh", "rnn_relu", "gru_cell", "lstm_cell", "rnn_tanh_cell"), "use convolutions over time"),
    "upsample_bicubic2d": "use bilinear or nearest",
    "nonzero": "data-dependent shapes have to leave forward()",
    "topk": "run it on the network's outputs",
    "sort": "run it on the network's outputs",
}


def handles(handlers: Handlers, *targets: str) -> Callable[[Handler], Handler]:
    """Register a function in ``handlers`` for ATen ``targets``."""

    def register(function: Handler) -> Handler:
        handlers.update(dict.fromkeys(targets, function))
        return function

    return register


class Translator:
    """Visits the nodes of an exported program in order and collects operators, names and problems."""

    def __init__(self, tensors: dict[str, tuple[str, Any]], normalizations: Normalizations, handlers: Handlers) -> None:
        self.tensors = tensors
        self.handlers = handlers
        self.normalizations = list(normalizations)
        self.several = len(normalizations) > 1
        self.builder = Builder(channels_first=True)
        self.values: dict[Any, Value | tuple[Value, ...] | None] = {}
        self.outputs: list[str] = []
        self.parameters: dict[str, dict[str, str]] = {}
        self.computed: dict[str, str] = {}

    def visit(self, node: Any) -> None:
        match node.op:
            case "placeholder":
                if node.name in self.tensors:
                    name, array = self.tensors[node.name]
                    self.values[node] = Constant(np.asarray(array), name)
                else:
                    self._input(node)
            case "output":
                self._output(node)
            case "call_function" if node.target is operator.getitem:
                parts = self.values.get(node.args[0])
                self.values[node] = parts[node.args[1]] if isinstance(parts, tuple) else parts
            case "call_function":
                self._call(node)
            case _:
                self.refuse(node, node.op, "torch.export should not produce this")

    def refuse(self, node: Any, what: str, advice: str) -> None:
        self.builder.problems.append(Problem(what, source_place(node), advice))
        self.values[node] = None

    def name(self, node: Any, kind: str, owner: str | None = None) -> str:
        """The name an operator asks for: the parameter's owner, the torch layer's path, or path.kind."""
        path, layer = module_path(node)
        return owner or (path if layer else f"{path}.{kind}" if path else kind) or kind

    def parameter(self, node: Any) -> tuple[str, Any]:
        """(qualified name, array) of a parameter or buffer; no name when forward computes it, as weight norm does."""
        if node is not None and node.name in self.tensors:
            return self.tensors[node.name]
        value = None if node is None else self.known(node)
        if not isinstance(value, Constant):
            raise Refusal("weights must be constant; they depend on the network's input")
        return "", value.value

    def owned(self, node: Any, result: View, names: dict[str, str]) -> None:
        """Note which parameters ``result``'s operator has; a layer with computed ones is not the user's to train."""
        if all(names.values()):
            self.parameters[result.op] = names
        else:
            self.computed[result.op] = module_path(node)[0]

    def view(self, node: Any) -> View:
        """The activation ``node``. Raises Refusal for constants."""
        value = self.known(node)
        if not isinstance(value, View):
            raise Refusal("this input has to be an activation, found a constant")
        return value

    def known(self, node: Any) -> Value:
        value = self.values[node]
        if value is None:
            raise Skip
        if isinstance(value, tuple):
            raise Refusal("only the first output of this operator is supported")
        return value

    def operand(self, value: Any) -> Any:
        """An activation's view, or a constant's array, of an argument that is a node or a number."""
        if not hasattr(value, "meta"):
            return np.asarray(value, dtype=np.float64)
        known = self.known(value)
        return known.value if isinstance(known, Constant) else known

    def order(self, view: View) -> Any:
        """Indices of ``view``. Raises Refusal above :data:`MAX_VIEWED` elements."""
        size = int(np.prod(view.shape))
        if size > MAX_VIEWED:
            raise Refusal(f"a tensor of {size} elements is reshaped or sliced, at most {MAX_VIEWED} are supported")
        return view.order

    def _input(self, node: Any) -> None:
        try:
            name = node.name if self.several else "input"
            normalization = self.normalizations.pop(0) if self.normalizations else None
            self.values[node] = self.builder.input(aten_shape(node), name, normalization)
        except Refusal as refusal:
            self.refuse(node, f"input {node.name}", str(refusal))

    def _call(self, node: Any) -> None:
        target = str(node.target)
        if target in IGNORED:
            return
        try:
            inputs = [self.known(n) for n in node.all_input_nodes]
            if all(isinstance(value, Constant) for value in inputs):
                self.values[node] = self._folded(node)
                return
            handler = self.handlers.get(target)
            if handler is None:
                raise Refusal(_advice(target))
            self.values[node] = handler(self, node, bind(node))
        except Refusal as refusal:
            self.refuse(node, target, str(refusal))
        except Skip:
            self.values[node] = None
            if target.startswith("aten.") and target not in self.handlers:
                self.refuse(node, target, _advice(target))  # whatever it reads

    def _folded(self, node: Any) -> Constant | tuple[Constant, ...]:
        """A node with constant inputs, evaluated; its float64 value, or one for each of its outputs."""
        if int(np.prod(aten_shape(node))) > MAX_VIEWED:
            raise Refusal("a constant of that size")
        found = node.target(*self.concrete(node.args), **self.concrete(node.kwargs))
        if isinstance(found, (tuple, list)):
            return tuple(_constant(item) for item in found)
        return _constant(found)

    def concrete(self, value: Any) -> Any:
        """Arguments of a node with constants in the place of nodes."""
        if isinstance(value, (tuple, list)):
            return [self.concrete(item) for item in value]
        if isinstance(value, dict):
            return {name: self.concrete(item) for name, item in value.items()}
        if not hasattr(value, "meta"):
            return value
        known = self.known(value)
        if not isinstance(known, Constant):
            raise Refusal("its other inputs have to be constant")
        return torch.from_numpy(np.ascontiguousarray(known.value))

    def _output(self, node: Any) -> None:
        for item in node.args[0]:
            if item is None or item not in self.values:
                self.builder.problems.append(Problem("a constant output", "", "return activations only"))
                continue
            value = self.values[item]
            if value is None:
                continue  # refused before
            if not isinstance(value, View):
                self.builder.problems.append(Problem("a constant output", "", "return activations only"))
            else:
                self.outputs.append(self.builder.output(value, f"output {item.name}"))


def _constant(value: torch.Tensor) -> Constant:
    array = value.detach().cpu()
    return Constant(array.double().numpy() if array.is_floating_point() else array.numpy())


class Skip(Exception):
    """An input of the node was refused before; its consumers are passed over, unless there is none of their kind."""


def _advice(target: str) -> str:
    kind = target.split(".")[1] if "." in target else target
    return ADVICE.get(kind, "mcuq has no such operator; see docs/operators.md")


IGNORED = {"aten._assert_tensor_metadata.default", "aten.sym_size.int", "aten._assert_scalar.default"}


def bind(node: Any) -> Arguments:
    """Arguments of an ATen call by name, defaults filled in."""
    schema = node.target._schema.arguments
    bound = {a.name: a.default_value for a in schema if a.has_default_value()}
    bound.update({a.name: v for a, v in zip(schema, node.args, strict=False)})
    return bound | dict(node.kwargs)


def aten_shape(node: Any) -> tuple[int, ...]:
    value = node.meta["val"]
    value = value[0] if isinstance(value, (tuple, list)) else value
    return tuple(int(n) for n in value.shape)


def module_path(node: Any) -> tuple[str, bool]:
    """Path of the innermost module a node stands in, and whether that is a layer of torch.nn."""
    stack = node.meta.get("nn_module_stack") or {}
    if not stack:
        return "", False
    path, kind = list(stack.values())[-1]
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    containers = ("torch.nn.modules.container.",)
    return path, kind.startswith("torch.nn.modules.") and not kind.startswith(containers)


def source_place(node: Any) -> str:
    """``file:line: code`` of the innermost frame outside torch; empty when unknown."""
    frames = [f for f in (node.meta.get("stack_trace") or "").split("  File ") if f.strip()]
    for frame in reversed(frames):
        lines = frame.strip().removeprefix("File ").splitlines()
        head = lines[0].split(", ")
        if "/torch/" in head[0] or len(head) < 2:
            continue
        code = lines[1].strip() if len(lines) > 1 else ""
        return f"{head[0].strip(chr(34))}:{head[1].removeprefix('line ')}" + (f": {code}" if code else "")
    return ""


def pair(value: Any) -> tuple[int, int]:
    """ATen's int lists of one or two entries as (vertical, horizontal) of a two-dimensional map."""
    items = [int(v) for v in (value if isinstance(value, (list, tuple)) else [value])]
    return (items[0], items[0]) if len(items) == 1 else (items[0], items[1])


def window_pair(view: View, value: Any, single: int = 1) -> tuple[int, int]:
    """As :func:`pair`; an operator on [N, C, L] gives (``single``, value): ``single`` is 0 for padding."""
    if len(view.shape) == 3:
        items = value if isinstance(value, (list, tuple)) else [value]
        return single, int(items[0])
    return pair(value)


def owner_of(qualified: str) -> str:
    return qualified.rpartition(".")[0]
