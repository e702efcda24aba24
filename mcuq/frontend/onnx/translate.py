"""The walk over the nodes of an ONNX graph: constants are folded, moves become views, layers become operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.onnx_ml_pb2 import ModelProto, NodeProto

from mcuq.errors import ModelError
from mcuq.frontend.builder import Builder, Coded, Constant
from mcuq.frontend.elementwise import Length
from mcuq.frontend.onnx import constants
from mcuq.frontend.onnx.model import STANDARD_DOMAINS, attributes_of, bits_of, to_array
from mcuq.frontend.problems import Problem
from mcuq.frontend.views import Refusal, View
from mcuq.ir.graph import Normalization

Value = View | Constant | Length
Handler = Callable[["Translator", "Node"], "Value | tuple[Value, ...]"]
Handlers = dict[str, Handler]
MAX_COMPUTED = 1 << 25
"""Elements of all folded constants and index tables together (256 MB)."""
MAX_VIEWED = 1 << 22
"""Largest map, in elements, that may be sliced or flattened."""
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear", "Quant", "BipolarQuant")
"""Operators that constants pass, too: their codes are kept."""
RUN_TIME = ("DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")
ADVICE = {
    "LRN": "use BatchNormalization",
    "LSTM": "use convolutions over time",
    "GRU": "use convolutions over time",
    "RNN": "use convolutions over time",
    "NonMaxSuppression": "run it on the network's outputs, outside the deployed network",
    "RoiAlign": "run it outside the deployed network",
    "MaxRoiPool": "run it outside the deployed network",
    **dict.fromkeys(
        RUN_TIME,
        "quantized at run time: quantize the float model with calibration, here or by onnxruntime's quantize_static",
    ),
    "If": "export the branch that is used",
    "Loop": "unroll the loop before exporting",
    "Scan": "unroll the loop before exporting",
}


def _advice(kind: str) -> str:
    return ADVICE.get(kind, "mcuq has no such operator; see docs/operators.md")


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A node with its attributes, values of its inputs (absent ones None) and the name its operator gets."""

    proto: NodeProto
    attributes: dict[str, Any]
    inputs: list[Value | None]
    opset: int

    @property
    def where(self) -> str:
        """Name of the node, or of its first output, for error texts."""
        return repr(self.label[:80])

    @property
    def label(self) -> str:
        outputs = [name for name in self.proto.output if name]
        return self.proto.name or (outputs[0] if outputs else self.proto.op_type)

    def view(self, position: int = 0) -> View:
        """An input that is an activation. Raises Refusal for constants and absent inputs."""
        value = self.inputs[position] if position < len(self.inputs) else None
        if not isinstance(value, View):
            raise Refusal("this input has to be an activation, found a constant")
        return value

    def constant(self, position: int) -> Constant | None:
        """An optional constant input. Raises Refusal when it is computed from activations."""
        value = self.inputs[position] if position < len(self.inputs) else None
        if isinstance(value, View | Length):
            raise Refusal(f"input {position} has to be constant")
        return value

    def required(self, position: int) -> Constant:
        value = self.constant(position)
        if value is None:
            raise Refusal(f"input {position} is missing")
        return value

    def array(self, position: int) -> NDArray[Any] | None:
        value = self.constant(position)
        return None if value is None else value.value

    def get(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)


class Translator:
    """Values by tensor name, and the graph under construction.

    Attributes:
        handlers, contributed: by operator, of the standard and per other domain.
        narrow: names of 4-bit constants -> (bits, signed); numpy holds them in whole bytes.
    """

    def __init__(self, handlers: Handlers, contributed: dict[str, Handlers], opset: int) -> None:
        self.builder = Builder(channels_first=True)
        self.handlers = handlers
        self.contributed = contributed
        self.narrow: dict[str, tuple[int, bool]] = {}
        self.opset = opset
        self.values: dict[str, Value | None] = {}
        self._computed = 0
        self._uses: Counter[str] = Counter()
        self._readers: dict[str, set[str]] = {}

    def run(
        self, model: ModelProto, shapes: list[tuple[int, ...]], normalizations: Sequence[Normalization | None]
    ) -> list[str]:
        """Translate all nodes; returns the names of the output operators."""
        graph = model.graph
        for tensor in graph.initializer:
            self.values[tensor.name] = Constant(to_array(tensor), tensor.name)
            kind = bits_of(tensor.data_type)
            if kind is not None and kind[0] < 8:
                self.narrow[tensor.name] = kind
        names = [i.name for i in graph.input if i.name not in self.values]
        for name, shape, normalization in zip(names, shapes, normalizations, strict=True):
            self.values[name] = self.builder.input(shape, name, normalization)
        self._uses = Counter(name for node in graph.node for name in node.input)
        self._uses.update(output.name for output in graph.output)
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, set()).add(node.op_type)
        for node in graph.node:
            self._visit(node)
        return [self._output(output.name) for output in graph.output]

    def divides(self, node: Node) -> bool:
        """The node's result is only divided by, perhaps bounded and repeated before: the length of a normalization."""
        readers = self._readers.get(node.proto.output[0], set())
        return bool(readers) and readers <= {"Div", "Clip", "Max", "Expand"}

    def _visit(self, proto: NodeProto) -> None:
        inputs = [self.values.get(name) if name else None for name in proto.input]
        known = all(name in self.values for name in proto.input if name)
        skipped = any(name and self.values.get(name) is None for name in proto.input)
        results: tuple[Value | None, ...] = ()
        if not known:
            raise ModelError(f"node {proto.name[:80]!r} reads a tensor that nothing computes. Export the model again.")
        known = proto.domain in STANDARD_DOMAINS or proto.op_type in self.contributed.get(proto.domain, {})
        node = Node(proto, attributes_of(proto), inputs, self.opset)
        if skipped and known:  # what follows a refused operator is refused itself only if there is none of its kind
            if proto.domain in STANDARD_DOMAINS and not self._counterpart(proto.op_type):
                self.builder.problems.append(Problem(proto.op_type[:80], node.where, _advice(proto.op_type)))
        else:
            try:
                result = self._translate(node)
                results = result if isinstance(result, tuple) else (result,)
            except (Refusal, ValueError, IndexError) as refusal:  # of numpy: shapes that do not fit
                kind = proto.op_type if proto.domain in STANDARD_DOMAINS else f"{proto.domain}.{proto.op_type}"
                self.builder.problems.append(Problem(kind[:80], node.where, str(refusal)))
        for position, name in enumerate(proto.output):
            self.values[name] = results[position] if position < len(results) else None
        for name in proto.input:
            self._uses[name] -= 1
            if name and not self._uses[name]:
                self.values[name] = None  # read for the last time: frees index tables

    def _counterpart(self, kind: str) -> bool:
        """True for standard operators that are translated, folded, or refused with the one that feeds them."""
        return kind in self.handlers or kind in constants.EVALUATORS or kind in ("Shape", *RUN_TIME)

    def _translate(self, node: Node) -> Value | tuple[Value, ...]:
        handlers = self.handlers
        if node.proto.domain not in STANDARD_DOMAINS:
            handlers = self.contributed.get(node.proto.domain, {})
            if node.proto.op_type not in handlers:
                raise Refusal("only operators of the ONNX standard are supported")
        extra = [name for name in node.proto.output[1:] if name and self._uses[name]]
        if extra and node.proto.op_type in handlers and node.proto.op_type != "Split":
            raise Refusal(f"only its first output is supported, {extra[0][:80]!r} is read, too")
        kind = node.proto.op_type
        if kind == "Shape" and isinstance(node.inputs[0], View):
            start, end = node.get("start", 0), node.get("end")
            return Constant(np.asarray(node.inputs[0].shape[start:end], dtype=np.int64))
        if kind == "Expand" and isinstance(node.inputs[0], Length):
            return node.inputs[0]
        views = [value for value in node.inputs if isinstance(value, View | Length)]
        if kind in handlers and (views or kind in QUANTIZERS):
            return handlers[kind](self, node)
        if views and (kind not in constants.STRUCTURAL or not isinstance(node.inputs[0], View)):
            raise Refusal(_advice(kind))
        return self._move(node) if views else self._fold(node)

    def _fold(self, node: Node) -> Constant:
        """A node with constant inputs only."""
        arrays = [value.value if isinstance(value, Constant) else None for value in node.inputs]
        array = constants.evaluate(node.proto, arrays, node.attributes, self.opset)
        self._count(array.size)
        first = node.inputs[0] if node.inputs else None
        if not isinstance(first, Constant) or node.proto.op_type not in constants.STRUCTURAL:
            return Constant(array, node.label)
        return Constant(array, first.name, self._moved_codes(node, first.coded, arrays))

    def _moved_codes(self, node: Node, coded: Coded | None, arrays: list[Any]) -> Coded | None:
        """Codes under a transposition; other moves keep them when one scale serves the whole tensor."""
        if coded is None or (coded.scale.size > 1 and node.proto.op_type not in ("Transpose", "Identity")):
            return None
        axis = coded.axis
        if node.proto.op_type == "Transpose":
            rank = coded.codes.ndim
            permutation = [p % rank for p in node.get("perm", list(range(rank))[::-1])]
            axis = permutation.index(coded.axis)
        moved = constants.evaluate(node.proto, [coded.codes, *arrays[1:]], node.attributes, self.opset)
        return replace(coded, codes=moved, axis=axis)

    def order(self, view: View) -> NDArray[np.int64]:
        """Indices of ``view``, accounted for. Raises Refusal for maps above :data:`MAX_VIEWED` elements."""
        size = int(np.prod(view.shape))
        if size > MAX_VIEWED:
            raise Refusal(f"a tensor of {size} elements is reshaped or sliced, at most {MAX_VIEWED} are supported")
        self._count(size)
        return view.order

    def _move(self, node: Node) -> View:
        """A node that only moves elements of an activation: the same move of its indices."""
        view = node.view()
        if node.proto.op_type == "Identity":
            return view
        arrays = [
            self.order(view),
            *(value.value if isinstance(value, Constant) else None for value in node.inputs[1:]),
        ]
        if any(isinstance(value, View) for value in node.inputs[1:]):
            raise Refusal("its shape has to be constant")
        moved = constants.evaluate(node.proto, arrays, node.attributes, self.opset)
        if moved.size > MAX_VIEWED or not moved.size:
            raise Refusal(f"its result has {moved.size} elements")
        self._count(moved.size)
        return view.viewed(moved)

    def _count(self, elements: int) -> None:
        self._computed += elements
        if self._computed > MAX_COMPUTED:
            raise ModelError("the constants this model computes take more than 256 MB. Fold and simplify it first.")

    def _output(self, name: str) -> str:
        value = self.values.get(name)
        if isinstance(value, View):
            return self.builder.output(value, f"output {name[:80]!r}")
        if isinstance(value, Constant):
            self.builder.problems.append(Problem(f"output {name[:80]!r}", "", "is constant; return activations only"))
        return ""
