"""Choosing bits under limits: by the exact solver, by the paper's rules, uniform, or from a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

from mcuq.data import Dataset
from mcuq.errors import InfeasibleError, UsageError
from mcuq.ir.bits_file import load_bits, save_bits
from mcuq.ir.container import write_atomic
from mcuq.ir.graph import Graph
from mcuq.ir.integer import IntegerGraph
from mcuq.ir.plans import BitPlan, Limits, Sensitivity, TensorKind, TensorLoss
from mcuq.pipeline.graphs import planned_graph
from mcuq.pipeline.measures import checked, held_back, sensitivity
from mcuq.pipeline.outcomes import ParetoOutcome, SolveOutcome
from mcuq.pipeline.settings import UNLIMITED, BitChoice, ModelSpec
from mcuq.pipeline.wishes import exceeds, latency_ms
from mcuq.plan import rules
from mcuq.plan.memory import plan_memory
from mcuq.plan.model import Scales, layers_with_choice, problem_from_graph
from mcuq.target.footprint import footprint
from mcuq.target.instructions import graph_instructions

BEST_OF = 3
"""Best plans of the table of which the best by a true measurement is taken."""
ROUNDS = 5
"""Times the limits are tightened by what kernels chosen for the actual weights take more than promised."""


def solve(spec: ModelSpec, choice: BitChoice, out: Path, *, seed: int = 0) -> SolveOutcome:
    """Bits of a model under limits, without data (docs/solver.md describes the data-free sensitivity).

    Raises:
        UsageError: no such model, contradicting choices, no limits.
        InfeasibleError: the paper's rules cannot meet the limits.
    """
    choice.check()
    limits = choice.limits()
    if limits is None:
        raise UsageError("solve needs limits: --mem-constraint FLASH,RAM or --board NAME")
    choice = choice.resolved(folds=spec.is_file)
    graph = planned_graph(spec, seed)
    try:
        refuse_early(graph, choice, limits)
        plan = choose(graph, choice, limits, _table(graph, choice))
    except InfeasibleError as error:
        return infeasible(error, choice, limits)
    save_bits(plan, out)
    return solved(plan, graph, str(out), choice)


def pareto(
    spec: ModelSpec, choice: BitChoice, resource: str, points: int, out: Path | None, *, seed: int = 0
) -> ParetoOutcome:
    """The frontier of expected loss over flash, RAM or instructions, without data, with rules and uniform bits.

    Args:
        choice: limits; that of ``resource`` is swept. out: a PNG of the frontier, if any.

    Raises:
        UsageError: no limits, unknown resource; InfeasibleError: the other limit cannot be met.
    """
    from mcuq.plan.pareto import Resource
    from mcuq.plan.pareto import pareto as frontier

    choice.check()
    limits = choice.limits()
    if limits is None:
        raise UsageError("pareto needs limits: --mem-constraint FLASH,RAM or --board NAME")
    if resource not in get_args(Resource):
        raise UsageError(f"--over {resource!r} is unknown; use {', '.join(get_args(Resource))}")
    if out is not None and out.suffix.lower() != ".png":
        raise UsageError(f"--out {out}: the picture is a PNG; name a .png file")
    choice = choice.resolved(folds=spec.is_file)
    graph = planned_graph(spec, seed)
    found = frontier(
        graph,
        _table(graph, choice),
        limits,
        choice.core,
        resource=cast("Resource", resource),
        points=points,
        **_memory(choice),
        **_wishes(choice),
    )
    if out is not None:
        from mcuq.report.frontier import pareto_picture

        write_atomic(out, pareto_picture(resource, found.points, found.references))
    return ParetoOutcome(resource, found.points, found.references, str(out or ""))


def infeasible(error: InfeasibleError, choice: BitChoice, limits: Limits) -> SolveOutcome:
    """A document of status INFEASIBLE: least bytes needed where they exceed the limit, and the text."""
    flash = limits.flash + getattr(error, "missing_flash", 0)
    ram = limits.ram + getattr(error, "missing_ram", 0)
    plan = BitPlan((), "INFEASIBLE", 0.0, 0.0, flash, ram, limits, choice.mixed or "exact")
    return SolveOutcome(plan, {}, "", str(error))


def solved(plan: BitPlan, graph: Graph, file: str, choice: BitChoice) -> SolveOutcome:
    shapes = {op.name: "x".join(map(str, op.shape)) for op in graph}
    return SolveOutcome(plan, shapes, file, latency_ms=latency_ms(plan.instructions, choice.board))


def choose(
    graph: Graph,
    choice: BitChoice,
    limits: Limits,
    table: Sensitivity,
    measure: Callable[[BitPlan], float] | None = None,
) -> BitPlan:
    """Bits of every tensor by the method of ``choice``; of the exact method's best plans the best by ``measure``.

    Raises InfeasibleError naming tensors and missing bytes.
    """
    if choice.mixed in ("MixPL", "MixPC"):
        return rules.mixed(graph, limits, choice.mixed, sensitivity=table)
    from mcuq.plan.exact import solve as solve_exact

    options: dict[str, Any] = {} if measure is None else {"best_of": BEST_OF, "measure": measure}
    return solve_exact(graph, table, limits, choice.core, **_memory(choice), **_wishes(choice), **options)


def _memory(choice: BitChoice) -> dict[str, Any]:
    """What the board says of RAM besides its limit."""
    return {"ram_reserve": choice.ram_reserve, "cuts": choice.cuts}


def _wishes(choice: BitChoice) -> dict[str, Any]:
    """Options of the exact search."""
    return {
        "pins": dict(choice.pins),
        "groups": choice.groups,
        "first_last_bits": choice.first_last_bits,
        "scales": _scales(choice),
    }


def _scales(choice: BitChoice) -> Scales:
    return Scales(granularity=cast("Any", choice.granularity or "channel"))


def _table(graph: Graph, choice: BitChoice, measure: str = "data-free", dataset: Dataset | None = None) -> Sensitivity:
    """The sensitivity, of every granularity that ``choice`` leaves to be chosen."""
    searched = choice.mixed not in ("MixPL", "MixPC")
    return sensitivity(
        graph, measure, dataset, layers_with_choice(graph, choice.core, _scales(choice)) if searched else ()
    )


def refuse_early(graph: Graph, choice: BitChoice, limits: Limits) -> None:
    """Raise InfeasibleError if no bits can meet one of the limits, before anything is measured.

    Raises:
        UsageError: unknown tensor names, contradicting wishes.
    """
    if choice.mixed in ("MixPL", "MixPC"):
        return
    from mcuq.plan.decisions import Wishes
    from mcuq.plan.infeasible import refuse

    kinds, any_step = get_args(TensorKind), (8, 4, 2, -8, -4, -2)
    losses = (TensorLoss(op.name, kind, bits, 0.0) for op in graph for kind in kinds for bits in any_step)
    nothing = Sensitivity("none", tuple(losses))
    wishes, scales = Wishes(dict(choice.pins), choice.groups, first_last_bits=2), _scales(choice)
    refuse(problem_from_graph(graph, nothing, limits, choice.core, wishes=wishes, scales=scales, **_memory(choice)))


def refuse_infeasible(graph: Graph, choice: BitChoice, limits: Limits) -> None:
    """Raise InfeasibleError now instead of after the float training; untrained weights have the same sizes."""
    choose(graph, choice, limits, _table(graph, choice))


def uniform(graph: Graph, weight_bits: int, act_bits: int, limits: Limits | None, core: str) -> BitPlan:
    """One width for weights and one for activations; input, output and the weights of both ends have 8 bits."""
    from mcuq.plan.exact import solve as solve_exact
    from mcuq.quant.sensitivity import measured_activations

    table = sensitivity(graph, "data-free", None)
    pins = {f"{op.name}.weight": weight_bits for op in graph.convs[1:-1]}
    pins |= {f"{op.name}.weight": 8 for op in (graph.convs[0], graph.convs[-1])}
    pins |= {name: act_bits for name, allowed in measured_activations(graph).items() if act_bits in allowed}
    plan = solve_exact(graph, table, limits or UNLIMITED, core, pins=pins)
    return replace(plan, method=f"uniform {weight_bits}/{act_bits}")


def decide(
    graph: Graph,
    choice: BitChoice,
    dataset: Dataset,
    calibrated: Callable[[BitPlan], IntegerGraph],
    say: Callable[[str], None],
    keep: Callable[[dict[str, Any]], None] = lambda document: None,
) -> BitPlan:
    """The plan for trained weights: from a file, uniform, or solved under the limits.

    Kernels have range conditions that only weights and ranges decide (docs/kernels.md), so a solved plan is lowered
    with ranges of ``calibrated`` and its exact promise compared with the limits; what it exceeds them by is taken off
    and the problem solved again.

    Args:
        calibrated: the integer network of a plan, without retraining. say: told what happens. keep: given what
            ``--check-sensitivity`` finds.

    Raises:
        InfeasibleError: the limits cannot be met.
    """
    limits = choice.limits()
    if choice.bits is not None:
        return _given(load_bits(choice.bits, graph), choice, calibrated)
    if limits is None or choice.weight_bits is not None or choice.act_bits is not None:
        return uniform(graph, choice.weight_bits or 4, choice.act_bits or 4, limits, choice.core)
    say(f"measuring sensitivity ({choice.sensitivity}) and solving for bits")
    table = _table(graph, choice, choice.sensitivity, dataset)
    if choice.check_sensitivity:
        document = checked(graph, table, dataset, choice.check_sensitivity)
        ranks = f"{document['spearman']:.3f} (Spearman)"
        say(f"  {document['plans']} random plans ranked by the table and by true KL: {ranks}")
        keep(document)
    measure = None if table.method == "data-free" else true_loss(graph, dataset)
    plan = choose(graph, choice, limits, table, measure)
    if choice.mixed in ("MixPL", "MixPC"):
        return plan
    tightened = limits
    for _ in range(ROUNDS):
        taken = promise(calibrated(plan), choice)
        if not exceeds(*taken, limits):
            return replace(plan, limits=limits)
        say(
            f"  its kernels take {taken.flash} bytes of flash, {taken.ram} of RAM and {taken.instructions} "
            "instructions (an estimate): solving again below that"
        )
        tightened = _below(tightened, taken, limits)
        plan = replace(choose(graph, choice, tightened, table, measure), status="FEASIBLE", bound=plan.bound)
    return replace(plan, limits=limits)


def true_loss(graph: Graph, dataset: Dataset) -> Callable[[BitPlan], float]:
    """KL divergence of a whole plan on images that the table was not measured on."""
    from mcuq.quant.prediction import divergences, widths_of

    images = held_back(dataset)
    return lambda plan: divergences(graph, images, [widths_of(plan)])[0]


def _below(tightened: Limits, taken: Promise, limits: Limits) -> Limits:
    """``tightened`` less what ``taken`` exceeds ``limits`` by."""
    most = tightened.instructions
    if most is not None and limits.instructions is not None:
        most -= max(0, taken.instructions - limits.instructions)
    flash, ram = max(0, taken.flash - limits.flash), max(0, taken.ram - limits.ram)
    return Limits(tightened.flash - flash, tightened.ram - ram, most)


def _given(plan: BitPlan, choice: BitChoice, calibrated: Callable[[BitPlan], IntegerGraph]) -> BitPlan:
    """A plan of a file, which may have been edited: bytes are counted anew, nothing is said about its optimality.

    Raises:
        InfeasibleError: it exceeds limits that are given beside it.
    """
    flash, ram, instructions = promise(calibrated(plan), choice)
    limits = choice.limits()
    if limits is not None and (flash > limits.flash or ram > limits.ram):
        raise InfeasibleError(
            f"--bits {choice.bits}: the network needs {flash} bytes of flash and {ram} of RAM, the limits are "
            f"{limits.flash} and {limits.ram}; lower some bits, or leave --bits out to have them chosen"
        )
    name = "bits.json" if choice.bits is None else choice.bits.name
    return replace(
        plan,
        status="FEASIBLE",
        bound=0.0,
        flash_used=flash,
        ram_used=ram,
        instructions=instructions,
        limits=limits or Limits(flash, ram),
        method=f"given in {name}",
    )


class Promise(NamedTuple):
    """Bytes of flash and RAM, and predicted instructions (0: nothing is known of the core)."""

    flash: int
    ram: int
    instructions: int


def promise(graph: IntegerGraph, choice: BitChoice) -> Promise:
    """What is promised of an integer network, as the limits count it."""
    memory = plan_memory(graph, choice.core, cuts=choice.cuts)
    found = footprint(graph, memory, choice.core)
    try:
        instructions = graph_instructions(graph, choice.core)
    except UsageError:
        instructions = 0
    return Promise(found.flash, memory.arena_bytes + choice.ram_reserve, instructions)


def layer_types(plan: BitPlan) -> list[dict[str, Any]]:
    """Weight quantizer and fold type per layer where the plan (a rule of the paper) decides them."""
    entries: dict[str, dict[str, Any]] = {}
    for key, pairs in (("quant_type", plan.quant_types), ("fold_type", plan.fold_types)):
        for layer, value in pairs:
            entries.setdefault(layer, {"layer": layer})[key] = value
    return list(entries.values())
