"""The float graph of a model by name or file, for planning: from the cache or a file it needs no torch."""

from __future__ import annotations

import contextlib

from mcuq.data.fetch import cache_folder
from mcuq.errors import McuqError, UsageError
from mcuq.ir.files import load_graph, save_graph
from mcuq.ir.fuse import fuse
from mcuq.ir.graph import Graph
from mcuq.ir.verify import Level, verify
from mcuq.pipeline.measures import sources_digest
from mcuq.pipeline.models import build_module, captured
from mcuq.pipeline.settings import ModelSpec


def planned_graph(spec: ModelSpec, seed: int) -> Graph:
    """The fused graph of a model of the zoo, of a user's own module, or in an ONNX or TFLite file.

    Graphs of the zoo are kept in the cache: the same name, options and seed give the same weights.

    Raises:
        UsageError: no such model, or a file of a quantized one. ModelError, UnsupportedError: what is wrong with it.
    """
    if spec.is_file:
        return _from_file(spec)
    if spec.is_users_own:
        return captured(*build_module(spec, None, seed), None)
    path = cache_folder() / "graphs" / f"{_key(spec, seed)}.mcuq"
    with contextlib.suppress(McuqError):
        return load_graph(path)[0]
    graph = captured(*build_module(spec, None, seed), None)
    with contextlib.suppress(McuqError, OSError):  # a cache that cannot be written only costs time
        path.parent.mkdir(parents=True, exist_ok=True)
        save_graph(graph, path)
    return graph


def _from_file(spec: ModelSpec) -> Graph:
    from mcuq.frontend.files import import_model

    graph = import_model(spec.name, spec.input_shape)
    if not isinstance(graph, Graph):
        raise UsageError(f"{spec.name} is quantized: its bits are chosen; 'mcuq quantize' takes it as it is")
    fused = fuse(graph)
    verify(fused, Level.FUSED)
    return fused


def _key(spec: ModelSpec, seed: int) -> str:
    """A digest of what decides about the graph: the model's options and the code that defines and captures it."""
    digest = sources_digest("zoo", "frontend", "ir")
    digest.update(f"{spec!r} {seed}".encode())
    return digest.hexdigest()[:32]
