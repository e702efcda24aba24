"""Whole models of MLPerf Tiny under QEMU: executed instructions, arena, flash; every output byte checked in one run.

Graphs and shapes are MLPerf Tiny's; weights are those a fresh module has (seed 1), ranges those of random inputs, so
that nothing is downloaded. No figure but the solver's mix depends on the weights' values; dead channels stay,
for the peers run them. Instructions are executed instructions, not cycles.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mcuq import zoo
from mcuq.build.run import count
from mcuq.build.sizes import measure
from mcuq.emit.project import emit_project
from mcuq.errors import InfeasibleError
from mcuq.frontend.files import import_model
from mcuq.frontend.torch import capture
from mcuq.ir.fuse import fuse
from mcuq.ir.graph import Graph
from mcuq.ir.integer import IntegerGraph, QConv2d
from mcuq.ir.plans import BitPlan, Limits
from mcuq.ir.quantized import QuantizedGraph, WeightQuant
from mcuq.lower import lower
from mcuq.numerics import code_range
from mcuq.parity import built, compare_image
from mcuq.plan.exact import solve
from mcuq.plan.memory import plan_memory
from mcuq.quant.data_free import data_free
from mcuq.quant.ptq import PtqOptions, ptq
from mcuq.target.board import load_board, optimized
from mcuq.target.core import core
from mcuq.target.footprint import footprint
from mcuq.target.fusion import steps
from mcuq.target.runtime import step_scratch

BASELINE = Path(__file__).resolve().parents[1] / "golden" / "model_counts.json"
TOLERANCE = 0.01
BOARDS = {name: core(name).machine for name in ("cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55")}
VARIANTS = ("int8", "int4", "mix", "size")
"""8-bit weights; 4-bit weights; the solver's bits at half the flash of int8; int8 with --optimize size. Activations
have 8 bits but in the mix."""
ROOM = Limits(flash=1 << 31, ram=1 << 31)


@dataclass(frozen=True)
class Figures:
    """Instructions, RAM for tensors and scratch, and flash of one engine; None: not measured."""

    instructions: int | None
    ram: int | None = None
    flash: int | None = None


@dataclass(frozen=True)
class Model:
    """A model of MLPerf Tiny, its zoo name, the peers' figures on Cortex-M4 and this runtime's targets (int8).

    ``tflm``: TFLM with CMSIS-NN -O2 (RAM: its arena); ``tiny``: TinyEngine. Measured the same way, from the int8 TFLite
    references; flash is code and model without a test harness.
    """

    name: str
    zoo: str
    tflm: Figures
    tiny: Figures
    target: Figures
    m55: tuple[int, int]
    """TFLM with CMSIS-NN on Cortex-M55, and the target there: instructions."""
    per_layer: bool = False


MODELS = (
    Model(
        "autoencoder", "autoencoder", Figures(582_840, 2_580, 305_495), Figures(771_920, 3_328, 280_171),
        Figures(390_000, 1_000, 278_000), (149_938, 110_000), per_layer=True,
    ),
    Model(
        "ds_cnn", "ds_cnn", Figures(7_698_240, 22_820, 107_705), Figures(7_380_000, 16_378, None),
        Figures(3_900_000, 16_200, 38_000), (1_814_094, 950_000),
    ),
    Model(
        "resnet8", "resnet8", Figures(29_863_200, 54_996, 155_763), Figures(None),
        Figures(15_500_000, 49_400, 90_000), (4_911_469, 3_000_000),
    ),
    Model(
        "mobilenet_v1_0.25", "vww", Figures(24_101_560, 100_708, 387_055), Figures(19_711_640, 60_728, 247_507),
        Figures(11_000_000, 55_500, 245_000), (6_557_969, 3_000_000),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """What one variant of a model costs on a core: the fields of ``scripts/bench_models --json``.

    ``arena`` holds tensors and scratch; ``bound`` is its proved least; ``scratch`` the largest scratch of an operator.
    ``flash`` is what the application takes: the items beside it, summed, ``main`` and vectors included.
    """

    core: str
    model: str
    variant: str
    instructions: int
    macs: int
    arena: int
    bound: int
    scratch: int
    weights: int
    parameters: int
    runtime: int
    model_code: int
    startup: int
    flash: int
    stack: int
    exact: bool
    bits: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.core, self.model, self.variant


def float_graph(model: Model) -> Graph:
    """The fused graph with fresh weights; classifiers end in the references' softmax."""
    torch.manual_seed(1)
    module: nn.Module = zoo.build(model.zoo, seed=1)
    if model.zoo != "autoencoder":
        module = nn.Sequential(module, nn.Softmax(dim=1))
    return fuse(capture(module, zoo.input_shape(model.zoo)).graph)


def network(model: Model, variant: str, core: str) -> IntegerGraph:
    """The integer network of a variant. Raises InfeasibleError: half the flash is not to be had."""
    graph = float_graph(model)
    if variant == "mix":
        return half_flash(graph, model, core)
    return calibrated(graph, (4 if variant == "int4" else 8, 8), model)


def calibrated(graph: Graph, bits: BitPlan | tuple[int, int], model: Model) -> IntegerGraph:
    """``graph`` quantized on random inputs and lowered."""
    x = np.random.default_rng(0).normal(size=(8, *graph.input.shape))
    quantized = ptq(graph, x, bits, PtqOptions(activations="absmax", rounding="nearest", images=8))
    return lower(shared_scales(quantized) if model.per_layer else quantized)


def shared_scales(q: QuantizedGraph) -> QuantizedGraph:
    """One weight scale a layer, as the reference of the autoencoder has."""
    found: list[WeightQuant] = []
    for w in q.weights:
        real = w.scale.reshape(-1, 1, 1, 1) * w.codes
        low, high = -(2 ** (w.bits - 1)), 2 ** (w.bits - 1) - 1
        scale = np.abs(real).max() / high
        codes = np.clip(np.rint(real / scale), low, high).astype(np.int8)
        found.append(replace(w, codes=codes, scale=np.array([scale])))
    return replace(q, weights=tuple(found))


def half_flash(graph: Graph, model: Model, core: str) -> IntegerGraph:
    """The solver's bits in half the flash that int8 takes, lowered; kernels of the actual weights are counted."""
    limit = flash_of(calibrated(graph, (8, 8), model), core) // 2
    table, allowed, taken = data_free(graph), limit, 0
    for _ in range(5):
        found = calibrated(graph, solve(graph, table, Limits(allowed, ROOM.ram), core), model)
        taken = flash_of(found, core)
        if taken <= limit:
            return found
        allowed -= taken - limit
    raise InfeasibleError(f"{model.name} takes {taken} bytes of flash, half of int8 is {limit}")


def flash_of(graph: IntegerGraph, core: str) -> int:
    return footprint(graph, plan_memory(graph, core), core).flash


def run(model: Model, variant: str, core: str) -> Result:
    """Build, run and measure one variant."""
    return measured(network(model, variant, core), model.name, variant, core)


def run_file(path: Path, core: str) -> Result:
    """The same for a quantized model file."""
    found = import_model(path)
    if not isinstance(found, QuantizedGraph):
        raise InfeasibleError(f"{path.name} holds a float model; give a quantized one")
    return measured(lower(found), path.stem, "file", core)


def measured(graph: IntegerGraph, name: str, variant: str, core: str) -> Result:
    """Figures of an integer network, each of its tensors compared with the oracle for two inputs."""
    board, samples = load_board(optimized(BOARDS[core], "size" if variant == "size" else "speed")), inputs(graph, 2)
    plan = plan_memory(graph, board.core)
    sizes = measure(emit_project(graph, plan, board), graph, plan, board)
    with built(graph, plan, board) as image:
        exact = compare_image(image, samples).exact
        instructions = count(image, samples[0]).total
    convs = [op for op in graph if isinstance(op, QConv2d)]
    items = {item.name: item.measured for item in sizes.items}
    return Result(
        core=core,
        model=name,
        variant=variant,
        instructions=instructions,
        macs=sum(op.output.shape[0] * op.output.shape[1] * op.weight.size for op in convs),
        arena=plan.arena_bytes,
        bound=plan.lower_bound,
        scratch=max(step_scratch(op, graph, board.core) for op in steps(graph)),
        weights=items["weights"],
        parameters=items["parameters"],
        runtime=items["runtime code"],
        model_code=items["model code"],
        startup=items["startup"],
        flash=sizes.flash[1],
        stack=sizes.stack_bound,
        exact=exact,
        bits="".join(str(op.weight_bits) for op in convs),
    )


def inputs(graph: IntegerGraph, samples: int) -> Any:
    """Random inputs [N, H, W, C] as the network takes them."""
    source, rng = graph.input, np.random.default_rng(3)
    low, high = (0, 255) if source.encoding == "uint8" else code_range(source.output.bits)
    kind = np.uint8 if source.encoding == "uint8" else np.int64
    return rng.integers(low, high + 1, (samples, *source.output.shape)).astype(kind)


def to_json(results: list[Result]) -> str:
    """The results as ``scripts/bench_models --json`` prints them."""
    rows = ",\n".join("  " + json.dumps(asdict(result)) for result in results)
    return '{"results": [\n' + rows + "\n]}\n"


def from_json(text: str) -> list[Result]:
    return [Result(**row) for row in json.loads(text)["results"]]


def regressions(results: list[Result], baseline: list[Result]) -> list[str]:
    """What is wrong, or costs more than 1 % beyond the stored figures."""
    stored = {result.key: result for result in baseline}
    wrong = [f"{' '.join(r.key)}: outputs differ from the reference" for r in results if not r.exact]
    for r in results:
        old = stored.get(r.key)
        for what in ("instructions", "arena", "flash") if old else ():
            new, before = getattr(r, what), getattr(old, what)
            if new > before * (1 + TOLERANCE):
                wrong.append(f"{' '.join(r.key)}: {what} {new}, stored {before}")
    return wrong
