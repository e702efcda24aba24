"""PyTorch modules to the float graph, through torch.export.

The exported program is functional (in-place operators are replaced), so aliasing in the user's code cannot
change the meaning of the graph. Names of layers come from module paths and are data only: nothing here
evaluates, formats or writes them anywhere but into the graph.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import nn

from mcuq.errors import McuqError, ModelError, UnsupportedError, UsageError
from mcuq.frontend.builder import for_inputs
from mcuq.frontend.problems import Problem
from mcuq.frontend.simplify import checked, simplify
from mcuq.frontend.torch import arithmetic, layers, shapes
from mcuq.frontend.torch.decompositions import DECOMPOSITIONS
from mcuq.frontend.torch.nodes import Normalizations, Translator
from mcuq.ir.graph import Graph, Normalization
from mcuq.ir.samples import InputShape
from mcuq.ir.verify import Level

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_\-]+")
HANDLERS = layers.HANDLERS | arithmetic.HANDLERS | shapes.HANDLERS
FIELDS = ("weight", "iohw", "bias", "gamma", "beta", "mean", "variance", "slope")
"""Fields of ``Capture.parameters``: of Conv2d the first three (``iohw``: a transposed convolution's weights as PyTorch
stores them), of Prelu the last, of BatchNorm the others."""


@dataclass(frozen=True, slots=True, eq=False)
class Capture:
    """A captured module.

    Attributes:
        graph: float graph, not fused.
        parameters: operator name -> field (see ``FIELDS``) -> qualified name of the parameter or buffer.
        computed: operator name -> module path of layers whose weights forward computes from parameters (weight norm,
            spectral norm): constants in the graph.
    """

    graph: Graph
    parameters: dict[str, dict[str, str]]
    computed: dict[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """What torch.export made of a module for one or more input shapes: its operators, but not its weights."""

    exported: Any
    shapes: tuple[tuple[int, ...], ...]


InputNormalization = Normalization | tuple[Normalization | None, ...] | None


def capture(
    module: nn.Module,
    input_shape: InputShape,
    normalization: InputNormalization = None,
    *,
    program: Program | None = None,
) -> Capture:
    """The float graph of ``module`` in inference mode. The module is left as it was.

    Args:
        input_shape: (H, W, C) for a module that takes [N, C, H, W]; (L, C) for [N, C, L]; (L,) for [N, L].
            (1, 1, L) is also tried as a vector when the module does not take [N, L, 1, 1]. One such shape for each
            input of a module that takes several.
        normalization: how raw uint8 pixels become the module's input; kept in the graph's input. Of several inputs
            one for all, or one for each.
        program: of this module, or of one that differs from it in the values of its tensors alone.

    Raises:
        UnsupportedError: the module holds operators mcuq has none for (all of them are listed), or torch
            cannot export it.
        ModelError: a parameter holds NaN or infinity, or a name is not plain.
        UsageError: ``input_shape`` is not a shape, or not the program's.
    """
    shapes = _shapes(input_shape)
    normalizations = for_inputs(normalization, len(shapes))
    if program is None:
        program = export(module, input_shape)
    elif program.shapes != shapes:
        raise UsageError(f"the program was exported for input {program.shapes}, not {shapes}")
    _check_finite(module)
    return _translate(program.exported, module, normalizations)


def export(module: nn.Module, input_shape: InputShape) -> Program:
    """What :func:`capture` begins with, for modules whose weights change between captures. Arguments and errors as
    there."""
    shapes = _shapes(input_shape)
    _check_names(module)
    _check_finite(module)
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    failure: Exception | None = None
    tried = list(product(*map(_example_shapes, shapes)))
    for given in tried:
        examples = tuple(torch.zeros(shape, dtype=dtype) for shape in given)
        with _inference_mode(module):
            try:
                return Program(_export(module, examples), shapes)
            except McuqError:
                raise
            except Exception as error:  # torch.export raises many kinds; each is the user's module
                failure = failure or error
    raise UnsupportedError(
        f"torch.export cannot capture {type(module).__name__} with input {', '.join(map(str, tried[0]))}: "
        f"{_first_line(failure)}. Check the input shape; data-dependent control flow has to leave forward()."
    ) from failure


def _shapes(given: InputShape) -> tuple[tuple[int, ...], ...]:
    """One shape per input. Raises UsageError."""
    shapes: Any = given if given and isinstance(given[0], tuple) else (given,)
    for shape in shapes:
        if not shape or len(shape) > 3 or any(int(n) != n or n < 1 for n in shape):
            raise UsageError(f"input shape must be positive integers (H, W, C), (L, C) or (L,), got {shape}")
    return shapes


def _example_shapes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    match shape:
        case (length,):
            return [(1, length)]
        case (length, channels):
            return [(1, channels, length)]
        case (1, 1, channels):
            return [(1, channels, 1, 1), (1, channels)]
        case _:
            return [(1, shape[2], shape[0], shape[1])]


def _export(module: nn.Module, examples: tuple[torch.Tensor, ...]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, examples)
        # A table of its own keeps conv2d, linear, ... whole and makes the program functional.
        return program if _is_plain(program) else program.run_decompositions(DECOMPOSITIONS)


def _is_plain(program: Any) -> bool:
    """Every operator has a handler and changes no argument in place: tracing it once more would find the same."""
    called = [node.target for node in program.graph.nodes if node.op == "call_function"]
    known = all(str(target) in HANDLERS and target not in DECOMPOSITIONS for target in called)
    return known and not any(target._schema.is_mutable for target in called)


@contextmanager
def _inference_mode(module: nn.Module) -> Generator[None]:
    """Eval mode inside; every submodule's own training flag comes back."""
    flags = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for m, training in flags:
            m.training = training


def _check_names(module: nn.Module) -> None:
    """Refuse names that are not plain: torch.export writes them into Python code that it then runs."""
    paths = [path for path, _ in module.named_modules(remove_duplicate=False) if path]
    paths += [path for path, _ in module.named_parameters(remove_duplicate=False)]
    paths += [path for path, _ in module.named_buffers(remove_duplicate=False)]
    odd = sorted({n for path in paths for n in path.split(".") if not _PLAIN_NAME.fullmatch(n)})
    if odd:
        raise ModelError(
            f"module or parameter name {odd[0][:80]!r} is not a plain name ({len(odd)} such); "
            "use letters, digits, _ and - only"
        )


def _check_finite(module: nn.Module) -> None:
    """Refuse NaN and infinity, naming each tensor and how many values are wrong."""
    wrong: list[str] = []
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point():
            count = int((~torch.isfinite(tensor)).sum())
            if count:
                wrong.append(f"{name} ({count} of {tensor.numel()} values)")
    if wrong:
        raise ModelError(
            f"parameters hold NaN or infinity: {', '.join(wrong)}. Train again from a sound checkpoint, "
            "with a lower learning rate."
        )


def _translate(program: Any, module: nn.Module, normalizations: Normalizations) -> Capture:
    signature = program.graph_signature
    tensors: dict[str, tuple[str, Any]] = {}
    values = {**program.constants, **dict(module.named_buffers(remove_duplicate=False))}
    values |= dict(module.named_parameters(remove_duplicate=False))
    for spec in signature.input_specs:
        if spec.target is not None:
            value = values.get(spec.target)
            if isinstance(value, torch.Tensor):
                tensors[spec.arg.name] = (spec.target, _array(value))
    translator = Translator(tensors, normalizations, HANDLERS)
    for node in program.graph.nodes:
        translator.visit(node)
    builder, parameters = translator.builder, translator.parameters
    for spec in signature.output_specs:
        if spec.kind.name != "USER_OUTPUT":
            advice = "state has to be constant in inference"
            builder.problems.append(Problem(f"writing to {spec.target}", "", advice))
    graph, _ = simplify(builder.graph(translator.outputs), fixed=frozenset(parameters))
    return Capture(checked(graph, Level.FLOAT), parameters, translator.computed)


def _array(value: torch.Tensor) -> Any:
    array = value.detach().cpu()
    return array.to(torch.float64).numpy() if array.is_floating_point() else np.asarray(array.numpy())


def _first_line(error: Exception | None) -> str:
    text = str(error).strip().splitlines()
    return text[0][:300] if text else type(error).__name__
