"""The walk over an exported program: nodes, names, layouts, refusals.

Layouts: ATen [N, C, H, W], [N, C, L] and [N, F] become (H, W, C), (1, L, C) and (1, 1, F). ATen flattens in
C, H, W order and the graph in H, W, C order; a flattened map is therefore kept as a *flat* view of the map
until a linear layer consumes it with permuted weights.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mcuq.ir import graph as ir
from mcuq.ir.graph import Normalization, Shape


@dataclass(frozen=True, slots=True)
class Unsupported:
    """What has no counterpart, where it stands in the user's source, what could replace it."""

    what: str
    where: str
    advice: str


class Refusal(Exception):
    """Raised by a handler: this use of the operator is not supported; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Value:
    """An ATen tensor as seen by the graph: operator ``op``'s output; ``flat``: viewed as [N, C*H*W]."""

    op: str
    shape: Shape
    flat: bool = False


Arguments = dict[str, Any]
Handler = Callable[["Translator", Any, Arguments], "Value | None"]
Handlers = dict[str, Handler]
ADVICE = {
    "silu": "use ReLU or ReLU6",
    "gelu": "use ReLU or ReLU6",
    "sigmoid": "use ReLU6, or move it behind the deployed network",
    "hardswish": "use ReLU6",
    "hardsigmoid": "use ReLU6",
    "leaky_relu": "use ReLU",
    "elu": "use ReLU",
    "prelu": "use ReLU",
    "tanh": "use hardtanh",
    "mul": "fold constant factors into the layer before; products of activations have no kernel",
    "sub": "negate the weights of one branch and add",
    "div": "fold constant divisors into the layer before",
    "matmul": "use nn.Linear with constant weights",
    "layer_norm": "use batch normalization",
    "group_norm": "use batch normalization",
    "instance_norm": "use batch normalization",
    "slice": "slice the data before the network, or use a strided convolution",
    "conv_transpose2d": "use nearest upsampling outside the network, or a convolution",
    "conv3d": "use Conv2d",
    "permute": "keep [N, C, H, W] through the network",
    "transpose": "keep [N, C, H, W] through the network",
    "upsample_nearest2d": "resize outside the network",
    "_native_batch_norm_legit": "batch normalization needs running statistics (track_running_stats=True)",
    "lstm": "use convolutions over time",
    "gru": "use convolutions over time",
}


def handles(handlers: Handlers, *targets: str) -> Callable[[Handler], Handler]:
    """Register a function in ``handlers`` for ATen ``targets``."""

    def register(function: Handler) -> Handler:
        handlers.update(dict.fromkeys(targets, function))
        return function

    return register


class Translator:
    """Visits the nodes of an exported program in order and collects operators, names and problems."""

    def __init__(
        self, tensors: dict[str, tuple[str, Any]], normalization: Normalization | None, handlers: Handlers
    ) -> None:
        self.tensors = tensors
        self.handlers = handlers
        self.normalization = normalization
        self.values: dict[Any, Value | None] = {}
        self.ops: list[ir.FloatOp] = []
        self.outputs: list[str] = []
        self.parameters: dict[str, dict[str, str]] = {}
        self.problems: list[Unsupported] = []
        self._names: set[str] = set()

    def visit(self, node: Any) -> None:
        match node.op:
            case "placeholder":
                if node.name not in self.tensors:
                    self._input(node)
            case "output":
                self._output(node)
            case "call_function" if node.target is operator.getitem and node.args[1] == 0:
                self.values[node] = self.values.get(node.args[0])
            case "call_function":
                self._call(node)
            case _:
                self.refuse(node, node.op, "torch.export should not produce this")

    def refuse(self, node: Any, what: str, advice: str) -> None:
        self.problems.append(Unsupported(what, source_place(node), advice))
        self.values[node] = None

    def emit(self, op: ir.FloatOp) -> Value:
        self.ops.append(op)
        return Value(op.name, op.shape)

    def name(self, node: Any, kind: str, owner: str | None = None) -> str:
        """A unique name: the parameter's owner, the torch layer's path, or path.kind for functional code."""
        path, layer = module_path(node)
        base = owner if owner else path if layer else f"{path}.{kind}" if path else kind
        base = base or kind
        name, number = base, 2
        while name in self._names:
            name, number = f"{base}_{number}", number + 1
        self._names.add(name)
        return name

    def tensor(self, node: Any) -> tuple[str, Any]:
        """(qualified name, array) of a parameter or buffer; refuses tensors computed in forward."""
        if node is None or node.name not in self.tensors:
            raise Refusal("weights must be parameters, not computed in forward (parametrizations)")
        return self.tensors[node.name]

    def value(self, node: Any, *, flat_ok: bool = False) -> Value:
        value = self.values[node]
        if value is None:
            raise _Skip
        if value.flat and not flat_ok:
            raise Refusal(f"a flattened map {value.shape} may only go into a linear layer; pool it first")
        return value

    def _input(self, node: Any) -> None:
        if any(isinstance(op, ir.Input) for op in self.ops):
            return self.refuse(node, "a second input", "networks take one tensor")
        shape = map_shape(node)
        self._names.add("input")
        self.values[node] = self.emit(ir.Input(name="input", inputs=(), shape=shape, normalization=self.normalization))
        return None

    def _call(self, node: Any) -> None:
        target = str(node.target)
        handler = self.handlers.get(target)
        if target in IGNORED:
            return
        if handler is None:
            kind = target.split(".")[1] if "." in target else target
            self.refuse(node, target, ADVICE.get(kind, "see docs for the operators mcuq has"))
            return
        try:
            self.values[node] = handler(self, node, bind(node))
        except Refusal as refusal:
            self.refuse(node, target, str(refusal))
        except _Skip:
            self.values[node] = None

    def _output(self, node: Any) -> None:
        for item in node.args[0]:
            if item is None or item not in self.values:
                self.problems.append(Unsupported("a constant output", "", "return activations only"))
            elif (value := self.values[item]) is not None:
                if value.flat:
                    self.refuse(item, "a flattened map as output", "return the map itself, or pool it")
                else:
                    self.outputs.append(value.op)


class _Skip(Exception):
    """An input of the node was refused before; its consumers are passed over."""


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


def map_shape(node: Any) -> Shape:
    """(H, W, C) of an ATen tensor [N, C, H, W], [N, C, L] or [N, F]."""
    match aten_shape(node):
        case (_, c, h, w):
            return h, w, c
        case (_, c, length):
            return 1, length, c
        case (_, features):
            return 1, 1, features
        case shape:
            raise Refusal(f"tensors must be [N, C, H, W], [N, C, L] or [N, F], found {list(shape)}")


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


def window_pair(node: Any, value: Any, single: int = 1) -> tuple[int, int]:
    """As :func:`pair`; an operator on [N, C, L] gives (``single``, value): ``single`` is 0 for padding."""
    if len(aten_shape(node)) == 3:
        items = value if isinstance(value, (list, tuple)) else [value]
        return single, int(items[0])
    return pair(value)


def owner_of(qualified: str) -> str:
    return qualified.rpartition(".")[0]
